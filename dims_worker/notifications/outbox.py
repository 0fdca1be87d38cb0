"""Write notifications in the transaction of the change that they report. `sender` sends them.

A row of `dims_notifications` is one state of one metric for one channel, from its begin to its end. The three are its
key, so an active state has one row. `sent_at` and `end_sent_at` say what was sent. `rules` decides which states begin
and end. It is asked twice:

1. In the transaction of a run, on the locked rows of its metrics. A run, its incidents and its notifications are
   recorded together. A run whose lease was lost notifies no one.
2. By the sweep, for incidents that begin or end without a reading: a metric becomes stale, an age grows too old, a
   request is decided or expires, a person closes an incident, a metric is no longer configured. The sweep skips metrics
   that are locked. The next sweep handles them.

Every configured channel gets its rows, even if this process does not know the URL of the channel.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import Connection

from dims_worker.config import Config, DerivedMetric
from dims_worker.config.runtime import WORKFLOW
from dims_worker.domain.run import RunReading
from dims_worker.notifications import rules
from dims_worker.notifications.mutes import mutes_of
from dims_worker.notifications.rules import ATTENTION, AlertTransition, MetricSignals
from dims_worker.store import notifications
from dims_worker.store.incidents import RULE, Incident, incidents_by_number, open_incidents, retired_metrics
from dims_worker.store.metric_states import MetricState, read_states
from dims_worker.store.notifications import Notification, StateEnd

MUTED = "muted"


def write_run_notifications(
    connection: Connection,
    config: Config,
    run_id: int,
    items: Sequence[RunReading],
    states: Mapping[str, MetricState],
    now: datetime,
) -> tuple[str, ...]:
    """Write the notifications of a run, in its transaction and after its incidents. `states` are the locked rows of
    its metrics. Return the channels that have something to send."""
    concerned = {item.metric: item for item in items if item.outcome not in ("superseded", "provisional")}
    if not config.notify.channels or not concerned:
        return ()
    incidents = open_incidents(connection, _with_inputs(config, concerned))
    explained, by_metric = _explained(config, incidents), _by_metric(incidents)
    signals = {
        metric: MetricSignals(by_metric.get(metric, ()), states[metric].failures, _attention(item), explained, now)
        for metric, item in concerned.items()
    }
    values = {metric: {"value": item.value, "unit": item.unit} for metric, item in concerned.items() if not item.error}
    active = notifications.active_notifications(connection, config.notify.channels, concerned)
    writing = _Writing(connection, config, now, run_id, values)
    return writing.write(list(_transitions(config, signals, active)), active)


def write_overdue_notifications(connection: Connection, config: Config, now: datetime) -> None:
    """Write the notifications that need no reading, after the sweep of incidents. Skip locked metrics: the next sweep
    handles them."""
    if not config.notify.channels:
        return
    changed = {change.metric for change in _changes_without_reading(connection, config, now)[0]}
    if changed:
        free = {name for name in changed if name.startswith(RULE)}
        free |= set(notifications.lock_free_metrics(connection, changed - free))
        # Read them again under the lock: another process may have changed them meanwhile
        changes, active = _changes_without_reading(connection, config, now)
        writing = _Writing(connection, config, now)
        writing.write([change for change in changes if change.metric in free], active)


def _attention(item: RunReading) -> bool | None:
    return rules.attention_of(item) if item.metric.startswith(WORKFLOW) else None


def _with_inputs(config: Config, names: Iterable[str]) -> set[str]:
    return {*names, *config.with_inputs(name for name in names if name in config.metrics)}


def _by_metric(incidents: Iterable[Incident]) -> dict[str, list[Incident]]:
    by_metric: dict[str, list[Incident]] = {}
    for each in incidents:
        by_metric.setdefault(each.metric, []).append(each)
    return by_metric


def _explained(config: Config, incidents: Sequence[Incident]) -> set[int]:
    """Return the numbers of incidents that the incident of an input explains: an input that is stale or fails is
    reported instead of what is derived from it."""
    known = {(each.metric, each.kind) for each in incidents}
    return {
        each.id
        for each in incidents
        if each.kind in ("stale", "failing")
        and isinstance(config.metrics.get(each.metric), DerivedMetric)
        and any((name, each.kind) in known for name in config.with_inputs([each.metric]) - {each.metric})
    }


def _transitions(
    config: Config, signals: Mapping[str, MetricSignals], active: Iterable[Notification]
) -> Iterable[AlertTransition]:
    """Compare the signals of each metric with its active states."""
    by_metric: dict[str, dict[str, list[Notification]]] = {name: {} for name in signals}
    for each in active:
        by_metric[each.metric].setdefault(each.channel, []).append(each)
    for metric, own in signals.items():
        yield from rules.transitions(config, metric, own, by_metric[metric])


def _changes_without_reading(
    connection: Connection, config: Config, now: datetime
) -> tuple[list[AlertTransition], list[Notification]]:
    """Return the states that begin or end without a reading, and the states that are active."""
    listed = open_incidents(connection)
    explained, incidents = _explained(config, listed), _by_metric(listed)
    active = notifications.active_notifications(connection, config.notify.channels)
    names = {*incidents, *(each.metric for each in active)}
    failing = [name for name, own in incidents.items() if any(each.kind == "failing" for each in own)]
    states = read_states(connection, failing) if failing else {}
    workflows = {each.metric for each in active if each.kind == ATTENTION}
    retired = retired_metrics(connection, workflows) if workflows else set()
    signals = {
        name: MetricSignals(
            incidents.get(name, ()),
            states[name].failures if name in states else 0,
            False if name in retired else None,
            explained,
            now,
        )
        for name in sorted(names)
    }
    return list(_transitions(config, signals, active)), active


@dataclass(frozen=True, slots=True)
class _Writing:
    """Writes changes at `now`. `run_id` and `values`, by metric, are those of a run."""

    connection: Connection
    config: Config
    now: datetime
    run_id: int | None = None
    values: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def write(self, changes: Sequence[AlertTransition], active: Iterable[Notification]) -> tuple[str, ...]:
        """Write the changes. `active` are the states before. Return the channels that have something to send."""
        ends = {change.ends: change for change in changes if change.ends is not None}
        if ends:  # first: a state may begin again
            self._end(ends, {each.id for each in active if each.sent_at is None})
        begins = [
            {
                "channel": change.channel,
                "metric": change.metric,
                "state": change.begins.state,
                "facts": dict(change.begins.facts),
                "run_id": self.run_id,
                "since": self.now,
            }
            for change in changes
            if change.begins is not None
        ]
        if begins:
            notifications.begin_notifications(self.connection, begins)
        return tuple(sorted({change.channel for change in changes if change.notify}))

    def _end(self, ends: Mapping[int, AlertTransition], unsent: Collection[int]) -> None:
        reasons = self._reasons_not_to_send({number: end for number, end in ends.items() if number in unsent})
        endings = {
            number: StateEnd(self.values.get(end.metric, {}), end.notify, reasons.get(number))
            for number, end in ends.items()
        }
        notifications.end_notifications(self.connection, endings, self.now)

    def _reasons_not_to_send(self, ends: Mapping[int, AlertTransition]) -> dict[int, str]:
        """Return why no message about a state is sent at all, by its id: it began unsent and ends while its metric is
        muted, or a person has acknowledged its incident."""
        if not ends:
            return {}
        muted = mutes_of(self.connection, self.config, self.now)
        numbers = {end.incident for end in ends.values() if end.incident is not None}
        incidents = incidents_by_number(self.connection, numbers)
        reasons = {}
        for number, end in ends.items():
            incident = incidents.get(end.incident) if end.incident is not None else None
            if end.metric in muted:
                reasons[number] = MUTED
            elif incident is not None and incident.acknowledged_at is not None:
                reasons[number] = rules.ACKNOWLEDGED
        return reasons
