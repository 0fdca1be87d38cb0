"""Rejections, expiry, baselines set by hand, approvers, and the log of decisions."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy.exc import IntegrityError

from dims_worker.analysis.explanation import explain_metric, explain_request
from dims_worker.approvals.decisions import BaselineInput, Choice, decide_request, load_request, set_baselines
from dims_worker.domain.approvers import Decider
from dims_worker.errors import NotAllowed, NotFound, Refused, UsageError
from dims_worker.formatting import format_holding_drift
from dims_worker.store.approval_requests import ApprovalRequest, expire_requests
from dims_worker.store.engine import transaction
from dims_worker.text.json_documents import request_document
from dims_worker.text.readings import past_reading_text
from tests.integration.helpers import CONFIG, NOW, Flow

ADA = Decider("ada", "environment")
Make = Callable[[str], Flow]


def waiting(flow: Flow, value: Any = 150) -> ApprovalRequest:
    flow.serve(c=100)
    flow.serve(c=value)
    request = flow.open("m.c")
    assert request is not None
    return request


def settle(flow: Flow, choice: Choice, request: ApprovalRequest) -> None:
    decide_request(flow.engine, flow.config, str(request.id), choice, version=request.version, person=ADA, note=None)


def set_(flow: Flow, metric: str, value: Any, note: str | None = "counted by hand") -> ApprovalRequest:
    (request,) = set_baselines(flow.engine, flow.config, [BaselineInput(metric, value, note)], ADA)
    return request


# --- rejected ------------------------------------------------------------------------------------------


def test_a_rejected_value_opens_no_new_request_until_a_reading_leaves_the_band(flow: Flow) -> None:
    settle(flow, "rejected", waiting(flow))
    for value in (150, 152, 148):  # 2 % of what was proposed
        assert flow.serve(c=value)["m.c"].outcome == "rejected"
    assert (flow.open("m.c"), flow.state("m.c").baseline, flow.state("m.c").value) == (None, 100, 148)
    assert flow.serve(c=160)["m.c"].outcome == "held"
    assert flow.serve(c=150)["m.c"].outcome == "held"  # a reading has left the band: a new request
    assert flow.states_of_requests() == ["rejected", "superseded", "open"]


def test_the_band_of_a_rejected_request_is_that_of_the_value_first_proposed(flow: Flow) -> None:
    waiting(flow, 150)
    flow.serve(c=153)  # updates the request
    moved = flow.open("m.c")
    assert moved is not None and (moved.value, moved.anchor) == (153, 150)
    settle(flow, "rejected", moved)
    assert flow.state("m.c").rejected == 150
    assert flow.serve(c=148)["m.c"].outcome == "rejected"  # within 2 % of 150, and not of 153
    assert flow.serve(c=155)["m.c"].outcome == "held"  # within 2 % of 153, and not of 150


def test_a_rejected_value_opens_a_new_request_after_an_accepted_reading(flow: Flow) -> None:
    settle(flow, "rejected", waiting(flow))
    assert flow.serve(c=101)["m.c"].outcome == "accepted"
    assert flow.state("m.c").rejected_as_of is None
    assert flow.serve(c=150)["m.c"].outcome == "held"


def test_a_check_opens_no_request_and_keeps_the_rejection(flow: Flow) -> None:
    settle(flow, "rejected", waiting(flow))
    assert flow.look(c=500)["m.c"].outcome == "looked"
    assert flow.serve(c=150)["m.c"].outcome == "rejected"


# --- expiry --------------------------------------------------------------------------------------------

EXPIRING = CONFIG + "policy: {expire_after: 7d}\n"


def test_a_request_without_a_decision_expires_if_configured(make_flow: Make) -> None:
    flow = make_flow(EXPIRING)
    request = waiting(flow)
    assert request.expires_at is not None
    assert (request.expires_at - request.opened_at).days == 7 or request.expires_at > request.opened_at
    with transaction(flow.engine) as connection:
        assert expire_requests(connection) == []
    flow.do("UPDATE dims_approval_requests SET expires_at = clock_timestamp() - interval '1 s'")
    with transaction(flow.engine) as connection:
        assert expire_requests(connection) == ["m.c"]
    assert (flow.states_of_requests(), flow.state("m.c").baseline) == (["expired"], 100)
    with pytest.raises(Refused, match="is expired already"):
        settle(flow, "approved", request)
    assert flow.serve(c=150)["m.c"].outcome == "held"  # the value is still different: a new request
    assert flow.states_of_requests() == ["expired", "open"]


def test_without_expire_after_a_request_waits_for_ever(flow: Flow) -> None:
    assert waiting(flow).expires_at is None


# --- approvers -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("approvers", "allowed"), [("[ada, ben]", True), ("['a*']", True), ("ben", False), ("['ADA', 'b*']", False)]
)
def test_only_the_approvers_of_the_policy_may_decide(make_flow: Make, approvers: str, allowed: bool) -> None:
    flow = make_flow(CONFIG + f"policy: {{categories: {{m: {{approvers: {approvers}}}}}}}\n")
    request = waiting(flow)
    if allowed:
        settle(flow, "approved", request)
        set_(flow, "m.c", 7)
        return
    for act in (
        lambda: settle(flow, "approved", request),
        lambda: settle(flow, "rejected", request),
        lambda: set_(flow, "m.c", 7),
    ):
        with pytest.raises(NotAllowed, match="ada may not decide on m"):
            act()
    assert (flow.states_of_requests(), flow.state("m.c").baseline) == (["open"], 100)


# --- by hand -------------------------------------------------------------------------------------------


def test_a_baseline_set_by_hand_is_an_approved_request_in_the_log(flow: Flow) -> None:
    flow.serve(c=100)
    made = set_(flow, "m.c", 172_726)
    state = flow.state("m.c")
    assert (state.baseline, state.accepted, type(state.baseline)) == (172_726, 172_726, int)
    assert state.baseline_as_of == state.accepted_as_of == made.as_of
    assert (state.value, state.status) == (100, "extreme")  # the reading stays, and is judged again
    stored = load_request(flow.engine, str(made.id))
    assert (stored.kind, stored.state, stored.run_id, stored.baseline, stored.value) == (
        "baseline",
        "approved",
        None,
        100,
        172_726,
    )
    assert (stored.decided_by, stored.known_by, stored.note) == ("ada", "environment", "counted by hand")
    assert flow.serve(c=172_726)["m.c"].status == "ok"
    assert flow.serve(c=205_000)["m.c"].outcome == "held"


def test_a_metric_that_was_never_measured_may_get_a_baseline(flow: Flow) -> None:
    set_(flow, "m.c", 100)
    (item,) = flow.serve(c=130).values()
    assert (item.status, item.outcome, item.baseline) == ("extreme", "held", 100)


def test_an_open_request_is_withdrawn_when_a_person_sets_the_baseline(flow: Flow) -> None:
    request = waiting(flow)
    set_(flow, "m.c", 150)
    assert load_request(flow.engine, str(request.id)).state == "withdrawn"
    with pytest.raises(Refused):
        settle(flow, "approved", request)


def test_a_reading_begun_before_a_baseline_was_set_does_not_move_it(flow: Flow) -> None:
    """It is a good reading and serves its event, but the person's baseline is newer."""
    flow.serve(c=100)
    claim = flow.claimed("m.c")
    set_(flow, "m.c", 105)
    (item,) = flow.record(claim, {"m.c": 101}).items
    state = flow.state("m.c")
    assert (item.outcome, state.value, state.due, state.baseline, state.accepted) == ("looked", 101, False, 105, 105)


def test_many_baselines_are_set_together_or_none(flow: Flow) -> None:
    with pytest.raises(NotFound, match=r"no metric is called m\.unknown"):
        set_baselines(flow.engine, flow.config, [BaselineInput("m.a", 1), BaselineInput("m.unknown", 2)], ADA)
    flow.serve(c=100)
    with pytest.raises(UsageError, match="is a text"):
        set_baselines(flow.engine, flow.config, [BaselineInput("m.a", 1), BaselineInput("m.c", "many")], ADA)
    assert flow.states_of_requests() == []
    assert flow.state("m.a").baseline_as_of is None
    made = set_baselines(flow.engine, flow.config, [BaselineInput("m.c", 1.5), BaselineInput("m.a", 2)], ADA)
    assert [request.metric for request in made] == ["m.c", "m.a"]
    assert (flow.state("m.a").baseline, flow.state("m.c").baseline) == (2, 1.5)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_value_that_cannot_be_measured_is_no_baseline(flow: Flow, value: float) -> None:
    with pytest.raises(UsageError, match="is not a measurement"):
        set_(flow, "m.c", value)


def test_an_age_has_no_baseline_to_set(make_flow: Make) -> None:
    flow = make_flow(
        CONFIG.replace("e: {source: two, measure: count}", "e: {source: two, measure: newest_age}").replace(
            'ratio: {derive: "m.sum / m.e"}', 'ratio: {derive: "m.sum / 2"}'
        )
    )
    with pytest.raises(UsageError, match="is an age"):
        set_(flow, "m.e", "2026-01-01T00:00:00+00:00")


# --- the log -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE dims_approval_requests SET note = 'another'",
        "UPDATE dims_approval_requests SET state = 'open'",
        "UPDATE dims_approval_requests SET value = '7'",
        "DELETE FROM dims_approval_requests",
        "TRUNCATE dims_approval_requests",
    ],
)
def test_the_database_refuses_to_change_a_decided_request(flow: Flow, statement: str) -> None:
    settle(flow, "approved", waiting(flow))
    kept = (
        "decided requests are kept" if "TRUNCATE" in statement else "is approved: a decided request cannot be changed"
    )
    with pytest.raises(IntegrityError, match=kept):
        flow.do(statement)
    assert flow.states_of_requests() == ["approved"]


def test_an_open_request_may_change(flow: Flow) -> None:
    waiting(flow)
    flow.do("UPDATE dims_approval_requests SET severity = 'high'")


# --- evidence ------------------------------------------------------------------------------------------


def test_a_request_contains_the_events_since_the_baseline_and_the_details_of_the_reading(flow: Flow) -> None:
    flow.serve(c=100)
    flow.ask("m.a")  # concerns another metric
    flow.ask("m.c")
    first = flow.scalar("SELECT max(seq) FROM dims_event_log")
    flow.serve(c=150)
    request = flow.open("m.c")
    assert request is not None
    assert request.baseline_as_of == flow.state("m.c").baseline_as_of
    evidence = dict(request.evidence or {})
    assert (evidence["events"], evidence["newest"]) == (2, [first + 1, first])
    flow.serve(c=150)  # the same facts: the version and the evidence stay
    again = flow.open("m.c")
    assert again is not None
    assert (again.version, again.evidence) == (1, request.evidence)
    flow.serve(c=151)
    later = flow.open("m.c")
    assert later is not None
    assert later.version == 2
    assert dict(later.evidence or {})["events"] == 4


def test_the_evidence_of_a_derived_metric_are_the_events_of_its_inputs(make_flow: Make) -> None:
    flow = make_flow(CONFIG.replace('sum: {derive: "m.a + m.b"}', 'sum: {derive: "m.a + m.b", critical: true}'))
    flow.serve(a=50)
    flow.serve(b=50)
    flow.serve(a=100)
    request = flow.open("m.sum")
    assert request is not None
    assert dict(request.evidence or {})["events"] >= 1


# --- the drift that holds a value ---------------------------------------------------------------------------


def test_a_request_has_the_drift_that_holds_it_and_what_this_is_compared_with(flow: Flow) -> None:
    """14 % is accepted. One more step of 0.88 % is held at 15 % from the value that a person last accepted."""
    flow.serve(c=100)
    flow.serve(c=114)
    assert flow.open("m.c") is None
    held = past_reading_text(flow.config, flow.serve(c=115)["m.c"], 1)
    assert held == "waits for approval: request 1; 15.0 % from 100, which a person last accepted"
    request = flow.open("m.c")
    assert request is not None
    assert (request.baseline, request.drift_pct, request.compared_with, request.from_person) == (114, 15, 100, True)
    assert format_holding_drift(request, None, NOW) == "+15.0 % from 100 files"
    assert request_document(request)["compared_with"] == 100
    flow.serve(c=116)  # in the band
    updated = flow.open("m.c")
    assert updated is not None
    assert (updated.id, updated.drift_pct, updated.compared_with) == (request.id, 16, 100)


def test_a_request_is_compared_with_the_baseline_if_that_holds_it(flow: Flow) -> None:
    flow.serve(c=100)
    flow.serve(c=130)
    request = flow.open("m.c")
    assert request is not None
    assert (request.drift_pct, request.compared_with, request.from_person) == (30, 100, False)
    assert format_holding_drift(request, None, NOW) == "+30.0 %"


def test_a_request_counts_the_same_events_everywhere_however_often_its_value_is_measured_again(flow: Flow) -> None:
    flow.serve(c=100)
    flow.serve(c=150)
    for _ in range(3):
        flow.serve(c=150)
    request = flow.open("m.c")
    assert request is not None
    with transaction(flow.engine) as connection:
        evidence, _ = explain_request(connection, flow.config, request)
        explained = explain_metric(connection, flow.config, "m.c").evidence
    assert evidence is not None and explained is not None
    assert (request.evidence or {})["events"] == evidence.reported.number == explained.reported.number == 1
