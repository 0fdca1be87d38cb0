"""Policy that fits a metric's own history. Pure: accepted readings in, keys of policy with their reasons out.

Only what was accepted counts: a held or a rejected value says nothing of what is usual. What is far from usual is
found by quantiles, which a few odd days do not move:

| key | proposed |
|---|---|
| `thresholds` | major: twice what 95 % of the changes are, rounded up; the others as in the defaults |
| `require_approval_pct` | the same as major, for a critical metric |
| `min_abs` | of small whole numbers, where a step of one is many percent: what 95 % of the steps stay below |
| `volatility` | `stable` where 9 of 10 readings are as the one before |
| `stale_after` | three times what 95 % of the spans between readings are, in whole hours or days |
| `max_age` | of an age: half as much again as it was in 99 % of the readings |
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise
from statistics import median
from typing import Any

from dims_worker.config import Policy
from dims_worker.config.policy import Thresholds
from dims_worker.domain.decide import Baseline, Judge, drift_pct
from dims_worker.formatting import format_age, is_number
from dims_worker.probes.base import Value

FEWEST = 20
"""With fewer changes than this nothing is proposed."""
ROUND = (1, 2, 3, 5, 8, 10, 15, 20, 25, 30, 40, 50, 75, 100)
SMALL = 50
"""Whole numbers whose median is less are small."""
HOUR, DAY = timedelta(hours=1), timedelta(days=1)


@dataclass(frozen=True, slots=True)
class AcceptedReading:
    """A reading that was accepted, when it was measured."""

    as_of: datetime
    value: Value


@dataclass(frozen=True, slots=True)
class PolicyAdvice:
    """A key of policy, what is proposed for it (as the configuration is written), and why."""

    key: str
    value: Any
    reason: str


@dataclass(frozen=True, slots=True)
class Suggestion:
    """What is proposed, where it differs from today's policy. `today` and `then`: how often people would have been
    told or asked of these readings by today's policy, and by the proposed one. `too_few`: why nothing is proposed."""

    readings: int
    span: timedelta
    advice: tuple[PolicyAdvice, ...] = ()
    today: int = 0
    then: int = 0
    too_few: str | None = None


def suggest_policy(policy: Policy, accepted: Sequence[AcceptedReading], *, is_age: bool = False) -> Suggestion:
    """What fits these readings (oldest first) of a metric that is judged by `policy`."""
    span = accepted[-1].as_of - accepted[0].as_of if accepted else timedelta(0)
    if len(accepted) <= FEWEST:
        return Suggestion(len(accepted), span, too_few=f"nothing is proposed from fewer than {FEWEST + 1}")
    found = [*_spans(accepted), *(_ages(accepted) if is_age else _changes(policy, accepted))]
    proposed = policy.model_validate({**policy.model_dump(), **{one.key: one.value for one in found}})
    differs = tuple(one for one in found if getattr(proposed, one.key) != getattr(policy, one.key))
    return Suggestion(
        len(accepted), span, differs, _told(policy, accepted, is_age=is_age), _told(proposed, accepted, is_age=is_age)
    )


def _told(policy: Policy, accepted: Sequence[AcceptedReading], *, is_age: bool) -> int:
    """How often a verdict on one reading against the one before, and of a critical metric against what a person last
    accepted, would have gone to people, who approve."""
    judge, told = Judge(policy, is_age), 0
    person = Baseline(accepted[0].value)
    for old, new in pairwise(accepted):
        verdict = judge.decide(Baseline(old.value), new.value, person, new.as_of)
        told += verdict.tier != "auto"
        person = Baseline(new.value) if verdict.tier == "approve" else person
    return told


def _changes(policy: Policy, accepted: Sequence[AcceptedReading]) -> Iterator[PolicyAdvice]:
    pairs = [(old.value, new.value) for old, new in pairwise(accepted) if is_number(old.value) and is_number(new.value)]
    if len(pairs) < FEWEST:
        return
    moved = sum(old != new for old, new in pairs)
    stable = moved * 10 <= len(pairs)
    yield PolicyAdvice(
        "volatility",
        "stable" if stable else "volatile",
        f"{moved:,} of {len(pairs):,} readings differ from the one before",
    )
    drifts = [drift for old, new in pairs if (drift := drift_pct(old, new)) is not None]
    steps = [abs(new - old) for old, new in pairs if new != old]
    values = [abs(new) for _, new in pairs]
    if steps and median(values) < SMALL and all(isinstance(one, int) for one in values):
        usual = math.floor(quantile(steps, 0.95))
        yield PolicyAdvice(
            "min_abs", usual + 1, f"95 % of its steps are {usual:,} or less, of values about {median(values):g}"
        )
        drifts = [drift for old, new in pairs if abs(new - old) > usual and (drift := drift_pct(old, new)) is not None]
    yield from _thresholds(policy, drifts or [0.0])


def _thresholds(policy: Policy, drifts: Sequence[float]) -> Iterator[PolicyAdvice]:
    usual = quantile(drifts, 0.95)  # a spike is two changes: of sixty days one does not move it
    major = rounded_up(usual * 2)
    if major is None:
        return
    default = Thresholds()
    rising = {
        **{"moderate": _plain(major * default.moderate / default.major), "major": _plain(major)},
        **{"extreme": _plain(major * default.extreme / default.major)},
    }
    reason = f"95 % of {len(drifts):,} changes are {usual:.2g} % or less, and twice that is {usual * 2:.2g} %"
    yield PolicyAdvice("thresholds", rising, reason)
    if policy.critical:
        yield PolicyAdvice("require_approval_pct", _plain(major), "as far as major")


def _spans(accepted: Sequence[AcceptedReading]) -> Iterator[PolicyAdvice]:
    usual = timedelta(seconds=quantile([(b.as_of - a.as_of).total_seconds() for a, b in pairwise(accepted)], 0.95))
    if usual > timedelta(0):
        yield PolicyAdvice(
            "stale_after", _span(3 * usual), f"95 % of its readings come within {format_age(usual)} of the one before"
        )


def _ages(accepted: Sequence[AcceptedReading]) -> Iterator[PolicyAdvice]:
    ages = [
        (one.as_of - datetime.fromisoformat(one.value)).total_seconds()
        for one in accepted
        if isinstance(one.value, str)
    ]
    if len(ages) > FEWEST:
        usual = timedelta(seconds=quantile(ages, 0.99))
        yield PolicyAdvice("max_age", _span(1.5 * usual), f"in 99 % of its readings it was {format_age(usual)} or less")


def quantile(numbers: Sequence[float], share: float) -> float:
    """The least of the numbers that so large a share of them does not exceed (nearest rank)."""
    return sorted(numbers)[max(0, math.ceil(share * len(numbers)) - 1)]


def rounded_up(percent: float) -> float | None:
    """The next round percentage; None beyond 100, where a threshold says nothing."""
    return next((one for one in ROUND if one >= percent), None)


def _span(span: timedelta) -> str:
    """In whole hours below two days, else in whole days."""
    if span < 2 * DAY:
        return f"{max(1, math.ceil(span / HOUR))}h"
    return f"{math.ceil(span / DAY)}d"


def _plain(number: float) -> float | int:
    short = round(number, 2)
    return int(short) if short == int(short) else short
