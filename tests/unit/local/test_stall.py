"""When a process counts as stalled: observations in a row, each in time, and no progress between them."""

from __future__ import annotations

from datetime import timedelta

import pytest

from dims_worker.local.stall import StallDetector, stall_patience

REASON = "work waits"


def observed(detector: StallDetector, times: list[float], reason: str | None = REASON, latest: float = 0.0) -> bool:
    return [detector.observe(now, reason, latest, 15) for now in times].count(True) > 0


def test_three_observations_without_progress_after_the_first_are_a_stall() -> None:
    detector = StallDetector(5)
    assert not observed(detector, [0, 5, 10])
    assert observed(detector, [15])


def test_progress_starts_the_count_again() -> None:
    detector = StallDetector(5)
    assert not observed(detector, [0, 5, 10])
    assert not detector.observe(15, REASON, 12.0, 15)
    assert not observed(detector, [20, 25], latest=12.0)
    assert observed(detector, [30], latest=12.0)


def test_an_observation_that_proves_nothing_starts_the_count_again() -> None:
    detector = StallDetector(5)
    assert not observed(detector, [0, 5, 10])
    assert not observed(detector, [15], reason=None)
    assert not observed(detector, [20, 25])
    assert observed(detector, [30])


def test_a_pause_of_the_computer_starts_the_count_again() -> None:
    detector = StallDetector(5)
    assert not observed(detector, [0, 5, 10, 3600, 3605, 3610])
    assert observed(detector, [3615])


@pytest.mark.parametrize(
    ("sweep", "patience"), [(timedelta(seconds=1), 15), (timedelta(seconds=8), 24), (timedelta(hours=1), 60)]
)
def test_patience_follows_the_sweep_period_within_limits(sweep: timedelta, patience: float) -> None:
    assert stall_patience(sweep) == patience


def test_a_process_that_answers_is_never_stalled_even_without_patience() -> None:
    detector = StallDetector(period=2.0)
    assert not any(detector.observe(float(now), None, 1.0, 0.0) for now in range(0, 20, 2))
    assert detector.observe(20.0, "it hangs", 1.0, 0.0)
