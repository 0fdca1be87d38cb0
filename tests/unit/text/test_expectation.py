"""Test the sentences about the expected band: its parts, its distance, and why there is none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dims_worker.analysis.bands import LearnedBand, WhyNone
from dims_worker.analysis.explanation import judged_by
from dims_worker.config import Policy
from dims_worker.config.policy import Origin
from dims_worker.domain.decide import OUTSIDE_STEPS, Judge
from dims_worker.domain.expectation import Expectation
from dims_worker.store.incidents import Incident
from dims_worker.text.expectation import expectation_document, format_widths
from dims_worker.text.phrases import ExplanationView
from dims_worker.text.verdict import verdict_lines
from tests.unit.text.test_verdict import NOW, accepted, explanation_of

STOCK = Expectation(low=4310, high=4470, level=4390.4, trend=2.4, weekday=None, step=5.0, kind="stock", values=143)
FLOW = Expectation(low=1, high=25, level=12.3, trend=0.0, weekday=-3.1, step=4.0, kind="flow", values=90)
DAY = date(2026, 11, 22)  # a Sunday


def learned(band: Expectation | None = STOCK, **more: Any) -> LearnedBand:
    facts = {"values": 143, "last": 4388.0, "last_day": DAY - timedelta(days=1), **more}
    return LearnedBand(DAY, band, more.pop("why_none", None), **{k: v for k, v in facts.items() if k != "why_none"})


def sentences(
    value: Any,
    known: LearnedBand,
    policy: Policy | None = None,
    *,
    against: Any = 4388,
    origins: Mapping[str, Origin] | None = None,
) -> dict[str, list[str]]:
    """Return the sentences of a verdict by topic. A sentence without a topic belongs to the one before."""
    policy = policy or Policy()
    one = explanation_of(policy, value, accepted(against), origins=origins)
    assert one.reading
    judged = judged_by(Judge(policy), one.reading, accepted(against), None, NOW, known.band)
    one = replace(one, judged=judged, learned=known)
    found: dict[str, list[str]] = {}
    name = ""
    for topic, sentence in verdict_lines(ExplanationView(one, None)):
        name = topic or name
        found.setdefault(name, []).append(sentence)
    return found


def test_a_stock_is_explained_by_its_last_value_its_trend_and_its_usual_step() -> None:
    assert sentences(4400, learned())["expected"] == [
        "4,310 to 4,470 files, learned from 143 accepted daily values",
        "the last of them is 4,388, of 2026-11-21; it usually changes by +2.4 a day; "
        "when it changes, half of its steps are 5 or less",
    ]


def test_a_flow_is_explained_by_its_level_and_the_day_of_the_week() -> None:
    _, parts = sentences(12, learned(FLOW), against=12)["expected"]
    assert parts == (
        "it usually is 12.3 on a Sunday: 15.4 and -3.1 for that day of the week; "
        "when it changes, half of its steps are 4 or less"
    )
    _, parts = sentences(12, learned(replace(FLOW, weekday=None)), against=12)["expected"]
    assert parts.startswith("it usually is 12.3 on any day of the week;")


def test_a_value_that_never_changed_has_no_trend_and_no_step() -> None:
    band = replace(STOCK, trend=0.0, step=0.0)
    assert sentences(4388, learned(band))["expected"][1].endswith("; it has no trend; it never changed")


def test_min_abs_is_named_with_its_origin() -> None:
    known = sentences(4400, learned(), Policy(min_abs=5), origins={"min_abs": "metric"})
    assert known["expected"][2] == "a change of less than min_abs = 5 (metric) is inside"


SEVERITIES = [
    (4400, {}, "none: inside the expected band"),
    (4470, {}, "none: inside the expected band"),
    (4240, {}, "medium: 0.4 band widths below the expected band"),
    (4182, {}, "high: 0.8 band widths below the expected band"),
    (4950, {}, "urgent: 3.0 band widths above the expected band"),
    (
        4950,
        {"direction": "down"},
        "none: 3.0 band widths above the expected band, and only down is watched (direction: default)",
    ),
    (
        4240,
        {"volatility": "stable"},
        "high: 0.4 band widths below the expected band, one step higher for a stable metric (volatility: default)",
    ),
    (39, {"critical": True}, "urgent: 26.7 band widths below the expected band"),
    (10**12, {}, "urgent: more than 1,000 band widths above the expected band"),
]


@pytest.mark.parametrize(("value", "policy", "expected"), SEVERITIES)
def test_the_severity_is_the_distance_in_band_widths(value: int, policy: dict[str, Any], expected: str) -> None:
    assert sentences(value, learned(), Policy(**policy))["severity"] == [expected]


def test_a_held_value_inside_a_wide_band_has_the_severity_of_its_drift() -> None:
    wide = replace(STOCK, low=1000, high=9000)
    found = sentences(3600, learned(wide), Policy(critical=True))
    assert found["severity"] == [
        "high: inside the expected band; a major drift of a volatile metric (volatility: default)"
    ]
    assert found["tier"][0].startswith("approve: ")


def test_a_value_a_little_outside_is_reported_because_of_the_band() -> None:
    found = sentences(4240, learned())
    assert found["tier"] == ["notify: it is outside the expected band"]
    assert sentences(4400, learned())["tier"] == ["auto: severity is below high"]


NONE: list[tuple[WhyNone, str]] = [
    ("too few", "none: 9 of 14 accepted daily values, so the drift alone counts"),
    ("drift", "none: expect = drift (category m) makes the drift alone count"),
    ("no number", "none: the value is no number"),
    ("age", "none: it is an age"),
]


@pytest.mark.parametrize(("why", "expected"), NONE)
def test_without_a_band_the_reason_is_named(why: WhyNone, expected: str) -> None:
    known = sentences(5000, learned(None, why_none=why, values=9), origins={"expect": "category"})
    assert known["expected"] == [expected]
    assert known["severity"] == ["medium: a moderate drift of a volatile metric (volatility: default)"]


def incident(number: int, **columns: Any) -> Incident:
    facts: dict[str, Any] = dict.fromkeys(Incident.__slots__) | {"id": number, "kind": "drift", "state": "open"}
    return Incident(**facts | columns)


def test_the_incidents_that_do_not_teach_are_named() -> None:
    rejected = incident(3, state="closed", resolution="rejected")
    known = sentences(4400, learned(left_out=(incident(7), rejected)))
    assert known["expected"][-1] == "values of incident 7 (open), incident 3 (rejected) do not teach"
    many = sentences(4400, learned(left_out=tuple(incident(n) for n in range(9, 0, -1))))
    assert (
        many["expected"][-1] == "values of incident 9 (open), incident 8 (open), incident 7 (open), 6 more do not teach"
    )


def test_a_band_that_was_another_one_when_the_value_was_recorded_is_named() -> None:
    (line,) = sentences(4240, learned())["policy"]
    assert line == "or the expected band has changed since; the recorded verdict is minor, low, auto"


def test_the_document_has_the_band_its_parts_and_what_is_needed() -> None:
    document = expectation_document(learned(left_out=(incident(7),)))
    assert document == {
        "day": "2026-11-22",
        "low": 4310,
        "high": 4470,
        "level": 4390.4,
        "trend": 2.4,
        "weekday": None,
        "step": 5.0,
        "kind": "stock",
        "why_none": None,
        "values": 143,
        "needed": 14,
        "last": 4388.0,
        "last_day": "2026-11-21",
        "not_teaching": [7],
    }
    assert expectation_document(LearnedBand(DAY, None, "drift")) == dict.fromkeys(document) | {
        "day": "2026-11-22",
        "why_none": "drift",
        "values": 0,
        "needed": 14,
        "not_teaching": [],
    }
    assert expectation_document(None) is None


@given(st.floats(1e-6, 999))
def test_a_distance_is_never_rounded_across_a_limit(distance: float) -> None:
    shown = float(format_widths(distance).removesuffix(" band widths"))
    assert shown > 0
    assert [shown >= limit for limit in OUTSIDE_STEPS] == [distance >= limit for limit in OUTSIDE_STEPS]


def test_the_example_day_is_a_sunday() -> None:
    assert datetime(2026, 11, 22, tzinfo=UTC).weekday() == 6
