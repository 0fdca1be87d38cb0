"""Test the accepted drifts of the last days: which they are, their order, their evidence and their incident."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from dims_worker.analysis.changes import AcceptedDrift, distance_outside, recent_changes
from dims_worker.approvals.decisions import BaselineInput, decide_request, set_baselines
from dims_worker.domain.approvers import Decider
from dims_worker.store.engine import transaction
from dims_worker.store.incidents import open_incidents
from tests.integration.helpers import Flow, event

ADA = Decider("ada", "option")


def changes(flow: Flow, limit: int = 50, days: int = 7) -> list[AcceptedDrift]:
    with transaction(flow.engine) as connection:
        return recent_changes(connection, flow.config, flow.clock() - timedelta(days=days), limit)


def shown(found: list[AcceptedDrift]) -> list[tuple[str, Any, Any]]:
    return [(drift.metric, drift.before, drift.after) for drift in found]


def test_accepted_drifts_come_the_largest_first_in_either_direction(flow: Flow) -> None:
    flow.serve(a=100)
    flow.serve(a=90)  # 10 %
    flow.serve(a=99)  # 10 %, upward
    flow.serve(b=100, e=100)
    flow.serve(b=40)  # 60 %
    flow.serve(e=104)  # minor, with the severity low
    flow.serve(a=297)  # 200 %, upward
    found = changes(flow)
    own = [drift for drift in found if drift.metric in ("m.a", "m.b", "m.e")]
    assert shown(own) == [("m.a", 99, 297), ("m.b", 100, 40), ("m.a", 90, 99), ("m.a", 100, 90), ("m.e", 100, 104)]
    assert [drift.accepted.how for drift in own] == ["policy"] * 5
    assert {drift.metric for drift in found} >= {"m.sum", "m.a", "m.b"}  # derived metrics also
    assert shown(changes(flow, limit=1))[0][0] == found[0].metric


def test_a_derived_drift_counts_when_it_was_computed_not_when_its_oldest_input_was_measured(flow: Flow) -> None:
    flow.record(None, {"m.b": 100}, flow.clock() - timedelta(days=30))
    flow.serve(a=100)
    flow.serve(a=900)
    derived = [drift for drift in changes(flow) if drift.metric == "m.sum"]
    assert shown(derived) == [("m.sum", 200, 1000)]
    assert flow.clock() - derived[0].as_of > timedelta(days=29)


def test_held_rejected_and_checked_values_are_no_accepted_drift_and_an_approved_one_is(flow: Flow) -> None:
    flow.serve(c=100, a=100)
    flow.look(a=10)
    flow.serve(c=50)
    assert changes(flow) == []
    request = flow.open("m.c")
    assert request
    decide_request(flow.engine, flow.config, "m.c", "approved", version=1, person=ADA, note="moved to the archive")
    (drift,) = changes(flow)
    accepted = drift.accepted
    assert (drift.metric, drift.before, drift.after, drift.drift_pct) == ("m.c", 100, 50, 50)
    assert (accepted.how, accepted.decided_by, accepted.note, accepted.request) == (
        "approved",
        "ada",
        "moved to the archive",
        request.id,
    )
    assert drift.evidence
    flow.serve(c=10)
    decide_request(flow.engine, flow.config, "m.c", "rejected", version=1, person=ADA, note=None)
    assert len(changes(flow)) == 1


def test_a_value_that_was_held_long_ago_and_approved_now_is_a_change_of_today(flow: Flow) -> None:
    flow.serve(c=100)
    flow.serve(c=50)
    with transaction(flow.engine) as connection:
        for query in (
            "UPDATE dims_metrics_history SET as_of = as_of - interval '30 days' WHERE metric = 'm.c'",
            "UPDATE dims_metrics SET as_of = as_of - interval '30 days' WHERE metric = 'm.c'",
            "UPDATE dims_approval_requests SET as_of = as_of - interval '30 days'",
            "UPDATE dims_verification_runs SET started_at = started_at - interval '30 days'",
        ):
            connection.exec_driver_sql(query)
    assert changes(flow) == []
    decide_request(flow.engine, flow.config, "m.c", "approved", version=1, person=ADA, note=None)
    assert shown(changes(flow)) == [("m.c", 100, 50)]


def test_a_baseline_set_by_hand_is_a_change_if_it_differs_notably(flow: Flow) -> None:
    flow.serve(a=100, c=100)
    values = [BaselineInput("m.a", 40, "counted again"), BaselineInput("m.c", 101, "")]
    set_baselines(flow.engine, flow.config, values, person=ADA)
    (drift,) = changes(flow)
    assert shown([drift]) == [("m.a", 100, 40)]
    assert (drift.accepted.how, drift.accepted.note, drift.run_id, drift.evidence) == (
        "by hand",
        "counted again",
        None,
        None,
    )


def test_the_evidence_has_the_events_between_the_value_before_and_the_reading(flow: Flow) -> None:
    flow.serve(a=100)
    flow.store(event("dims.scraper.complete"))
    flow.serve(a=10)
    flow.store(event("dims.scraper.complete"))
    (drift,) = (drift for drift in changes(flow) if drift.metric == "m.a")
    assert drift.evidence
    assert drift.evidence.reported.others == {"dims.scraper.complete": 1}
    assert drift.evidence.reported.requested == {"dims.verify.requested": 1}
    assert drift.evidence.unexplained is None


def test_a_change_names_its_incident(flow: Flow) -> None:
    flow.serve(a=100)
    flow.serve(a=10)
    with transaction(flow.engine) as connection:
        (incident,) = open_incidents(connection, ["m.a"])
    flow.serve(a=12)  # within the same incident
    found = {drift.after: drift.incident for drift in changes(flow) if drift.metric == "m.a"}
    assert found[10] and found[10].id == incident.id
    assert found[12] and found[12].id == incident.id


def test_the_band_gives_the_size_where_there_is_one(flow: Flow) -> None:
    flow.serve(a=100, c=100)
    flow.serve(b=100)
    flow.serve(a=80)  # 20 %, and inside its band
    flow.serve(b=90)  # 10 %, and far outside its band
    with transaction(flow.engine) as connection:
        for metric, low, high in (("m.a", 70, 110), ("m.b", 99, 101)):
            band = f"expected_low = {low}, expected_high = {high}"
            connection.exec_driver_sql(f"UPDATE dims_metrics_history SET {band} WHERE metric = '{metric}'")
    found = [drift for drift in changes(flow) if drift.metric in ("m.a", "m.b")]
    assert [(drift.metric, drift.distance) for drift in found] == [("m.b", 4.5), ("m.a", 0.0)]


def test_a_value_has_a_distance_only_from_a_band_with_a_width() -> None:
    assert distance_outside(1, 38, 42) == 37 / 4
    assert distance_outside(40, 38, 42) == 0
    assert distance_outside(50, 38, 42) == 2
    assert distance_outside(50, 42, 42) is None
    assert distance_outside(42, 42, 42) == 0
    assert distance_outside(50, 42, 42.001) is None  # 8,000 widths
    assert distance_outside(50, None, None) is None
    assert distance_outside("text", 38, 42) is None
    assert distance_outside(True, 38, 42) is None
