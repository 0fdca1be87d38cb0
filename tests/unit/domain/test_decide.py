"""Verdicts by policy: tables of examples, and invariants that hold for all values."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from dims_worker.config import Policy, Thresholds
from dims_worker.domain.decide import (
    DRIFT_CAP,
    SEVERITIES,
    Baseline,
    Judge,
    Verdict,
    age_of,
    at_least,
    drift_pct,
    inside_band,
)

NOW = datetime(2026, 11, 22, 9, tzinfo=UTC)


def judge_of(**policy: Any) -> Judge:
    return Judge(Policy(**policy))


PLAIN, STABLE, CRITICAL = Judge(), judge_of(volatility="stable"), judge_of(critical=True)
BOTH = judge_of(volatility="stable", critical=True)
NOISE = judge_of(min_abs=10, critical=True)
ONLY_UP, ONLY_DOWN = judge_of(direction="up", critical=True), judge_of(direction="down", critical=True)
RANGE = judge_of(min=90, max=110)
ONLY_TWICE = judge_of(require_approval_pct=200, critical=True)
OWN = judge_of(thresholds=Thresholds(moderate=1, major=2, extreme=3), require_approval_pct=2.5, critical=True)

VERDICTS: list[tuple[str, Judge, Any, Any, str, str, str, float | None]] = [
    # case                       judge      baseline reading  status      severity  tier       drift
    ("same", PLAIN, 100, 100, "ok", "none", "auto", 0),
    ("int and float alike", PLAIN, 5, 5.0, "ok", "none", "auto", 0),
    ("below moderate", PLAIN, 1000, 1049, "minor", "low", "auto", 4.9),
    ("from moderate", PLAIN, 100, 105, "moderate", "medium", "auto", 5),
    ("below major", PLAIN, 1000, 1149, "moderate", "medium", "auto", 14.9),
    ("from major", PLAIN, 100, 115, "major", "high", "notify", 15),
    ("below extreme", PLAIN, 1000, 1249, "major", "high", "notify", 24.9),
    ("from extreme", PLAIN, 100, 125, "extreme", "urgent", "notify", 25),
    ("downwards as well", PLAIN, 100, 85, "major", "high", "notify", 15),
    ("down to nothing", PLAIN, 7, 0, "extreme", "urgent", "notify", 100),
    ("of a negative baseline", PLAIN, -100, -80, "major", "high", "notify", 20),
    ("through zero", PLAIN, -100, 100, "extreme", "urgent", "notify", 200),
    ("stable, same", STABLE, 100, 100, "ok", "none", "auto", 0),
    ("stable, minor", STABLE, 100, 101, "minor", "medium", "auto", 1),
    ("stable, moderate", STABLE, 100, 105, "moderate", "high", "notify", 5),
    ("stable, major", STABLE, 100, 115, "major", "urgent", "notify", 15),
    ("stable, extreme", STABLE, 100, 125, "extreme", "urgent", "notify", 25),
    ("critical, below 15 %", CRITICAL, 1000, 1149, "moderate", "medium", "auto", 14.9),
    ("critical, from 15 %", CRITICAL, 100, 115, "major", "high", "approve", 15),
    ("critical, downwards", CRITICAL, 100, 50, "extreme", "urgent", "approve", 50),
    ("both, below 15 %", BOTH, 100, 114, "moderate", "high", "notify", 14),
    ("both, from 15 %", BOTH, 100, 115, "major", "urgent", "approve", 15),
    ("own thresholds, approve", OWN, 1000, 1025, "major", "high", "approve", 2.5),
    ("own thresholds, notify", OWN, 1000, 1024, "major", "high", "notify", 2.4),
    ("zero stays", CRITICAL, 0, 0, "ok", "none", "auto", 0),
    ("zero stays, as a float", CRITICAL, 0, -0.0, "ok", "none", "auto", 0),
    ("from zero", CRITICAL, 0, 1, "extreme", "urgent", "approve", 100),
    ("from zero, not critical", PLAIN, 0, 0.001, "extreme", "urgent", "notify", 100),
    ("from zero, noise", NOISE, 0, 9, "minor", "none", "auto", None),
    ("from zero, downward noise", NOISE, 0, -9, "minor", "none", "auto", None),
    ("from zero, no noise", NOISE, 0, 10, "extreme", "urgent", "approve", 100),
    ("noise of 90 %", NOISE, 10, 19, "extreme", "none", "auto", 90),
    ("no noise", NOISE, 10, 20, "extreme", "urgent", "approve", 100),
    ("up, where up counts", ONLY_UP, 100, 120, "major", "high", "approve", 20),
    ("down, where up counts", ONLY_UP, 100, 80, "major", "none", "auto", 20),
    ("up, where down counts", ONLY_DOWN, 100, 120, "major", "none", "auto", 20),
    ("down, where down counts", ONLY_DOWN, 100, 80, "major", "high", "approve", 20),
    ("from zero, unwatched", ONLY_DOWN, 0, 5, "extreme", "none", "auto", 100),
    ("text has no direction", ONLY_UP, "b", "a", "extreme", "urgent", "approve", 100),
    ("text, same", CRITICAL, "v1", "v1", "ok", "none", "auto", 0),
    ("text, other", PLAIN, "v1", "v2", "extreme", "urgent", "notify", 100),
    ("text is not its number", PLAIN, 5, "5", "extreme", "urgent", "notify", 100),
    ("true is not 1", PLAIN, True, 1, "extreme", "urgent", "notify", 100),
    ("0 is not false", PLAIN, 0, False, "extreme", "urgent", "notify", 100),
    ("true stays", CRITICAL, True, True, "ok", "none", "auto", 0),
    ("true becomes false", CRITICAL, True, False, "extreme", "urgent", "approve", 100),
    ("null stays", CRITICAL, None, None, "ok", "none", "auto", 0),
    ("null becomes 0", CRITICAL, None, 0, "extreme", "urgent", "approve", 100),
    ("0 becomes null", PLAIN, 0, None, "extreme", "urgent", "notify", 100),
    ("at min", RANGE, 90, 90, "ok", "none", "auto", 0),
    ("below min, and the same", RANGE, 89, 89, "ok", "high", "notify", 0),
    ("at max", RANGE, 110, 110, "ok", "none", "auto", 0),
    ("above max, a minor drift", RANGE, 110, 111, "minor", "high", "notify", 10 / 11),
    ("a limit lowers nothing", RANGE, 100, 200, "extreme", "urgent", "notify", 100),
    ("15.0 % of decimals", CRITICAL, 1.2, 1.38, "major", "high", "approve", 15),
    ("14.9 % of decimals", CRITICAL, 1.2, 1.3788, "moderate", "medium", "auto", 14.9),
    ("15.0 % of GB, downwards", CRITICAL, 4.6, 3.91, "major", "high", "approve", 15),
    ("15.0 % of a negative number", CRITICAL, -1.2, -1.38, "major", "high", "approve", 15),
    ("15.0 % of a sum of floats", CRITICAL, 0.1 + 0.2, 0.345, "major", "high", "approve", 15),
    ("min_abs of decimals", judge_of(min_abs=0.1), 0.2, 0.3, "extreme", "urgent", "notify", 50),
    ("a text, however large the limit", ONLY_TWICE, "v1", "v2", "extreme", "urgent", "approve", 100),
    ("from zero, however large the limit", ONLY_TWICE, 0, 3, "extreme", "urgent", "approve", 100),
    ("to null, however large the limit", ONLY_TWICE, 3, None, "extreme", "urgent", "approve", 100),
    ("a number below a large limit", ONLY_TWICE, 1, 2, "extreme", "urgent", "notify", 100),
    ("a text has no limits", RANGE, "x", "x", "ok", "none", "auto", 0),
]


@pytest.mark.parametrize("case", VERDICTS, ids=lambda case: case[0])
def test_verdict(case: tuple[str, Judge, Any, Any, str, str, str, float | None]):
    _, judge, baseline, reading, *expected, drift = case
    verdict = judge.decide(Baseline(baseline), reading, None, NOW)
    assert [verdict.status, verdict.severity, verdict.tier] == expected
    assert verdict.drift_pct == (drift if drift is None else pytest.approx(drift))
    assert verdict.reason


@given(st.integers(1, 10**9), st.integers(0, 6), st.sampled_from([115, 85]))
def test_exactly_15_percent_of_any_decimal_number(digits: int, decimals: int, factor: int):
    """A value is the float of the decimal number that people see. The limit is met exactly, whatever the decimals."""
    before = Decimal(digits).scaleb(-decimals)
    after = before * factor / 100
    assert drift_pct(float(before), float(after)) == 15
    assert drift_pct(-float(before), -float(after)) == 15
    assert drift_pct(float(before), float(before * Decimal("1.149"))) == 14.9


def test_a_drift_below_a_limit_is_not_written_as_the_limit():
    verdict = CRITICAL.decide(Baseline(100.0), 114.96, None, NOW)
    assert (verdict.tier, verdict.reason) == ("auto", "up 14.96 %")


@pytest.mark.parametrize("part", range(1, 100))
def test_a_whole_percent_is_exact(part: int):
    """A drift of exactly 29 % meets a threshold of 29, although 29 / 100 * 100 < 29 as floats."""
    assert drift_pct(100, 100 + part) == part
    assert drift_pct(1000, 1000 - 10 * part) == part


@pytest.mark.parametrize(
    ("baseline", "value", "reason"),
    [
        ("synced", "synced", "unchanged"),
        ("synced", "missing", "different, which counts as 100 %"),
        (100, "100", "different, which counts as 100 %"),
        (100, 100, "unchanged"),
        (100, 110, "up 10.0 %"),
        (100, 90, "down 10.0 %"),
        (0, 5, "from 0, which counts as 100 %"),
    ],
)
def test_the_reason_describes_the_change(baseline: Any, value: Any, reason: str):
    assert Judge().decide(Baseline(baseline), value, None, NOW).reason == reason


@pytest.mark.parametrize("judge", [PLAIN, STABLE, CRITICAL, BOTH, NOISE])
@pytest.mark.parametrize("value", [0, 17, 2.5, "x", True, None])
def test_the_first_good_reading_is_new(judge: Judge, value: Any):
    verdict = judge.decide(None, value, None, NOW)
    assert verdict == Verdict("new", "none", "auto", None, "the first good reading")


@pytest.mark.parametrize(
    ("judge", "old", "new", "key"),
    [
        (ONLY_UP, 100, 90, "direction"),
        (ONLY_UP, 100, 110, None),
        (ONLY_UP, 100, 100, None),
        (ONLY_UP, "a", "b", None),
        (ONLY_UP, 100, None, None),
        (judge_of(min_abs=5), 100, 104, "min_abs"),
        (judge_of(min_abs=5), 100, 105, None),
    ],
)
def test_the_policy_key_that_makes_a_change_noise(judge: Judge, old: Any, new: Any, key: str | None):
    assert judge.noise(old, new) == key


def test_a_first_reading_beyond_a_limit_is_notified():
    verdict = RANGE.decide(None, 89, None, NOW)
    assert (verdict.status, verdict.severity, verdict.tier) == ("new", "high", "notify")
    assert verdict.reason == "the first good reading; 89 is below min = 90"


@pytest.mark.parametrize(("value", "named"), [("7 files", "'7 files'"), (True, "True"), (None, "null")])
def test_a_limit_that_cannot_judge_a_value_says_so(value: Any, named: str):
    reason = f"unchanged; min = 90 and max = 110 cannot judge it, because {named} is no number"
    assert RANGE.decide(Baseline(value), value, None, NOW).reason == reason
    assert judge_of(max=5).decide(None, value, None, NOW).reason.endswith(f"because {named} is no number")
    assert PLAIN.format_unjudged_limit(value) is None and RANGE.format_unjudged_limit(7) is None


# --- ages -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("hours", "severity", "tier"),
    [
        (0, "none", "auto"),
        (48, "none", "auto"),
        (48.1, "high", "notify"),
        (-0.08, "none", "auto"),
        (-5, "high", "notify"),
    ],
)
def test_an_age_is_judged_only_by_its_limit(hours: float, severity: str, tier: str):
    judge = Judge(Policy(max_age=timedelta(hours=48), critical=True), is_age=True)
    instant = (NOW - timedelta(hours=hours)).isoformat()
    verdict = judge.decide(Baseline("2020-01-01T00:00:00+00:00"), instant, Baseline("2020-01-01T00:00:00+00:00"), NOW)
    assert (verdict.status, verdict.severity, verdict.tier, verdict.drift_pct) == ("ok", severity, tier, None)
    assert judge.decide(None, instant, None, NOW).status == "new"


@pytest.mark.parametrize("policy", [Policy(), Policy(max_age=timedelta(days=3)), Policy(critical=True)])
@pytest.mark.parametrize("baseline", [None, Baseline("2020-01-01T00:00:00+00:00")])
def test_more_than_five_minutes_ahead_breaks_the_limit(policy: Policy, baseline: Baseline | None):
    judge = Judge(policy, is_age=True)
    for ahead, limit in ((timedelta(minutes=5), None), (timedelta(minutes=5, seconds=1), "future")):
        assert judge.broken_limit((NOW + ahead).isoformat(), NOW) == limit
    verdict = judge.decide(baseline, "2031-01-01T00:00:00+00:00", None, NOW)
    assert (verdict.severity, verdict.tier) == ("high", "notify")
    assert "in the future: 2031-01-01 00:00 UTC" in verdict.reason
    assert "ahead when DIMS read it" in verdict.reason


@pytest.mark.parametrize("instant", ["9999-12-31T23:59:59.999999+00:00", "9999-12-31T23:59:59.999999-12:00"])
def test_the_last_instants_are_in_the_future(instant: str):
    judge = Judge(is_age=True)
    assert judge.broken_limit(instant, NOW) == "future"
    assert re.search(r"in the future: .* was 7,97\d years ahead", judge.format_broken_limit(instant, NOW) or "")
    assert age_of(instant, NOW) is None


def test_what_was_in_the_future_when_it_was_measured_stays_so():
    judge, instant = Judge(Policy(max_age=timedelta(hours=3)), is_age=True), (NOW + timedelta(hours=9)).isoformat()
    for later in (0, 10, 100):
        assert judge.broken_limit(instant, NOW + timedelta(hours=later), NOW) == "future"
    assert judge.broken_limit(instant, NOW + timedelta(hours=10), NOW + timedelta(hours=10)) is None


def test_a_text_that_is_not_an_instant_has_no_age():
    assert Judge(Policy(max_age=timedelta(0)), is_age=True).broken_limit("synced", NOW) is None
    assert age_of("synced", NOW) is None


def test_the_age_of_an_instant_slightly_ahead_is_zero():
    assert age_of((NOW + timedelta(minutes=4)).isoformat(), NOW) == 0
    assert age_of((NOW + timedelta(minutes=6)).isoformat(), NOW) is None
    assert age_of("1970-01-01T00:00:00+00:00", NOW, "days") == pytest.approx((NOW.timestamp()) / 86_400)


def test_an_age_without_a_limit_or_an_instant_is_fine():
    for judge, value in (
        (Judge(is_age=True), "2020-01-01T00:00:00+00:00"),
        (Judge(Policy(max_age=timedelta(0)), is_age=True), None),
    ):
        assert judge.decide(Baseline("2019-01-01T00:00:00+00:00"), value, None, NOW).severity == "none"


def test_age_of():
    assert age_of("2026-11-22T08:00:00+00:00", NOW) == 3600
    assert age_of("2026-11-22T10:30:00+02:00", NOW) == 1800
    assert age_of(None, NOW) is None


@pytest.mark.parametrize(
    ("old", "new", "drift"),
    [
        (1e308, 1.5e308, 50),  # 100 times the change is too large for a float, but the drift is not
        (-1e308, 1e308, 200),  # the change is too large for a float, but the drift is not
        (1, 10**400, DRIFT_CAP),  # the integer is too large for a float
        (1.0, 10**400, DRIFT_CAP),
        (10**400, 1.0, 100),
        (1e-300, 1e300, DRIFT_CAP),
    ],
    ids=["100 times the change", "the change", "an integer", "from a float", "to a float", "the ratio"],
)
def test_the_drift_of_numbers_too_large_for_a_float(old: float, new: float, drift: float):
    assert drift_pct(old, new) == pytest.approx(drift)


# --- what a person last accepted ------------------------------------------------------------------------


def climb(judge: Judge, accepted: float, factor: float) -> int:
    """Return at which of ten steps by `factor` a value is held, or 0. A step that is not held becomes the baseline."""
    baseline = accepted
    for step in range(1, 11):
        value = baseline * factor
        if judge.decide(Baseline(baseline), value, Baseline(accepted), NOW).tier == "approve":
            return step
        baseline = value
    return 0


@pytest.mark.parametrize(
    ("case", "judge", "factor", "step"),
    [
        ("14 %, then 29.96 % in all", CRITICAL, 1.14, 2),
        ("14 % down, then 26.04 %", CRITICAL, 0.86, 2),
        ("5 %, 10.25 %, 15.76 %", CRITICAL, 1.05, 3),
        ("1.4 %: 1.014 to the 10th is 14.9 %", CRITICAL, 1.014, 0),
        ("1.5 %: 1.015 to the 10th is 16.05 %, to the 9th 14.3 %", CRITICAL, 1.015, 10),
        ("a direction that is not watched", ONLY_DOWN, 1.14, 0),
        ("the direction that is watched", ONLY_UP, 1.14, 2),
        ("not critical", PLAIN, 1.14, 0),
    ],
)
def test_many_small_steps_are_held_in_the_end(case: str, judge: Judge, factor: float, step: int):
    assert climb(judge, 1000.0, factor) == step, case


def test_drift_from_the_accepted_value_raises_the_severity():
    verdict = CRITICAL.decide(Baseline(114), 130, Baseline(100), NOW)
    assert (verdict.status, verdict.severity, verdict.tier) == ("moderate", "urgent", "approve")
    assert verdict.drift_pct == pytest.approx(1600 / 114)  # the drift is still that from the baseline
    assert verdict.reason == "up 14.0 %; 30.0 % from 100, which a person last accepted"


def test_a_value_held_for_its_drift_from_the_baseline_is_not_compared_with_the_accepted_one():
    verdict = CRITICAL.decide(Baseline(100), 80, Baseline(160), NOW)  # 50 % from 160 would be urgent
    assert (verdict.status, verdict.severity, verdict.tier) == ("major", "high", "approve")
    assert verdict.reason == "down 20.0 %"


def test_a_return_to_the_accepted_value_is_not_held():
    assert CRITICAL.decide(Baseline(114), 101, Baseline(100), NOW).tier == "auto"
    assert CRITICAL.decide(Baseline(114), 114, Baseline(100), NOW).tier == "auto"


# --- bands ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("anchor", "value", "tolerance", "inside"),
    [
        (1000, 1020, 2, True),
        (1000, 1021, 2, False),
        (1000, 980, 2, True),
        (1000, 979, 2, False),
        (-1000, -1020, 2, True),
        (-1000, 1000, 2, False),
        (0, 0, 2, True),
        (0, 1, 2, False),
        (100, 100.0, 0, True),
        (100, 101, 0, False),
        ("a", "a", 2, True),
        ("a", "b", 100, False),
        (None, None, 2, True),
        (None, 0, 2, False),
        (True, True, 2, True),
        (True, 1, 100, False),
        (1, True, 100, False),
        (5, "5", 100, False),
    ],
)
def test_inside_band(anchor: Any, value: Any, tolerance: float, inside: bool):
    assert inside_band(anchor, value, tolerance) is inside


def test_at_least():
    assert [at_least(severity, "high") for severity in SEVERITIES] == [False, False, False, True, True]


# --- invariants -----------------------------------------------------------------------------------------------

NUMBERS = st.integers(-(10**30), 10**30) | st.floats(allow_nan=False, allow_infinity=False)
VALUES = NUMBERS | st.text(max_size=5) | st.booleans() | st.none()
JUDGES = st.builds(
    Judge,
    policy=st.builds(
        Policy,
        direction=st.sampled_from(["up", "down", "both"]),
        min_abs=st.sampled_from([0, 10, 1e300]),
        require_approval_pct=st.sampled_from([0.001, 15, 1000]),
        min=st.none() | st.just(0),
        max=st.none() | st.just(100),
        volatility=st.sampled_from(["volatile", "stable"]),
        critical=st.booleans(),
    ),
)
STATUSES = ("ok", "minor", "moderate", "major", "extreme")


@given(JUDGES, VALUES, VALUES, st.none() | VALUES.map(Baseline))
def test_any_values_have_a_verdict(judge: Judge, baseline: Any, value: Any, accepted: Baseline | None):
    verdict = judge.decide(Baseline(baseline), value, accepted, NOW)
    assert verdict.status in STATUSES
    assert verdict.drift_pct is None or 0 <= verdict.drift_pct <= 1e9
    assert judge.policy.critical or verdict.tier != "approve"
    assert (verdict.tier == "auto") <= (not at_least(verdict.severity, "high"))
    assert (verdict.status == "ok") == (verdict.drift_pct == 0)


@given(JUDGES, VALUES)
def test_the_same_value_never_drifts(judge: Judge, value: Any):
    verdict = judge.decide(Baseline(value), value, None, NOW)
    assert (verdict.status, verdict.drift_pct, verdict.tier == "approve") == ("ok", 0, False)
    assert inside_band(value, value, 0)


@given(st.integers(-(10**9), 10**9), st.integers(0, 10**9))
def test_up_and_down_have_the_same_drift(baseline: int, step: int):
    assume(baseline)
    assert drift_pct(baseline, baseline + step) == drift_pct(baseline, baseline - step)
    assert drift_pct(-baseline, -baseline + step) == drift_pct(baseline, baseline + step)


@given(st.booleans(), st.integers(1, 10**6), st.integers(0, 10**6), st.integers(0, 10**6))
def test_more_drift_is_never_less_severe(stable: bool, baseline: int, first: int, second: int):
    small, large = sorted((first, second))
    judge = STABLE if stable else PLAIN
    less = judge.decide(Baseline(baseline), baseline + small, None, NOW)
    more = judge.decide(Baseline(baseline), baseline + large, None, NOW)
    assert STATUSES.index(less.status) <= STATUSES.index(more.status)
    assert SEVERITIES.index(less.severity) <= SEVERITIES.index(more.severity)


@given(st.integers(-(2**53), 2**53))
def test_an_int_equals_its_float(value: int):
    assert drift_pct(value, float(value)) == 0


@given(VALUES, VALUES)
def test_values_of_different_kinds_are_different(first: Any, second: Any):
    kinds = ["number" if type(v) in (int, float) else type(v).__name__ for v in (first, second)]
    assume(kinds[0] != kinds[1])
    assert drift_pct(first, second) == drift_pct(second, first) == 100
    assert not inside_band(first, second, 1e9)
