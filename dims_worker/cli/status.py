"""Define `dims status`: what runs, what does not, how to fix it, and what is behind."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import click
from rich.table import Table
from rich.text import Text
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from dims_worker.checks import Check, worst_state
from dims_worker.checks.bounded import BoundedCalls
from dims_worker.checks.fleet import FleetMember, beat_seconds
from dims_worker.checks.system import SystemState, check_system
from dims_worker.cli.main import exit_with
from dims_worker.cli.notify import waiting_text
from dims_worker.cli.session import Session, examples, json_option, pass_session
from dims_worker.cli.tables import format_retention, plain_table
from dims_worker.config import Config, S3Source
from dims_worker.config.runtime import WORKFLOW
from dims_worker.domain.decide import SEVERITIES, Severity, at_least
from dims_worker.domain.health import (
    FLAGS,
    NOT_MEASURED,
    PROBLEMS,
    Flag,
    Health,
    incidents_by_metric,
    metric_health,
)
from dims_worker.errors import DimsError
from dims_worker.formatting import NO_VALUE, escape_control, format_age, format_ago, pluralize
from dims_worker.store import leases, metric_states
from dims_worker.store.approval_requests import ApprovalRequest, open_requests
from dims_worker.store.engine import clock, engine, transaction
from dims_worker.store.events import last_event
from dims_worker.store.incidents import Incident, open_incidents
from dims_worker.store.notifications import ChannelRow, channel_rows
from dims_worker.store.rejected_events import count_rejected
from dims_worker.store.retention import last_retention_run
from dims_worker.store.runs import api_calls_since
from dims_worker.text.json_documents import facts

MONTH = timedelta(days=30)
LATE_SWEEPS = 3
"""What waits for longer than this many sweeps is behind."""
INVENTORY_SECONDS = 3.0
"""How long the database may take to count what is in the inventory."""
NAMED_METRICS = 3
"""A line names at most this many metrics."""
LABELS = {"requests": "approvals"}
"""The labels of lines whose key in the JSON document differs."""
STATE_KEYS: Mapping[str, Flag] = {
    "failed": "failing",
    "beyond_limits": "limit",
    "drifted": "drifted",
    "stale": "stale",
    "overdue": "overdue",
}
"""The keys of the JSON document that name the metrics with a flag. The lines name them by label instead."""
FAIL_ON_HELP = "Exit with code 1 for an incident of this severity or a higher one."
EXIT_CODES = (
    "Exit codes: 0 success, 1 an incident at or above --fail-on or a held value, 2 wrong usage or configuration, 3 a "
    "problem of DIMS or its servers, 4 internal error."
)
SHOWN_CHECKS = ("broker", "queues", "database", "workers", "beat", "due", "spool", "disk")
"""The checks that have a line even if all is well. The others have one only if something is wrong."""
LINE_ORDER = (
    *(
        "data_directory",
        "local_stack",
        "broker",
        "broker_memory",
        "events",
        "queues",
        "database",
        "locks",
        "connections",
    ),
    *("ingest", "workers", "beat", "lagging", "versions", "clock", "due", "spool", "disk"),
)
"""The order of the lines. Others follow."""
PROCESS_ORDER = ("postgres", "valkey", "ingest", "worker", "slow-worker", "beat", "flower", "watch", "web")
"""The order of the processes. Others follow."""
STYLES = {"ok": "", "warning": "yellow", "problem": "bold red"}


@dataclass
class Inventory:
    """What the database counts: lines of text, the numbers in them, and the check of what is due.

    `by_label` has the metrics that are not healthy by the labels of their health, the worst first. `causes` are what
    makes the exit code 1.
    """

    text: dict[str, str] = field(default_factory=dict)
    by_label: dict[str, list[str]] = field(default_factory=dict)
    causes: list[str] = field(default_factory=list)
    numbers: dict[str, Any] = field(default_factory=dict)
    checks: list[Check] = field(default_factory=list)


@click.command(epilog=EXIT_CODES)
@examples("dims status", "dims status --json | jq '.checks[] | select(.state != \"ok\")'")
@click.option("--fail-on", type=click.Choice(SEVERITIES[1:]), default="high", show_default=True, help=FAIL_ON_HELP)
@json_option
@pass_session
def status(session: Session, fail_on: Severity, as_json: bool) -> None:
    """Show what runs, what does not and its fix, and what is not healthy.

    DIMS writes to the broker and to the database, compares the clocks, and reads the signs of life of its processes on
    all hosts. The command ends within ten seconds, even if a server hangs.

    The exit code is 3 if there is a problem: something that should run does not. A warning does not change it. It is
    1 if a value waits for approval, or an incident of severity high or above is not closed. The last line says why.
    """
    calls = BoundedCalls()
    state = check_system(session.config, calls)
    inventory = _inventory(session, state, calls, fail_on)
    checks = [*state.checks, *inventory.checks]
    code = 3 if worst_state(checks) == "problem" else int(bool(inventory.causes))
    if as_json:
        session.print_json(_document(session.config, state, inventory, checks) | {"exit_code": code})
    else:
        _print(session, state, inventory, checks)
    exit_with(code)


def _document(config: Config, state: SystemState, inventory: Inventory, checks: Sequence[Check]) -> dict[str, Any]:
    """Return the JSON document. docs/operations.md describes its keys."""
    return {
        **inventory.text,
        **_sentences(inventory, checks),
        "home": str(config.home),
        "state": worst_state(checks),
        "causes": inventory.causes,
        "labels": inventory.by_label,
        "expected": state.expected,
        "checks": [{key: getattr(check, key) for key in ("name", "state", "summary", "fix")} for check in checks],
        "fleet": [facts(member) for member in state.fleet],
        "processes": [facts(process) for process in state.processes],
        "numbers": _numbers(state) | inventory.numbers,
    }


def _sentences(inventory: Inventory, checks: Sequence[Check]) -> dict[str, str]:
    """Return the sentence of each check. The inventory says more about a part that is fine."""
    return {
        check.name: inventory.text.get(check.name, check.summary) if check.state == "ok" else check.summary
        for check in checks
    }


def _numbers(state: SystemState) -> dict[str, Any]:
    numbers: dict[str, Any] = {"spool": state.spool.waiting, "spool_unread": state.spool.unreadable}
    numbers["disk_free"] = state.disk_free
    numbers["beat_seconds"] = beat_seconds(state.fleet, (state.database and state.database.now) or datetime.now(UTC))
    if (broker := state.broker) is not None:
        numbers |= {
            "stream": broker.waiting,
            "in_work": broker.in_work,
            "refused": broker.refused,
            "queues": broker.queues,
            "broker_clock_offset": broker.clock_offset,
            "broker_memory": broker.info.get("used_memory"),
            "broker_memory_limit": broker.info.get("maxmemory") or None,
            "oldest_event_seconds": broker.oldest.total_seconds() if broker.oldest else None,
        }
    if (database := state.database) is not None:
        numbers |= {
            "clock_offset": database.clock_offset,
            "connections": database.connections,
            "max_connections": database.max_connections,
            "locking_sessions": len(database.sessions),
        }
    return numbers


def _inventory(session: Session, state: SystemState, calls: BoundedCalls, fail_on: Severity) -> Inventory:
    """Count what is in the inventory, if the database answers. One that each command starts for itself is started."""
    config, url = session.config, state.servers.database_url
    if url is not None and state.database is not None and state.database.now is not None:
        return _counted_inventory(config, url, calls, fail_on)
    on_demand = next((check for check in state.checks if check.name == "database" and check.state == "ok"), None)
    if on_demand is None or config.database_url is not None:
        return Inventory()
    with session.database() as started:
        url = started.url.render_as_string(hide_password=False)
        inventory = _counted_inventory(config, url, calls, fail_on)
    if "database" in inventory.text:
        inventory.text["database"] = f"{on_demand.summary}; {inventory.text['database'].removeprefix('up, ')}"
    return inventory


def _counted_inventory(config: Config, url: str, calls: BoundedCalls, fail_on: Severity) -> Inventory:
    try:
        counted = calls.run({"inventory": lambda: _count(config, url, fail_on)}, INVENTORY_SECONDS)
    except (DimsError, SQLAlchemyError) as error:
        summary = f"cannot be read: {str(error).splitlines()[0]}"
        return Inventory(checks=[Check("inventory", "problem", summary, "Run `dims migrate`, then try again.")])
    if "inventory" not in counted:
        summary = f"the database did not count it within {INVENTORY_SECONDS:g} s"
        return Inventory(checks=[Check("inventory", "problem", summary, "Free the database's computer of other load.")])
    inventory: Inventory = counted["inventory"]
    return inventory


def _count(config: Config, url: str, fail_on: Severity) -> Inventory:
    """Return events, metrics, what waits for a measurement or for approval, and the cost of listings."""
    with transaction(engine(url)) as connection:
        connection.execute(text(f"SET LOCAL statement_timeout = {int(INVENTORY_SECONDS * 1000)}"))
        states = list(metric_states.states_of(connection, config.definitions).values())
        requests, events, now = open_requests(connection), last_event(connection), clock(connection)
        incidents = open_incidents(connection)
        rejected, scans = count_rejected(connection), leases.count_leases(connection)
        api_calls = api_calls_since(connection, MONTH)
        channels = channel_rows(connection, list(config.notify.channels))
        retention = last_retention_run(connection)
    metrics, workflows = _counted(config, states)
    own = incidents_by_metric(incidents)
    health = {state.metric: metric_health(config, state, own.get(state.metric, ()), now) for state in states}
    failed_workflows = [w.metric.removeprefix(WORKFLOW) for w in workflows if "failing" in health[w.metric].flags]
    newest = max((state.as_of for state in states if state.as_of), default=None)
    inventory = Inventory()
    inventory.text |= {
        "database": f"up, {pluralize(events, 'event')}, {rejected:,} rejected; last reading {format_ago(newest, now)}",
        "metrics": _number_of_metrics(config),
    }
    counted = {state.metric: health[state.metric] for state in metrics}
    _add_health(inventory, counted, [state.metric for state in metrics if state.as_of is None])
    _add_incidents(inventory, incidents, health, requests, fail_on)
    inventory.text["retention"] = format_retention(retention)
    if workflows:
        inventory.text["workflows"] = f"{len(workflows)} configured; failed: {_metric_names(failed_workflows)}"
    if channels:
        inventory.text["notify"] = "; ".join(_channel_text(row) for row in channels)
    if (listing := _listing_text(config, api_calls)) is not None:
        inventory.text["listing"] = listing
    inventory.numbers |= {
        "events": events,
        "rejected": rejected,
        "unsent": {row.channel: row.unsent for row in channels},
        "scans": scans,
        "retention_finished": retention.day.isoformat() if retention and retention.finished_at else None,
        "metrics": len(metrics),
        "disabled": len(config.disabled_metrics),
        "workflows": len(workflows),
        "failed_workflows": failed_workflows,
        "requests": len(requests),
    }
    _add_due(config, inventory, states, scans, now)
    return inventory


def _add_health(inventory: Inventory, health: Mapping[str, Health], unmeasured: list[str]) -> None:
    """Add the enabled metrics by their labels, and by the keys of the JSON document."""
    labels = Counter(each.label for each in health.values())
    inventory.text["health"] = ", ".join(f"{number:,} {label}" for label, number in labels.most_common()) or "none"
    named = [(FLAGS.index(flag), label, metric) for metric, each in health.items() for flag, label in _problems(each)]
    for _, label, metric in sorted(named, key=lambda row: row[0]):
        inventory.by_label.setdefault(label, []).append(metric)
    by_key = {key: [name for name, each in health.items() if flag in each.flags] for key, flag in STATE_KEYS.items()}
    by_key["unmeasured"] = unmeasured
    inventory.numbers |= by_key
    inventory.text |= {key: _metric_names(names) for key, names in by_key.items()}


def _problems(health: Health) -> list[tuple[Flag, str]]:
    """Return the flags with their labels, without those of a metric that was measured and has no problem."""
    pairs = zip(health.flags, health.labels, strict=False)
    return [(flag, label) for flag, label in pairs if flag in PROBLEMS or label == NOT_MEASURED]


def _add_incidents(
    inventory: Inventory,
    incidents: Sequence[Incident],
    health: Mapping[str, Health],
    requests: Mapping[str, ApprovalRequest],
    fail_on: Severity,
) -> None:
    """Add the incidents that are not closed, and those that make the exit code 1. Every open request does."""
    acknowledged = sum(incident.state == "acknowledged" for incident in incidents)
    counts = f"{len(incidents) - acknowledged:,} open, {acknowledged:,} acknowledged. See `dims incidents`"
    inventory.text["incidents"] = counts if incidents else "none"
    waiting = f"{pluralize(len(requests), 'request')} waiting for approval"
    inventory.text["requests"] = waiting if requests else "none"
    inventory.numbers["incidents"] = {"open": len(incidents) - acknowledged, "acknowledged": acknowledged}
    causes = {metric: f"waits for approval, request {request.id}" for metric, request in requests.items()}
    for incident in (each for each in incidents if not each.calm):
        severity: Severity = next((name for name in SEVERITIES if name == incident.severity), "high")
        if incident.metric not in causes and incident.kind != "approval" and at_least(severity, fail_on):
            label = health[incident.metric].label if incident.metric in health else incident.kind
            causes[incident.metric] = f"{label}, {severity} incident {incident.id}"
    inventory.causes += [f"{metric} ({cause})" for metric, cause in causes.items()]


def _add_due(
    config: Config, inventory: Inventory, states: Sequence[metric_states.MetricState], scans: int, now: datetime
) -> None:
    metrics, workflows = _counted(config, states)
    due, due_workflows = ([state for state in group if state.due] for group in (metrics, workflows))
    oldest = max((now - state.due_since for state in states if state.due and state.due_since), default=timedelta(0))
    late = oldest > LATE_SWEEPS * config.settings.sweep + config.settings.lease
    waited = f"; the oldest event has waited {format_age(oldest)}" if due or due_workflows else ""
    also = f" and {pluralize(len(due_workflows), 'workflow')}" if due_workflows else ""
    number = f"{len(due)} of {pluralize(len(metrics), 'metric')}{also}"
    summary = f"{number}, {pluralize(scans, 'scan')} running{waited}"
    fix = "`dims metrics` shows why each metric is due. Start a worker for its queue, or fix its source."
    inventory.numbers |= {"due": len(due), "due_workflows": len(due_workflows)}
    inventory.numbers["oldest_due_seconds"] = oldest.total_seconds()
    if late:
        inventory.checks.append(Check("due", "warning", f"behind: {summary}", fix))
    else:
        inventory.checks.append(Check("due", "ok", summary))


def _counted(
    config: Config, states: Sequence[metric_states.MetricState]
) -> tuple[list[metric_states.MetricState], list[metric_states.MetricState]]:
    """Return the states of the metrics that every output counts, which are enabled, and those of the workflows."""
    enabled = frozenset(config.enabled_metrics)
    metrics = [state for state in states if state.metric in enabled]
    return metrics, [state for state in states if state.metric not in config.metrics]


def _number_of_metrics(config: Config) -> str:
    """Return `24 enabled, 3 disabled`."""
    disabled = f", {len(config.disabled_metrics):,} disabled" if config.disabled_metrics else ""
    return f"{len(config.enabled_metrics):,} enabled{disabled}"


def _channel_text(row: ChannelRow) -> str:
    failures = f", failed {pluralize(row.failures, 'time')}" if row.failures else ""
    return f"{row.channel} {waiting_text(row)}{failures}"


def _metric_names(metrics: list[str]) -> str:
    more = f", … ({len(metrics)})" if len(metrics) > NAMED_METRICS else ""
    return ", ".join(metrics[:NAMED_METRICS]) + more if metrics else "none"


def _listing_text(config: Config, api_calls: dict[str | None, int]) -> str | None:
    """Return what listing buckets cost in the last month at the configured price, or None without a bucket."""
    prices = {name: source.list_price for name, source in config.sources.items() if isinstance(source, S3Source)}
    if not prices:
        return None
    highest = max(prices.values())  # for runs over several sources, whose calls are not counted by source
    counted = {source: n for source, n in api_calls.items() if source in prices or source not in config.sources}
    cost = sum(n * prices.get(source or "", highest) / 1000 for source, n in counted.items())
    return f"{pluralize(sum(counted.values()), 'API call')} in 30 days, at most {cost:,.4f} USD"


def _print(session: Session, state: SystemState, inventory: Inventory, checks: Sequence[Check]) -> None:
    if state.fleet:
        now = (state.database and state.database.now) or datetime.now(UTC)
        session.out.print(_fleet_table(state.fleet, now))
    lines, sentences = {check.name: check for check in checks}, inventory.text | _sentences(inventory, checks)
    shown = [check.name for check in checks if check.state != "ok" or check.name in SHOWN_CHECKS]
    shown.sort(key=lambda name: LINE_ORDER.index(name) if name in LINE_ORDER else len(LINE_ORDER))
    names = [*shown, *(key for key in inventory.text if key not in {*lines, *STATE_KEYS, "unmeasured"})]
    labels = {name: LABELS.get(name, name).replace("_", " ") for name in names}
    sentences |= {label: _metric_names(metrics) for label, metrics in inventory.by_label.items()}
    at = names.index("health") + 1 if "health" in names else 0
    names[at:at] = inventory.by_label
    labels |= {label: label for label in inventory.by_label}
    width = max(map(len, labels.values())) + 1
    for name in names:
        state_word = lines[name].state if name in lines else "ok"
        word = "" if state_word == "ok" else f"{state_word}: "
        line = _line(f"{labels[name]:<{width}}", word, sentences[name], STYLES[state_word])
        session.out.print(line, soft_wrap=True)
        if word:
            session.out.print(_line(" " * width, "fix: ", lines[name].fix), soft_wrap=True)
    session.out.print(_verdict(checks), soft_wrap=True)
    if inventory.causes:
        named = f"{', '.join(inventory.causes[:NAMED_METRICS])}"
        more = len(inventory.causes) - NAMED_METRICS
        also = f" and {more:,} more" if more > 0 else ""
        session.out.print(Text(f"not healthy: {escape_control(named)}{also}", STYLES["problem"]), soft_wrap=True)


def _line(label: str, word: str, summary: str, style: str = "") -> Text:
    return Text.assemble(label, (word, style), escape_control(summary))


def _verdict(checks: Sequence[Check]) -> Text:
    """Return the last line: what is wrong, in a few words."""
    parts = []
    for state in ("problem", "warning"):
        names = [check.name for check in checks if check.state == state]
        if names:
            parts.append(f"{pluralize(len(names), state)}: {', '.join(names)}")
    worst = worst_state(checks)
    return Text(". ".join(parts) or f"DIMS runs: all {len(checks)} checks passed", STYLES[worst] or "green")


def _fleet_table(fleet: Sequence[FleetMember], now: datetime) -> Table:
    """Return one row per process. A column that says the same of every process, or of none, is left out."""
    reporting = [member for member in fleet if member.seen_at]
    extra = {
        "restarts": any(member.restarts for member in fleet),
        "version": len({member.version for member in reporting}) > 1,
        "config": len({member.config_hash for member in reporting}) > 1,
        "clock": any(abs(member.clock_offset or 0) >= 1 for member in reporting),
    }
    columns = ["process", "state", "pid", "up", "sweep", "claim", "stored"]
    columns += [name for name, shown in extra.items() if shown]
    table = plain_table(*columns, numbers=[name for name in columns if name not in ("process", "state", "config")])
    for member in sorted(fleet, key=_order):
        cells = {
            "process": Text(member.process),
            "state": _state_cell(member, now),
            "pid": Text(str(member.pid or NO_VALUE)),
            "up": Text(_short_age(member.started_at if member.pid else None, now)),
            "sweep": Text(_short_age(member.last_sweep_at, now)),
            "claim": Text(_short_age(member.last_claim_at, now)),
            "stored": Text(_short_age(member.last_stored_at, now)),
            "restarts": Text(str(member.restarts or NO_VALUE)),
            "version": Text(member.version or NO_VALUE),
            "config": Text((member.config_hash or NO_VALUE)[:8]),
            "clock": Text(NO_VALUE if member.clock_offset is None else f"{member.clock_offset:+.0f} s"),
        }
        table.add_row(*(cells[name] for name in columns))
    return table


def _order(member: FleetMember) -> tuple[int, str]:
    name = member.process.partition("@")[0]
    return (PROCESS_ORDER.index(name) if name in PROCESS_ORDER else len(PROCESS_ORDER), member.process)


def _state_cell(member: FleetMember, now: datetime) -> Text:
    style = {"running": "green", "starting": "yellow", "stopped": "dim", "stalled": "red", "silent": "red"}.get(
        member.state, "magenta"
    )
    age = f" {_short_age(member.seen_at, now)}" if member.state == "silent" else ""
    return Text(f"{member.state}{age}", style)


def _short_age(time: datetime | None, now: datetime) -> str:
    """Return how long ago a time was, in its largest unit: `3 s`, `5 min`, `2 h`, `4 d`."""
    if time is None:
        return NO_VALUE
    seconds = max(0, int((now - time).total_seconds()))
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= length:
            return f"{seconds // length} {unit}"
    return f"{seconds} s"
