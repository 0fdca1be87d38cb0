"""An incident lasts until the value is back or a person closes it, whatever later readings bring."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from dims_worker.approvals.decisions import BaselineInput, decide_request, set_baselines
from dims_worker.domain.approvers import Decider
from dims_worker.domain.health import Health, metric_health
from dims_worker.errors import NotFound, Refused, UsageError
from dims_worker.events import SCHEDULE_TICK, Event
from dims_worker.incidents.decisions import acknowledge_incident, close_incident
from dims_worker.incidents.overdue import Sweep, sweep_incidents
from dims_worker.store import incidents, metric_states
from dims_worker.store.approval_requests import expire_requests
from dims_worker.store.engine import clock, transaction
from dims_worker.store.incidents import Incident
from tests.integration.helpers import CONFIG, Down, Flow, event

Make = Callable[[str], Flow]
ADA = Decider("ada", "option")
LONG_AGO = datetime(2026, 1, 1, tzinfo=UTC)


def active(flow: Flow) -> list[Incident]:
    with transaction(flow.engine) as connection:
        return incidents.open_incidents(connection)


def only(flow: Flow) -> Incident:
    (incident,) = active(flow)
    return incident


def all_of(flow: Flow) -> list[Incident]:
    with transaction(flow.engine) as connection:
        return incidents.list_incidents(connection, limit=100, state="all")[::-1]


def health(flow: Flow, name: str) -> Health:
    with transaction(flow.engine) as connection:
        state = metric_states.states_of(connection, [name])[name]
        return metric_health(flow.config, state, incidents.open_incidents(connection), clock(connection))


def sweep(flow: Flow, later: timedelta = timedelta(0)) -> None:
    with transaction(flow.engine) as connection:
        sweep_incidents(connection, flow.config, Sweep(clock(connection) + later, LONG_AGO))


def close(flow: Flow, number: int, version: int | None = None) -> Incident:
    return close_incident(flow.engine, flow.config, number, version=version, person=ADA, reason="moved away")


def test_a_loss_that_policy_accepts_stays_visible_whatever_comes_after(flow: Flow) -> None:
    flow.serve(a=40)
    flow.serve(a=1)
    for value in (1, 2, 4, 4):
        flow.serve(a=value)
    incident = only(flow)
    assert (incident.kind, incident.state, incident.anchor, incident.value) == ("drift", "open", 40, 4)
    assert incident.severity == "urgent"
    assert flow.state("m.a").baseline == 4
    assert (health(flow, "m.a").label, health(flow, "m.a").severity) == ("lost", "urgent")


@pytest.mark.parametrize("back", [40, 39, 38.5, 43])
def test_a_drift_ends_when_the_value_is_back(flow: Flow, back: float) -> None:
    flow.serve(a=40)
    flow.serve(a=1)
    flow.serve(a=30)
    assert only(flow).value == 30
    flow.serve(a=back)
    (incident,) = all_of(flow)
    assert (incident.state, incident.resolution) == ("closed", "recovered")
    assert health(flow, "m.a").label == "ok"


def test_the_way_back_is_no_drift(flow: Flow) -> None:
    flow.serve(a=40)
    flow.serve(a=1)
    item = flow.serve(a=40)["m.a"]
    assert (item.severity, item.tier, item.outcome) == ("none", "auto", "accepted")
    assert item.reason == "up 3,900.0 %; back at 40, the value before the incident"


def test_a_value_that_is_back_and_beyond_its_limit_is_no_drift_but_a_broken_limit(make_flow: Make) -> None:
    flow = make_flow(CONFIG.replace("a: {source: one", "a: {max: 30, source: one"))
    flow.serve(a=40)
    flow.serve(a=1)
    item = flow.serve(a=40)["m.a"]
    assert (item.severity, item.tier) == ("high", "notify")
    assert [each.kind for each in active(flow)] == ["limit"]


def test_a_value_far_on_the_other_side_is_not_back(flow: Flow) -> None:
    flow.serve(a=40)
    flow.serve(a=20)
    flow.serve(a=60)
    assert (only(flow).anchor, only(flow).value, health(flow, "m.a").label) == (40, 60, "drifted")


def test_a_small_drift_opens_no_incident(flow: Flow) -> None:
    flow.serve(a=100)
    flow.serve(a=90)
    assert active(flow) == []


def test_a_held_value_is_one_incident_until_it_is_back(flow: Flow) -> None:
    flow.serve(c=100)
    flow.serve(c=50)
    flow.serve(c=50)
    incident = only(flow)
    request = flow.open("m.c")
    assert request is not None
    assert (incident.kind, incident.request, incident.anchor) == ("approval", request.id, 100)
    assert health(flow, "m.c").label == "waits for approval"
    flow.serve(c=100)
    assert [(each.kind, each.resolution) for each in all_of(flow)] == [("approval", "recovered")]


def test_approval_ends_the_incidents_of_a_metric(flow: Flow) -> None:
    flow.serve(c=100)
    flow.serve(c=50)
    request = flow.open("m.c")
    assert request is not None
    decide_request(flow.engine, flow.config, "m.c", "approved", version=request.version, person=ADA, note="archived")
    (incident,) = all_of(flow)
    assert (incident.resolution, incident.closed_by, incident.closing_reason) == ("approved", "ada", "archived")
    flow.serve(c=50)
    assert active(flow) == []


def test_a_rejected_loss_stays_visible_as_an_acknowledged_drift(flow: Flow) -> None:
    flow.serve(c=100)
    flow.serve(c=50)
    request = flow.open("m.c")
    assert request is not None
    decide_request(flow.engine, flow.config, "m.c", "rejected", version=request.version, person=ADA, note="restore it")
    flow.serve(c=50)
    incident = only(flow)
    assert (incident.kind, incident.state, incident.note) == ("drift", "acknowledged", "restore it")
    assert health(flow, "m.c").label == "lost, acknowledged"
    flow.serve(c=99)
    assert active(flow) == []


def test_an_expired_request_leaves_an_open_drift(make_flow: Make) -> None:
    flow = make_flow(CONFIG + "policy: {expire_after: 1h}\n")
    flow.serve(c=100)
    flow.serve(c=50)
    flow.do("UPDATE dims_approval_requests SET expires_at = now() - interval '1 minute'")
    with transaction(flow.engine) as connection:
        expire_requests(connection)
    sweep(flow)
    assert [(each.kind, each.state, each.resolution) for each in all_of(flow)] == [
        ("approval", "closed", "expired"),
        ("drift", "open", None),
    ]


def test_closing_a_drift_starts_a_new_level(flow: Flow) -> None:
    flow.serve(a=40)
    flow.serve(a=20)
    closed = close(flow, only(flow).id, only(flow).version)
    assert (closed.resolution, closed.closed_by, closed.closing_reason) == ("expected", "ada", "moved away")
    flow.serve(a=20)
    assert active(flow) == []
    flow.serve(a=5)
    assert only(flow).anchor == 20


def test_closing_the_incident_of_a_held_value_approves_it(flow: Flow) -> None:
    flow.serve(c=100)
    flow.serve(c=50)
    close(flow, only(flow).id)
    assert flow.states_of_requests() == ["approved"]
    assert (flow.state("m.c").baseline, active(flow)) == (50, [])


def test_a_baseline_set_by_hand_ends_the_incidents(flow: Flow) -> None:
    flow.serve(a=40)
    flow.serve(a=20)
    set_baselines(flow.engine, flow.config, [BaselineInput("m.a", 20)], ADA)
    assert (active(flow), all_of(flow)[0].resolution) == ([], "expected")


def test_decisions_need_the_version_that_was_seen_and_a_reason(flow: Flow) -> None:
    flow.serve(a=40)
    flow.serve(a=20)
    seen = only(flow)
    flow.serve(a=10)
    with pytest.raises(Refused, match=r"has changed since version 1: it has version \d now"):
        close(flow, seen.id, seen.version)
    with pytest.raises(UsageError, match="needs a reason"):
        close_incident(flow.engine, flow.config, seen.id, version=None, person=ADA, reason=" ")
    with pytest.raises(NotFound, match="there is no incident 999"):
        close(flow, 999)
    close(flow, seen.id)
    with pytest.raises(Refused, match="closed already"):
        acknowledge_incident(flow.engine, flow.config, seen.id, version=None, person=ADA, note=None)


def test_an_acknowledged_incident_still_counts(flow: Flow) -> None:
    flow.serve(a=40)
    flow.serve(a=20)
    done = acknowledge_incident(flow.engine, flow.config, only(flow).id, version=1, person=ADA, note="on it")
    assert (done.state, done.acknowledged_by, done.note) == ("acknowledged", "ada", "on it")
    flow.serve(a=20)
    assert (only(flow).state, health(flow, "m.a").label) == ("acknowledged", "lost, acknowledged")


def test_a_value_that_comes_and_goes_flaps(flow: Flow) -> None:
    for value in (100, 116, 100, 116, 100, 116, 100):
        flow.serve(c=value)
    (incident,) = all_of(flow)
    assert (incident.state, incident.flaps) == ("open", 2)
    assert incident.calm_at is not None
    sweep(flow, timedelta(hours=5))
    assert only(flow).id == incident.id
    sweep(flow, timedelta(hours=7))
    assert (active(flow), all_of(flow)[0].resolution) == ([], "recovered")


def test_a_metric_whose_incident_is_calm_is_ok(flow: Flow) -> None:
    for value in (100, 50, 100, 50, 100):
        flow.serve(a=value, c=value)
    for name in ("m.a", "m.c"):
        assert (health(flow, name).label, health(flow, name).severity) == ("ok", "none")
        assert "It came and went, and has been calm since" in health(flow, name).sentence
        assert health(flow, name).request is None
    assert all(each.calm for each in active(flow))
    flow.serve(a=50, c=50)
    assert (health(flow, "m.a").label, health(flow, "m.c").label) == ("lost", "waits for approval")


def test_a_person_can_close_a_calm_incident_which_has_no_open_request(flow: Flow) -> None:
    for value in (100, 50, 100, 50, 100):
        flow.serve(a=value, c=value)
    for incident in active(flow):
        closed = close(flow, incident.id, incident.version)
        assert (closed.state, closed.resolution, closed.over_at is not None) == ("closed", "expected", True)
    assert (flow.state("m.a").baseline, flow.state("m.c").baseline) == (100, 100)
    flow.serve(c=50)
    assert only(flow).kind == "approval"


def test_an_incident_that_opens_again_is_compared_with_what_was_accepted_meanwhile(flow: Flow) -> None:
    for value in (100, 60, 97, 50):
        flow.serve(a=value)
    assert (only(flow).anchor, only(flow).value, only(flow).flaps) == (97, 50, 1)
    for value in (100, 60, 97, 50):
        flow.serve(c=value)
    held = next(each for each in active(flow) if each.metric == "m.c")
    assert (held.anchor, held.value, held.flaps) == (97, 50, 1)


def test_incidents_of_one_run_are_one_story(make_flow: Make) -> None:
    flow = make_flow(CONFIG)
    flow.serve(a=100, c=100)
    flow.serve(a=50, c=50)
    assert len({each.story for each in active(flow)}) == 1
    assert len(active(flow)) == 2


def test_failing_opens_after_three_failures_and_ends_with_a_good_reading(flow: Flow) -> None:
    for number in range(4):
        flow.serve(a=Down("no such host"))
        assert len(active(flow)) == (number >= 2)
    assert (only(flow).kind, health(flow, "m.a").label) == ("failing", "failing")
    flow.serve(a=1)
    assert active(flow) == []


def test_a_limit_lasts_and_a_closed_one_does_not_open_again_until_it_was_over(make_flow: Make) -> None:
    flow = make_flow(CONFIG.replace("a: {source: one", "a: {max: 5, source: one"))
    flow.serve(a=6)
    flow.serve(a=6)
    assert (only(flow).kind, health(flow, "m.a").label) == ("limit", "beyond its limit")
    close(flow, only(flow).id)
    flow.serve(a=6)
    assert active(flow) == []
    flow.serve(a=5)
    flow.serve(a=6)
    assert only(flow).kind == "limit"


def test_a_limit_that_the_configuration_drops_ends_its_incident(make_flow: Make, restart: Make) -> None:
    flow = make_flow(CONFIG.replace("a: {source: one", "a: {max: 5, source: one"))
    flow.serve(a=6)
    sweep(restart(CONFIG))
    assert active(flow) == []


def test_staleness_opens_by_the_sweep_and_ends_with_a_reading(flow: Flow) -> None:
    flow.serve(a=1)
    sweep(flow)
    assert active(flow) == []
    flow.do("UPDATE dims_metrics SET as_of = as_of - interval '8 days' WHERE metric = 'm.a'")
    for _ in range(2):
        sweep(flow)
    assert (only(flow).kind, health(flow, "m.a").label) == ("stale", "stale")
    flow.serve(a=1)
    assert active(flow) == []


def test_close_after_ends_a_drift_as_expected(make_flow: Make) -> None:
    flow = make_flow(CONFIG + "policy: {close_after: 3d}\n")
    flow.serve(a=40)
    flow.serve(a=20)
    sweep(flow, timedelta(days=2))
    assert only(flow).kind == "drift"
    sweep(flow, timedelta(days=3, seconds=1))
    assert (active(flow), all_of(flow)[0].resolution) == ([], "timeout")


def test_a_retired_metric_has_no_incident(make_flow: Make, restart: Make) -> None:
    flow = make_flow(CONFIG)
    flow.serve(a=40)
    flow.serve(a=20)
    later = restart("sources: {one: {type: files, path: one}}\nmetrics: {m: {x: {source: one, measure: count}}}\n")
    sweep(later)
    assert (active(flow), all_of(flow)[0].resolution) == ([], "retired")


def test_a_rule_without_events_is_silent_until_one_comes(make_flow: Make) -> None:
    config = CONFIG.replace("scraped: {on", "scraped: {silent_after: 1d, on")
    flow = make_flow(config)
    sweep(flow, timedelta(hours=23))
    assert active(flow) == []
    sweep(flow, timedelta(hours=25))
    assert (only(flow).metric, only(flow).kind, only(flow).rule) == ("rule:scraped", "silence", "scraped")
    flow.store(event("dims.scraper.complete"))
    sweep(flow)
    assert active(flow) == []


def test_a_schedule_without_ticks_is_silent_and_a_process_that_just_started_waits(make_flow: Make) -> None:
    flow = make_flow(CONFIG.replace("scraped: {on", 'scraped: {schedule: "0 * * * *", on'))
    with transaction(flow.engine) as connection:
        later = clock(connection) + timedelta(hours=3)
        sweep_incidents(connection, flow.config, Sweep(later, later - timedelta(minutes=1)))
    assert active(flow) == []
    sweep(flow, timedelta(hours=3))
    assert only(flow).kind == "silence"
    with transaction(flow.engine) as connection:
        hour = clock(connection).replace(minute=0, second=0, microsecond=0)
    tick = Event.new(SCHEDULE_TICK, "dims:beat", now=hour, subject="scraped", data={"rule": "scraped"})
    flow.store(tick)
    sweep(flow)
    assert active(flow) == []


def test_a_check_opens_no_incident(flow: Flow) -> None:
    flow.serve(a=40, c=10)
    flow.look(a=1)
    assert (active(flow), health(flow, "m.a").label) == ([], "lost")


def test_a_run_that_opens_nothing_reads_incidents_once(flow: Flow, queries: list[str]) -> None:
    flow.serve(a=40)
    queries.clear()
    flow.serve(a=40)
    assert sum("dims_incidents" in query for query in queries) == 1


def daily(flow: Flow, values: list[Any], metric: str = "m.a") -> datetime:
    """Record a value a day under claims, the last one yesterday. Return the time of the last one."""
    start = flow.clock() - timedelta(days=len(values))
    when = start
    for number, value in enumerate(values):
        when = start + timedelta(days=number)
        flow.record(flow.claimed(metric), {metric: value}, when)
    return when


def test_a_metric_with_history_is_judged_by_its_band_and_not_by_its_drift(flow: Flow) -> None:
    daily(flow, [1000 + day % 2 for day in range(20)])
    item = flow.serve(a=940)["m.a"]
    assert (item.status, item.outcome, item.tier) == ("moderate", "accepted", "notify")
    assert item.expected_low is not None
    assert item.expected_high is not None
    assert 940 < item.expected_low <= 1000 <= item.expected_high
    assert "expected " in (item.reason or "")
    assert only(flow).low == item.expected_low


def test_values_of_an_open_incident_do_not_teach_until_it_is_closed_as_expected(flow: Flow) -> None:
    daily(flow, [1000 + day % 2 for day in range(20)] + [500] * 5)
    assert only(flow).anchor in (1000, 1001)
    low = flow.serve(a=500)["m.a"].expected_low
    assert low is not None
    assert low > 900
    close(flow, only(flow).id)
    item = flow.serve(a=500)["m.a"]
    assert (item.severity, active(flow)) == ("none", [])


def test_expect_drift_turns_the_band_off(make_flow: Make) -> None:
    flow = make_flow(CONFIG + "policy: {expect: drift}\n")
    daily(flow, [1000 + day % 2 for day in range(20)])
    assert flow.serve(a=940)["m.a"].expected_low is None
    assert flow.scalar("SELECT count(*) FROM dims_expectations") == 0


def test_a_critical_metric_is_held_at_fifteen_percent_whatever_the_band_is(make_flow: Make, restart: Make) -> None:
    patient = CONFIG + "policy: {thresholds: {moderate: 500, major: 500, extreme: 500}}\n"
    daily(make_flow(patient), [100, 300, 200, 260] * 10)
    flow = restart(patient.replace("a: {source: one", "a: {critical: true, source: one"))
    item = flow.serve(a=200)["m.a"]
    assert item.expected_low is not None
    assert item.expected_low < 200
    assert item.outcome == "held"
