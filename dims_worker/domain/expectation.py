"""The band in which a metric's next value is normal, learned from its accepted daily values. Pure and without training.

A *stock* keeps its value until something changes it: files, rows, bytes. Its next value is the last one plus the usual
step. A *flow* starts again every day: uploads, commits, errors. Its next value is the usual one for that weekday.

The band's edges come from how far past values were from what was expected of them, upwards and downwards apart. Both
directions allow a few exceptions a year. So the band of a metric that often jumps is wide, and one that never did is
narrow.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from itertools import pairwise
from typing import Literal

Kind = Literal["stock", "flow"]

MIN_VALUES = 14
"""With fewer values there is no expectation."""
HORIZON = 400
"""How many days back the history counts."""
LARGEST = 1e300
"""Larger values count as this one. Sums of two still fit a float."""

EXCEPTIONS = 0.010
"""The share of past steps, in each direction, that may lie outside the band."""
GROWTH_FLOOR = 0.018
"""A stock may always grow by this share of its value."""
LOSS_FLOOR = 0.0045
"""A stock may always shrink by this share of its value. A slow leak is a series of small losses."""
RECENT = 28
"""The days whose steps say how restless a metric is now."""

FLOW_EXCEPTIONS = 0.004
FLOW_MARGIN = 1.15
"""A flow's band is this much wider than what the history covers: chance alone exceeds the past now and then."""
MEMORY = 14
"""The days over which the level of a flow is averaged."""
WEEK = 7
FLOW_RATIO = 1.3
FLOW_CHANGES = 0.08


@dataclass(frozen=True, slots=True)
class Expectation:
    """The band from `low` to `high` in which a value is normal, and its parts, in the unit of the metric."""

    low: float
    high: float
    level: float
    """The value expected on that day, in the middle of what is usual."""
    trend: float
    """The usual change in a day."""
    weekday: float | None
    """What the day of the week adds to the level. None if the metric has no weekly pattern."""
    step: float
    """The usual size of a change, among the days on which the value changed. 0 if it never did."""
    kind: Kind
    values: int
    """How many values it was learned from."""

    def distance(self, value: float | Decimal) -> float:
        """Return how many band widths a value lies outside the band: 0.0 inside it, and at most LARGEST."""
        number = _float(value)
        outside = max(self.low - number, number - self.high)
        if not outside > 0:
            return 0.0
        width = self.high - self.low
        return LARGEST if width * LARGEST <= outside else min(outside / width, LARGEST)


@dataclass(frozen=True, slots=True)
class _Series:
    """Values of different days, oldest first."""

    days: list[int]
    values: list[float]


@dataclass(frozen=True, slots=True)
class _Band:
    """What a model expects: the level, and how far below and above it a value is normal."""

    level: float
    below: float
    above: float
    trend: float = 0.0
    weekday: float | None = None


def expected_band(history: Sequence[tuple[date, float]], day: date, min_abs: float = 0) -> Expectation | None:
    """Return the band in which a value measured on `day` is normal, or None if there are fewer than MIN_VALUES values.

    `history` holds accepted values of earlier days, oldest first, in the unit of the metric. Days may be missing. The
    band is never narrower than `min_abs` on either side of the level.
    """
    series = _recent(history, day)
    if len(series.values) < MIN_VALUES:
        return None
    steps = [after - before for before, after in pairwise(series.values)]
    flow = _is_flow(series.values, steps)
    band = _flow_band(series, day) if flow else _stock_band(series, steps, day)
    low = band.level - max(band.below, _float(min_abs))
    high = band.level + max(band.above, _float(min_abs))
    if min(series.values) >= 0:
        low = max(low, 0.0)
    changes = sorted(abs(step) for step in steps if step)
    return Expectation(
        low=_finite(low),
        high=_finite(max(high, low)),
        level=_finite(band.level),
        trend=_finite(band.trend),
        weekday=band.weekday,
        step=changes[len(changes) // 2] if changes else 0.0,
        kind="flow" if flow else "stock",
        values=len(series.values),
    )


def _recent(history: Sequence[tuple[date, float]], day: date) -> _Series:
    """Return the values of the last HORIZON days before `day`, one a day, as floats."""
    today = day.toordinal()
    values: dict[int, float] = {}
    for when, value in history[-2 * HORIZON :]:
        ordinal = when.toordinal()
        if today - HORIZON <= ordinal < today:
            values[ordinal] = _float(value)
    days = sorted(number for number, value in values.items() if not math.isnan(value))
    return _Series(days, [values[number] for number in days])


def _is_flow(values: list[float], steps: list[float]) -> bool:
    """Return whether values return to a level instead of staying where a step has brought them.

    The changes within a week are as small as those within a day in a flow, and several times as large in a stock.
    """
    changes = sum(1 for step in steps if step)
    if changes < max(6, FLOW_CHANGES * len(steps)):
        return False
    day = sorted(abs(step) for step in steps)
    week = sorted(abs(after - before) for before, after in zip(values, values[WEEK:], strict=False))
    kept = 0.95  # a few large steps must not decide
    daily = _mean(day[: math.ceil(kept * len(day))])
    weekly = _mean(week[: math.ceil(kept * len(week))])
    return weekly < FLOW_RATIO * daily


def _stock_band(series: _Series, steps: list[float], day: date) -> _Band:
    values, days = series.values, series.days
    last = values[-1]
    size = _mean([abs(value) for value in values[-RECENT:]])
    gaps = [after - before for before, after in pairwise(days)]
    usual_gap = sorted(gaps)[len(gaps) // 2]
    relative = [
        step / (max(abs(before), size) or 1.0) / _longer(gap, usual_gap)
        for step, before, gap in zip(steps, values, gaps, strict=False)
    ]
    usual = sorted(relative)[len(relative) // 2]
    deviations = [step - usual for step in relative]
    above = max(_tail(deviations, EXCEPTIONS), GROWTH_FLOOR)
    below = max(_tail([-step for step in deviations], EXCEPTIONS), LOSS_FLOOR)
    scale = max(abs(last), size)
    wait = day.toordinal() - days[-1]
    longer = _longer(wait, usual_gap)
    level = last + usual * scale * max(1.0, wait / usual_gap)
    tiny = math.ulp(last)
    return _Band(level, below * scale * longer + tiny, above * scale * longer + tiny, usual * scale / usual_gap)


def _flow_band(series: _Series, day: date) -> _Band:
    roots = [math.copysign(math.sqrt(abs(value)), value) for value in series.values]
    pattern = _weekly_pattern(series.days, roots)
    flat = [root - pattern[number % WEEK] for number, root in zip(series.days, roots, strict=True)]
    level = _mean(flat[:WEEK])
    misses = []
    for root in flat:
        misses.append(root - level)
        level += misses[-1] / MEMORY
    misses = misses[WEEK:]
    above = FLOW_MARGIN * max(0.0, _tail(misses, FLOW_EXCEPTIONS))
    below = FLOW_MARGIN * max(0.0, _tail([-miss for miss in misses], FLOW_EXCEPTIONS))
    offset = pattern[day.toordinal() % WEEK]
    expected = level + offset
    middle = _square(expected)
    return _Band(
        middle,
        middle - _square(expected - below),
        _square(expected + above) - middle,
        weekday=middle - _square(level) if any(pattern) else None,
    )


def _weekly_pattern(days: list[int], roots: list[float]) -> list[float]:
    """Return what each day of the week adds, from Monday's ordinal remainder on: zeros if there is no pattern."""
    by_weekday: list[list[float]] = [[] for _ in range(WEEK)]
    for number, root in zip(days, roots, strict=True):
        by_weekday[number % WEEK].append(root)
    if min(len(found) for found in by_weekday) < 3:
        return [0.0] * WEEK
    middle = _mean(roots)
    return [_mean(found) - middle for found in by_weekday]


def _longer(gap: int, usual: int) -> float:
    """Return how much larger steps are after a gap longer than usual: they add up like independent steps."""
    return math.sqrt(max(1.0, gap / usual))


def _tail(deviations: list[float], share: float) -> float:
    """Return the deviation that this share of all exceed, between two of them by interpolation."""
    ordered = sorted(deviations, reverse=True)
    place = min(share * len(ordered), len(ordered) - 1.0)
    first = int(place)
    if first + 1 >= len(ordered):
        return ordered[-1]
    return ordered[first] + (ordered[first + 1] - ordered[first]) * (place - first)


def _mean(numbers: Iterable[float]) -> float:
    """Return the mean, without an overflow."""
    found = list(numbers)
    return sum(number / len(found) for number in found)


def _square(root: float) -> float:
    return math.copysign(root * root, root)


def _float(value: float | Decimal) -> float:
    """Return a number as a float between -LARGEST and LARGEST."""
    try:
        number = float(value)
    except OverflowError:
        number = math.inf if value > 0 else -math.inf
    return number if math.isnan(number) else max(-LARGEST, min(number, LARGEST))


def _finite(number: float) -> float:
    return max(-sys.float_info.max, min(number, sys.float_info.max))
