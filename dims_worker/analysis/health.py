"""A metric as it stands, and how many of them are gathered at once: in the same few queries however many there are."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeGuard

from sqlalchemy import Connection

from dims_worker.analysis.evidence import Gap, named_gaps
from dims_worker.config import Config, Metric
from dims_worker.config.units import AGES
from dims_worker.domain.decide import SEVERITIES, Judge, age_of
from dims_worker.formatting import count_metrics, display_unit
from dims_worker.store import metric_states, point_in_time
from dims_worker.store.approval_requests import ApprovalRequest
from dims_worker.store.history import Day, Point
from dims_worker.store.point_in_time import PastValue


@dataclass(frozen=True, slots=True)
class MetricHealth:
    """A metric as it stands. `before`: what it was at the report's `since`, in the same unit. `broken`: the limit that
    its value is beyond, in words. `marks`: of a trend, the readings that stood out."""

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
        """`failed`, `unmeasured`, or what was said of the last good reading."""
        return "failed" if self.failed else (self.state.status or "unmeasured")

    @property
    def well(self) -> bool:
        """Nothing is the matter with it: to be due soon is no trouble."""
        return not any(true(self) for word, true in HEALTH_STATES.items() if word != "due")

    @property
    def compared(self) -> bool:
        """Whether there is a change to tell: none of ages, which only pass, nor where nothing could be read since."""
        if self.before is None or self.declared.is_age or not self.measured:
            return False
        return self.before.as_of != self.state.as_of or not (self.failed or self.stale)

    @property
    def change(self) -> int | float | None:
        """Since `before`, in the metric's unit; None where there is none to tell."""
        if self.before is None or not self.compared:
            return None
        now, then = self.state.value, self.before.value
        if not (is_number(now) and is_number(then)):
            return None
        by = now - then
        # What no digit of a double holds is no change: 0.1 + 0.2 is not quite 0.3
        return 0 if isinstance(by, float) and abs(by) < NOISE * abs(now) else by

    @property
    def gaps(self) -> tuple[Gap, ...]:
        return named_gaps(self.state.details, self.state.value)

    def number(self, value: Any, now: datetime) -> int | float | None:
        """A value as a number: an age in its unit at `now`; None where it is none."""
        if self.declared.is_age:
            seconds = age_of(value, now)
            return None if seconds is None else seconds / AGES[self.unit]
        return value if is_number(value) else None

    @property
    def weight(self) -> tuple[bool, bool, bool, int, bool]:
        """How much it matters, to be sorted by, the most important last."""
        severity = SEVERITIES.index(self.state.severity) if self.state.severity in SEVERITIES else 0
        return (bool(self.request), self.failed, bool(self.broken), severity, self.critical)

    @property
    def matters(self) -> bool:
        return bool(self.request) or self.failed or bool(self.broken) or self.drifted or self.critical


NOISE = 1e-12
"""Of a value: by so little two ways of reckoning the same differ."""
HEALTH_STATES: Mapping[str, Callable[[MetricHealth], object]] = {
    "waiting": lambda one: one.request,
    "failed": lambda one: one.failed,
    "beyond limits": lambda one: one.broken,
    "stale": lambda one: one.stale,
    "drifted": lambda one: one.drifted,
    "due": lambda one: one.state.due,
    "unmeasured": lambda one: not one.measured,
}
"""What may be the matter with a metric; several things may."""


def group_by_health(standings: Iterable[MetricHealth]) -> dict[str, list[str]]:
    """The metrics by what is the matter with them."""
    listed = list(standings)
    return {word: [one.metric for one in listed if true(one)] for word, true in HEALTH_STATES.items()}


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
    """How these metrics stand, by name, in two queries. `waiting`: the open requests. `since`: the instant that
    changes are told from. `series`: their days, where a report draws them."""
    known = metric_states.states_of(connection, names)
    before = point_in_time.values_at(connection, names, since)
    days = series or {}
    return {
        name: _standing(config, known[name], waiting.get(name), before.get(name), days.get(name, ()), now)
        for name in names
    }


def is_number(value: Any) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def any_number(one: MetricHealth) -> bool:
    """Whether a trend has anything to draw."""
    return any(is_number(day.value) for day in one.days)


def points_in_unit(points: Iterable[Point], metric: Metric | None, unit: str | None) -> list[Point]:
    """Those whose values have the unit that the metric has now, and failures, which have none; of an age all, as every
    unit fits an instant."""
    any_fits = metric is not None and metric.is_age
    return [one for one in points if any_fits or one.outcome == "failed" or one.unit == unit]


def _standing(
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
    broken = judge.format_broken_limit(state.value, now) if state.as_of else None
    declared, source = config.metrics[state.metric], config.source_of(state.metric)
    if before and not declared.is_age and before.unit != state.unit:
        before = None
    return MetricHealth(state.metric, declared, source, state, policy.critical, stale, broken, request, before, days)


def health_labels(one: MetricHealth, *, lasting: bool = False) -> list[str]:
    """What is the matter with a metric, worst first; nothing where it is well. `lasting`: only what does not come
    about by the mere passing of time."""
    found = [f"waits: request {one.request.id}"] if one.request else []
    found += ["failed"] if one.failed else []
    found += ["beyond its limit"] if one.broken and not (lasting and one.declared.is_age) else []
    found += [] if lasting or not one.stale else ["stale"]
    found += [str(one.state.status)] if one.drifted and not one.request else []
    found += [] if one.measured or one.failed else ["not measured yet"]
    return found


def health_sentence(health: dict[str, list[str]]) -> str:
    """A report's first sentence: `1 value waits for a person; 4 metrics could not be measured.`; where nothing is to
    be done, whether values drifted."""
    said = []
    for word, one, many in (
        ("waiting", "value waits for a person", "values wait for a person"),
        ("failed", "metric could not be measured", "metrics could not be measured"),
        ("beyond limits", "metric is beyond its limit", "metrics are beyond their limits"),
        ("stale", "metric is stale", "metrics are stale"),
        ("unmeasured", "metric was never measured", "metrics were never measured"),
    ):
        if health[word]:
            said.append(f"{len(health[word]):,} {one if len(health[word]) == 1 else many}")
    if said:
        return f"{'; '.join(said)}."
    drifted = len(health["drifted"])
    return f"Nothing needs a person; {count_metrics(drifted)} drifted." if drifted else "All is well."


PROBLEM_KEYS = ("request", "failed", "beyond", "stale", "drifted")


DOCUMENT_STATES: Mapping[str, Callable[[dict[str, Any]], object]] = {
    "waiting": lambda one: one["request"],
    "failed": lambda one: one["failed"],
    "limit": lambda one: one["beyond"],
    "stale": lambda one: one["stale"],
    "due": lambda one: one["due"],
    "unmeasured": lambda one: one["as_of"] is None,
    "drifted": lambda one: one["drifted"],
    "well": lambda one: not any(one[word] for word in PROBLEM_KEYS) and one["as_of"] is not None,
}
"""What may be the matter with a metric, of its document; several things may. The page has the same words."""
