"""Load the health of metrics: the current state, the problems and the change of each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection

from dims_worker.analysis.evidence import Gap, named_gaps
from dims_worker.config import Config, Metric
from dims_worker.domain.decide import SEVERITIES, age_of
from dims_worker.domain.health import FLAGS, PROBLEMS, Flag, Health, incidents_by_metric, metric_health
from dims_worker.formatting import display_unit, is_number
from dims_worker.numbers import Number, difference
from dims_worker.probes.reading_notes import left_out, reading_doubts
from dims_worker.store import metric_states, point_in_time
from dims_worker.store.approval_requests import ApprovalRequest
from dims_worker.store.history import Day, Point
from dims_worker.store.incidents import Incident, open_incidents
from dims_worker.store.point_in_time import PastValue


@dataclass(frozen=True, slots=True)
class MetricHealth:
    """The current state of a metric.

    `before` is its value at the `since` of the report, if it had the same unit. `marks` are the notable readings of
    its trend. `lasting` is its health without what arises only because time passes: it is the same on any day, until a
    new reading or a person changes it.
    """

    metric: str
    declared: Metric
    source: str | None
    state: metric_states.MetricState
    critical: bool
    health: Health
    lasting: Health
    request: ApprovalRequest | None
    before: PastValue | None
    days: Sequence[Day]
    marks: Sequence[Point] = ()

    @property
    def name(self) -> str:
        return self.metric.partition(".")[2]

    @property
    def unit(self) -> str:
        return display_unit(self.declared, self.state.unit)

    @property
    def measured(self) -> bool:
        return self.state.as_of is not None

    @property
    def failed(self) -> bool:
        return "failing" in self.health.flags

    @property
    def drifted(self) -> bool:
        return "drifted" in self.health.flags

    @property
    def stale(self) -> bool:
        return "stale" in self.health.flags

    @property
    def broken(self) -> str | None:
        """The limit that its value breaks, as text."""
        return self.health.broken

    @property
    def status(self) -> str:
        """`failed`, `unmeasured`, or the status of the last good reading."""
        return "failed" if self.failed else (self.state.status or "unmeasured")

    @property
    def well(self) -> bool:
        """Whether it has no problem and was measured. To be due is not a problem."""
        return self.health.healthy and self.measured

    @property
    def in_future(self) -> bool:
        """Whether it is an age whose instant was in the future when it was measured."""
        return self.health.in_future

    @property
    def compared(self) -> bool:
        """Whether there is a change to report. An age always grows, and a failed or stale metric has no new value."""
        if self.before is None or self.declared.is_age or not self.measured:
            return False
        return self.before.as_of != self.state.as_of or not (self.failed or self.stale)

    @property
    def change(self) -> Number | None:
        """The change since `before` in the unit of the metric, or None if there is none to report."""
        if self.before is None or not self.compared:
            return None
        now, then = self.state.value, self.before.value
        if not (is_number(now) and is_number(then)):
            return None
        change = difference(now, then)
        # A difference that only rounding makes is no change: 0.1 + 0.2 is not exactly 0.3.
        return 0 if isinstance(change, float) and abs(change) < NOISE * abs(float(now)) else change

    @property
    def doubts(self) -> list[str]:
        """Why the value may not be the whole truth: it is approximate, or its folder is absent."""
        return reading_doubts(self.state.method, self.state.details) if self.measured else []

    @property
    def left_out(self) -> list[str]:
        """What the value leaves out, as text."""
        return left_out(self.state.details) if self.measured else []

    @property
    def gaps(self) -> tuple[Gap, ...]:
        return named_gaps(self.state.details, self.state.value)

    def number(self, value: Any, now: datetime) -> Number | None:
        """Return a value as a number, an age in its unit at `now`, or None if it is not a number."""
        if self.declared.is_age:
            return age_of(value, now, self.unit)
        return value if is_number(value) else None

    @property
    def weight(self) -> tuple[int, int, bool]:
        """A sort key: the most important metric is last."""
        severity = max(self.health.severity, self.state.severity or "none", key=_rank)
        return (-FLAGS.index(self.health.worst), _rank(severity), self.critical)

    @property
    def matters(self) -> bool:
        return self.critical or any(flag in ("failing", "waiting", "limit", "drifted") for flag in self.health.flags)


def _rank(severity: str) -> int:
    return next((place for place, name in enumerate(SEVERITIES) if name == severity), 0)


NOISE = 1e-12
"""The largest relative difference that is only a rounding error of floats."""
HEALTH_STATES: Mapping[str, Callable[[MetricHealth], object]] = {
    "failed": lambda metric: metric.failed,
    "waiting": lambda metric: "waiting" in metric.health.flags,
    "beyond limits": lambda metric: "limit" in metric.health.flags,
    "drifted": lambda metric: metric.drifted,
    "stale": lambda metric: metric.stale,
    "overdue": lambda metric: "overdue" in metric.health.flags,
    "due": lambda metric: metric.state.due,
    "unmeasured": lambda metric: not metric.measured,
}
"""The states by which reports and the dashboard group metrics. Several can apply at once."""


def group_by_health(metrics: Iterable[MetricHealth]) -> dict[str, list[str]]:
    """Return the names of the metrics in each state."""
    listed = list(metrics)
    return {state: [metric.metric for metric in listed if applies(metric)] for state, applies in HEALTH_STATES.items()}


def load_health(
    connection: Connection,
    config: Config,
    names: Sequence[str],
    waiting: Mapping[str, ApprovalRequest],
    *,
    now: datetime,
    since: datetime,
    series: Mapping[str, Sequence[Day]] | None = None,
) -> dict[str, MetricHealth]:
    """Return the health of these metrics by name. It takes three queries.

    `waiting` are the open requests, `since` is the start of the changes, and `series` are the days of each trend.
    """
    states = metric_states.states_of(connection, names)
    incidents = incidents_by_metric(open_incidents(connection, names))
    before = point_in_time.values_at(connection, names, since)
    days = series or {}
    return {
        name: _metric_health(
            config,
            _HealthRow(states[name], incidents.get(name, ()), waiting.get(name), before.get(name), days.get(name, ())),
            now,
        )
        for name in names
    }


def any_number(health: MetricHealth) -> bool:
    """Return whether a trend has anything to draw."""
    return any(is_number(day.value) for day in health.days)


def points_in_unit(points: Iterable[Point], metric: Metric | None, unit: str | None) -> list[Point]:
    """Return the points in the current unit of the metric, and failures. An age is an instant, which has no unit."""
    is_age = metric is not None and metric.is_age
    return [point for point in points if is_age or point.outcome == "failed" or point.unit == unit]


@dataclass(frozen=True, slots=True)
class _HealthRow:
    """What the database has about one metric."""

    state: metric_states.MetricState
    incidents: Sequence[Incident]
    request: ApprovalRequest | None
    before: PastValue | None
    days: Sequence[Day]


def _metric_health(config: Config, row: _HealthRow, now: datetime) -> MetricHealth:
    state, before = row.state, row.before
    declared = config.metrics[state.metric]
    if before and not declared.is_age and before.unit != state.unit:
        before = None
    return MetricHealth(
        metric=state.metric,
        declared=declared,
        source=config.source_of(state.metric),
        state=state,
        critical=config.policy_of(state.metric).critical,
        health=metric_health(config, state, row.incidents, now),
        lasting=metric_health(config, state, row.incidents, state.as_of or now),
        request=row.request,
        before=before,
        days=row.days,
    )


def health_labels(health: MetricHealth, *, lasting: bool = False) -> list[str]:
    """Return the labels of a metric that is not ok, the worst first, or nothing. They have no doubts about the value.

    `lasting` leaves out the problems that arise only because time passes.
    """
    shown = health.lasting if lasting else health.health
    if shown.healthy and health.measured:
        return []
    return list(shown.labels[: len(shown.flags)])


def shown_labels(health: MetricHealth, *, lasting: bool = False) -> list[str]:
    """Return what to show as the state: all labels, or `ok`."""
    return list((health.lasting if lasting else health.health).labels)


def health_sentence(health: Mapping[str, Sequence[str]]) -> str:
    """Return the first sentence of a report: `1 value waits for approval; 4 metrics are failing.`

    `health` has the names of the metrics by state, as `group_by_health` returns them.
    """
    problems = []
    for state, singular, plural in (
        ("failed", "metric is failing", "metrics are failing"),
        ("waiting", "value waits for approval", "values wait for approval"),
        ("beyond limits", "metric is beyond its limit", "metrics are beyond their limits"),
        ("drifted", "metric is lost or drifted", "metrics are lost or drifted"),
        ("stale", "metric is stale", "metrics are stale"),
        ("overdue", "metric is overdue", "metrics are overdue"),
        ("unmeasured", "metric was never measured", "metrics were never measured"),
        ("silent", "rule is silent", "rules are silent"),
    ):
        if count := len(health.get(state, ())):
            problems.append(f"{count:,} {singular if count == 1 else plural}")
    return f"{'; '.join(problems)}." if problems else "All is well."


def _has_flag(flag: Flag) -> Callable[[Mapping[str, Any]], object]:
    return lambda document: flag in document["health"]["flags"]


DOCUMENT_STATES: Mapping[str, Callable[[Mapping[str, Any]], object]] = {
    **{flag: _has_flag(flag) for flag in FLAGS},
    "failed": _has_flag("failing"),
    "due": lambda document: document["due"],
    "unmeasured": lambda document: document["as_of"] is None,
    "well": lambda document: not set(document["health"]["flags"]) & set(PROBLEMS) and document["as_of"] is not None,
}
"""The states of a metric by its JSON document: the flags of its health, and the names of filters of the dashboard.
Several can apply at once."""
