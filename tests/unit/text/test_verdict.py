"""Test the sentences of a verdict: the numbers, the thresholds, and where each key is set."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dims_worker.analysis.explanation import Explanation, judged_by
from dims_worker.config import FilesMetric, Metric, Policy, Thresholds
from dims_worker.config.policy import Origin
from dims_worker.domain.decide import Baseline, Judge
from dims_worker.domain.health import RETIRED
from dims_worker.formatting import format_exact
from dims_worker.store.baselines import Acceptance
from dims_worker.store.metric_states import MetricState
from dims_worker.store.runs import PastReading
from dims_worker.text.phrases import ExplanationView
from dims_worker.text.verdict import verdict_lines

NOW = datetime(2026, 11, 22, 9, tzinfo=UTC)
FIRST = Acceptance(100, NOW - timedelta(days=2), "first", NOW - timedelta(days=2), run_id=1)


def accepted(value: Any, how: str = "policy") -> Acceptance:
    ada = {"request": 3, "decided_at": NOW - timedelta(hours=1), "decided_by": "ada", "known_by": "option"}
    extra = ada if how in ("approved", "by hand") else {}
    then = NOW - timedelta(hours=2)
    return Acceptance(value, then, how, then, run_id=1, **extra)  # type: ignore[arg-type]


def explanation_of(
    policy: Policy,
    value: Any,
    against: Acceptance | None,
    person: Acceptance | None = None,
    *,
    origins: Mapping[str, Origin] | None = None,
    metric: Metric | None = None,
) -> Explanation:
    judge = Judge(policy, is_age=bool(metric and metric.is_age))
    known, by_person = (Baseline(one.value) if one else None for one in (against, person))
    verdict = judge.decide(known, value, by_person, NOW)
    columns = dict.fromkeys(PastReading.__slots__) | {"id": 9, "run_id": 7, "metric": "m.c", "value": value}
    columns |= {"unit": "files", "method": "exact", "as_of": NOW, "outcome": "held"}
    columns |= {"baseline": against.value if against else None, "drift_pct": verdict.drift_pct}
    columns |= {"status": verdict.status, "severity": verdict.severity, "tier": verdict.tier}
    reading = PastReading(**columns)
    state = MetricState("m.c", "one", value=value, as_of=NOW)
    if against:
        state.baseline, state.baseline_as_of = against.value, against.as_of
    return Explanation(
        metric="m.c",
        unit="files",
        now=NOW,
        state=state,
        health=RETIRED,
        policy=policy,
        origins=dict.fromkeys(Policy.model_fields, "default") | dict(origins or {}),
        redefined=False,
        reading=reading,
        run=None,
        provisional=None,
        since=against,
        judged=judged_by(judge, reading, against, person, NOW),
        formula=None,
        inputs=(),
        evidence=None,
        gaps=(),
        request=None,
        decisions=(),
    )


def reasons(policy: Policy, value: Any, against: Any, person: Any = None, **more: Any) -> dict[str, str]:
    one = explanation_of(
        policy, value, against if isinstance(against, Acceptance | None) else accepted(against), person, **more
    )
    return dict(verdict_lines(ExplanationView(one, more.get("metric"))))


CRITICAL = Policy(critical=True)


def test_the_example_of_the_documentation() -> None:
    of_metric: dict[str, Origin] = {"critical": "metric", "require_approval_pct": "category", "thresholds": "general"}
    assert reasons(CRITICAL, 205_000, accepted(172_726), origins=of_metric) == {
        "drift": "|205,000 - 172,726| / 172,726 x 100 = 18.7 %",
        "status": "major: 15 % or more, less than 25 % (thresholds: policy)",
        "severity": "high: a major drift of a volatile metric (volatility: default)",
        "tier": "approve: it is critical (metric), and 18.7 % reaches require_approval_pct = 15 (category m)",
    }


DRIFTS: list[tuple[str, Policy, Any, Any, str]] = [
    ("the same", CRITICAL, 100, 100, "the same value: 0 %"),
    ("a float the same", CRITICAL, 5, 5.0, "the same value: 0 %"),
    ("down", CRITICAL, 100, 85, "|85 - 100| / 100 x 100 = 15.0 %"),
    ("of a float", CRITICAL, 118.4, 130.0, "|130 - 118.4| / 118.4 x 100 = 9.8 %"),
    ("of a negative one", CRITICAL, -100, -80, "|-80 - (-100)| / |-100| x 100 = 20.0 %"),
    ("just below a limit", CRITICAL, 10_000, 11_499, "|11,499 - 10,000| / 10,000 x 100 = 14.99 %"),
    ("hardly any", CRITICAL, 10_000_000, 10_000_001, "|10,000,001 - 10,000,000| / 10,000,000 x 100 = 0.00001 %"),
    ("from zero", CRITICAL, 0, 7, "|7 - 0| = 7; a change from 0 has no ratio, so it counts as 100 %"),
    (
        "noise from zero",
        Policy(min_abs=10),
        0,
        7,
        "|7 - 0| = 7; a change from 0 has no ratio; 7 is noise, less than min_abs = 10 (default)",
    ),
    (
        "noise",
        Policy(min_abs=10),
        100,
        109,
        "|109 - 100| / 100 x 100 = 9.0 %; 9 is noise, less than min_abs = 10 (default)",
    ),
    (
        "the other way",
        Policy(direction="up"),
        10,
        9,
        "|9 - 10| / 10 x 100 = 10.0 %; it goes down, and only up is watched (direction: default)",
    ),
    ("a text", CRITICAL, "v1", "v2", "“v1” became “v2”: DIFFERENT"),
    ("a text, the same", CRITICAL, "v1", "v1", "“v1” is unchanged: 0 %"),
    ("a boolean", CRITICAL, True, False, "true became false: DIFFERENT"),
    ("null", CRITICAL, None, 0, "null became 0 files: DIFFERENT"),
    ("null, the same", CRITICAL, None, None, "null is unchanged: 0 %"),
    ("a number's text", CRITICAL, 5, "5", "5 files became “5”: DIFFERENT"),
    ("a control character in a text", CRITICAL, "a", "\a", r"“a” became “\x07”: DIFFERENT"),
]


@pytest.mark.parametrize("case", DRIFTS, ids=lambda case: case[0])
def test_the_drift_has_the_formula_with_its_numbers(case: tuple[str, Policy, Any, Any, str]) -> None:
    _, policy, old, new, expected = case
    assert reasons(policy, new, accepted(old))["drift"] == expected.replace(
        "DIFFERENT", "different, which counts as 100 %"
    )


STABLE, RANGE = Policy(volatility="stable"), Policy(min=90, max=110)
STEPS: list[tuple[str, Policy, Any, Any, dict[str, str]]] = [
    (
        "ok",
        CRITICAL,
        100,
        100,
        {
            "status": "ok: there is no drift",
            "severity": "none: nothing has changed",
            "tier": "auto: severity is below high",
        },
    ),
    (
        "minor",
        CRITICAL,
        100,
        104,
        {
            "status": "minor: less than 5 % (thresholds: default)",
            "tier": "auto: severity is below high; "
            "it is critical (default), but 4.0 % is below require_approval_pct = 15 (default)",
        },
    ),
    (
        "stable",
        STABLE,
        100,
        104,
        {"severity": "medium: a minor drift of a stable metric (volatility: default), one step higher"},
    ),
    (
        "extreme",
        Policy(),
        100,
        200,
        {
            "status": "extreme: 25 % or more (thresholds: default)",
            "severity": "urgent: an extreme drift of a volatile metric (volatility: default)",
            "tier": "notify: severity is high or worse; it is not critical (default), so it needs no approval",
        },
    ),
    (
        "noise",
        Policy(min_abs=200, critical=True),
        100,
        200,
        {
            "status": "extreme: 25 % or more (thresholds: default)",
            "severity": "none: the change is not watched",
            "tier": "auto: severity is below high",
        },
    ),
    (
        "noise from zero",
        Policy(min_abs=10),
        0,
        7,
        {"status": "minor: the value changed, but a change from 0 has no ratio"},
    ),
    ("within limits", RANGE, 100, 101, {"limit": "101 files is within min = 90 (default) and max = 110 (default)"}),
    (
        "above max",
        RANGE,
        110,
        111,
        {
            "limit": "111 files is above max = 110 (default)",
            "severity": "high: a minor drift of a volatile metric (volatility: default); "
            "a broken limit makes it high or worse",
            "tier": "notify: severity is high or worse",
        },
    ),
    (
        "below min, the same",
        RANGE,
        89,
        89,
        {"limit": "89 files is below min = 90 (default)", "severity": "high: a broken limit makes it high or worse"},
    ),
]


@pytest.mark.parametrize("case", STEPS, ids=lambda case: case[0])
def test_each_step_has_its_reason(case: tuple[str, Policy, Any, Any, dict[str, str]]) -> None:
    _, policy, old, new, expected = case
    found = reasons(policy, new, accepted(old))
    assert {about: found[about] for about in expected} == expected


def test_many_small_steps_are_judged_against_what_a_person_accepted() -> None:
    found = reasons(CRITICAL, 120, accepted(110), accepted(100, "approved"))
    assert found["person"] == (
        "|120 - 100| / 100 x 100 = 20.0 % from what a person last accepted: "
        "approved by ada (option) 1 hour ago (request 3)"
    )
    assert found["severity"] == (
        "high: a moderate drift of a volatile metric (volatility: default); it is far from what a person last accepted"
    )
    assert found["tier"] == (
        "approve: it is critical (default), and 20.0 % from what a person last accepted "
        "reaches require_approval_pct = 15 (default)"
    )
    assert "person" not in reasons(
        Policy(), 120, accepted(110), accepted(100, "approved")
    )  # only for a critical metric
    assert "person" not in reasons(CRITICAL, 120, accepted(110), accepted(110, "approved"))  # the baseline itself


def test_the_first_good_reading_and_an_age_have_no_drift() -> None:
    assert reasons(CRITICAL, 7, None) == {
        "status": "new: it is the first good reading",
        "severity": "none: nothing has changed",
        "tier": "auto: severity is below high",
    }
    age = FilesMetric(source="p", measure="newest_age")
    old = (NOW - timedelta(hours=51)).isoformat()
    policy = Policy(max_age=timedelta(hours=48))
    assert reasons(policy, old, accepted(old), metric=age) == {
        "status": "ok: only max_age judges an age",
        "limit": "51.0 hours is more than max_age = 2 days (default)",
        "severity": "high: a broken limit makes it high or worse",
        "tier": "notify: severity is high or worse",
    }
    young = (NOW - timedelta(hours=3)).isoformat()
    assert (
        reasons(policy, young, accepted(old), metric=age)["limit"] == "3.0 hours is within max_age = 2 days (default)"
    )


def test_a_changed_policy_is_recognised() -> None:
    one = explanation_of(Policy(), 120, accepted(100))
    strict = Judge(Policy(thresholds=Thresholds(moderate=1, major=2, extreme=3)))
    assert one.reading is not None
    again = judged_by(strict, one.reading, accepted(100), None, NOW)
    assert again is not None
    assert (again.policy_changed, one.judged and one.judged.policy_changed) == (True, False)


def test_a_reading_without_a_recorded_baseline_has_no_verdict() -> None:
    one = explanation_of(Policy(), 120, accepted(100))
    assert one.reading is not None
    assert judged_by(Judge(), one.reading, None, None, NOW) is None


# --- invariants

NUMBERS = st.one_of(st.integers(-1000, 1000), st.floats(-1e6, 1e6), st.integers(10**15, 10**20))
VALUES = st.one_of(NUMBERS, st.text(max_size=3), st.booleans(), st.none())
POLICIES = st.builds(
    Policy,
    thresholds=st.builds(
        lambda a, b, c: Thresholds(moderate=a, major=a + b, extreme=a + b + c), *[st.floats(0.1, 40)] * 3
    ),
    require_approval_pct=st.floats(0.5, 60),
    direction=st.sampled_from(["up", "down", "both"]),
    min_abs=st.sampled_from([0, 0, 3.5]),
    volatility=st.sampled_from(["volatile", "stable"]),
    critical=st.booleans(),
    min=st.none() | st.integers(-50, 50),
    max=st.none() | st.integers(51, 99),
    tolerance_pct=st.floats(0, 20),
)


@given(POLICIES, VALUES, VALUES, VALUES)
def test_every_verdict_is_explained_and_no_sentence_contradicts_it(policy: Policy, old: Any, new: Any, by: Any) -> None:
    one = explanation_of(policy, new, accepted(old), accepted(by, "by hand"))
    assert one.judged is not None
    verdict = one.judged.verdict
    found = dict(verdict_lines(ExplanationView(one, None)))
    for about, word in (("status", verdict.status), ("severity", verdict.severity), ("tier", verdict.tier)):
        assert found[about].startswith(f"{word}: ")
    assert ("reaches require" in found["tier"]) == (verdict.tier == "approve")
    if verdict.severity == "none":
        assert found["severity"] in ("none: nothing has changed", "none: the change is not watched")
    else:
        assert "nothing" not in found["severity"]
    bounds = {side: float(limit) for limit, side in re.findall(r"([\d.e+]+) % (or more)", found["status"])}
    bounds |= {side: float(limit) for side, limit in re.findall(r"(less than) ([\d.e+]+) %", found["status"])}
    if verdict.drift_pct is not None and (shown := re.search(r"= ([\d,.]+) %", found["drift"])):
        drift = float(shown[1].replace(",", ""))
        assert drift >= round(bounds.get("or more", 0), 4) - 1e-4
        assert drift <= bounds.get("less than", 1e9) + 1e-4
    assert ExplanationView(one, None).band(new, policy)


@given(st.one_of(st.integers(-(10**30), 10**30), st.floats(-1e300, 1e300)))
def test_an_exact_number_can_be_read_back(value: float) -> None:
    assert float(format_exact(value).replace(",", "")) == pytest.approx(value, rel=1e-9)


@pytest.mark.parametrize(
    ("anchor", "tolerance", "shown"),
    [
        (205_000, 2, "200,900 to 209,100 files"),
        (101, 2, "99 to 103 files"),
        (1.5, 2, "1.47 to 1.53 files"),
        (-100, 10, "-110 to -90 files"),
        (0, 2, "0 files"),
        (7, 0, "7 files"),
        ("synced", 2, "“synced”"),
        (None, 2, "null"),
        (25, 2, "25 files"),
        (1, 2, "1 file"),
    ],
)
def test_the_band_contains_the_values_of_one_request(anchor: Any, tolerance: float, shown: str) -> None:
    policy = Policy(tolerance_pct=tolerance)
    assert ExplanationView(explanation_of(policy, 1, FIRST), None).band(anchor, policy) == shown
