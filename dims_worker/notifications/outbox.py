"""What is to be sent, written in the transaction that makes it so (`notify` sends it).

A row of `dims_notifications` is one time that one state stands of one metric, for one channel: keyed by the three, so
that a state which stands is written once. Its two instants `sent_at` and `end_sent_at` say what was sent of it. The
rules of it are `notice`'s; here is when they are asked:

1. Readings: in their run's transaction, on the locked rows of their metrics. A run is recorded with what it has to
   tell, or neither is. A run whose lease was lost tells nothing.
2. What happens without a reading (a metric gets stale, an age gets too old, a request is decided or expires, a metric
   is no longer configured) is noticed by the sweep, which locks the metrics concerned and skips those that others work
   at: the next sweep comes.

Rows are written for every channel that is configured, with or without a URL: whether there is one depends on who runs
the process, what people are to be told does not.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from sqlalchemy import Connection

from dims_worker.config import Config, DerivedMetric
from dims_worker.domain.decide import Judge
from dims_worker.domain.run import RunReading
from dims_worker.notifications import rules
from dims_worker.notifications.rules import DRIFT, LIMIT, STALE, AlertSignals, AlertState, AlertTransition
from dims_worker.store import notifications
from dims_worker.store.approval_requests import open_requests
from dims_worker.store.engine import clock
from dims_worker.store.metric_states import MetricState


def write_run_notifications(
    connection: Connection, config: Config, run_id: int, items: Sequence[RunReading], states: Mapping[str, MetricState]
) -> tuple[str, ...]:
    """Write what a run has to tell, in its transaction and after its requests; `states` are the locked rows of its
    metrics. Returns the channels that have something to be told."""
    concerned = [item for item in items if item.outcome not in ("superseded", "provisional")]
    if not config.notify.channels or not concerned:
        return ()
    held = [item.metric for item in concerned if item.outcome == "held"]
    asked = open_requests(connection, held) if held else {}
    now = clock(connection)
    said = {}
    for item in concerned:
        good = item.outcome != "failed"
        broken = Judge.of(config, item.metric).format_broken_limit(item.value, now) if good else None
        request = asked[item.metric].id if item.metric in asked else None
        said[item.metric] = rules.signals_of_reading(item, states[item.metric].failures, request, broken)
    return _write(connection, _changes(connection, config, said), run_id)


def write_overdue_notifications(connection: Connection, config: Config) -> None:
    """Write what is to be told without a reading. Waits for nobody: a metric that others work at is left to the next
    sweep."""
    if not config.notify.channels:
        return
    concerned = {change.metric for change in _unread(connection, config)}
    if concerned:
        free = set(notifications.lock_free_metrics(connection, concerned))
        # Anew, now that they are ours: others may have changed them meanwhile
        _write(connection, [change for change in _unread(connection, config) if change.metric in free], None)


def _changes(connection: Connection, config: Config, said: Mapping[str, AlertSignals]) -> list[AlertTransition]:
    """What is said of each metric, beside what stands of it."""
    standing: dict[str, dict[tuple[str, str], notifications.Notification]] = {}
    for one in notifications.active_notifications(connection, config.notify.channels, said):
        standing.setdefault(one.metric, {})[one.channel, one.kind] = one
    return [
        change
        for metric, says in said.items()
        for change in rules.transitions(config.notify.channels, metric, says, standing.get(metric, {}))
    ]


def _unread(connection: Connection, config: Config) -> list[AlertTransition]:
    """What changes without a reading."""
    said = {name: AlertSignals({STALE: condition}) for name, condition in _stale(connection, config).items()}
    for name, condition in _aged(connection, config).items():
        said[name] = AlertSignals({**(said[name].kinds if name in said else {}), LIMIT: condition})
    over = [
        AlertTransition(one.channel, one.metric, ends=one.id, ending={"retired": retired}, told=one.kind != DRIFT)
        for one, retired in notifications.orphaned_notifications(connection, config.notify.channels)
    ]
    return [*_changes(connection, config, said), *over]


def _stale(connection: Connection, config: Config) -> dict[str, AlertState]:
    """The metrics that nobody measured for too long. A derived one is as its inputs are: they say it."""
    after = {
        name: span
        for name, metric in config.metrics.items()
        if metric.enabled and (span := config.policy_of(name).stale_after) is not None
    }
    found = notifications.stale_metrics(connection, after)
    return {
        name: AlertState(STALE, {"as_of": as_of, "stale_after": after[name].total_seconds()})
        for name, as_of in found.items()
        if not isinstance(config.metrics[name], DerivedMetric)
        or not (config.with_inputs([name]) - {name}) & found.keys()
    }


def _aged(connection: Connection, config: Config) -> dict[str, AlertState | None]:
    """The ages with a limit: a feed that died is beyond it without an event."""
    names = [
        name
        for name, metric in config.metrics.items()
        if metric.enabled and metric.is_age and config.policy_of(name).max_age is not None
    ]
    now = clock(connection)
    found = notifications.latest_values(connection, names) if names else {}
    broken = {name: Judge.of(config, name).format_broken_limit(value, now) for name, (value, _) in found.items()}
    return {name: rules.beyond_limit(*found[name], why) if why else None for name, why in broken.items()}


def _write(connection: Connection, changes: Iterable[AlertTransition], run_id: int | None) -> tuple[str, ...]:
    """Write the changes. Returns the channels that have something to be told."""
    changed = list(changes)
    if ends := {one.ends: (one.ending, one.told) for one in changed if one.ends is not None}:
        notifications.end_notifications(connection, ends)  # first: another of its kind may begin in its place
    begins = [
        {"channel": one.channel, "metric": one.metric, "state": one.begins.state, "facts": dict(one.begins.facts)}
        for one in changed
        if one.begins is not None
    ]
    if begins:
        notifications.begin_notifications(connection, ({**row, "run_id": run_id} for row in begins))
    return tuple(sorted({one.channel for one in changed if one.told}))
