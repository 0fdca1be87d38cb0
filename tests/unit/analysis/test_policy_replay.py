"""Test what each policy would have sent, against histories that can be checked by hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from dims_worker.analysis.policy_replay import Replay, alternatives, past_changes, replay_policies
from dims_worker.analysis.suggestions import PolicyAdvice
from dims_worker.cli.suggest import replay_lines
from dims_worker.config import Policy
from dims_worker.store.approval_requests import ApprovalRequest
from dims_worker.store.history import Point
from dims_worker.store.incidents import Incident

NOW = datetime(2026, 11, 26, 9, tzinfo=UTC)
DAY = timedelta(days=1)


def at(days_ago: float) -> datetime:
    return NOW - days_ago * DAY


def daily(values: Sequence[Any], outcomes: dict[int, str] | None = None) -> list[Point]:
    """Return one reading a day, the last one now. `outcomes` are those that are not accepted, by days ago."""
    last = len(values) - 1
    return [
        Point(
            at(last - n), value, "files", (outcomes or {}).get(last - n, "accepted"), "ok", "none", 0.0, None, 1, None
        )
        for n, value in enumerate(values)
    ]


def incident(number: int, first: float, last: float, value: Any, **columns: Any) -> Incident:
    facts: dict[str, Any] = dict.fromkeys(Incident.__slots__) | {
        "id": number,
        "kind": "drift",
        "state": "closed",
        "resolution": "recovered",
        "value": value,
        "first_as_of": at(first),
        "as_of": at(last),
    }
    return Incident(**facts | columns)


def by_change(replay: Replay | None) -> dict[str, tuple[int, int, list[int]]]:
    """Return the messages, the requests and the numbers of the missed changes of each policy."""
    assert replay is not None
    return {
        ", ".join(f"{key}={value}" for key, value in each.changes.items()): (
            each.messages,
            each.requests,
            [change.number for change in each.missed],
        )
        for each in replay.policies
    }


STEADY = [10_000 + 10 * n for n in range(300)]
"""Ten more each day. The replay has the last 90 of these 300 days."""


def with_values(changed: dict[int, int]) -> list[int]:
    """Return the steady values with others on some days, by days ago."""
    return [changed.get(len(STEADY) - 1 - n, value) for n, value in enumerate(STEADY)]


def test_a_steady_metric_sends_nothing_under_any_policy() -> None:
    replay = replay_policies(Policy(), daily(STEADY), [])
    assert replay is not None
    assert replay.values == 90
    assert all(counts == (0, 0, []) for counts in by_change(replay).values())


def test_a_loss_that_came_back_is_two_messages_and_a_small_one_is_missed_by_the_drift() -> None:
    """A loss of 4 % is far outside the band, and below the drift that sends a message."""
    values = with_values({20: 12_270, 19: 12_280})
    found = by_change(replay_policies(Policy(), daily(values), past_changes([], [incident(7, 20, 19, 12_280)])))
    assert found[""] == (2, 0, [])
    assert found["expect=drift"] == (0, 0, [7])
    assert found["critical=True"] == (2, 0, [])


def test_an_incident_that_lasts_is_one_message() -> None:
    values = with_values(dict.fromkeys(range(21), 6_000))
    lasting = incident(7, 20, 0, 6_000, state="open", resolution=None)
    found = by_change(replay_policies(Policy(), daily(values), past_changes([], [lasting])))
    assert found[""] == (1, 0, [])
    assert found["critical=True"] == (1, 1, [])


def test_a_change_without_an_incident_is_one_message_and_then_teaches() -> None:
    values = [*STEADY[:-20], *(value + 3_000 for value in STEADY[-20:])]
    found = by_change(replay_policies(Policy(), daily(values), []))
    assert found[""] == (1, 0, [])
    assert found["direction=down"] == (0, 0, [])
    assert found["expect=drift"] == (1, 0, [])


def test_a_rejected_request_is_found_among_the_readings_that_were_not_accepted() -> None:
    facts: dict[str, Any] = dict.fromkeys(ApprovalRequest.__slots__) | {
        "id": 12,
        "kind": "reading",
        "state": "rejected",
        "value": 6_000,
        "as_of": at(19),
        "baseline_as_of": at(21),
    }
    points = daily(with_values({20: 6_000, 19: 6_000}), {20: "held", 19: "rejected"})
    replay = replay_policies(Policy(critical=True), points, past_changes([ApprovalRequest(**facts)], []))
    assert replay is not None
    assert [(change.kind, change.number, change.result) for change in replay.past] == [("request", 12, "rejected")]
    found = by_change(replay)
    assert found[""] == found["require_approval_pct=10"] == found["require_approval_pct=20"] == (2, 1, [])


def test_a_change_within_a_day_counts_although_the_day_ended_well() -> None:
    points = daily(STEADY)
    loss = Point(at(20.1), 300, "files", "accepted", "extreme", "urgent", 97.0, 12_770, 1, None)
    points = sorted([*points, loss], key=lambda point: point.as_of)
    found = by_change(replay_policies(Policy(), points, past_changes([], [incident(7, 20.1, 20.1, 300)])))
    assert found[""] == found["expect=drift"] == (2, 0, [])


def test_incidents_that_a_person_called_expected_are_no_problems() -> None:
    known = [
        incident(1, 9, 8, 5, resolution="expected"),
        incident(2, 9, 8, 5, kind="stale"),
        incident(3, 9, 8, 5, kind="limit"),
        incident(4, 9, 8, 5, state="acknowledged", resolution=None),
        incident(5, 9, 8, 5, kind="approval", resolution="rejected"),
    ]
    assert [(each.number, each.result, each.until is None) for each in past_changes([], known)] == [
        (4, "acknowledged", True),
        (5, "rejected", False),
    ]


@pytest.mark.parametrize("values", [[], [5], STEADY[:14], ["text"] * 100, [None] * 100])
def test_too_few_numbers_have_no_replay(values: list[Any]) -> None:
    assert replay_policies(Policy(), daily(values), []) is None
    assert replay_lines(None) == []


def test_readings_in_another_unit_do_not_count() -> None:
    known = daily(STEADY[:200])
    older = [replace(point, as_of=point.as_of - 200 * DAY, value=5, unit="lines") for point in known]
    replay = replay_policies(Policy(), [*older, *known], [])
    assert all(counts == (0, 0, []) for counts in by_change(replay).values())


def test_the_other_policies_differ_from_the_current_one() -> None:
    assert alternatives(Policy(), [1, 2, 3]) == [
        {"expect": "drift"},
        {"direction": "down"},
        {"critical": True},
        {"min_abs": 1},
    ]
    assert alternatives(Policy(expect="drift", direction="down", critical=True), [5, 5]) == [
        {"expect": "history"},
        {"require_approval_pct": 10},
        {"require_approval_pct": 20},
    ]
    advice = [PolicyAdvice("min_abs", 3, ""), PolicyAdvice("stale_after", "3d", ""), PolicyAdvice("critical", True, "")]
    assert alternatives(Policy(), [1, 2], advice)[-2:] == [{"min_abs": 3}, {"min_abs": 3, "critical": True}]


def test_the_table_has_a_line_for_each_policy() -> None:
    values = with_values({20: 12_270, 19: 12_280})
    replay = replay_policies(Policy(), daily(values), past_changes([], [incident(7, 20, 19, 12_280)]))
    assert replay_lines(replay) == [
        "  the last 90 days under other policies, 90 daily values:",
        "    policy            messages   requests   missed",
        "    the current one          2          0   none",
        "    expect: drift            0          0   incident 7 (recovered)",
        "    direction: down          2          0   none",
        "    critical: true           2          0   none",
        "    min_abs: 10              2          0   none",
    ]
