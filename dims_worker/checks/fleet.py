"""Check the processes of DIMS on all hosts: which runs, which lags, and which runs something else."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Literal

from dims_worker.broker.queues import INGEST, queue_names
from dims_worker.checks.check import Check
from dims_worker.checks.host import ProcessState, process_state
from dims_worker.config import Config
from dims_worker.formatting import format_age, format_elapsed, format_utc_short, pluralize
from dims_worker.local import ProcessStatus
from dims_worker.store.processes import ProcessRow

MemberState = Literal["starting", "running", "stalled", "silent", "waiting", "missing", "orphan", "stopped"]
SILENT_SWEEPS = 3
"""A process that has written no row for longer than this many sweeps is silent."""
GONE = timedelta(hours=1)
"""A silent process whose work others do is no longer reported after this."""
CLOCK_WARNING = 5.0
CLOCK_PROBLEM = 60.0
"""Seconds of difference between two clocks."""
REPORTING_PROCESSES = ("ingest", "worker", "slow-worker", "beat", "watch", "web")
"""The processes that report. Of the others, only their supervisor knows anything."""
START_PATIENCE = timedelta(minutes=1)
"""How long a process may take from its first start to its first report."""
RESTARTS = 3
"""A process that was restarted at least this often, last within `RESTART_SPAN`, is in a loop."""
RESTART_SPAN = timedelta(minutes=5)
STARTING = "Wait until the processes have started."
UP = "Start it with `dims up`, or with the service that runs it. Read its log if it ends again."


@dataclass(frozen=True, slots=True)
class FleetMember:
    """One process on one host. Times and texts are None where the process reports none.

    `state` is `running`; `stalled` (it runs, and makes no progress: see `reason`); `silent` (no sign of life for more
    than three sweeps); `starting` (it does not report yet); or what its supervisor reports: `waiting`, `missing`,
    `orphan`, `stopped`. A process that only the supervisor of this host knows has no `seen_at`.
    """

    process: str
    host: str
    role: str
    pid: int | None
    state: MemberState
    reason: str | None = None
    restarts: int | None = None
    version: str | None = None
    config_hash: str | None = None
    queues: tuple[str, ...] = ()
    started_at: datetime | None = None
    seen_at: datetime | None = None
    last_sweep_at: datetime | None = None
    last_claim_at: datetime | None = None
    last_stored_at: datetime | None = None
    clock_offset: float | None = None

    @property
    def alive(self) -> bool:
        return self.state in ("running", "stalled")


def silent_after(config: Config) -> timedelta:
    """Return after which time without a sign of life a process is silent."""
    return SILENT_SWEEPS * config.settings.sweep + timedelta(seconds=2)


def build_fleet(
    config: Config, rows: Sequence[ProcessRow] | None, local: Sequence[ProcessStatus], now: datetime, host: str
) -> list[FleetMember]:
    """Return the processes of all hosts: those that report, then those that only the supervisor of this host knows.

    Args:
        rows: the rows of the processes, or None if the database does not answer.
        now: the time of the database, which wrote when it last saw each process.
        local: the processes of the supervisor of this host. The supervisor knows at once that one has ended.
    """
    rows, known = rows or [], rows is not None
    seen_here = {row.process: process_state(row.pid) for row in rows if row.host == host}
    same_host = "alive" in seen_here.values()  # else the rows are from containers whose pids mean nothing here
    supervised = {status.name: status for status in local}
    members = []
    for row in rows:
        name = row.process.partition("@")[0]
        status = supervised.get(name) if row.host == host else None
        if status is not None and status.pid not in (None, row.pid):
            continue  # the row is from the process that this one replaces
        state, reason = _row_state(config, row, now, seen_here.get(row.process) if same_host else None)
        member = _from_row(row, state, reason)
        if status is not None:
            del supervised[name]
            ended = status.state != "running"
            member = replace(member, restarts=status.restarts, state=_member_state(status) if ended else member.state)
        members.append(member)
    return members + [_from_status(status, host, now, known=known) for status in supervised.values()]


def _row_state(
    config: Config, row: ProcessRow, now: datetime, seen: ProcessState | None
) -> tuple[MemberState, str | None]:
    if now - row.seen_at > silent_after(config) or seen == "gone":
        return "silent", None
    if seen == "suspended":
        return "stalled", "a signal has stopped it (SIGSTOP)"
    return ("stalled", row.problem) if row.problem else ("running", None)


def _from_row(row: ProcessRow, state: MemberState, reason: str | None) -> FleetMember:
    return FleetMember(
        process=row.process,
        host=row.host,
        role=row.role,
        pid=row.pid,
        state=state,
        reason=reason,
        version=row.version,
        config_hash=row.config_hash,
        queues=row.queues,
        started_at=row.started_at,
        seen_at=row.seen_at,
        last_sweep_at=row.last_sweep_at,
        last_claim_at=row.last_claim_at,
        last_stored_at=row.last_stored_at,
        clock_offset=row.clock_offset,
    )


def _member_state(status: ProcessStatus) -> MemberState:
    states: Mapping[str, MemberState] = {"waiting": "waiting", "missing": "missing", "orphan": "orphan"}
    return "running" if status.state == "running" else states.get(status.state, "stopped")


def _from_status(status: ProcessStatus, host: str, now: datetime, *, known: bool) -> FleetMember:
    state, reason = _member_state(status), None
    if known and state == "running" and status.name in REPORTING_PROCESSES:
        state = "starting" if _is_starting(status, now) else "silent"
        reason = None if state == "starting" else "it does not report"
    return FleetMember(
        process=status.name,
        host=host,
        role="worker" if status.name.endswith("worker") else status.name,
        pid=status.pid,
        state=state,
        reason=reason,
        restarts=status.restarts,
        started_at=status.since,
    )


def _is_starting(status: ProcessStatus, now: datetime) -> bool:
    """Return whether a process was started a moment ago, so that it may not report yet."""
    return status.since is None or now - status.since < START_PATIENCE


def fleet_checks(
    config: Config,
    fleet: Sequence[FleetMember],
    now: datetime,
    *,
    expected: bool,
    stalled: tuple[int, datetime | None] = (0, None),
) -> Iterator[Check]:
    """Yield the checks of the processes that report.

    Args:
        expected: workers have run before, so they should run now.
        stalled: how many metrics could be measured and are not, and since when.
    """
    if not expected:
        summary = "no worker has ever run, so DIMS reacts to no event and measures only with `dims verify`"
        yield Check("workers", "warning", summary, "Start DIMS with `dims up` if it should react to events.")
        return
    yield _ingest_check(fleet, now)
    yield _workers_check(config, fleet, now, stalled)
    yield _beat_check(config, fleet, now)
    if any(member.seen_at for member in fleet):
        yield _lagging_check(fleet, now)
        yield _versions_check(fleet, now)


def _ingest_check(fleet: Sequence[FleetMember], now: datetime) -> Check:
    serving = [member for member in fleet if INGEST in member.queues]
    alive = [member for member in serving if member.state == "running"]
    if alive:
        return Check("ingest", "ok", f"{len(alive)} of {len(serving)} running")
    if not serving and _any_starting(fleet):
        return Check("ingest", "warning", "starting", STARTING)
    others = [member for member in fleet if member.role == "ingest" and member not in serving]
    summary = f"no process stores events{_last_known([*serving, *others], now)}"
    return Check("ingest", "problem", summary, UP, "No worker stores events")


def _any_starting(fleet: Sequence[FleetMember]) -> bool:
    """Return whether a process starts for the first time. A process that was restarted has ended before."""
    return any(member.state == "starting" and not member.restarts for member in fleet)


def _workers_check(
    config: Config, fleet: Sequence[FleetMember], now: datetime, stalled: tuple[int, datetime | None]
) -> Check:
    wanted = [name for name in queue_names(config) if name != INGEST]
    workers = [member for member in fleet if set(member.queues) & set(wanted)]
    alive = [member for member in workers if member.state == "running"]
    missing = [name for name in wanted if not any(name in member.queues for member in alive)]
    summary = f"{len(alive)} of {len(workers)} running"
    due, since = stalled
    waiting = f"{pluralize(due, 'metric')} due since {format_utc_short(since)}"
    if missing and _any_starting(fleet) and not any(member.state in ("silent", "stalled") for member in workers):
        return Check("workers", "warning", "starting", STARTING)
    if missing:
        names = ", ".join(missing)
        others = [member for member in fleet if member.role == "worker" and member not in workers]
        public = f"No worker measures what is in {names}" if alive else "No worker is measuring"
        public += f": {waiting}" if due else ""
        summary = f"no worker runs for {names}: {summary}{_last_known([*workers, *others], now)}"
        return Check("workers", "problem", summary, UP, public)
    if due:
        fix = "Restart the workers, and read their logs. `dims metrics` lists what is due."
        public = f"No worker is measuring: {waiting}"
        return Check("workers", "problem", f"{summary}, and none makes progress: {waiting}", fix, public)
    return Check("workers", "ok", summary)


def _last_known(members: Sequence[FleetMember], now: datetime) -> str:
    return "".join(f"; {describe_member(member, now)}" for member in members[:3] if member.state != "running")


def describe_member(member: FleetMember, now: datetime) -> str:
    """Return what is wrong with a process, such as `worker@a has been silent for 3 minutes`."""
    if member.state == "silent" and member.seen_at:
        return f"{member.process} has been silent for {format_age(now - member.seen_at)}"
    return f"{member.process} is {member.state}" + (f": {member.reason}" if member.reason else "")


def beat_seconds(fleet: Sequence[FleetMember], now: datetime) -> float | None:
    """Return how many seconds ago the loop of a beat last ran. None if none has ever reported that."""
    ran = [member.last_sweep_at for member in fleet if member.role == "beat" and member.last_sweep_at]
    return max(0.0, (now - max(ran)).total_seconds()) if ran else None


def _beat_check(config: Config, fleet: Sequence[FleetMember], now: datetime) -> Check:
    beats = [member for member in fleet if member.role == "beat"]
    seconds = beat_seconds(fleet, now)
    tick = "no tick yet" if seconds is None else f"last tick {format_elapsed(timedelta(seconds=seconds))}"
    if any(member.state == "running" for member in beats):
        return Check("beat", "ok", f"up, {tick}")
    if not beats and _any_starting(fleet):
        return Check("beat", "warning", "starting", STARTING)
    scheduled = [name for name, rule in config.rules.items() if rule.schedule]
    if not beats and not scheduled:
        return Check("beat", "ok", "does not run, and no rule has a schedule")
    public = f"No beat runs, so {pluralize(len(scheduled), 'schedule')} can be late" if scheduled else "No beat runs"
    summary = f"unreachable: {tick}{_last_known(beats, now)}"
    return Check("beat", "problem" if scheduled else "warning", summary, UP, public)


def _lagging_check(fleet: Sequence[FleetMember], now: datetime) -> Check:
    lagging = [
        member for member in fleet if member.seen_at and not (member.state == "running" or now - member.seen_at > GONE)
    ]
    if not lagging:
        return Check("lagging", "ok", "every process gives a sign of life")
    summary = "; ".join(describe_member(member, now) for member in lagging[:3])
    more = f"; and {len(lagging) - 3} more" if len(lagging) > 3 else ""
    return Check("lagging", "problem", summary + more, "Restart these processes, and read their logs.")


def _versions_check(fleet: Sequence[FleetMember], now: datetime) -> Check:
    alive = [member for member in fleet if member.seen_at and member.alive]
    newest = max((member for member in alive), key=lambda member: member.started_at or now, default=None)
    if newest is None:
        return Check("versions", "ok", "no process reports")
    groups: dict[str, dict[str, None]] = {_build_of(newest): {}}
    for member in alive:
        groups.setdefault(_build_of(member), {})[member.host] = None
    if len(groups) == 1:
        return Check("versions", "ok", f"all run {_build_of(newest)}")
    summary = "; ".join(f"{', '.join(hosts)}: {build}" for build, hosts in groups.items())
    fix = "Deploy the same version and configuration on every host, then restart these processes."
    return Check("versions", "warning", f"newest first: {summary}", fix)


def _build_of(member: FleetMember) -> str:
    return f"DIMS {member.version} with configuration {str(member.config_hash)[:8]}"
