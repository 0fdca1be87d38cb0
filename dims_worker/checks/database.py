"""Check the database by writing to it, and read the sessions and the processes."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from dims_worker import __version__
from dims_worker.checks.check import Check
from dims_worker.config import Config
from dims_worker.formatting import format_age, pluralize
from dims_worker.store import metric_states
from dims_worker.store.engine import clock, connect_args
from dims_worker.store.processes import ProcessIdentity, ProcessRow, delete_process, process_rows, record_sign_of_life

CONNECT_SECONDS = 3
STATEMENT_MS = 2_500
LOCK_MS = 1_500
CONNECTION_SHARE = 0.9
"""More of the server's connections than this are a warning."""
DUE_PATIENCE = timedelta(minutes=2)
"""How long a metric may be due, and no worker measures anything, before the workers have a problem."""
WRITTEN_TABLES = (
    "dims_event_log",
    "dims_ingest_batches",
    "dims_metrics",
    "dims_sources",
    "dims_metrics_history",
    "dims_verification_runs",
    "dims_approval_requests",
    "dims_notifications",
)
"""The tables that every event and every run writes."""

START = "Start it with `dims up`, or correct DIMS_DATABASE_URL."
REFUSALS: Mapping[str, tuple[str, str]] = {
    "25006": (
        "is read-only",
        "Let DIMS_DATABASE_URL name the primary, or set `default_transaction_read_only = off`.",
    ),
    "53100": ("refuses to write: its disk is full", "Free space on the database's disk, or enlarge it."),
    "53200": ("refuses to write: its memory is full", "Give the database's computer more memory."),
    "53300": ("accepts no more connections", "Raise `max_connections`, end sessions, or put PgBouncer in between."),
    "42501": (
        "refuses to write: its user lacks a right",
        "Run `dims migrate` as the owner, or GRANT the rights to it.",
    ),
    "42P01": ("lacks DIMS's tables", "Run `dims migrate`."),
    "42703": ("has tables of another version of DIMS", "Run `dims migrate` with the newest version of DIMS."),
    "55P03": ("refuses to write: another session holds a lock", "End the session that holds the lock."),
    "57014": ("does not answer in time", "Read its log, and free its computer of other load."),
    "57P03": ("is not ready: it starts, stops or recovers", "Wait. If it takes minutes, read its log and restart it."),
    "28P01": ("refuses the user or the password", "Correct the user and the password in DIMS_DATABASE_URL."),
    "3D000": ("does not exist", "Create it, or correct its name in DIMS_DATABASE_URL."),
}
"""What each SQLSTATE means, and what to do. No text names a host."""
MESSAGES = {
    "too many clients": "53300",
    "remaining connection slots": "53300",
    "too many connections": "53300",
    "no more connections allowed": "53300",
    "password authentication failed": "28P01",
    "the database system is": "57P03",
    "does not exist": "3D000",
}
"""The SQLSTATE of messages that refuse a connection, which psycopg2 reports without one."""
HANGS = ("accepts connections but does not answer", "Restart it, or read its log and free its computer of other load.")
UNREACHABLE = ("is unreachable", START)
OTHER_REFUSAL = ("refuses to write", "Read the database's log.")

_SESSIONS = """
WITH waiting AS (
  SELECT pid, clock_timestamp() - query_start AS waited, pg_blocking_pids(pid) AS blockers FROM pg_stat_activity
  WHERE datname = current_database() AND wait_event_type = 'Lock' AND query_start < clock_timestamp() - interval '5 s'
), blocking AS (
  SELECT blocker AS pid, count(*) AS waiting, max(waited) AS longest FROM waiting, unnest(blockers) AS blocker
  GROUP BY 1
)
SELECT a.pid, a.usename AS role, a.application_name AS program, host(a.client_addr) AS client,
  coalesce(a.state, '') AS state, extract(epoch FROM clock_timestamp() - a.xact_start)::float AS seconds,
  coalesce(b.waiting, 0) AS waiting, coalesce(extract(epoch FROM b.longest), 0)::float AS longest
FROM pg_stat_activity a LEFT JOIN blocking b USING (pid)
WHERE a.datname = current_database() AND a.pid <> pg_backend_pid() AND (
  (b.pid IS NOT NULL AND NOT EXISTS (SELECT FROM waiting w WHERE w.pid = a.pid))
  OR EXISTS (
    SELECT FROM pg_locks l JOIN pg_class c ON c.oid = l.relation
    WHERE l.pid = a.pid AND l.granted AND c.relname LIKE 'dims\\_%' AND c.relkind = 'r' AND (
      l.mode IN ('ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock')
      AND a.xact_start < clock_timestamp() - interval '5 s'
      OR l.mode IN ('RowShareLock', 'RowExclusiveLock') AND a.state LIKE 'idle in transaction%'
      AND a.xact_start < clock_timestamp() - interval '30 s')))
ORDER BY waiting DESC, seconds DESC LIMIT 5
"""


@dataclass(frozen=True, slots=True)
class LockingSession:
    """A session that holds locks that DIMS needs, and how many others wait for it."""

    pid: int
    role: str | None
    program: str | None
    client: str | None
    state: str
    seconds: float | None
    waiting: int
    longest: float

    def __str__(self) -> str:
        place = f" from {self.client}" if self.client else ""
        age = f" for {format_age_of(self.seconds)}" if self.seconds is not None else ""
        return f"session {self.pid} ({self.program or 'unnamed'} of {self.role}{place}) {self.state or 'open'}{age}"


@dataclass
class DatabaseState:
    """What the database answered. `refusal` is a SQLSTATE with the server's own text, if it refused to write."""

    refusal: tuple[str, str] | None = None
    write_seconds: float = 0.0
    clock_offset: float | None = None
    now: datetime | None = None
    sessions: list[LockingSession] = field(default_factory=list)
    connections: int = 0
    max_connections: int = 0
    processes: list[ProcessRow] = field(default_factory=list)
    stalled: tuple[int, datetime | None] = (0, None)
    """How many metrics could be measured and are not, and since when."""
    ever_ran: bool = False
    """Whether any process of DIMS has ever written its row, however long ago."""


def probe_engine(url: str) -> Engine:
    """Return an engine whose connections are new, so that a check sees what a new process would see."""
    arguments = connect_args("dims check") | {"connect_timeout": CONNECT_SECONDS}
    return create_engine(url, poolclass=NullPool, connect_args=arguments)


def read_database(config: Config, url: str) -> DatabaseState:
    """Write to the database and commit, then read its sessions and processes. Leaves no row.

    Raises DBAPIError if it does not accept a connection.
    """
    state = DatabaseState()
    with probe_engine(url).connect() as connection:
        began = time.monotonic()
        state.refusal = _attempt(connection, _write)
        state.write_seconds = time.monotonic() - began
        refusal = _attempt(connection, lambda opened: _read(opened, config, state))
        state.refusal = state.refusal or refusal
    return state


def _attempt(connection: Connection, call: Any) -> tuple[str, str] | None:
    """Run one limited transaction. Return the refusal, if there is one."""
    try:
        with connection.begin():
            connection.execute(
                text(f"SET LOCAL statement_timeout = {STATEMENT_MS}; SET LOCAL lock_timeout = {LOCK_MS}")
            )
            call(connection)
    except DBAPIError as error:
        return refusal_of(error)
    return None


def _write(connection: Connection) -> None:
    """Write a row and delete it again, and lock the tables that workers write as workers do."""
    now = datetime.now(UTC)
    name = f"check@{socket.gethostname()}:{os.getpid()}"
    identity = ProcessIdentity(name, socket.gethostname(), "check", os.getpid(), __version__, "", (), now)
    record_sign_of_life(connection, identity, now=now)
    delete_process(connection, name)
    connection.execute(text(f"LOCK TABLE {', '.join(WRITTEN_TABLES)} IN ROW EXCLUSIVE MODE"))


def _read(connection: Connection, config: Config, state: DatabaseState) -> None:
    began = time.time()
    state.now = clock(connection)
    state.clock_offset = (began + time.time()) / 2 - state.now.timestamp()
    rows = connection.execute(text(_SESSIONS)).mappings()
    state.sessions = [LockingSession(**row) for row in rows]
    state.connections, state.max_connections = connection.execute(
        text(
            "SELECT (SELECT count(*) FROM pg_stat_activity WHERE datid IS NOT NULL), "
            "current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int"
        )
    ).one()
    state.processes = process_rows(connection)
    measured = [name for scanned in config.scans.values() for name in scanned]
    patience = max(DUE_PATIENCE, 3 * config.settings.sweep)
    state.stalled = metric_states.unclaimed_due(connection, measured, patience)
    state.ever_ran = bool(connection.execute(text("SELECT EXISTS (SELECT FROM dims_processes)")).scalar())


def refusal_of(error: DBAPIError) -> tuple[str, str]:
    """Return the SQLSTATE of an error, and the first line of the server's text."""
    lines = str(error.orig).strip().splitlines() or [type(error.orig).__name__]
    message = lines[0].removeprefix("ERROR:").strip()
    code = getattr(error.orig, "pgcode", None)
    return code or next((code for part, code in MESSAGES.items() if part in str(error.orig)), ""), message


def unreachable_database(error: Exception) -> Check:
    """Return the check of a database that accepts no connection."""
    code, message = refusal_of(error) if isinstance(error, DBAPIError) else ("", str(error))
    meaning, fix = REFUSALS.get(code, UNREACHABLE)
    if "timeout expired" in message or isinstance(error, TimeoutError):
        meaning, fix = HANGS
    summary = f"unreachable: {message}" if fix == START else f"{meaning} ({message})"
    return Check("database", "problem", summary, fix, f"The database {meaning}")


def database_checks(state: DatabaseState, *, rights: bool = True) -> Iterator[Check]:
    """Yield the checks of a database that answered. Without `rights`, a user that may only read is fine."""
    yield _write_check(state, rights)
    if state.max_connections:
        yield _locks_check(state)
        yield _connections_check(state)


def _write_check(state: DatabaseState, rights: bool) -> Check:
    if state.refusal is None or (state.refusal[0] == "42501" and not rights):
        return Check("database", "ok", f"up, a write took {state.write_seconds * 1000:.0f} ms")
    code, message = state.refusal
    meaning, fix = REFUSALS.get(code, OTHER_REFUSAL)
    return Check("database", "problem", f"{meaning} ({message})", fix, f"The database {meaning}")


def _locks_check(state: DatabaseState) -> Check:
    if not state.sessions:
        return Check("locks", "ok", "no session holds up another")
    worst = state.sessions[0]
    fix = f"Let the session finish, or end it: SELECT pg_terminate_backend({worst.pid})."
    if worst.waiting:
        waiting = f"{pluralize(worst.waiting, 'session')} waiting for {format_age_of(worst.longest)}"
        return Check(
            "locks", "problem", f"{worst} holds locks, {waiting}", fix, "A session holds locks that DIMS needs"
        )
    return Check("locks", "warning", f"{worst} holds locks that DIMS may need", fix)


def format_age_of(seconds: float | None) -> str:
    return format_age(timedelta(seconds=seconds or 0))


def _connections_check(state: DatabaseState) -> Check:
    summary = f"{state.connections} of {state.max_connections}"
    if state.connections < CONNECTION_SHARE * state.max_connections:
        return Check("connections", "ok", summary)
    return Check(
        "connections",
        "warning",
        f"nearly all are used: {summary}",
        REFUSALS["53300"][1],
        "The database's connections are nearly used up",
    )
