"""Load the health of metrics: the current state, the problems and the change of each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection

from dims_worker.analysis.evidence import Gap, named_gaps
from dims_worker.config import Config, Metric
from dims_worker.domain.decide import IN_FUTURE, SEVERITIES, Judge, Limit, age_of
from dims_worker.formatting import count_metrics, display_unit, is_number
from dims_worker.numbers import Number, difference
from dims_worker.probes.reading_notes import left_out, reading_doubts
from dims_worker.store import metric_states, point_in_time
from dims_worker.store.approval_requests import ApprovalRequest
from dims_worker.store.history import Day, Point
from dims_worker.store.point_in_time import PastValue


@dataclass(frozen=True, slots=True)
class MetricHealth:
    """The current state of a metric.

    `before` is its value at the `since` of the report, if it had the same unit. `broken` is the limit that its value
    breaks, as text. `marks` are the notable readings of its trend. `limit_when_measured` is the limit that the value
    broke when it was measured. An age can break one later, because time passes.
    """

    metric: str
    declared: Metric
    source: str | None
    state: metric_states.MetricState
    critical: bool
    stale: bool
    broken: str | None
    request: ApprovalRequest | None
    before: PastValue | None
    days: Sequence[Day]
    marks: Sequence[Point] = ()
    limit_when_measured: Limit | None = None

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
        return self.state.error is not None

    @property
    def drifted(self) -> bool:
        return self.state.drifted

    @property
    def status(self) -> str:
        """`failed`, `unmeasured`, or the status of the last good reading."""
        return "failed" if self.failed else (self.state.status or "unmeasured")

    @property
    def well(self) -> bool:
        """Whether it has no problem. To be due is not a problem."""
        return not any(applies(self) for state, applies in HEALTH_STATES.items() if state != "due")

    @property
    def in_future(self) -> bool:
        """Whether it is an age whose instant was in the future when it was measured."""
        return self.limit_when_measured == "future"

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
    def weight(self) -> tuple[bool, bool, bool, int, bool]:
        """A sort key: the most important metric is last."""
        severity = SEVERITIES.index(self.state.severity) if self.state.severity in SEVERITIES else 0
        return (bool(self.request), self.failed, bool(self.broken), severity, self.critical)

    @property
    def matters(self) -> bool:
        return bool(self.request) or self.failed or bool(self.broken) or self.drifted or self.critical


NOISE = 1e-12
"""The largest relative difference that is only a rounding error of floats."""
HEALTH_STATES: Mapping[str, Callable[[MetricHealth], object]] = {
    "waiting": lambda metric: metric.request,
    "failed": lambda metric: metric.failed,
    "beyond limits": lambda metric: metric.broken,
    "stale": lambda metric: metric.stale,
    "drifted": lambda metric: metric.drifted,
    "due": lambda metric: metric.state.due,
    "unmeasured": lambda metric: not metric.measured,
}
"""The states that a metric can be in. Several can apply at once."""


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
    """Return the health of these metrics by name. It takes two queries.

    `waiting` are the open requests, `since` is the start of the changes, and `series` are the days of each trend.
    """
    states = metric_states.states_of(connection, names)
    before = point_in_time.values_at(connection, names, since)
    days = series or {}
    return {
        name: _health(config, states[name], waiting.get(name), before.get(name), days.get(name, ()), now)
        for name in names
    }


def any_number(health: MetricHealth) -> bool:
    """Return whether a trend has anything to draw."""
    return any(is_number(day.value) for day in health.days)


def points_in_unit(points: Iterable[Point], metric: Metric | None, unit: str | None) -> list[Point]:
    """Return the points in the current unit of the metric, and failures. An age is an instant, which has no unit."""
    is_age = metric is not None and metric.is_age
    return [point for point in points if is_age or point.outcome == "failed" or point.unit == unit]


def _health(
    config: Config,
    state: metric_states.MetricState,
    request: ApprovalRequest | None,
    before: PastValue | None,
    days: Sequence[Day],
    now: datetime,
) -> MetricHealth:
    judge = Judge.of(config, state.metric)
    policy = judge.policy
    stale = bool(policy.stale_after and state.as_of and now - state.as_of > policy.stale_after)
    broken = judge.format_broken_limit(state.value, now, state.as_of) if state.as_of else None
    at_once = judge.broken_limit(state.value, state.as_of) if state.as_of else None
    declared, source = config.metrics[state.metric], config.source_of(state.metric)
    if before and not declared.is_age and before.unit != state.unit:
        before = None
    return MetricHealth(
        state.metric,
        declared,
        source,
        state,
        policy.critical,
        stale,
        broken,
        request,
        before,
        days,
        limit_when_measured=at_once,
    )


def health_labels(health: MetricHealth, *, lasting: bool = False) -> list[str]:
    """Return the problems of a metric, worst first. `lasting` leaves out those that arise only because time passes."""
    labels = [f"waits: request {health.request.id}"] if health.request else []
    labels += ["failed"] if health.failed else []
    if health.in_future:
        labels += [IN_FUTURE]
    elif health.limit_when_measured if lasting else health.broken:
        labels += ["beyond its limit"]
    labels += [] if lasting or not health.stale else ["stale"]
    labels += [str(health.state.status)] if health.drifted and not health.request else []
    labels += [] if health.measured or health.failed else ["not measured yet"]
    return labels


def shown_labels(health: MetricHealth, *, lasting: bool = False) -> list[str]:
    """Return what to show as the state: its problems, or else the doubts about its value, or else `ok`."""
    return health_labels(health, lasting=lasting) or [doubt.partition(":")[0] for doubt in health.doubts] or ["ok"]


def health_sentence(health: dict[str, list[str]]) -> str:
    """Return the first sentence of a report: `1 value waits for approval; 4 metrics could not be measured.`"""
    problems = []
    for state, singular, plural in (
        ("waiting", "value waits for approval", "values wait for approval"),
        ("failed", "metric could not be measured", "metrics could not be measured"),
        ("beyond limits", "metric is beyond its limit", "metrics are beyond their limits"),
        ("stale", "metric is stale", "metrics are stale"),
        ("unmeasured", "metric was never measured", "metrics were never measured"),
    ):
        if count := len(health[state]):
            problems.append(f"{count:,} {singular if count == 1 else plural}")
    if problems:
        return f"{'; '.join(problems)}."
    drifted = len(health["drifted"])
    return f"Nothing needs attention; {count_metrics(drifted)} drifted." if drifted else "All is well."


PROBLEM_KEYS = ("request", "failed", "beyond", "stale", "drifted")
DOCUMENT_STATES: Mapping[str, Callable[[dict[str, Any]], object]] = {
    "waiting": lambda metric: metric["request"],
    "failed": lambda metric: metric["failed"],
    "limit": lambda metric: metric["beyond"],
    "stale": lambda metric: metric["stale"],
    "due": lambda metric: metric["due"],
    "unmeasured": lambda metric: metric["as_of"] is None,
    "drifted": lambda metric: metric["drifted"],
    "well": lambda metric: not any(metric[key] for key in PROBLEM_KEYS) and metric["as_of"] is not None,
}
"""The states of a metric by its JSON document, named as on the dashboard. Several can apply at once."""
