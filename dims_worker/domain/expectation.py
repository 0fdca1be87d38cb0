"""The band in which a metric's next value is normal, learned from its accepted daily values. Pure and without training.

A *stock* keeps its value until something changes it: files, rows, bytes. Its next value is the last value plus the
usual step. A *flow* begins at zero each day: uploads, commits, errors. Its next value is the usual value of that
weekday.

The edges of the band come from how far earlier values were from what was expected of them. DIMS computes them upwards
and downwards apart, because most metrics grow in small steps and rarely shrink. The constants were chosen on real
histories and on synthetic ones. docs/decisions/0034 shows what each of them costs.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from itertools import accumulate, pairwise
from typing import Literal

Kind = Literal["stock", "flow"]

MIN_VALUES = 14
"""With fewer values there is no expectation."""
HORIZON = 400
"""How many days of the history count."""
LARGEST = 1e300
"""A larger value counts as this one. The sum of two is still a float."""
FARTHEST = 1e9
"""The largest distance from a band, in band widths."""
WEEK = 7
SIGMAS = 1.4826
"""The standard deviation of normally distributed numbers, in units of their median distance from the mean."""
NOISE = 3.3 * SIGMAS
"""A stock that changes a little every day may change by this many median changes. A normal one exceeds it once in
three years."""

EXCEPTIONS = 0.008
"""The share of the earlier steps of a stock that may lie outside the band, in each direction: three a year."""
GROWTH = 0.02
"""A stock may always grow by this share of its value."""
LOSS = 0.005
"""A stock may always shrink by this share of its value."""
RECENT = 28
"""Over this many values, DIMS averages the size of a stock, and sees whether it changes often now."""
RECENT_RANK = 3
RECENT_FACTOR = 2.0
"""The band includes this many times the third largest of the recent steps. Large steps come in groups."""
STABLE = 90
"""With at least this many values, all of them equal, any change is outside the band."""

LEAK_LOSS = 0.025
"""A stock may always lose this share of its value in small losses within LEAK_VALUES values."""
LEAK_VALUES = 7
LEAK_ROOM = 0.001
"""After that, it may still lose this share."""
LEAK_EXCEPTIONS = 0.01
"""The share of the earlier weeks of a stock in which it lost more in small losses than the band allows."""
LEAK_FACTOR = 1.2
"""A stock may lose this many times what it lost in the earlier weeks."""

FLOW_CHANGES = 0.08
"""A flow has another value than the day before on at least this share of days."""
FLOW_RATIO = 1.3
"""The changes of a flow within a week are at most this many times those within a day."""
FLOW_KEPT = 0.95
"""The share of the changes that decides about it. A few large ones must not."""
FLOW_EXCEPTIONS = 0.004
"""The share of the earlier values of a flow that may lie outside the band, in each direction."""
FLOW_FACTOR = 1.15
"""The band of a flow is this many times as wide as the history requires. The next value may be the most extreme."""
FLOW_NOISE = 3.5 * SIGMAS
"""A flow may be away from its level by this many median distances."""
FLOW_YOUNG = 10
"""Of a flow of this many values, the band is twice as wide, because its level and its noise are uncertain."""
LEVEL_MEMORY = 14
"""Over this many values, DIMS averages the level of a flow."""
SPREAD_MEMORY = 60
"""Over this many values, DIMS averages how far values are from that level."""
TREND_VALUES = 56
"""Over this many values, DIMS sees whether a flow grows or shrinks."""
SPIKE = 4.0
"""A value this many times the usual distance from the level counts as if it were no farther away."""
NEW_LEVEL = 3
"""This many such values in a row begin a new level."""
PATTERN_WEEKS = 3
"""With fewer values of a weekday, a flow has no weekly pattern."""
PATTERN_F = 4.0
"""The weekdays of a flow differ if their F statistic is above this one. By chance it is so once in 1,000 flows."""
SILENCE_WEEKS = 8
"""If a flow was busy on this weekday in each of so many weeks, next to nothing is outside the band."""
SILENCE_LEAST = 2
SILENCE_SHARE = 0.25
"""Busy means: more than SILENCE_LEAST, and more than this share of the median of those weeks."""
SILENCE_EDGE = 0.1
"""Next to nothing means: less than this share of the smallest value in those weeks."""


@dataclass(frozen=True, slots=True)
class Expectation:
    """The band from `low` to `high` in which a value is normal, and its parts, in the unit of the metric."""

    low: float
    high: float
    level: float
    """The value that is expected on that day."""
    trend: float
    """The usual change of the value, or of the level of a flow, in a day."""
    weekday: float | None
    """What that day of the week adds to the level. None if the metric has no weekly pattern."""
    step: float
    """The median size of a change between two values, without the days on which nothing changed. 0 if nothing did."""
    kind: Kind
    values: int
    """From how many values it was learned."""

    def distance(self, value: float | Decimal) -> float:
        """Return how many band widths a value lies outside the band: 0.0 inside it, and at most FARTHEST.

        A band narrower than a stock's smallest tolerance counts as that wide. Otherwise any change of a metric that
        never changed would be as far outside as its loss.
        """
        number = _float(value)
        outside = max(self.low - number, number - self.high)
        if not outside > 0:
            return 0.0
        width = max(self.high - self.low, (GROWTH + LOSS) * abs(self.level))
        return outside / width if outside < width * FARTHEST else FARTHEST


@dataclass(frozen=True, slots=True)
class _Series:
    """Values of different days, as ordinals, oldest first."""

    days: list[int]
    values: list[float]


@dataclass(frozen=True, slots=True)
class _Band:
    """What a model expects: the level, how far below and above it a value is normal, and the parts of the level."""

    level: float
    below: float
    above: float
    trend: float
    weekday: float | None = None


def expected_band(history: Sequence[tuple[date, float]], day: date, min_abs: float = 0) -> Expectation | None:
    """Return the band in which a value measured on `day` is normal, or None if there are fewer than MIN_VALUES values.

    `history` holds accepted values, oldest first, in the unit of the metric. Days may be missing. Values of `day` and
    later do not count. The band is never narrower than `min_abs` on either side of the level, and never negative if
    no value was. That of a stock contains its last value, because `day` may have only begun.
    """
    series = _recent(history, day)
    if len(series.values) < MIN_VALUES:
        return None
    steps = [after - before for before, after in pairwise(series.values)]
    flow = _is_flow(series.values, steps)
    band = _flow_band(series, day) if flow else _stock_band(series, steps, day)
    never_negative = min(series.values) >= 0
    level = max(band.level, 0.0) if never_negative else band.level
    least = _float(min_abs)
    low = level - max(band.below, least)
    high = level + max(band.above, least)
    if not flow:  # until the usual step of the day has come, the value is still the last one
        low, high = min(low, series.values[-1] - least), max(high, series.values[-1] + least)
    changes = sorted(abs(step) for step in steps if step)
    return Expectation(
        low=_finite(max(low, 0.0) if never_negative else low),
        high=_finite(high),
        level=_finite(level),
        trend=_finite(band.trend),
        weekday=None if band.weekday is None else _finite(band.weekday),
        step=changes[len(changes) // 2] if changes else 0.0,
        kind="flow" if flow else "stock",
        values=len(series.values),
    )


def _recent(history: Sequence[tuple[date, float]], day: date) -> _Series:
    """Return the values of the last HORIZON days before `day`, the last value of each day, as floats."""
    today = day.toordinal()
    by_day: dict[int, float] = {}
    for when, value in history[-HORIZON:]:
        number = value if type(value) is float and -LARGEST <= value <= LARGEST else _float(value)
        if not math.isnan(number):
            by_day[when.toordinal()] = number
    days = sorted(number for number in by_day if today - HORIZON <= number < today)
    return _Series(days, [by_day[number] for number in days])


def _is_flow(values: list[float], steps: list[float]) -> bool:
    """Return whether values return to a level. The values of a stock stay where a step has brought them.

    The changes of a flow within a week are as small as those within a day. Those of a stock add up.
    """
    changes = sum(1 for step in steps if step)
    if changes < FLOW_CHANGES * len(steps) or changes < WEEK:
        return False
    weekly = [after - before for before, after in zip(values, values[WEEK:], strict=False)]
    return _usual_size(weekly) < FLOW_RATIO * _usual_size(steps)


def _usual_size(changes: list[float]) -> float:
    """Return the mean size of changes, without the largest."""
    sizes = sorted(map(abs, changes))
    return _mean(sizes[: math.ceil(FLOW_KEPT * len(sizes))])


def _stock_band(series: _Series, steps: list[float], day: date) -> _Band:
    """Return the last value plus the usual step. Steps are shares of the value before them, so they grow with it."""
    values, days = series.values, series.days
    size = _mean([abs(value) for value in values[-RECENT:]]) or max(abs(value) for value in values)
    gaps = [after - before for before, after in pairwise(days)]
    usual_gap = _median(gaps)
    shares = [
        step / max(abs(before), size) / (1.0 if gap <= usual_gap else math.sqrt(gap / usual_gap)) if step else 0.0
        for step, before, gap in zip(steps, values, gaps, strict=False)
    ]
    usual = _median(shares)
    below, above = _stock_edges([share - usual for share in shares])
    if len(values) >= STABLE and not any(steps):
        below = above = 0.0
    scale = max(abs(values[-1]), size)
    waited = max(1.0, (day.toordinal() - days[-1]) / usual_gap)
    spread = scale * math.sqrt(waited)  # what happens on different days adds up like independent steps
    rounding = math.ulp(scale)
    return _Band(
        level=values[-1] + usual * scale * waited,
        below=below * spread + rounding,
        above=above * spread + rounding,
        trend=usual * scale / usual_gap,
    )


def _stock_edges(deviations: list[float]) -> tuple[float, float]:
    """Return how far below and above the usual step the next step may be, as shares of the value."""
    sizes = [abs(deviation) for deviation in deviations]
    recent = sorted(sizes[-RECENT:])[-RECENT_RANK]
    either = max(NOISE * _median(sizes), RECENT_FACTOR * recent)
    above = max(GROWTH, either, _tail(deviations, EXCEPTIONS))
    below = max(LOSS, either, _tail([-deviation for deviation in deviations], EXCEPTIONS))
    return min(below, _leak_room(deviations, below, above)), above


def _leak_room(deviations: list[float], below: float, above: float) -> float:
    """Return what is left of the share that a stock may lose within a week, after the losses of the last days.

    Only steps inside the band count. A larger step was judged by itself, and began a new level.
    """
    small = [deviation if -below <= deviation <= above else 0.0 for deviation in deviations]
    sums = list(accumulate(small, initial=0.0))
    losses = [before - after for before, after in zip(sums, sums[LEAK_VALUES:], strict=False)]
    usual = max(NOISE * _median([abs(loss) for loss in losses]), LEAK_FACTOR * _tail(losses, LEAK_EXCEPTIONS))
    lost = sums[-LEAK_VALUES] - sums[-1]
    return max(LEAK_ROOM, max(LEAK_LOSS, usual) - max(0.0, lost))


def _flow_band(series: _Series, day: date) -> _Band:
    """Return the level of the last weeks plus what the weekday adds, in square roots.

    The square roots of counts vary equally whatever the level is (Bartlett 1936).
    """
    roots = [math.copysign(math.sqrt(abs(value)), value) for value in series.values]
    pattern = _weekly_pattern(series.days, roots)
    level, spread, distances = _follow(
        [root - pattern[number % WEEK] for number, root in zip(series.days, roots, strict=True)]
    )
    lag = _median(distances[-TREND_VALUES:])  # of a growing flow, most values are above the average before them
    level += lag * spread
    apart = [distance - lag for distance in distances]
    noise = FLOW_NOISE * _median([abs(distance) for distance in apart])
    unit = spread * (1 + FLOW_YOUNG / len(apart))
    above = unit * max(noise, FLOW_FACTOR * _tail(apart, FLOW_EXCEPTIONS))
    below = unit * max(noise, FLOW_FACTOR * _tail([-distance for distance in apart], FLOW_EXCEPTIONS))
    expected = level + pattern[day.toordinal() % WEEK]
    middle = _square(expected)
    rounding = math.ulp(middle)
    low = max(_square(expected - below) - rounding, _silence_edge(series, day))
    days_per_value = (series.days[-1] - series.days[0]) / (len(series.days) - 1)
    return _Band(
        level=middle,
        below=middle - low,
        above=_square(expected + above) - middle + rounding,
        trend=2 * abs(expected) * lag * spread / LEVEL_MEMORY / days_per_value,
        weekday=middle - _square(level) if any(pattern) else None,
    )


def _weekly_pattern(days: list[int], roots: list[float]) -> list[float]:
    """Return what each day of the week adds, by the remainder of its ordinal: zeros if the days do not differ."""
    by_weekday: list[list[float]] = [[] for _ in range(WEEK)]
    for number, root in zip(days, roots, strict=True):
        by_weekday[number % WEEK].append(root)
    if min(len(same) for same in by_weekday) < PATTERN_WEEKS:
        return [0.0] * WEEK
    middle = _mean(roots)
    pattern = [_mean(same) - middle for same in by_weekday]
    between = sum(len(same) * (added * added) for same, added in zip(by_weekday, pattern, strict=True))
    total = sum((root - middle) ** 2 for root in roots)
    f_above_limit = between / (WEEK - 1) > PATTERN_F * (total - between) / (len(roots) - WEEK)
    return pattern if f_above_limit else [0.0] * WEEK


def _follow(values: list[float]) -> tuple[float, float, list[float]]:
    """Return the level after the last value, the usual distance from it, and the distance of each value in that unit.

    One value moves the level little, however far away it is. NEW_LEVEL of them on the same side begin a new level.
    """
    level = _median(values[:LEVEL_MEMORY])
    spread = least = _mean([abs(value - level) for value in values]) or 1.0
    distances: list[float] = []
    run = 0
    for place, value in enumerate(values, start=1):
        distance = (value - level) / spread
        distances.append(distance)
        side = 0 if abs(distance) < SPIKE else 1 if distance > 0 else -1
        run = run + side if run * side > 0 else side
        if abs(run) == NEW_LEVEL:
            latest = values[place - NEW_LEVEL : place]
            level = _mean(latest)
            distances[-NEW_LEVEL:] = [(value - level) / spread for value in latest]
            run = 0
            continue
        counted = max(-SPIKE, min(distance, SPIKE))
        level += counted * spread / LEVEL_MEMORY
        spread = max(spread + (abs(counted) - 1) * spread / SPREAD_MEMORY, least / 4)
    return level, spread, distances


def _silence_edge(series: _Series, day: date) -> float:
    """Return the least that a flow brings if it is alive, or minus infinity if it sometimes brings nothing."""
    today = day.toordinal()
    first = today - WEEK * SILENCE_WEEKS
    tail = zip(series.days[-WEEK * SILENCE_WEEKS :], series.values[-WEEK * SILENCE_WEEKS :], strict=True)
    same = [value for number, value in tail if number >= first and (today - number) % WEEK == 0]
    if len(same) < SILENCE_WEEKS:
        return -math.inf
    least = min(same)
    busy = least > SILENCE_LEAST and least > SILENCE_SHARE * _median(same)
    return SILENCE_EDGE * least if busy else -math.inf


def _tail(numbers: list[float], share: float) -> float:
    """Return the number that this share of all exceed, and at least one. Between two of them, interpolate."""
    ordered = sorted(numbers, reverse=True)
    place = max(1.0, share * len(ordered))
    first = int(place)
    return ordered[first] + (ordered[first + 1] - ordered[first]) * (place - first)


def _median(numbers: Sequence[float]) -> float:
    """Return the upper median."""
    return sorted(numbers)[len(numbers) // 2]


def _mean(numbers: list[float]) -> float:
    """Return the mean, also of numbers whose sum is too large for a float."""
    total = sum(numbers)
    return total / len(numbers) if math.isfinite(total) else sum(number / len(numbers) for number in numbers)


def _square(root: float) -> float:
    """Return the number with this root. A negative number has a negative root."""
    return math.copysign(root * root, root)


def _float(value: float | Decimal) -> float:
    """Return a number as a float from -LARGEST to LARGEST, or NaN."""
    try:
        number = float(value)
    except OverflowError:  # an int with over 300 digits
        return LARGEST if value > 0 else -LARGEST
    return number if math.isnan(number) else max(-LARGEST, min(number, LARGEST))


def _finite(number: float) -> float:
    return max(-sys.float_info.max, min(number, sys.float_info.max))
