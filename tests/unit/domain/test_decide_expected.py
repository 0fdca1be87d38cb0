"""With an expected band, the severity comes from the distance to it. A drift ends when the value is back."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from dims_worker.config import Policy
from dims_worker.domain.decide import Baseline, Judge, Verdict
from dims_worker.domain.expectation import Expectation

NOW = datetime(2026, 11, 30, tzinfo=UTC)
BAND = Expectation(4310, 4470, 4390, 2.0, None, 30, "stock", 100)


def verdict(value: Any, baseline: Any = 4400, band: Expectation | None = BAND, **policy: Any) -> Verdict:
    judge = Judge(Policy.model_validate(policy))
    return judge.decide(Baseline(baseline), value, Baseline(baseline), NOW, expected=band)


@pytest.mark.parametrize(
    ("value", "severity", "tier"),
    [
        (4310, "none", "auto"),
        (4470, "none", "auto"),
        (4309, "medium", "notify"),
        (4229, "high", "notify"),
        (3989, "urgent", "notify"),
        (4551, "high", "notify"),
    ],
)
def test_severity_grows_with_the_distance_to_the_band(value: int, severity: str, tier: str) -> None:
    judged = verdict(value)
    assert (judged.severity, judged.tier, judged.drifted) == (severity, tier, severity != "none")


def test_a_large_drift_inside_a_wide_band_is_ordinary() -> None:
    wide = Expectation(0, 40, 12, 0.0, 3.0, 6, "flow", 90)
    judged = verdict(38, 3, wide)
    assert (judged.status, judged.severity, judged.tier) == ("extreme", "none", "auto")


def test_a_stable_metric_has_the_next_severity() -> None:
    assert verdict(4309, volatility="stable").severity == "high"
    assert verdict(4400, volatility="stable").severity == "none"


@pytest.mark.parametrize(("direction", "low", "high"), [("down", "high", "none"), ("up", "none", "high")])
def test_only_the_watched_direction_counts(direction: str, low: str, high: str) -> None:
    assert (verdict(4200, direction=direction).severity, verdict(4580, direction=direction).severity) == (low, high)


def test_the_verdict_names_the_band() -> None:
    judged = verdict(4400)
    assert judged.reason == "unchanged; expected 4,310 to 4,470"
    assert (judged.expected_low, judged.expected_high) == (4310, 4470)


@pytest.mark.parametrize("value", ["text", None, True])
def test_a_value_that_is_no_number_has_no_band(value: Any) -> None:
    judged = verdict(value)
    assert (judged.expected_low, judged.severity) == (None, "urgent")


def test_a_critical_metric_is_held_at_its_limit_whatever_the_band_is() -> None:
    wide = Expectation(0, 10_000, 4400, 0.0, None, 900, "stock", 90)
    judged = verdict(3700, 4400, wide, critical=True)
    assert (judged.tier, judged.severity) == ("approve", "high")
    assert verdict(3800, 4400, wide, critical=True).tier == "auto"


@pytest.mark.parametrize(
    ("anchor", "worst", "value", "back"),
    [
        (100, 60, 95.1, True),
        (100, 60, 95, False),
        (100, 60, 104, True),
        (100, 60, 110, True),
        (100, 60, 130, False),
        (0, 5, 0, True),
        (0, 5, 3, False),
        ("synced", "drift", "synced", True),
        ("synced", "drift", "other", False),
    ],
)
def test_a_drift_without_a_band_ends_near_its_anchor(anchor: Any, worst: Any, value: Any, back: bool) -> None:
    assert Judge().recovered(anchor, worst, value, None, expected_before=False) is back


def test_growth_ends_a_loss_of_a_metric_that_may_grow() -> None:
    judge = Judge(Policy.model_validate({"direction": "down"}))
    assert judge.recovered(100, 60, 500, None, expected_before=False)


def test_a_drift_that_left_the_band_ends_inside_the_band() -> None:
    judge = Judge()
    assert not judge.recovered(4400, 4200, 4300, BAND, expected_before=True)
    assert judge.recovered(4400, 4200, 4311, BAND, expected_before=True)
