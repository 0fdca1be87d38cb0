"""Notifications are written in the transaction of their cause: once while a state is active, and all or none."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import text

from dims_worker.approvals.decisions import BaselineInput, Choice, decide_request, set_baselines
from dims_worker.config.runtime import WORKFLOW
from dims_worker.domain.approvers import Decider
from dims_worker.incidents.overdue import Sweep, sweep_incidents
from dims_worker.notifications.outbox import write_overdue_notifications
from dims_worker.pipeline import record
from dims_worker.pipeline.record import Measurement
from dims_worker.probes.base import Reading
from dims_worker.store import leases, notifications
from dims_worker.store.approval_requests import expire_requests
from dims_worker.store.engine import clock, transaction
from tests.integration.helpers import CONFIG, Down, Flow, Threads, outcome

Make = Callable[[str], Flow]
ADA = Decider("ada", "option")
WITH_CHANNEL = CONFIG + 'notify: {channels: {ops: {url: ""}}}\n'


@pytest.fixture
def flow(make_flow: Make) -> Flow:
    """A flow with one channel. Notifications are written although the channel has no URL."""
    return make_flow(WITH_CHANNEL)


def alerts(flow: Flow, channel: str = "ops") -> list[str]:
    """Return the notifications in order: `+drift` begins, `-drift` ends, `(drift)` ends without a message."""
    rows = flow.rows("SELECT * FROM dims_notifications WHERE channel = :c ORDER BY id", c=channel)
    changes = [(row.since, row.id, f"+{row.metric} {kind(row)}") for row in rows]
    for row in rows:
        if row.ended_at is not None:
            state = f"{row.metric} {kind(row)}"
            changes.append((row.ended_at, 0, f"-{state}" if row.end_sent_at is None else f"({state})"))
    return [change for _, _, change in sorted(changes)]


def kind(row: Any) -> str:
    """Return `drift` of the state `drift:1`."""
    return str(row.state).partition(":")[0]


def sweep(flow: Flow, later: timedelta = timedelta(0)) -> None:
    """Sweep incidents and their notifications, as if `later` had passed."""
    with transaction(flow.engine) as connection:
        now = clock(connection) + later
        sweep_incidents(connection, flow.config, Sweep(now, now))
        write_overdue_notifications(connection, flow.config, now)


def table(flow: Flow) -> list[Any]:
    return [tuple(row) for row in flow.rows("SELECT * FROM dims_notifications ORDER BY id")]


def waiting(flow: Flow) -> int:
    flow.serve(c=100)
    flow.serve(c=150)
    request = flow.open("m.c")
    assert request is not None
    return request.id


def settle(flow: Flow, choice: Choice, number: int) -> None:
    decide_request(flow.engine, flow.config, str(number), choice, version=1, person=ADA, note=None)


# --- readings --------------------------------------------------------------------------------------------


def test_ten_runs_with_the_same_drift_notify_once_and_the_eleventh_notifies_its_end(flow: Flow) -> None:
    waiting(flow)
    for _ in range(9):
        assert flow.serve(c=150)["m.c"].outcome == "held"
    assert alerts(flow) == ["+m.c approval"]
    flow.serve(c=100)
    flow.serve(c=100)
    assert alerts(flow) == ["+m.c approval", "-m.c approval"]


def test_the_same_readings_again_change_nothing(flow: Flow) -> None:
    flow.serve(a=100, c=100)
    flow.serve(b=100, e=1)
    for values in ({"a": 150, "c": 150}, {"a": Down("gone"), "c": 151}, {"a": Down("gone")}, {"a": Down("gone")}):
        flow.serve(**values)
    before = table(flow)
    for _ in range(3):
        flow.serve(a=Down("gone for another reason"), c=152)
    assert table(flow) == before
    states = [row.state for row in flow.rows("SELECT state FROM dims_notifications WHERE metric IN ('m.a', 'm.c')")]
    assert sorted(state.partition(":")[0] for state in states) == ["approval", "drift", "failing"]


def test_a_run_makes_one_statement_of_each_kind_for_any_number_of_notifications(
    make_flow: Make, queries: list[str]
) -> None:
    many = "".join(f"    x{n}: {{source: one, measure: count, critical: true}}\n" for n in range(60))
    text_ = WITH_CHANNEL.replace("    sum:", many + "    sum:").replace("{ops:", "{other: {url: ''}, ops:")
    flow = make_flow(text_)
    flow.serve(**{f"x{n}": 100 for n in range(60)})
    queries.clear()
    flow.serve(**{f"x{n}": 150 for n in range(60)})
    assert [query.split()[0] for query in queries if "dims_notifications" in query] == ["SELECT", "INSERT"]
    queries.clear()
    flow.serve(**{f"x{n}": 100 for n in range(60)})
    assert [query.split()[0] for query in queries if "dims_notifications" in query] == ["SELECT", "SELECT", "UPDATE"]
    assert flow.scalar("SELECT count(*) FROM dims_notifications WHERE ended_at IS NOT NULL") == 120


def test_without_a_channel_there_are_no_queries(make_flow: Make, queries: list[str]) -> None:
    waiting(make_flow(CONFIG))
    sweep(make_flow(CONFIG))
    assert not [query for query in queries if "dims_notifications" in query or "dims_channels" in query]


def test_a_run_that_is_not_recorded_writes_no_notification(flow: Flow, monkeypatch: pytest.MonkeyPatch) -> None:
    flow.serve(c=100)
    claim = flow.claimed("m.c")

    def dies(*_: object, **__: object) -> None:
        raise RuntimeError("the power went")

    monkeypatch.setattr(record, "Run", dies)  # after everything is written
    with pytest.raises(RuntimeError, match="the power went"):
        flow.record(claim, {"m.c": 150})
    assert (alerts(flow), flow.open("m.c")) == ([], None)


def test_a_run_whose_lease_was_lost_writes_no_notification(flow: Flow) -> None:
    flow.serve(c=100)
    claim = flow.claimed("m.c")
    flow.do("UPDATE dims_sources SET lease_epoch = lease_epoch + 1")
    assert flow.record(claim, {"m.c": 150}).status == "superseded"
    assert alerts(flow) == []


def test_a_run_names_the_channels_with_notifications_to_send(make_flow: Make) -> None:
    flow = make_flow(CONFIG + 'notify: {channels: {b: {url: ""}, a: {url: ""}, c: {url: "", tiers: []}}}\n')
    flow.serve(a=100)
    assert flow.record(flow.claimed("m.a"), {"m.a": 150}).channels == ("a", "b")
    assert flow.record(flow.claimed("m.a"), {"m.a": 151}).channels == ()  # a drift ends without a message


def test_a_check_writes_no_notification(flow: Flow) -> None:
    flow.serve(c=100)
    flow.look(c=150)
    flow.look(c=Down("gone"))
    assert alerts(flow) == []


def test_a_value_outside_the_band_is_another_request_of_the_same_incident_and_does_not_notify(flow: Flow) -> None:
    waiting(flow)
    flow.serve(c=200)
    assert flow.states_of_requests() == ["superseded", "open"]
    assert alerts(flow) == ["+m.c approval"]


def test_a_broken_limit_notifies_whatever_the_baseline_is(make_flow: Make) -> None:
    flow = make_flow(
        WITH_CHANNEL.replace("a: {source: one, measure: count}", "a: {source: one, measure: count, max: 120}")
    )
    for value in (118, 121, 122, 123, 118):
        flow.serve(a=value)
    assert alerts(flow) == ["+m.a limit", "-m.a limit"]


def test_a_failing_metric_notifies_after_as_many_failures_as_the_channel_sets(make_flow: Make) -> None:
    flow = make_flow(
        CONFIG + 'notify: {channels: {ops: {url: ""}, first: {url: "", failures: 1}, no: {url: "", failures: null}}}\n'
    )
    flow.serve(a=100)
    for number in range(1, 6):
        flow.serve(a=Down("AccessDenied"))
        assert alerts(flow, "ops") == ["+m.a failing"] * (number >= 3)
        assert alerts(flow, "first") == ["+m.a failing"]
    flow.serve(a=100)
    assert alerts(flow, "ops") == alerts(flow, "first") == ["+m.a failing", "-m.a failing"]
    assert alerts(flow, "no") == []
    flow.serve(a=Down("AccessDenied"))
    assert alerts(flow, "ops") == ["+m.a failing", "-m.a failing"]  # counted from the start again


def test_a_failure_does_not_notify_for_the_metrics_derived_from_it(flow: Flow) -> None:
    flow.serve(b=1)
    for _ in range(4):
        flow.serve(a=Down("gone"))
    assert alerts(flow) == ["+m.a failing"]


def test_a_derived_value_notifies_like_any_other(make_flow: Make) -> None:
    flow = make_flow(WITH_CHANNEL.replace('"m.a + m.b"}', '"m.a + m.b", critical: true}'))
    flow.serve(b=100)
    flow.serve(a=100)
    flow.serve(a=200)
    assert alerts(flow) == ["+m.a drift", "+m.sum approval"]


WORKFLOWS = WITH_CHANNEL + "workflows: {file_inventory: {source: one}}\n"


def test_a_workflow_that_needs_attention_notifies_once_and_at_its_end(make_flow: Make) -> None:
    flow = make_flow(WORKFLOWS)
    name = f"{WORKFLOW}file-inventory"
    for value in ("ok", "attention", "attention", "ok", "ok"):
        flow.do("UPDATE dims_metrics SET requested_gen = requested_gen + 1 WHERE metric = :m", m=name)
        with transaction(flow.engine) as connection:
            definitions = {name: flow.config.definitions[name]}
            claim = leases.claim_source(connection, name, definitions, "test", timedelta(seconds=60), at_once=True)
            assert claim is not None
            reading = Reading(name, value, "", "exact")
            measured = Measurement({name: reading}, claim.as_of, "workflow", "test", source=name, claim=claim)
            record.record_run(connection, flow.config, measured)
    assert alerts(flow) == [f"+{name} attention", f"-{name} attention"]


@pytest.mark.parametrize("value", [10**20, 1e22, 0.1, "text", None, True, -5])
def test_values_keep_their_type(flow: Flow, value: Any) -> None:
    flow.serve(c=3)
    flow.serve(c=value)
    (kept,) = flow.rows("SELECT facts -> 'value' AS value, facts -> 'anchor' AS baseline FROM dims_notifications")
    assert (kept.value, kept.baseline) == (value, 3)
    assert (type(kept.value), type(kept.baseline)) == (type(value), int)


# --- without a reading -----------------------------------------------------------------------------------


@pytest.mark.parametrize("choice", ["approved", "rejected"])
def test_a_decision_ends_the_state_at_the_next_sweep(flow: Flow, choice: Choice) -> None:
    number = waiting(flow)
    settle(flow, choice, number)
    sweep(flow)
    sweep(flow)
    assert alerts(flow) == ["+m.c approval", "-m.c approval"]
    flow.serve(c=150)
    assert len(alerts(flow)) == 2  # approved: it is the baseline; rejected: no new request


@pytest.mark.parametrize("choice", ["approved", "rejected"])
def test_a_decision_ends_the_state_at_the_next_reading_if_that_comes_first(flow: Flow, choice: Choice) -> None:
    number = waiting(flow)
    settle(flow, choice, number)
    flow.serve(c=150)
    sweep(flow)
    assert alerts(flow) == ["+m.c approval", "-m.c approval"]


def test_an_expired_request_ends_the_state_and_the_next_request_notifies_again(make_flow: Make) -> None:
    flow = make_flow(WITH_CHANNEL + "policy: {expire_after: 7d}\n")
    waiting(flow)
    flow.do("UPDATE dims_approval_requests SET expires_at = clock_timestamp() - interval '1 s'")
    with transaction(flow.engine) as connection:
        expire_requests(connection)
    sweep(flow)
    flow.serve(c=150)
    assert alerts(flow) == ["+m.c approval", "-m.c approval", "+m.c drift", "+m.c approval"]


def test_a_baseline_set_by_hand_ends_the_state(flow: Flow) -> None:
    waiting(flow)
    set_baselines(flow.engine, flow.config, [BaselineInput("m.c", 150, "counted")], ADA)
    sweep(flow)
    assert alerts(flow) == ["+m.c approval", "-m.c approval"]


def days_pass(flow: Flow, days: int, *metrics: str) -> None:
    """Make the latest readings of these metrics older by a number of days."""
    flow.do(
        "UPDATE dims_metrics SET as_of = as_of - :span WHERE metric = ANY(:m)",
        span=timedelta(days=days),
        m=list(metrics),
    )


def test_a_metric_that_is_not_measured_becomes_stale_and_notifies_once(flow: Flow) -> None:
    flow.serve(a=100, c=100)
    days_pass(flow, 6, "m.a", "m.c")
    sweep(flow)
    assert alerts(flow) == []
    days_pass(flow, 2, "m.a")
    sweep(flow)
    sweep(flow)
    assert alerts(flow) == ["+m.a stale"]
    flow.serve(a=Down("gone"))
    assert alerts(flow) == ["+m.a stale"]
    flow.serve(a=100)
    assert alerts(flow) == ["+m.a stale", "-m.a stale"]


def test_a_check_ends_staleness(flow: Flow) -> None:
    flow.serve(a=100)
    days_pass(flow, 8, "m.a")
    sweep(flow)
    flow.look(a=100)
    assert alerts(flow) == ["+m.a stale", "-m.a stale"]


def test_the_policy_sets_stale_after_and_null_disables_it(make_flow: Make) -> None:
    never = WITH_CHANNEL.replace("count, critical: true", "count, critical: true, stale_after: null")
    flow = make_flow(never + "policy: {stale_after: 60d}\n")
    flow.serve(a=100, c=100)
    days_pass(flow, 59, "m.a", "m.c")
    sweep(flow)
    assert alerts(flow) == []
    days_pass(flow, 2, "m.a", "m.c")
    sweep(flow)
    assert alerts(flow) == ["+m.a stale"]


def test_a_stale_input_does_not_notify_for_the_metrics_derived_from_it(flow: Flow) -> None:
    flow.serve(b=1)
    flow.serve(a=1)
    days_pass(flow, 8, "m.a", "m.sum")
    sweep(flow)
    assert alerts(flow) == ["+m.a stale"]
    days_pass(flow, -8, "m.a")  # a derived metric that is older than its inputs notifies itself
    sweep(flow)
    assert "+m.sum stale" in alerts(flow)


AGES = """
sources: {one: {type: files, path: one}}
metrics: {m: {age: {source: one, measure: newest_age, max_age: 48h}, free: {source: one, measure: newest_age}}}
notify: {channels: {ops: {url: ""}}}
"""


def hours_ago(hours: float) -> str:
    return (datetime.now(UTC) - timedelta(hours=hours)).isoformat()


def test_a_dead_feed_notifies_without_an_event_and_when_it_is_alive_again(make_flow: Make) -> None:
    flow = make_flow(AGES)
    flow.serve(age=hours_ago(47), free=hours_ago(1000))
    sweep(flow)
    assert alerts(flow) == []
    flow.do("UPDATE dims_metrics SET value = to_jsonb(CAST(:v AS text)) WHERE metric = 'm.age'", v=hours_ago(49))
    sweep(flow)
    sweep(flow)
    assert alerts(flow) == ["+m.age limit"]
    flow.serve(age=hours_ago(50))
    assert alerts(flow) == ["+m.age limit"]
    flow.serve(age=hours_ago(1))
    sweep(flow)
    assert alerts(flow) == ["+m.age limit", "-m.age limit"]


def test_removing_a_metric_from_the_configuration_ends_its_active_states(flow: Flow, restart: Make) -> None:
    waiting(flow)
    for _ in range(3):
        flow.serve(c=Down("gone"), a=Down("gone"))
    changed = restart(WITH_CHANNEL.replace("    c: {source: one, measure: count, critical: true}\n", ""))
    assert len(alerts(flow)) == 3
    sweep(changed)
    sweep(changed)
    assert sorted(alerts(flow)) == sorted(
        ["+m.c approval", "+m.a failing", "+m.c failing", "-m.c approval", "-m.c failing"]
    )


def test_the_sweep_skips_locked_metrics(flow: Flow) -> None:
    flow.serve(a=100, c=100)
    days_pass(flow, 8, "m.a", "m.c")
    with flow.engine.begin() as other:
        other.execute(text("SELECT 1 FROM dims_metrics WHERE metric = 'm.a' FOR UPDATE"))
        sweep(flow)
        assert alerts(flow) == ["+m.c stale"]
    sweep(flow)
    assert sorted(alerts(flow)) == ["+m.a stale", "+m.c stale"]


def test_concurrent_sweeps_and_runs_notify_once(flow: Flow, beside: Threads) -> None:
    flow.serve(a=100, c=100)
    flow.serve(b=100, e=100)
    for number in range(12):
        days_pass(flow, 8, "m.a", "m.b", "m.c", "m.e")
        flow.do("UPDATE dims_metrics SET as_of = as_of - interval '1 h'")
        one, two = flow.claimed("m.a", "m.c"), flow.claimed("m.b", "m.e")
        value = 100 if number % 2 else 150
        calls = [
            *(beside(sweep, flow) for _ in range(3)),
            beside(flow.record, one, {"m.a": 100, "m.c": value}),
            beside(flow.record, two, {"m.b": 100, "m.e": Down("gone")}),
        ]
        assert [error for call in calls if isinstance(error := outcome(call), Exception)] == []
    doubled = flow.rows(
        "SELECT metric, state FROM dims_notifications WHERE ended_at IS NULL GROUP BY 1, 2 HAVING count(*) > 1"
    )
    assert doubled == []
    rows = flow.rows("SELECT state, ended_at FROM dims_notifications WHERE metric = 'm.c' ORDER BY id")
    states = [(kind(row), row.ended_at is not None) for row in rows if kind(row) != "stale"]
    assert states == [("approval", True), ("flapping", False)]


def test_a_state_that_is_written_twice_is_active_once(flow: Flow) -> None:
    row = {"channel": "ops", "metric": "m.a", "state": "stale:1", "facts": {}, "run_id": None, "since": flow.clock()}
    for _ in range(2):
        with transaction(flow.engine) as connection:
            notifications.begin_notifications(connection, [row])
    assert alerts(flow) == ["+m.a stale"]


def test_facts_are_json(flow: Flow) -> None:
    waiting(flow)
    (row,) = flow.rows("SELECT facts::text FROM dims_notifications")
    assert json.loads(row[0]) == {
        "incident": 1,
        "kind": "approval",
        "story": 1,
        "request": 1,
        "value": 150,
        "unit": "files",
        "anchor": 100,
        "severity": "urgent",
        "reason": "up 50.0 %",
        "flaps": 0,
    }
