"""Test the suggested policy against histories that can be checked by hand."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dims_worker.analysis.suggestions import AcceptedReading, Suggestion, quantile, rounded_up, suggest_policy
from dims_worker.cli.suggest import suggestion_lines, suggestion_yaml, yaml_inline
from dims_worker.config import Policy

START = datetime(2026, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)


def daily(values: Sequence[Any], step: timedelta = DAY) -> list[AcceptedReading]:
    return [AcceptedReading(START + n * step, value) for n, value in enumerate(values)]


def proposed(values: Sequence[Any], step: timedelta = DAY, **policy: Any) -> dict[str, Any]:
    return {one.key: one.value for one in suggest_policy(Policy(**policy), daily(values, step)).advice}


STEADY = [1000 + 10 * n for n in range(101)]
"""10 more each day: 1 % at first and 0.5 % in the end."""


@pytest.mark.parametrize(
    ("values", "policy", "expected"),
    [
        # the 95th of 100 changes is 10/1050 = 0.95 %; twice that is 1.9 %, rounded up to 2; the others are 2/3 and 10/3
        (STEADY, {}, {"thresholds": {"moderate": 0.67, "major": 2, "extreme": 3.33}, "stale_after": "3d"}),
        (
            STEADY,
            {"critical": True},
            {
                "thresholds": {"moderate": 0.67, "major": 2, "extreme": 3.33},
                "require_approval_pct": 2,
                "stale_after": "3d",
            },
        ),
        # one change of +50 % in a hundred days is not usual
        (
            [*([1000] * 50), *([1500] * 51)],
            {"stale_after": "3d"},
            {"volatility": "stable", "thresholds": {"moderate": 0.33, "major": 1, "extreme": 1.67}},
        ),
        # 10 -> 11 -> 10 is noise of one unit: min_abs ignores all of it
        (
            [10, 11] * 30,
            {"stale_after": "3d"},
            {"min_abs": 2, "thresholds": {"moderate": 0.33, "major": 1, "extreme": 1.67}},
        ),
        # a spike of +65 % in sixty days is two changes, which are not usual
        (
            [*STEADY[:30], 2145, *STEADY[31:60]],
            {"stale_after": "3d"},
            {"thresholds": {"moderate": 0.67, "major": 2, "extreme": 3.33}},
        ),
        # a metric that doubles and halves has no useful threshold
        ([1000, 2000] * 30, {"stale_after": "3d"}, {}),
        # texts have no drift in percent
        (["synced"] * 60, {"stale_after": "3d"}, {}),
    ],
)
def test_the_suggestion_fits_the_history(values: list[Any], policy: dict[str, Any], expected: dict[str, Any]) -> None:
    assert proposed(values, **policy) == expected


@pytest.mark.parametrize(
    ("step", "span"),
    [
        (timedelta(minutes=5), "1h"),
        (timedelta(hours=1), "3h"),
        (timedelta(hours=15), "45h"),
        (DAY, "3d"),
        (7 * DAY, "21d"),
    ],
)
def test_stale_after_is_three_times_the_usual_interval(step: timedelta, span: str) -> None:
    assert proposed(STEADY, step)["stale_after"] == span


def test_only_max_age_is_suggested_for_an_age() -> None:
    accepted = [AcceptedReading(START + n * DAY, (START + n * DAY - timedelta(hours=4)).isoformat()) for n in range(60)]
    found = suggest_policy(Policy(stale_after="3d"), accepted, is_age=True)
    assert [(one.key, one.value) for one in found.advice] == [("max_age", "6h")]


def test_notifications_are_counted_with_the_real_judge() -> None:
    values = [1000] * 30 + [1300] * 30 + [1000] * 30  # two jumps: +30 %, -23 %
    found = suggest_policy(Policy(critical=True), daily(values))
    assert (found.today, found.then) == (2, 2)
    wild = [1000 + 200 * (n % 2) for n in range(60)]  # 20 % up, 17 % down, each day
    found = suggest_policy(Policy(critical=True, stale_after="3d"), daily(wild))
    assert (found.today, found.then) == (59, 0)
    assert {one.key: one.value for one in found.advice}["require_approval_pct"] == 40


def test_few_readings_have_no_suggestion() -> None:
    assert suggest_policy(Policy(), []).too_few
    assert suggest_policy(Policy(), daily(STEADY[:20])) == Suggestion(
        20, 19 * DAY, too_few="a suggestion needs at least 21 accepted readings"
    )
    assert suggest_policy(Policy(), daily(STEADY[:21])).too_few is None


@given(
    st.lists(
        st.one_of(st.integers(-(10**20), 10**20), st.floats(-1e300, 1e300), st.none(), st.booleans(), st.text()),
        max_size=60,
    )
)
def test_a_suggestion_is_a_valid_policy_for_any_values(values: list[Any]) -> None:
    found = suggest_policy(Policy(critical=True), daily(values))
    Policy.model_validate({one.key: one.value for one in found.advice})
    assert all(one.reason for one in found.advice)
    assert found.then <= len(values)


@pytest.mark.parametrize(("share", "least"), [(0.5, 5), (0.95, 10), (0.99, 10), (0.1, 1), (0.0, 1), (1.0, 10)])
def test_the_quantile_is_one_of_the_numbers(share: float, least: int) -> None:
    assert quantile([3, 1, 2, 5, 4, 10, 9, 8, 7, 6], share) == least


def test_percentages_are_rounded_up() -> None:
    assert [rounded_up(one) for one in (0, 1, 1.01, 29, 100, 100.1)] == [1, 1, 2, 30, 100, None]


def test_the_output_can_be_pasted_into_the_configuration() -> None:
    found = {
        "lake.files": suggest_policy(Policy(critical=True), daily(STEADY)),
        "lake.new": suggest_policy(Policy(), []),
    }
    assert suggestion_lines("lake.files", found["lake.files"]) == [
        "lake.files: 101 accepted readings in 14.3 weeks",
        "  stale_after: 3d: 95 % of its readings come within 1 day of the previous one",
        "  thresholds: {moderate: 0.67, major: 2, extreme: 3.33}: 95 % of 100 changes are 0.95 % or less, and twice "
        "that is 1.9 %",
        "  require_approval_pct: 2: the same as major",
        "  you would have had 29 notifications with this policy, and 4 with the current one",  # the person accepts each
    ]
    assert suggestion_yaml(found) == (
        "metrics:\n  lake:\n    files: {stale_after: 3d, thresholds: {moderate: 0.67, major: 2, extreme: 3.33}, "
        "require_approval_pct: 2}"
    )
    assert suggestion_yaml({"lake.new": found["lake.new"]}) == ""
    assert yaml_inline({"a": [1], "b": None}) == "{a: [1], b: null}"
