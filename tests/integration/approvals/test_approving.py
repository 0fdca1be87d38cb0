"""A decision applies once, to the version that the reviewer saw, even if others decide at the same time."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import text

from dims_worker.approvals.decisions import Choice, DecisionResult, decide_request, load_request
from dims_worker.domain.approvers import Decider
from dims_worker.errors import NotFound, Refused
from dims_worker.store.approval_requests import ApprovalRequest
from dims_worker.store.engine import transaction
from tests.integration.helpers import Flow, Threads, outcome

ADA = Decider("ada", "option")


def waiting(flow: Flow, value: Any = 150, baseline: Any = 100) -> ApprovalRequest:
    flow.serve(c=baseline)
    flow.serve(c=value)
    request = flow.open("m.c")
    assert request is not None
    return request


def decided(
    flow: Flow, request: ApprovalRequest, choice: Choice = "approved", version: int | None = None
) -> DecisionResult:
    seen = version or request.version
    return decide_request(
        flow.engine, flow.config, str(request.id), choice, version=seen, person=ADA, note="the backfill"
    )


def test_an_approved_value_becomes_the_baseline_and_the_log_keeps_who_when_and_why(flow: Flow) -> None:
    request = waiting(flow)
    decided(flow, request)
    state = flow.state("m.c")
    assert (state.baseline, state.accepted, state.baseline_version) == (150, 150, 2)
    assert type(state.baseline) is int
    assert state.baseline_as_of == state.accepted_as_of == request.as_of
    assert (state.status, state.severity, state.drift_pct) == ("ok", "none", 0.0)
    stored = load_request(flow.engine, str(request.id))
    assert (stored.state, stored.decided_by, stored.known_by, stored.note) == (
        "approved",
        "ada",
        "option",
        "the backfill",
    )
    assert stored.decided_at is not None
    outcomes = flow.rows("SELECT outcome FROM dims_metrics_history WHERE metric = 'm.c' ORDER BY id")
    assert [row.outcome for row in outcomes] == ["accepted", "approved"]
    assert flow.serve(c=150)["m.c"].status == "ok"
    assert flow.serve(c=171)["m.c"].outcome == "accepted"  # 14 % of what was approved
    assert flow.serve(c=173)["m.c"].outcome == "held"  # 15.3 % of it


def test_rejecting_keeps_the_baseline(flow: Flow) -> None:
    request = waiting(flow)
    decided(flow, request, "rejected")
    state = flow.state("m.c")
    assert (state.value, state.baseline, state.accepted, state.baseline_version) == (150, 100, 100, 1)
    assert load_request(flow.engine, "m.c").state == "rejected"


@pytest.mark.parametrize("first", ["approved", "rejected"])
def test_a_request_is_decided_once(flow: Flow, first: Choice) -> None:
    request = waiting(flow)
    decided(flow, request, first)
    before = flow.state("m.c"), load_request(flow.engine, str(request.id))
    other: Choice = "rejected" if first == "approved" else "approved"
    with pytest.raises(Refused, match=f"{first} by ada already"):
        decided(flow, request, other)
    again = decided(flow, request, first)  # to repeat the decision changes nothing
    assert (again.already, again.request.decided_by) == (True, "ada")
    assert (flow.state("m.c"), load_request(flow.engine, str(request.id))) == before


@pytest.mark.parametrize("choices", [("approved", "approved"), ("approved", "rejected")])
def test_one_of_two_concurrent_decisions_wins(flow: Flow, beside: Threads, choices: tuple[Choice, Choice]) -> None:
    request = waiting(flow)
    with transaction(flow.engine) as connection:
        connection.execute(text("SELECT 1 FROM dims_metrics WHERE metric = 'm.c' FOR UPDATE"))
        calls = [beside(decided, flow, request, choice) for choice in choices]
        flow.blocked(2)
    results = [outcome(call) for call in calls]
    (won,) = [result for result in results if isinstance(result, DecisionResult) and not result.already]
    (other,) = [result for result in results if result is not won]
    assert isinstance(other, Refused) if choices[0] != choices[1] else other.already
    assert load_request(flow.engine, str(request.id)).state == won.choice
    assert flow.state("m.c").baseline_version == (2 if won.choice == "approved" else 1)


def test_a_version_that_was_not_seen_is_refused_with_the_new_facts(flow: Flow) -> None:
    seen = waiting(flow)
    flow.serve(c=152)
    with pytest.raises(Refused, match="version 2 now proposes 152 against the baseline 100"):
        decided(flow, seen)
    assert flow.state("m.c").baseline == 100
    decided(flow, seen, version=2)
    assert flow.state("m.c").baseline == 152


def test_a_request_that_was_superseded_or_withdrawn_is_refused(flow: Flow) -> None:
    seen = waiting(flow)
    flow.serve(c=200)
    with pytest.raises(Refused, match="is superseded already"):
        decided(flow, seen)
    second = flow.open("m.c")
    assert second is not None
    flow.serve(c=100)
    with pytest.raises(Refused, match="is withdrawn already"):
        decided(flow, second)
    assert flow.state("m.c").baseline == 100


def test_a_request_against_an_earlier_baseline_is_refused(flow: Flow) -> None:
    request = waiting(flow)
    flow.do("UPDATE dims_metrics SET baseline = '140', baseline_version = baseline_version + 1 WHERE metric = 'm.c'")
    with pytest.raises(Refused, match="proposes 150 against the baseline 140"):
        decided(flow, request)
    assert flow.state("m.c").baseline == 140


def test_a_reading_that_is_recorded_during_an_approval_comes_before_or_after_it(flow: Flow, beside: Threads) -> None:
    request = waiting(flow)
    claim = flow.claimed("m.c")
    with transaction(flow.engine) as connection:
        connection.execute(text("SELECT 1 FROM dims_metrics WHERE metric = 'm.c' FOR UPDATE"))
        run, approval = beside(flow.record, claim, {"m.c": 200}), beside(decided, flow, request)
        flow.blocked(2)
    recorded, result = outcome(run), outcome(approval)
    (item,) = recorded.items
    newest = flow.open("m.c")
    assert item.outcome == "held"
    assert newest is not None
    assert newest.value == 200
    if isinstance(result, DecisionResult):
        assert (item.baseline, flow.state("m.c").baseline, newest.baseline_version) == (150, 150, 2)
    else:
        assert isinstance(result, Refused)
        assert (item.baseline, flow.state("m.c").baseline, newest.baseline_version) == (100, 100, 1)


def test_a_float_a_text_and_a_null_are_approved_as_they_are(flow: Flow) -> None:
    for value in (0.25, "text", None, True, 10**20):
        flow.do("UPDATE dims_metrics SET baseline_as_of = NULL")
        decided(flow, waiting(flow, value, baseline=3))
        state = flow.state("m.c")
        assert state.baseline == state.accepted == value
        assert type(state.baseline) is type(value)


def test_an_unknown_request_is_not_found(flow: Flow) -> None:
    for name in ("7", "m.c", "'; DROP"):
        with pytest.raises(NotFound):
            decide_request(flow.engine, flow.config, name, "approved", version=1, person=ADA, note=None)
