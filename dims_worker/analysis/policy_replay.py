"""Replay the daily values of a metric under other policies: what each would have sent, and what it would have missed.

The replay assumes a person who knows what DIMS knows today. A value that was an incident, or that a person rejected,
never teaches once the policy notices it. A person accepts any other value that the policy notices. A value that the
policy does not notice is accepted and teaches.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from typing import Any

from sqlalchemy import Connection

from dims_worker.analysis.bands import does_not_teach
from dims_worker.analysis.suggestions import ROUND, PolicyAdvice, quantile
from dims_worker.config import Policy
from dims_worker.domain.decide import Baseline, Judge
from dims_worker.domain.expectation import HORIZON, MIN_VALUES, Expectation, expected_band
from dims_worker.formatting import is_number
from dims_worker.store.approval_requests import ApprovalRequest, list_requests
from dims_worker.store.history import Point
from dims_worker.store.incidents import Incident, list_incidents

REPLAYED = timedelta(days=90)
"""How far back the replay goes. What teaches its first day goes back further."""
MOST_CHANGES = 500
"""The most past requests and incidents of a metric that a replay reads."""
_JUDGED = ("accepted", "approved", "held", "rejected")
_HELD = ("approved", "held", "rejected")
_TICK = timedelta(microseconds=1)

Bands = Callable[[Sequence[tuple[date, float]], date, float], Expectation | None]


@dataclass(frozen=True, slots=True)
class PastChange:
    """A change that was an incident, or that a person was asked about: the readings after `after`, up to `until`.

    `kind` is `request` or `incident`, and `result` its state or how it ended. `until` is None while it lasts. `value`
    is its latest value. `expected` says that its values are normal since.
    """

    kind: str
    number: int
    result: str
    value: Any
    after: datetime
    until: datetime | None
    expected: bool

    def covers(self, point: Point) -> bool:
        """Return whether a reading belongs to this change. Accepted readings do not belong to a request."""
        if self.kind == "request" and point.outcome not in _HELD:
            return False
        return self.after < point.as_of and (self.until is None or point.as_of <= self.until)


@dataclass(frozen=True, slots=True)
class ReplayedPolicy:
    """What the current policy with these `changes` would have sent. `missed` are the changes that it would accept
    without a message."""

    changes: Mapping[str, Any]
    messages: int
    requests: int
    missed: tuple[PastChange, ...]


@dataclass(frozen=True, slots=True)
class Replay:
    """A replay of `values` daily values, and the policies: the current one first. `past` are the changes in it."""

    values: int
    past: tuple[PastChange, ...]
    policies: tuple[ReplayedPolicy, ...]


def load_replay(
    connection: Connection, metric: str, policy: Policy, points: Sequence[Point], advice: Sequence[PolicyAdvice]
) -> Replay | None:
    """Replay the readings of a metric, which are the oldest first and reach back REPLAYED and HORIZON days."""
    requests = list_requests(connection, limit=MOST_CHANGES, metric=metric)
    incidents = list_incidents(connection, limit=MOST_CHANGES, state="all", metrics=[metric])
    return replay_policies(policy, points, past_changes(requests, incidents), advice)


def past_changes(requests: Iterable[ApprovalRequest], incidents: Iterable[Incident]) -> list[PastChange]:
    """Return the changes that a policy should notice: requests that were not withdrawn, and the incidents of values
    that no person has called expected."""
    changes = [
        PastChange(
            "request",
            each.id,
            each.state,
            each.value,
            each.baseline_as_of or each.as_of - _TICK,
            None if each.state == "open" else each.as_of,
            each.state == "approved",
        )
        for each in requests
        if each.kind != "baseline" and each.state in ("open", "approved", "rejected", "expired")
    ]
    changes += [
        PastChange(
            "incident",
            each.id,
            each.resolution or each.state,
            each.value,
            each.first_as_of - _TICK,
            None if each.active else each.as_of,
            expected=False,
        )
        for each in incidents
        if does_not_teach(each) and each.kind != "limit" and each.first_as_of is not None
    ]
    return changes


def replay_policies(
    policy: Policy, points: Sequence[Point], past: Sequence[PastChange], advice: Sequence[PolicyAdvice] = ()
) -> Replay | None:
    """Replay readings, the oldest first, under the current policy and others. None if there are too few numbers."""
    numbers = [point for point in points if point.outcome in _JUDGED and is_number(point.value)]
    numbers = [point for point in numbers if point.unit == numbers[-1].unit]
    if not numbers:
        return None
    first = numbers[-1].as_of - REPLAYED
    before = list(_daily(point for point in numbers if point.as_of <= first))
    steps = list(_steps([point for point in numbers if point.as_of > first], past))
    if not before:  # the first value is the first baseline
        before, steps = [steps[0][0]], steps[1:]
    if len(steps) < MIN_VALUES:
        return None
    history = [point for point in before if not any(change.covers(point) and not change.expected for change in past)]
    timeline = _Timeline(history or before[-1:], steps, _remembered_bands())
    changes = [{}, *alternatives(policy, [point.value for point, _ in steps], advice)]
    policies = tuple(timeline.replay(policy, each) for each in changes)
    noticed = {change for _, change in steps if change is not None}
    return Replay(len(steps), tuple(change for change in past if change in noticed), policies)


def alternatives(policy: Policy, values: Sequence[Any], advice: Sequence[PolicyAdvice] = ()) -> list[dict[str, Any]]:
    """Return the keys that each other policy changes. The last one is the suggested policy, if there is one."""
    changes: list[dict[str, Any]] = [{"expect": "drift" if policy.expect == "history" else "history"}]
    if policy.direction == "both":
        changes.append({"direction": "down"})
    if policy.critical:
        limit = policy.require_approval_pct
        lower = max((step for step in ROUND if step < limit), default=None)
        higher = min((step for step in ROUND if step > limit), default=None)
        changes += [{"require_approval_pct": step} for step in (lower, higher) if step is not None]
    else:
        changes.append({"critical": True})
    suggested = {each.key: each.value for each in advice}
    min_abs = suggested.get("min_abs") or _usual_step(values)
    if min_abs and min_abs != policy.min_abs:
        changes.append({"min_abs": min_abs})
    judging = {key: value for key, value in suggested.items() if key not in ("stale_after", "max_age")}
    return [*changes, judging] if judging and judging not in changes else changes


def _usual_step(values: Sequence[Any]) -> float | int:
    """Return the step that 95 % of the changes do not exceed, in two digits, or 0."""
    steps = [abs(float(new) - float(old)) for old, new in pairwise(values) if new != old]
    if not steps:
        return 0
    rounded = float(f"{quantile(steps, 0.95):.2g}")
    return int(rounded) if rounded == int(rounded) else rounded


def _daily(points: Iterable[Point]) -> Iterator[Point]:
    """Yield the last reading of each day (UTC)."""
    yield from {point.as_of.astimezone(UTC).date(): point for point in points}.values()


def _steps(points: Sequence[Point], past: Sequence[PastChange]) -> Iterator[tuple[Point, PastChange | None]]:
    """Yield the last reading of each day, and the first one of each change, with the change that it belongs to."""
    kept = {id(point): None for point in _daily(points)}
    covered = [(point, next((change for change in past if change.covers(point)), None)) for point in points]
    begun: set[PastChange] = set()
    for point, change in covered:
        if id(point) in kept or (change is not None and change not in begun):
            yield point, change
        if change is not None:
            begun.add(change)


def _remembered_bands() -> Bands:
    """Return `expected_band` with a memory, because most policies learn from the same values."""
    known: dict[tuple[Any, ...], Expectation | None] = {}

    def band(history: Sequence[tuple[date, float]], day: date, min_abs: float) -> Expectation | None:
        key = (day, min_abs, tuple(history))
        if key not in known:
            known[key] = expected_band(history, day, min_abs)
        return known[key]

    return band


@dataclass(frozen=True, slots=True)
class _Timeline:
    """The readings before the replay, and its steps."""

    before: Sequence[Point]
    steps: Sequence[tuple[Point, PastChange | None]]
    bands: Bands

    def replay(self, policy: Policy, changes: Mapping[str, Any]) -> ReplayedPolicy:
        changed = policy.model_validate({**policy.model_dump(), **changes})
        run = _Run(Judge(changed), self.bands, [(_day(point), float(point.value)) for point in self.before])
        run.baseline = run.person = Baseline(self.before[-1].value)
        for point, change in self.steps:
            run.step(point, change)
        wanted = dict.fromkeys(change for _, change in self.steps if change is not None)
        missed = tuple(change for change in wanted if change not in run.noticed)
        return ReplayedPolicy(changes, run.messages, run.requests, missed)


class _Run:
    """The replay of one policy: what it has learned, the baseline, and what it has sent."""

    def __init__(self, judge: Judge, bands: Bands, history: list[tuple[date, float]]) -> None:
        self.judge, self.bands, self.history = judge, bands, history
        self.baseline = self.person = Baseline(None)
        self.messages = self.requests = 0
        self.noticed: set[PastChange] = set()
        self.lasting: PastChange | None = None

    def step(self, point: Point, change: PastChange | None) -> None:
        """Judge a reading. While an incident lasts, it sends nothing more, and its end sends one message."""
        if self.lasting is not None:
            if change == self.lasting:
                return
            self.messages += 1
            self.lasting = None
        policy = self.judge.policy
        band = None
        if policy.expect == "history":
            band = self.bands(self.history[-HORIZON:], _day(point), policy.min_abs)
        verdict = self.judge.decide(self.baseline, point.value, self.person, point.as_of, expected=band)
        if verdict.tier != "auto":
            self.messages += 1
            self.requests += verdict.tier == "approve"
            if change is not None:
                self.noticed.add(change)
                if not change.expected:
                    self.lasting = change
                    return
            self.person = Baseline(point.value)
        self.baseline = Baseline(point.value)
        self.history.append((_day(point), float(point.value)))


def _day(point: Point) -> date:
    return point.as_of.astimezone(UTC).date()
