"""The expected band contains ordinary values of stocks and flows, and no losses."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from benchmarks import expectation as benchmark
from dims_worker.domain.expectation import FARTHEST, HORIZON, MIN_VALUES, Expectation, expected_band
from tests.fixtures.daily_series import KINDS, START, daily_series

REAL = Path(__file__).parents[4] / "shared" / "series"
WORKDAYS = [100, 104, 97, 102, 95, 6, 3]
"""A week of a flow, from Monday on."""


def daily(values: Sequence[Any], start: date = START, gap: int = 1) -> list[tuple[date, Any]]:
    return [(start + timedelta(days=gap * number), value) for number, value in enumerate(values)]


def band_after(values: Sequence[Any], min_abs: float = 0) -> Expectation:
    """Return the band of the day after these daily values, the first of which is of a Monday."""
    band = expected_band(daily(values), START + timedelta(days=len(values)), min_abs)
    assert band is not None
    return band


def inside(band: Expectation, value: Any) -> bool:
    assert (band.distance(value) == 0) == (band.low <= value <= band.high)
    return band.distance(value) == 0


def growing(days: int = 120, start: int = 4000, step: int = 10) -> list[int]:
    chance = random.Random(3)
    values = [start]
    for _ in range(days - 1):
        values.append(values[-1] + step + chance.randrange(-step // 2, step // 2 + 1))
    return values


def weekdays(weeks: int = 20, week: Sequence[int] = WORKDAYS) -> list[int]:
    """Return the values of weeks that end on a Sunday, and vary by a few percent."""
    chance = random.Random(5)
    return [max(0, round(value * chance.gauss(1, 0.04))) for _ in range(weeks) for value in week]


# How much history


def test_there_is_no_band_for_fewer_than_fourteen_values() -> None:
    assert expected_band([], START) is None
    assert expected_band(daily([5] * (MIN_VALUES - 1)), START + timedelta(days=20)) is None
    assert expected_band(daily([5] * MIN_VALUES), START + timedelta(days=20)) is not None


def test_values_of_the_day_itself_and_of_later_days_do_not_count() -> None:
    values = [*[100] * 30, 900, 900]
    band = expected_band(daily(values), START + timedelta(days=30))
    assert band is not None
    assert band.values == 30
    assert not inside(band, 900)


def test_values_older_than_the_horizon_do_not_count() -> None:
    old, new = daily([7] * 50), daily([100] * 20, START + timedelta(days=50 + HORIZON))
    band = expected_band([*old, *new], new[-1][0] + timedelta(days=1))
    assert band is not None
    assert (band.values, band.level) == (20, 100)
    assert expected_band(old, START + timedelta(days=50 + HORIZON)) is None


def test_the_last_value_of_a_day_counts() -> None:
    doubled = [pair for day, value in daily([100] * 20) for pair in ((day, 5), (day, value))]
    band = expected_band(doubled, START + timedelta(days=20))
    assert band is not None
    assert (band.values, band.level) == (20, 100)


# Stocks


@pytest.mark.parametrize("size", [4, 273, 4000, 6_200_592, 8e12])
def test_a_loss_from_a_steady_stock_is_outside(size: float) -> None:
    for values in ([size] * 14, [size] * 200, [round(size * (1 + number / 5000)) for number in range(200)]):
        band = band_after(values)
        assert band.kind == "stock"
        assert inside(band, values[-1])
        assert not inside(band, values[-1] * 0.7)
        assert band.distance(values[-1] * 0.7) > 2
        assert not inside(band, values[-1] * 2)


def test_any_change_of_a_stock_that_never_changed_in_three_months_is_outside_and_a_small_one_is_near() -> None:
    band = band_after([273] * 100)
    assert not inside(band, 272)
    assert not inside(band, 274)
    assert band.distance(272) < 0.5
    assert band.distance(200) > 2
    assert inside(band_after([2730] * 30), 2729)  # it has not proved yet that it never changes


def test_the_band_of_a_growing_stock_moves_with_it() -> None:
    values = growing()
    band = band_after(values)
    assert band.kind == "stock"
    assert 8 < band.trend < 12
    assert band.level == pytest.approx(values[-1] + band.trend)
    assert inside(band, values[-1] + 15)
    assert inside(band, values[-1])
    assert not inside(band, values[-1] * 0.97)
    assert not inside(band, values[-1] * 1.05)


def test_a_step_that_was_accepted_begins_a_new_level_at_once() -> None:
    values = [*growing(), 6000]
    band = band_after(values)
    assert band.level == pytest.approx(6000, rel=0.01)
    assert inside(band, 6010)
    assert not inside(band, values[-2])


def test_one_accepted_spike_does_not_widen_the_band() -> None:
    for spike in (1e3, 1e9, 0):
        values = growing()
        values[80] = int(spike)
        band, calm = band_after(values), band_after(growing())
        assert band.high - band.low < 2 * (calm.high - calm.low)
        assert not inside(band, values[-1] * 0.9)


def test_a_stock_that_often_takes_large_steps_has_a_wide_band() -> None:
    chance = random.Random(1)
    values = [1000.0]
    for _ in range(200):
        values.append(values[-1] * (chance.uniform(0.9, 1.12) if chance.random() < 0.3 else 1))
    assert inside(band_after(values), values[-1] * 1.08)
    assert not inside(band_after(growing()), growing()[-1] * 1.08)
    assert band_after(values).step > 0.01 * values[-1]


def test_a_slow_leak_leaves_the_band_before_it_has_taken_a_tenth() -> None:
    values: list[float] = list(growing(step=30))
    for number in range(1, 31):
        leaking = growing(step=30)[-1] * (1 - 0.01) ** number
        if not inside(band_after(values), leaking):
            break
        values.append(leaking)
    assert number <= 3


def test_small_losses_add_up() -> None:
    values = [10_000.0] * 60
    while len(values) < 90 and inside(band_after(values), values[-1] * 0.996):  # each loss is within the tolerance
        values.append(values[-1] * 0.996)
    assert 61 <= len(values) <= 67


def test_the_band_of_a_stock_is_as_wide_after_a_restart_from_zero() -> None:
    band = band_after([*[500] * 40, *[0] * 40])
    assert inside(band, 0)
    assert not inside(band, 500)


# Flows


def test_a_weekday_pattern_is_inside() -> None:
    values = weekdays()
    for number, usual in enumerate(WORKDAYS):
        band = band_after([*values, *WORKDAYS[:number]])
        assert band.kind == "flow"
        assert inside(band, usual)
        assert band.weekday is not None
        assert (band.weekday > 0) == (usual > 50)


def test_the_silence_of_a_feed_with_a_weekday_pattern_is_outside_on_workdays() -> None:
    values = weekdays()
    assert not inside(band_after(values), 0)  # Monday
    assert not inside(band_after(values), 6)
    saturday = band_after([*values, *WORKDAYS[:5]])
    assert inside(saturday, 4)
    assert not inside(saturday, 100)


def test_the_silence_of_a_small_feed_is_outside() -> None:
    chance = random.Random(2)
    values = [chance.choice((3, 5, 8, 4, 12)) for _ in range(120)]
    band = band_after(values)
    assert band.kind == "flow"
    assert not inside(band, 0)
    assert inside(band, 3)


def test_a_flow_without_a_pattern_has_no_weekday() -> None:
    chance = random.Random(4)
    band = band_after([chance.randrange(80, 121) for _ in range(120)])
    assert (band.kind, band.weekday) == ("flow", None)
    assert abs(band.level - 100) < 8
    assert inside(band, 85)
    assert not inside(band, 30)


def test_one_accepted_spike_does_not_move_the_level_of_a_flow() -> None:
    values = weekdays()
    calm = band_after(values)
    values[-7] = 100_000
    band = band_after(values)
    assert band.level < 1.3 * calm.level
    assert not inside(band, 0)


def test_three_values_begin_a_new_level_of_a_flow() -> None:
    chance = random.Random(4)
    values = [chance.randrange(90, 111) for _ in range(120)]
    assert not inside(band_after(values), 400)
    assert inside(band_after([*values, 400, 410, 395]), 405)


def test_a_flow_that_often_brings_nothing_may_bring_nothing() -> None:
    chance = random.Random(6)
    values = [chance.randrange(1, 50) if chance.random() < 0.3 else 0 for _ in range(200)]
    band = band_after(values)
    assert band.kind == "flow"
    assert inside(band, 0)
    assert inside(band, 40)
    assert band.low == 0


def test_a_growing_flow_has_a_trend() -> None:
    chance = random.Random(7)
    values = [round(1000 * 1.005**number * chance.gauss(1, 0.05)) for number in range(200)]
    band = band_after(values)
    assert band.kind == "flow"
    assert band.trend == pytest.approx(0.005 * band.level, rel=0.5)


# Gaps, units and extremes


def test_a_metric_that_is_measured_weekly_has_a_band() -> None:
    values = growing(days=50, step=40)
    weekly = daily(values, gap=7)
    band = expected_band(weekly, weekly[-1][0] + timedelta(days=7))
    assert band is not None
    assert band.kind == "stock"
    assert band.level == pytest.approx(values[-1] + 40, rel=0.01)
    assert 4 < band.trend < 8
    assert inside(band, values[-1] + 45)
    assert not inside(band, values[-1] * 0.7)


def test_the_band_is_wider_after_a_gap_and_a_loss_is_still_outside() -> None:
    values = growing()
    history = daily(values)
    soon, later = (expected_band(history, history[-1][0] + timedelta(days=days)) for days in (1, 30))
    assert soon is not None
    assert later is not None
    assert later.high - later.low > soon.high - soon.low
    assert inside(later, values[-1] + 300)
    assert not inside(soon, values[-1] + 300)
    assert not inside(later, values[-1] * 0.7)


def test_days_without_a_value_count_as_no_step() -> None:
    values = daily(growing())
    sparse = [pair for number, pair in enumerate(values) if number % 11 or number < 5]
    band = expected_band(sparse, values[-1][0] + timedelta(days=1))
    assert band is not None
    assert not inside(band, values[-1][1] * 0.95)
    assert inside(band, values[-1][1] + 10)


@pytest.mark.parametrize("values", [[20] * 30, growing(), weekdays(), [0] * 30])
def test_the_band_is_never_narrower_than_min_abs(values: list[int]) -> None:
    band = band_after(values, min_abs=6000)
    assert band.high >= band.level + 6000
    assert band.low == 0  # no value was below zero
    below = band_after([value - 100_000 for value in values], min_abs=6000)
    assert below.low <= below.level - 6000


def test_a_count_is_never_expected_to_be_negative() -> None:
    chance = random.Random(8)
    for values in ([chance.choice((0, 0, 1, 9)) for _ in range(90)], [1, 5] * 30, [0] * 30):
        assert band_after(values).low >= 0
    assert band_after([number - 100 for number in growing(start=0, step=1)]).low < 0


def test_negative_values_have_a_band() -> None:
    values = [-value for value in growing()]
    band = band_after(values)
    assert band.low < band.level < band.high < 0
    assert inside(band, values[-1] - 10)
    assert not inside(band, values[-1] * 0.7)
    assert not inside(band, values[-1] * 1.3)


def test_fractions_have_a_band() -> None:
    chance = random.Random(9)
    values = [round(0.97 + chance.gauss(0, 0.003), 4) for _ in range(120)]
    assert inside(band_after(values), 0.973)
    assert not inside(band_after(values), 0.7)


def test_a_decimal_and_a_large_int_are_numbers() -> None:
    values = [*[Decimal("12.50")] * 20, 12, 12.5, 10**18, 10**18 + 1]
    assert band_after(values).level == pytest.approx(1e18, rel=0.01)
    assert band_after([10**400] * 20).distance(10**401) == 0  # both count as the largest number
    assert band_after([10**400] * 20).distance(3) > 1
    assert band_after([5] * 20).distance(10**400) == FARTHEST
    assert band_after([5] * 20).distance(-(10**400)) == FARTHEST
    assert band_after([5] * 20).distance(Decimal("5.00")) == 0


EXTREMES: list[list[float]] = [
    [0.0] * 20,
    [1e300, -1e300] * 20,
    [1e300] * 20,
    [0.0] * 20 + [1e300] * 3,
    [1e-300] * 20,
    [5e-324, 0.0] * 20,
    [10**350, -(10**350), 3] * 10,
    [math.inf, -math.inf] * 20,
    [1.0, math.nan] * 20,
    [1e300] + [1.0] * 60 + [1e-300] * 3,
    [-1e300, 0.0, 1e300] * 20,
]


@pytest.mark.parametrize("values", EXTREMES)
def test_every_part_of_every_band_is_a_finite_number(values: list[float]) -> None:
    for band in (band_after(values), band_after(values, min_abs=1e308)):
        assert band.low <= band.level <= band.high
        parts = (band.low, band.high, band.level, band.trend, band.weekday or 0.0, band.step)
        assert all(math.isfinite(part) for part in parts)
        assert all(0 <= band.distance(value) <= FARTHEST for value in (0, 1, -1e308, 1e308, 10**400, math.inf))


@pytest.mark.parametrize("kind", KINDS)
def test_a_band_does_not_depend_on_the_unit_of_a_stock(kind: str) -> None:
    values = [value for _, value in daily_series(kind, 1, 200)]
    band, scaled = band_after(values), band_after([value * 1024 for value in values])
    if band.kind == "stock":
        assert scaled.low == pytest.approx(band.low * 1024)
        assert scaled.high == pytest.approx(band.high * 1024)


def test_the_distance_is_counted_in_band_widths() -> None:
    band = Expectation(low=90, high=110, level=100, trend=0, weekday=None, step=1, kind="stock", values=30)
    assert [band.distance(value) for value in (90, 100, 110)] == [0, 0, 0]
    assert band.distance(120) == pytest.approx(0.5)
    assert band.distance(50) == pytest.approx(2)


# How often it is wrong


@pytest.mark.parametrize("kind", KINDS)
def test_ordinary_values_of_each_kind_are_rarely_outside(kind: str) -> None:
    outside = 0
    for seed in range(2):
        values = daily_series(kind, seed, 425)
        bands = (expected_band(values[:place], values[place][0]) for place in range(60, 425, 2))
        judged = zip(bands, values[60::2], strict=True)
        outside += sum(band.distance(value) > 0 for band, (_, value) in judged if band)
    assert outside <= 6  # of 366 days, half of them in the first year


@pytest.mark.parametrize("kind", [kind for kind in KINDS if "stock" in kind])
def test_a_loss_of_thirty_percent_of_any_stock_is_outside(kind: str) -> None:
    for seed in range(3):
        values = daily_series(kind, seed, 300)
        for place in range(60, 300, 20):
            band = expected_band(values[:place], values[place][0])
            assert band is not None
            true = values[place][1]
            assert not inside(band, true - 0.3 * abs(true))


@pytest.mark.skipif(not REAL.is_dir(), reason="the series of real repositories are not beside the project")
def test_incidents_in_real_series_are_recognized_with_few_false_alarms() -> None:
    score = benchmark.score(benchmark.band, list(benchmark.read_series(REAL)))
    assert score.recall >= benchmark.MIN_RECALL
    assert score.alarms_a_year <= benchmark.MAX_ALARMS
