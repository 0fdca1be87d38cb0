"""The processes of DIMS on all hosts: each writes its row now and then."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection, text

KEPT = timedelta(days=1)
"""The row of a process without a sign of life is deleted after this."""
LATELY = timedelta(minutes=1)
"""A process with a sign of life within this time counts as running, so its queue is served."""

LONGEST_PERIOD = timedelta(seconds=30)
SHORTEST_SILENCE = timedelta(seconds=15)


def report_period(sweep: timedelta) -> timedelta:
    """Return how often a process writes its row: every sweep period, but at least every 30 s."""
    return min(sweep, LONGEST_PERIOD)


def silent_after(sweep: timedelta) -> timedelta:
    """Return the age of a row from which its process counts as silent: three of its periods, but at least 15 s."""
    return max(3 * report_period(sweep), SHORTEST_SILENCE)


@dataclass(frozen=True, slots=True)
class ProcessIdentity:
    """What a process reports about itself. `process` is unique: role@host, or the name that Celery gives a worker.

    `role` is one of worker, ingest, beat, web and watch. Two processes with the same `config_hash` have read the same
    configuration.
    """

    process: str
    host: str
    role: str
    pid: int
    version: str
    config_hash: str
    queues: tuple[str, ...]
    started_at: datetime


@dataclass(frozen=True, slots=True)
class ProcessRow(ProcessIdentity):
    """A row of `dims_processes`. Times without a value: it never did that."""

    seen_at: datetime
    last_sweep_at: datetime | None
    last_claim_at: datetime | None
    last_stored_at: datetime | None
    clock_offset: float | None
    problem: str | None
    """Why it makes no progress, by its own watchdog. None if it does."""


@dataclass(frozen=True, slots=True)
class ProcessProgress:
    """What a process has done since it started. A time that is None: it never did that.

    Times are by the clock of its host.
    """

    swept: datetime | None = None
    claimed: datetime | None = None
    stored: datetime | None = None
    problem: str | None = None


def record_sign_of_life(
    connection: Connection,
    identity: ProcessIdentity,
    *,
    swept: datetime | None = None,
    claimed: datetime | None = None,
    stored: datetime | None = None,
    problem: str | None = None,
    now: datetime,
) -> None:
    """Write the row of a process. `now` and the other times are by the clock of its host.

    A time that is None keeps the row's value, unless the row is of an earlier process with this name.
    """
    connection.execute(
        text(
            "INSERT INTO dims_processes AS p (process, host, role, pid, version, config_hash, queues, started_at, "
            "last_sweep_at, last_claim_at, last_stored_at, clock_offset, problem) "
            "VALUES (:process, :host, :role, :pid, :version, :config_hash, :queues, :started_at, "
            ":swept, :claimed, :stored, extract(epoch FROM :now - clock_timestamp()), :problem) "
            "ON CONFLICT (process) DO UPDATE SET host = excluded.host, role = excluded.role, pid = excluded.pid, "
            "version = excluded.version, config_hash = excluded.config_hash, queues = excluded.queues, "
            "started_at = excluded.started_at, seen_at = clock_timestamp(), clock_offset = excluded.clock_offset, "
            "problem = excluded.problem, last_sweep_at = "
            "coalesce(excluded.last_sweep_at, CASE WHEN p.pid = excluded.pid THEN p.last_sweep_at END), "
            "last_claim_at = "
            "coalesce(excluded.last_claim_at, CASE WHEN p.pid = excluded.pid THEN p.last_claim_at END), "
            "last_stored_at = "
            "coalesce(excluded.last_stored_at, CASE WHEN p.pid = excluded.pid THEN p.last_stored_at END)"
        ),
        {
            "process": identity.process,
            "host": identity.host,
            "role": identity.role,
            "pid": identity.pid,
            "version": identity.version,
            "config_hash": identity.config_hash,
            "queues": list(identity.queues),
            "started_at": identity.started_at,
            "swept": swept,
            "claimed": claimed,
            "stored": stored,
            "problem": problem,
            "now": now,
        },
    )


def process_rows(connection: Connection) -> list[ProcessRow]:
    """Return the processes that gave a sign of life within `KEPT`, in order of their roles and hosts."""
    rows = connection.execute(
        text(
            "SELECT process, host, role, pid, version, config_hash, queues, started_at, seen_at, last_sweep_at, "
            "last_claim_at, last_stored_at, clock_offset, problem FROM dims_processes "
            "WHERE seen_at > clock_timestamp() - :kept ORDER BY role, host, process"
        ),
        {"kept": KEPT},
    )
    return [ProcessRow(**{**row, "queues": tuple(row["queues"])}) for row in rows.mappings()]


def serves_queue(connection: Connection, queue: str) -> bool:
    """Return whether a worker that gave a sign of life lately serves this queue."""
    row = connection.execute(
        text(
            "SELECT EXISTS (SELECT FROM dims_processes WHERE :queue = ANY(queues) "
            "AND seen_at > clock_timestamp() - :lately)"
        ),
        {"queue": queue, "lately": LATELY},
    )
    return bool(row.scalar_one())


def problem_of(row: ProcessRow, now: datetime, sweep: timedelta) -> str | None:
    """Return why a process does not work, or None if it does. `now` is by the clock of the database."""
    if row.problem:
        return row.problem
    age = now - row.seen_at
    return f"it has given no sign of life for {age.total_seconds():.0f} s" if age > silent_after(sweep) else None


def delete_silent_processes(connection: Connection) -> None:
    """Delete the rows of processes that gave no sign of life within `KEPT`."""
    connection.execute(text("DELETE FROM dims_processes WHERE seen_at <= clock_timestamp() - :kept"), {"kept": KEPT})


def delete_process(connection: Connection, process: str, pid: int | None = None) -> None:
    """Delete the row of a process that ends in an orderly way. With `pid`, keep the row of its successor."""
    connection.execute(
        text("DELETE FROM dims_processes WHERE process = :process AND pid = coalesce(:pid, pid)"),
        {"process": process, "pid": pid},
    )
