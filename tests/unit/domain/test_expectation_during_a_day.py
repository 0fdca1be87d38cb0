"""Test the band of a stock that grows every day, at times at which the growth of the day has not come yet."""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta

import pytest

from dims_worker.config import Policy
from dims_worker.domain.decide import Baseline, Judge
from dims_worker.domain.expectation import expected_band

Growth = Callable[[random.Random, date], int]
FIRST, NOW = date(2026, 1, 5), datetime(2026, 1, 5, tzinfo=UTC)
LAST = FIRST + timedelta(days=60)
PARTS = (0.0, 0.5, 1.0)
"""How much of the growth of a day has come when DIMS measures."""

GROWTHS: dict[str, Growth] = {
    "the same every day": lambda _, day: 5,
    "about the same every day": lambda chance, day: chance.choice([4, 5, 6]),
    "on weekdays": lambda chance, day: chance.randint(0, 8) if day.weekday() < 5 else 0,
    "until it stops": lambda chance, day: chance.choice([4, 5, 6]) if day < date(2026, 2, 20) else 0,
}


def noticed(growth: Growth, policy: Policy, loss: int = 0) -> list[int]:
    """Return the values that DIMS does not accept silently in 60 days, and on another day with a loss."""
    judge, chance = Judge(policy), random.Random(3)
    history: list[tuple[date, float]] = []
    value, found = 40, []
    baseline = Baseline(value)
    for day in (FIRST + timedelta(days=number) for number in range(61)):
        band = expected_band(history, day, policy.min_abs)
        step = -loss if day == LAST and loss else growth(chance, day)
        for part in PARTS:
            reading = value + int(step * part)
            if judge.decide(baseline, reading, None, NOW, expected=band).tier != "auto":
                found.append(reading)
            baseline = Baseline(reading)
        value += step
        history.append((day, float(value)))
    return found


@pytest.mark.parametrize("growth", GROWTHS.values(), ids=GROWTHS)
def test_a_day_whose_growth_has_not_come_is_ordinary(growth: Growth) -> None:
    assert noticed(growth, Policy(critical=True, direction="down", min_abs=2)) == []


@pytest.mark.parametrize("growth", GROWTHS.values(), ids=GROWTHS)
def test_a_loss_of_one_file_is_ordinary_also_where_files_come_every_day(growth: Growth) -> None:
    assert noticed(growth, Policy(critical=True, direction="down", min_abs=2), loss=1) == []


@pytest.mark.parametrize("direction", ["down", "both"])
@pytest.mark.parametrize("growth", GROWTHS.values(), ids=GROWTHS)
def test_a_loss_of_a_tenth_is_not_ordinary(growth: Growth, direction: str) -> None:
    policy = Policy.model_validate({"direction": direction, "min_abs": 2})
    assert noticed(growth, policy, loss=30)
