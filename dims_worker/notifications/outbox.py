"""Write notifications in the transaction of the change that they report. `sender` sends them.

A row of `dims_notifications` is one state of one metric for one channel, from its begin to its end. The three are its
key, so an active state has one row. `sent_at` and `end_sent_at` say what was sent. `rules` decides which states begin
and end. It is asked twice:

1. In the transaction of a run, on the locked rows of its metrics. A run and its notifications are recorded together.
   A run whose lease was lost notifies no one.
2. By the sweep, for what happens without a reading: a metric becomes stale, an age grows too old, a request is decided
   or expires, a metric is no longer configured. The sweep skips metrics that are locked. The next sweep handles them.

Every configured channel gets its rows, even if this process does not know the URL of the channel.
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
    """Write the notifications of a run, in its transaction and after its requests. `states` are the locked rows of
    its metrics. Return the channels that have something to send."""
    concerned = [item for item in items if item.outcome not in ("superseded", "provisional")]
    if not config.notify.channels or not concerned:
        return ()
    held = [item.metric for item in concerned if item.outcome == "held"]
    requests = open_requests(connection, held) if held else {}
    now = clock(connection)
    signals = {}
    for item in concerned:
        good = item.outcome != "failed"
        broken = Judge.of(config, item.metric).format_broken_limit(item.value, now, item.as_of) if good else None
        request = requests[item.metric].id if item.metric in requests else None
        signals[item.metric] = rules.signals_of_reading(item, states[item.metric].failures, request, broken)
    return _write(connection, _transitions(connection, config, signals), run_id)


def write_overdue_notifications(connection: Connection, config: Config) -> None:
    """Write the notifications that need no reading. Skip locked metrics: the next sweep handles them."""
    if not config.notify.channels:
        return
    concerned = {change.metric for change in _transitions_without_reading(connection, config)}
    if concerned:
        free = set(notifications.lock_free_metrics(connection, concerned))
        # Read them again under the lock: another process may have changed them meanwhile
        _write(
            connection,
            [change for change in _transitions_without_reading(connection, config) if change.metric in free],
            None,
        )


def _transitions(connection: Connection, config: Config, signals: Mapping[str, AlertSignals]) -> list[AlertTransition]:
    """Compare the signals of each metric with its active states."""
    active: dict[str, dict[tuple[str, str], notifications.Notification]] = {}
    for alert in notifications.active_notifications(connection, config.notify.channels, signals):
        active.setdefault(alert.metric, {})[alert.channel, alert.kind] = alert
    return [
        change
        for metric, own in signals.items()
        for change in rules.transitions(config.notify.channels, metric, own, active.get(metric, {}))
    ]


def _transitions_without_reading(connection: Connection, config: Config) -> list[AlertTransition]:
    """Return the states that begin or end without a reading."""
    signals = {name: AlertSignals({STALE: state}) for name, state in _stale(connection, config).items()}
    for name, limit in _aged(connection, config).items():
        signals[name] = AlertSignals({**(signals[name].kinds if name in signals else {}), LIMIT: limit})
    orphans = [
        AlertTransition(
            alert.channel, alert.metric, ends=alert.id, ending={"retired": retired}, notify=alert.kind != DRIFT
        )
        for alert, retired in notifications.orphaned_notifications(connection, config.notify.channels)
    ]
    return [*_transitions(connection, config, signals), *orphans]


def _stale(connection: Connection, config: Config) -> dict[str, AlertState]:
    """Return the metrics that were not measured for too long. A stale input is reported instead of what it feeds."""
    after = {
        name: span
        for name, metric in config.metrics.items()
        if metric.enabled and (span := config.policy_of(name).stale_after) is not None
    }
    stale = notifications.stale_metrics(connection, after)
    return {
        name: AlertState(STALE, {"as_of": as_of, "stale_after": after[name].total_seconds()})
        for name, as_of in stale.items()
        if not isinstance(config.metrics[name], DerivedMetric)
        or not (config.with_inputs([name]) - {name}) & stale.keys()
    }


def _aged(connection: Connection, config: Config) -> dict[str, AlertState | None]:
    """Return the state of each age. A feed that died exceeds its limit without an event."""
    names = [name for name, metric in config.metrics.items() if metric.enabled and metric.is_age]
    now = clock(connection)
    latest = notifications.latest_values(connection, names) if names else {}
    broken = {
        name: Judge.of(config, name).format_broken_limit(last.value, now, last.as_of) for name, last in latest.items()
    }
    return {
        name: rules.beyond_limit(latest[name].value, latest[name].unit, limit) if limit else None
        for name, limit in broken.items()
    }


def _write(connection: Connection, changes: Iterable[AlertTransition], run_id: int | None) -> tuple[str, ...]:
    """Write the changes. Return the channels that have something to send."""
    changed = list(changes)
    if ends := {change.ends: (change.ending, change.notify) for change in changed if change.ends is not None}:
        notifications.end_notifications(connection, ends)  # first: a state of the same kind may replace one
    begins = [
        {
            "channel": change.channel,
            "metric": change.metric,
            "state": change.begins.state,
            "facts": dict(change.begins.facts),
            "run_id": run_id,
        }
        for change in changed
        if change.begins is not None
    ]
    if begins:
        notifications.begin_notifications(connection, begins)
    return tuple(sorted({change.channel for change in changed if change.notify}))
