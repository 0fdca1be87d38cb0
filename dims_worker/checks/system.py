"""Run all checks of one installation, in limited time."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from redis.exceptions import RedisError
from sqlalchemy.exc import SQLAlchemyError

from dims_worker import local
from dims_worker.checks.bounded import BoundedCalls
from dims_worker.checks.broker import BrokerState, broker_checks, read_broker, unreachable_broker
from dims_worker.checks.check import Check, State, worst_state
from dims_worker.checks.database import DatabaseState, database_checks, read_database, unreachable_database
from dims_worker.checks.fleet import (
    CLOCK_PROBLEM,
    CLOCK_WARNING,
    RESTART_SPAN,
    RESTARTS,
    UP,
    FleetMember,
    build_fleet,
    fleet_checks,
)
from dims_worker.checks.host import SpoolState, data_directory_check, disk_check, read_spool, spool_check, watched_disks
from dims_worker.checks.producers import producers_check
from dims_worker.config import Config
from dims_worker.errors import DimsError
from dims_worker.formatting import format_duration, pluralize
from dims_worker.local import DataDirectory, ProcessStatus, ServerUrls

SERVERS = ("postgres", "valkey")
"""The names of the local servers among the supervisor's processes."""
SERVER_SECONDS = 5.0
"""Seconds that the broker and the database have together, because both are checked at the same time."""


@dataclass
class SystemState:
    """What all checks found, and the facts behind them. A server that did not answer has no facts."""

    checks: list[Check] = field(default_factory=list)
    fleet: list[FleetMember] = field(default_factory=list)
    processes: list[ProcessStatus] = field(default_factory=list)
    """The servers and processes of the supervisor of this host."""
    servers: ServerUrls = field(default_factory=lambda: ServerUrls(None, None))
    broker: BrokerState | None = None
    database: DatabaseState | None = None
    spool: SpoolState = field(default_factory=SpoolState)
    disk_free: dict[str, int] = field(default_factory=dict)
    can_read: bool = True
    """Whether this user could read what the supervisor and the servers of this host wrote."""
    expected: bool = True
    """Whether workers should run: they have run before."""

    @property
    def state(self) -> State:
        return worst_state(self.checks)


def check_system(config: Config, calls: BoundedCalls | None = None) -> SystemState:
    """Run every check from this host, within about ten seconds. Raises nothing for what does not run."""
    state = SystemState()
    state.checks.append(data_directory_check(config.home))
    _find_local(config, state)
    database, broker = check_servers(config, state.servers, calls or BoundedCalls(), can_read=state.can_read)
    state.database, state.broker = database.facts, broker.facts
    state.expected = _is_expected(state)
    state.checks += (
        [*broker.checks, *database.checks] if state.expected else _optional_servers(config, broker, database)
    )
    state.checks += local_stack_check(config, state.processes)
    _check_fleet(config, state)
    state.checks.append(clock_check(state))
    state.spool = read_spool(config.home)
    disk, state.disk_free = disk_check(watched_disks(config.home))
    state.checks += [spool_check(config.home, state.spool), disk, producers_check(config)]
    return state


def _check_fleet(config: Config, state: SystemState) -> None:
    """Add the processes of all hosts, and their checks. Without the database, only those of this host are known."""
    database = state.database
    now = (database and database.now) or datetime.now(UTC)
    rows = database.processes if database and database.now else None
    state.fleet = build_fleet(config, rows, state.processes, now, socket.gethostname())
    if database and database.now:
        state.checks += fleet_checks(config, state.fleet, now, expected=state.expected, stalled=database.stalled)


def _find_local(config: Config, state: SystemState) -> None:
    """Find the supervisor's processes, and the servers: those of the configuration, else those of this host."""
    found = ServerUrls(None, None)
    try:
        state.processes = local.stack_status(config.home)
        found = local.existing(config.home)
    except (DimsError, OSError) as error:
        fix = "Run this command as the owner of the data directory."
        state.checks.append(Check("local_stack", "problem", f"cannot be read: {error}", fix))
        state.can_read = False
    state.servers = ServerUrls(config.database_url or found.database_url, config.broker_url or found.broker_url)


@dataclass
class ServerResult:
    """The checks of one server, and its facts if it answered."""

    checks: list[Check]
    facts: Any = None


def check_servers(
    config: Config,
    servers: ServerUrls,
    calls: BoundedCalls,
    *,
    rights: bool = True,
    can_read: bool = True,
    seconds: float = SERVER_SECONDS,
) -> tuple[ServerResult, ServerResult]:
    """Check the database and the broker at the same time. Return their results, in this order.

    Without `rights`, users that may only read (database) or only add events (broker) are fine.
    """
    wanted: dict[str, Callable[[], Any]] = {}
    if servers.database_url:
        wanted["database"] = lambda: _database_result(config, str(servers.database_url), rights)
    if servers.broker_url:
        wanted["broker"] = lambda: _broker_result(config, str(servers.broker_url), rights)
    answers = calls.run(wanted, seconds)
    hangs = {"database": unreachable_database, "broker": unreachable_broker}
    results = []
    for name, unreachable in hangs.items():
        if name in answers:
            results.append(answers[name])
        elif name in wanted:
            results.append(ServerResult([unreachable(TimeoutError(f"no answer within {seconds:g} s"))]))
        else:
            results.append(ServerResult([_missing_server(name, config.home, can_read)]))
    return results[0], results[1]


def check_services(
    config: Config, servers: ServerUrls, calls: BoundedCalls, now: datetime, seconds: float = SERVER_SECONDS
) -> SystemState:
    """Check the servers, the processes that report, and the clocks: what a service on any host can check in `seconds`.

    It may use logins with few rights. Without a row of any process, none has to run.
    """
    database, broker = check_servers(config, servers, calls, rights=False, seconds=seconds)
    state = SystemState(servers=servers, database=database.facts, broker=broker.facts)
    state.checks = [*broker.checks, *database.checks]
    state.expected = bool(state.database and state.database.ever_ran)
    if state.database is not None and state.expected:
        now = state.database.now or now
        state.fleet = build_fleet(config, state.database.processes, [], now, socket.gethostname())
        state.checks += fleet_checks(config, state.fleet, now, expected=True, stalled=state.database.stalled)
        state.checks.append(clock_check(state))
    return state


def _missing_server(name: str, home: Path, can_read: bool) -> Check:
    if not can_read:
        fix = f"Run this command as the owner of the data directory, or set DIMS_{name.upper()}_URL."
        return Check(name, "problem", f"unreachable: its address is in {home}, which you cannot read", fix)
    fix = f"Start it with `dims up`, or set DIMS_{name.upper()}_URL."
    return Check(name, "problem", f"unreachable: it does not run in {home}", fix, f"The {name} does not run")


def _database_result(config: Config, url: str, rights: bool) -> ServerResult:
    try:
        state = read_database(config, url)
    except (SQLAlchemyError, DimsError, OSError) as error:
        return ServerResult([unreachable_database(error)])
    return ServerResult(list(database_checks(state, rights=rights)), state)


def _broker_result(config: Config, url: str, rights: bool) -> ServerResult:
    try:
        state = read_broker(config, url)
    except (RedisError, DimsError, OSError) as error:
        return ServerResult([unreachable_broker(error)])
    return ServerResult(list(broker_checks(config, state, rights=rights)), state)


def _is_expected(state: SystemState) -> bool:
    """Return whether workers have run before: here, or on any host of this database or this broker."""
    database, broker = state.database, state.broker
    if (
        not state.can_read
        or any(status.name not in SERVERS for status in state.processes)
        or (database and database.ever_ran)
    ):
        return True
    return bool(broker and (broker.has_group or broker.waiting))


def _optional_servers(config: Config, broker: ServerResult, database: ServerResult) -> list[Check]:
    """Return the checks of both servers where no worker has ever run: you may use only `dims verify`.

    It needs no broker, and it starts the database of the data directory for itself.
    """
    checks = [*broker.checks, *database.checks]
    if broker.facts is None and config.broker_url is None:
        summary = "does not run, so DIMS receives no events"
        checks[0] = Check("broker", "warning", summary, "Start it with `dims up` if DIMS should react to events.")
    if database.facts is None and config.database_url is None and _has_database(config.home):
        checks[-1] = Check("database", "ok", "does not run now: each command starts it for itself")
    return checks


def _has_database(home: Path) -> bool:
    try:
        return (DataDirectory(home).pg / "data").is_dir()
    except OSError:
        return False


def local_stack_check(config: Config, processes: Sequence[ProcessStatus]) -> Iterator[Check]:
    """Yield the check of the supervisor's processes, if `dims up` has ever run in this data directory."""
    if all(status.name in SERVERS for status in processes):
        return
    ended = [status for status in processes if status.state in ("waiting", "stopped", "orphan")]
    looping = [status for status in processes if status.state == "running" and _is_looping(status)]
    missing = [status.name for status in processes if status.state == "missing"]
    summary = f"{sum(status.state == 'running' for status in processes)} of {len(processes)} running"
    own_servers = config.database_url and config.broker_url
    if all(status.state == "stopped" for status in processes):
        if own_servers:
            yield Check("local_stack", "ok", "none runs on this host")
        else:
            yield Check("local_stack", "problem", "none runs", "Start them with `dims up`.", "DIMS does not run")
    elif ended:
        names = ", ".join(map(_describe, ended))
        yield Check("local_stack", "problem", f"{summary}: {names}", UP, "Some processes of DIMS do not run")
    elif looping:
        names = ", ".join(map(_describe, looping))
        yield Check("local_stack", "warning", f"{summary}; {names}", "Read the logs of these processes.")
    elif missing:
        fix = "Install the extra `local`, then run `dims down` and `dims up`."
        yield Check("local_stack", "warning", f"{summary}; not installed: {', '.join(missing)}", fix)
    else:
        yield Check("local_stack", "ok", summary)


def _is_looping(status: ProcessStatus) -> bool:
    recent = status.since is not None and datetime.now(UTC) - status.since < RESTART_SPAN
    return recent and status.restarts >= RESTARTS


def _describe(status: ProcessStatus) -> str:
    restarts = f" after {pluralize(status.restarts, 'restart')}" if status.restarts else ""
    return f"{status.name} is {status.state}{restarts}"


def clock_check(state: SystemState) -> Check:
    """Return the check of all clocks against the database's: this host, the broker, and each host of the fleet."""
    database, broker = state.database, state.broker
    own = database.clock_offset if database else None
    offsets: dict[str, float] = {} if own is None else {"this host": own}
    if broker and broker.clock_offset is not None:  # the broker against the database, or else against this host
        offsets["the broker"] = (own or 0.0) - broker.clock_offset
    for member in state.fleet:
        if member.clock_offset is not None and member.alive:  # processes of one host may have different clocks
            offsets[member.host] = max(offsets.get(member.host, 0.0), member.clock_offset, key=abs)
    late = {name: offset for name, offset in offsets.items() if abs(offset) > CLOCK_WARNING}
    if not late:
        return Check("clock", "ok", "all clocks agree within 5 s" if offsets else "no other clock to compare with")
    summary = "; ".join(f"{name} is {_direction(offset)} the database" for name, offset in late.items())
    problem = max(map(abs, late.values())) > CLOCK_PROBLEM
    fix = "Synchronize the clocks of these hosts, for example with `chrony` or `systemd-timesyncd`."
    return Check("clock", "problem" if problem else "warning", summary, fix, "The clocks of the hosts differ")


def _direction(offset: float) -> str:
    return f"{format_duration(timedelta(seconds=abs(offset)))} {'ahead of' if offset > 0 else 'behind'}"
