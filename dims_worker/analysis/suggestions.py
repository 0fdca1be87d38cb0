"""Suggest a policy that fits the history of a metric, with a reason for each key.

Only accepted readings count, because a held or rejected value is not a usual one. The limits come from quantiles,
which a few unusual days do not move:

| key | suggestion |
|---|---|
| `thresholds` | major: twice the 95 % quantile of the changes, rounded up. The others keep their default ratio. |
| `require_approval_pct` | the same as major, for a critical metric |
| `min_abs` | for small whole numbers, where one step is many percent: above the 95 % quantile of the steps |
| `volatility` | `stable` if at least 9 of 10 readings equal the previous one |
| `stale_after` | three times the 95 % quantile of the time between readings, in whole hours or days |
| `max_age` | for an age: 1.5 times the 99 % quantile of the ages |
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from statistics import median
from typing import Any

from dims_worker.config import Policy
from dims_worker.config.policy import Thresholds
from dims_worker.domain.decide import Baseline, Judge, age_of, drift_pct
from dims_worker.formatting import format_age, format_exact, is_number
from dims_worker.numbers import Number, difference, same_number
from dims_worker.probes.base import Value

FEWEST = 20
"""The fewest changes that a suggestion needs."""
ROUND = (1, 2, 3, 5, 8, 10, 15, 20, 25, 30, 40, 50, 75, 100)
SMALL = 50
"""Whole numbers with a median below this are small."""
HOUR, DAY = timedelta(hours=1), timedelta(days=1)


@dataclass(frozen=True, slots=True)
class AcceptedReading:
    """The value of an accepted reading, and when it was measured."""

    as_of: datetime
    value: Value


@dataclass(frozen=True, slots=True)
class PolicyAdvice:
    """A policy key, the suggested value as the configuration writes it, and the reason."""

    key: str
    value: Any
    reason: str


@dataclass(frozen=True, slots=True)
class Suggestion:
    """The keys that should change. `today` and `then` count the readings that would have sent a notification or an
    approval request under the current and the suggested policy. `too_few` says why there is no suggestion."""

    readings: int
    span: timedelta
    advice: tuple[PolicyAdvice, ...] = ()
    today: int = 0
    then: int = 0
    too_few: str | None = None


def suggest_policy(policy: Policy, accepted: Sequence[AcceptedReading], *, is_age: bool = False) -> Suggestion:
    """Suggest changes to `policy` that fit these readings, which are the oldest first."""
    span = accepted[-1].as_of - accepted[0].as_of if accepted else timedelta(0)
    if len(accepted) <= FEWEST:
        return Suggestion(len(accepted), span, too_few=f"a suggestion needs at least {FEWEST + 1} accepted readings")
    advice = [*_spans(accepted), *(_ages(accepted) if is_age else _changes(policy, accepted))]
    suggested = policy.model_validate({**policy.model_dump(), **{each.key: each.value for each in advice}})
    differs = tuple(each for each in advice if getattr(suggested, each.key) != getattr(policy, each.key))
    today, then = (_count_notified(each, accepted, is_age=is_age) for each in (policy, suggested))
    return Suggestion(len(accepted), span, differs, today, then)


def _count_notified(policy: Policy, accepted: Sequence[AcceptedReading], *, is_age: bool) -> int:
    """Count the readings whose verdict would notify people, if they approved every request.

    Each reading is compared with the previous one and, for a critical metric, with the value last approved.
    """
    judge, notified = Judge(policy, is_age), 0
    person = Baseline(accepted[0].value)
    for old, new in pairwise(accepted):
        verdict = judge.decide(Baseline(old.value), new.value, person, new.as_of)
        notified += verdict.tier != "auto"
        person = Baseline(new.value) if verdict.tier == "approve" else person
    return notified


def _step(old: Number, new: Number) -> float:
    step = difference(new, old)
    return abs(float(step)) if isinstance(step, Decimal) else abs(step)


def _changes(policy: Policy, accepted: Sequence[AcceptedReading]) -> Iterator[PolicyAdvice]:
    pairs = [(old.value, new.value) for old, new in pairwise(accepted) if is_number(old.value) and is_number(new.value)]
    if len(pairs) < FEWEST:
        return
    moved = sum(not same_number(old, new) for old, new in pairs)
    stable = moved * 10 <= len(pairs)
    yield PolicyAdvice(
        "volatility",
        "stable" if stable else "volatile",
        f"{moved:,} of {len(pairs):,} readings differ from the previous one",
    )
    drifts = [drift for old, new in pairs if (drift := drift_pct(old, new)) is not None]
    steps = [_step(old, new) for old, new in pairs if not same_number(new, old)]
    values = [abs(float(new)) if isinstance(new, Decimal) else abs(new) for _, new in pairs]
    if steps and median(values) < SMALL and all(isinstance(value, int) for value in values):
        usual = math.floor(quantile(steps, 0.95))
        yield PolicyAdvice(
            "min_abs",
            usual + 1,
            f"95 % of its steps are {usual:,} or less, and its median is {format_exact(median(values))}",
        )
        drifts = [drift for old, new in pairs if _step(old, new) > usual and (drift := drift_pct(old, new)) is not None]
    yield from _thresholds(policy, drifts or [0.0])


def _thresholds(policy: Policy, drifts: Sequence[float]) -> Iterator[PolicyAdvice]:
    usual = quantile(drifts, 0.95)  # one spike is two changes, which do not move the quantile of sixty days
    major = rounded_up(usual * 2)
    if major is None:
        return
    default = Thresholds()
    rising = {
        "moderate": _plain(major * default.moderate / default.major),
        "major": _plain(major),
        "extreme": _plain(major * default.extreme / default.major),
    }
    reason = f"95 % of {len(drifts):,} changes are {_short(usual)} % or less, and twice that is {_short(usual * 2)} %"
    yield PolicyAdvice("thresholds", rising, reason)
    if policy.critical:
        yield PolicyAdvice("require_approval_pct", _plain(major), "the same as major")


def _spans(accepted: Sequence[AcceptedReading]) -> Iterator[PolicyAdvice]:
    usual = timedelta(seconds=quantile([(b.as_of - a.as_of).total_seconds() for a, b in pairwise(accepted)], 0.95))
    if usual > timedelta(0):
        yield PolicyAdvice(
            "stale_after", _span(3 * usual), f"95 % of its readings come within {format_age(usual)} of the previous one"
        )


def _ages(accepted: Sequence[AcceptedReading]) -> Iterator[PolicyAdvice]:
    ages = [age for reading in accepted if (age := age_of(reading.value, reading.as_of)) is not None]
    if len(ages) > FEWEST:
        usual = timedelta(seconds=quantile(ages, 0.99))
        yield PolicyAdvice("max_age", _span(1.5 * usual), f"in 99 % of its readings it was {format_age(usual)} or less")


def quantile(numbers: Sequence[float], share: float) -> float:
    """Return the quantile of the numbers by the nearest-rank method."""
    return sorted(numbers)[max(0, math.ceil(share * len(numbers)) - 1)]


def rounded_up(percent: float) -> float | None:
    """Return the next round percentage, or None above 100, where a threshold is of no use."""
    return next((step for step in ROUND if step >= percent), None)


def _span(span: timedelta) -> str:
    """Return a duration in whole hours below two days, or else in whole days."""
    if span < 2 * DAY:
        return f"{max(1, math.ceil(span / HOUR))}h"
    return f"{math.ceil(span / DAY)}d"


def _short(percent: float) -> str:
    """Return a percentage with two significant digits or, from 100 on, without decimals."""
    return f"{percent:.2g}" if percent < 99.5 else f"{percent:,.0f}"


def _plain(number: float) -> float | int:
    short = round(number, 2)
    return int(short) if short == int(short) else short
