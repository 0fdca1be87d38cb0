"""Stored values, derived metrics (invariant 9), and the approval requests that critical drift opens."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
from sqlalchemy import text

from dims_worker.pipeline.record import record_run
from dims_worker.store.engine import transaction
from dims_worker.text.activity import ActivityFollower
from tests.integration.helpers import CONFIG, Down, Flow, Threads, outcome

# --- values -------------------------------------------------------------------------------------------

VALUES = [
    0,
    1,
    -7,
    10**20,
    2**63,
    0.1,
    1.0,
    -0.5,
    1e-7,
    12345678.000000001,
    "a text",
    "é 😀 'quoted' \\ %s :x",
    "",
    True,
    False,
    None,
]


def reset(flow: Flow) -> None:
    """Reset the metrics as if they had never been measured."""
    flow.do("UPDATE dims_metrics SET as_of = NULL, baseline_as_of = NULL, accepted_as_of = NULL, baseline_version = 0")
    flow.do("DELETE FROM dims_approval_requests")
    flow.do("DELETE FROM dims_metrics_history")


def test_a_value_comes_back_as_it_was_with_its_type(flow: Flow) -> None:
    for value in VALUES:
        reset(flow)
        first = flow.serve(c=value)["m.c"]
        assert (first.outcome, first.status) == ("accepted", "new")
        state = flow.state("m.c")
        history = flow.scalar("SELECT value FROM dims_metrics_history WHERE metric = 'm.c'")
        for value_ in (state.value, state.baseline, state.accepted, history):
            assert value_ == value
            assert type(value_) is type(value)
        assert flow.serve(c=value)["m.c"].status == "ok"
        assert flow.state("m.c").baseline_version == 1  # the same value is no new baseline


def test_a_large_float_stays_a_float(flow: Flow) -> None:
    for value in (1e16, 1e22, -1.5e300):
        reset(flow)
        flow.serve(c=1)
        flow.serve(a=value, c=value)
        request = flow.open("m.c")
        assert request is not None
        for value_ in (flow.state("m.a").value, flow.state("m.a").baseline, request.value, request.anchor):
            assert value_ == value
            assert type(value_) is float


def test_another_type_is_another_value(flow: Flow) -> None:
    for old, new in [(1, True), (0, None), ("1", 1), (False, 0), (None, "")]:
        reset(flow)
        flow.serve(a=old)
        item = flow.serve(a=new)["m.a"]
        assert (item.status, item.drift_pct) == ("extreme", 100.0)
        assert flow.state("m.a").baseline_version == 2


# --- drift --------------------------------------------------------------------------------------------


def test_the_first_good_reading_is_new_and_becomes_the_baseline_and_the_persons_anchor(flow: Flow) -> None:
    claim = flow.claimed("m.c")
    flow.record(claim, {"m.c": Down("not yet")})
    assert flow.state("m.c").baseline_as_of is None
    run = flow.record(flow.claim(), {"m.c": 100})
    assert (run.items[0].status, run.items[0].baseline) == ("new", None)
    state = flow.state("m.c")
    assert (state.baseline, state.accepted, state.baseline_version) == (100, 100, 1)


def test_drift_is_judged_against_the_baseline_and_accepted_as_the_next(flow: Flow) -> None:
    flow.serve(a=100)
    item = flow.serve(a=150)["m.a"]
    assert (item.outcome, item.baseline, item.drift_pct, item.status, item.tier) == (
        "accepted",
        100,
        50.0,
        "extreme",
        "notify",
    )
    state = flow.state("m.a")
    assert (state.baseline, state.accepted, state.baseline_version) == (150, 100, 2)


# --- derived ------------------------------------------------------------------------------------------


def test_a_derived_metric_is_provisional_while_an_input_is_due_and_judged_when_none_is(flow: Flow) -> None:
    flow.serve(a=1)
    flow.serve(b=10)
    assert flow.state("m.sum").value == 11
    flow.ask("m.a", "m.b")  # one event concerns both
    follower = ActivityFollower(flow.config)
    with transaction(flow.engine) as connection:
        follower.start(connection)
    (_, half) = flow.record(flow.claim("one"), {"m.a": 2}).items
    assert (half.metric, half.outcome, half.value, half.status, half.drift_pct) == (
        "m.sum",
        "provisional",
        12,
        None,
        None,
    )
    assert (flow.state("m.sum").value, flow.state("m.sum").baseline) == (11, 11)
    with transaction(flow.engine) as connection:
        *_, last = follower.sentences(connection)
    assert last.strip() == "m.sum is 12: provisional: an input is still due"
    (_, whole) = flow.record(flow.claim("two"), {"m.b": 20}).items
    assert (whole.metric, whole.outcome, whole.value, whole.baseline) == ("m.sum", "accepted", 22, 11)


def test_a_derived_metric_waits_for_inputs_that_were_never_measured(flow: Flow) -> None:
    assert set(flow.serve(a=1)) == {"m.a"}
    assert flow.state("m.sum").as_of is None
    assert flow.serve(b=2)["m.sum"].status == "new"


def test_a_derived_readings_as_of_is_the_oldest_of_its_inputs(flow: Flow) -> None:
    flow.serve(a=1)
    oldest = flow.state("m.a").as_of
    flow.serve(b=2)
    flow.serve(b=3)
    assert flow.state("m.sum").as_of == flow.state("m.sum").baseline_as_of == oldest
    flow.serve(a=4)
    assert flow.state("m.sum").as_of == flow.state("m.b").as_of


def test_an_older_derived_value_does_not_replace_a_newer_one(flow: Flow) -> None:
    flow.serve(a=1)
    flow.serve(b=2)
    flow.do("UPDATE dims_metrics SET as_of = as_of + interval '1 hour' WHERE metric = 'm.sum'")
    before = flow.state("m.sum")
    item = flow.serve(a=5)["m.sum"]
    assert (item.outcome, item.value, item.reason) == ("superseded", 7, "a newer reading is recorded already")
    assert item.as_of == flow.state("m.b").as_of
    assert flow.state("m.sum") == before


def test_a_chain_of_derived_metrics_is_computed_in_order_in_one_transaction(flow: Flow) -> None:
    flow.serve(a=1)
    flow.serve(b=9, e=4)
    items = flow.serve(a=3)
    assert (items["m.sum"].value, items["m.ratio"].value) == (12, 3)
    assert items["m.sum"].method == items["m.ratio"].method == "derived"


def test_a_chain_waits_for_an_input_that_is_due_at_its_far_end(flow: Flow) -> None:
    """One event concerns m.a and m.e. m.ratio = (m.a + m.b) / m.e reads m.a only through m.sum."""
    flow.serve(a=10)
    flow.serve(b=0, e=10)
    flow.ask("m.a", "m.e")
    items = {item.metric: item for item in flow.record(flow.claim("two"), {"m.e": 20}).items}
    assert items["m.ratio"].outcome == "provisional"
    assert flow.state("m.ratio").baseline == 1
    items = {item.metric: item for item in flow.record(flow.claim("one"), {"m.a": 20}).items}
    assert (items["m.ratio"].outcome, items["m.ratio"].value, items["m.ratio"].drift_pct) == ("accepted", 1, 0)


def test_arithmetic_that_fails_on_half_an_event_is_no_failure(flow: Flow) -> None:
    """m.e is 0, and so is m.sum, which is not measured yet. m.ratio is not judged before it is."""
    flow.serve(a=10)
    flow.serve(b=0, e=10)
    flow.ask("m.a", "m.e")
    run = flow.record(flow.claim("two"), {"m.e": 0})
    assert (run.items[-1].metric, run.items[-1].outcome, run.status) == ("m.ratio", "provisional", "ok")


def test_a_failed_input_fails_the_metrics_derived_from_it_and_is_named(flow: Flow) -> None:
    flow.serve(a=1)
    flow.serve(b=9, e=5)
    flow.ask("m.a")
    run = flow.record(flow.claim("one"), {"m.a": Down("the disk is unreachable")})
    items = {item.metric: item for item in run.items}
    for name in ("m.sum", "m.ratio"):
        assert (items[name].outcome, items[name].method) == ("failed", "failed")
        assert "m.a: the disk is unreachable" in str(items[name].error)
        assert flow.state(name).baseline == {"m.sum": 10, "m.ratio": 2}[name]
    assert (run.status, flow.scalar("SELECT failed FROM dims_verification_runs WHERE run_id = :r", r=run.run_id)) == (
        "partial",
        3,
    )
    flow.record(flow.claim("one"), {"m.a": 1})
    assert (flow.state("m.sum").error, flow.state("m.ratio").error) == (None, None)


def test_a_division_by_zero_is_a_failed_reading(flow: Flow) -> None:
    flow.serve(a=1)
    item = flow.serve(b=1, e=0)["m.ratio"]
    assert (item.outcome, item.value) == ("failed", None)
    assert "zero" in str(item.error)
    assert flow.state("m.ratio").baseline_as_of is None


def test_two_inputs_recorded_at_once_give_the_right_sum(flow: Flow, beside: Threads) -> None:
    flow.serve(a=1)
    flow.serve(b=10)
    flow.ask("m.a", "m.b")
    one, two = flow.claim("one"), flow.claim("two")
    with transaction(flow.engine) as connection:
        record_run(connection, flow.config, flow.measured({"m.a": 2}, one))
        other = beside(flow.record, two, {"m.b": 20})
        flow.blocked()  # on the derived row: it reads m.a after this commit
    items = {item.metric: item for item in outcome(other).items}
    assert (items["m.sum"].outcome, items["m.sum"].value) == ("accepted", 22)
    assert flow.state("m.sum").baseline == 22


def test_many_inputs_recorded_at_once_give_the_true_value(flow: Flow, beside: Threads) -> None:
    flow.serve(a=0)
    flow.serve(b=0, e=1)
    for value in range(1, 6):
        flow.ask("m.a", "m.b", "m.e")
        one, two = flow.claim("one"), flow.claim("two")
        both = [beside(flow.record, one, {"m.a": value}), beside(flow.record, two, {"m.b": value, "m.e": value})]
        assert all(outcome(call).status == "ok" for call in both)
        assert (flow.state("m.sum").baseline, flow.state("m.ratio").baseline) == (2 * value, 2)


def test_a_check_of_all_inputs_judges_the_metrics_derived_from_them(flow: Flow) -> None:
    flow.serve(a=1)
    flow.serve(b=1)
    flow.ask("m.a", "m.b")  # due, and checked before they are served
    item = flow.look(a=2, b=2)["m.sum"]
    assert (item.outcome, item.value, item.baseline) == ("looked", 4, 2)
    assert flow.state("m.sum").baseline == 2


def test_a_derived_metric_without_a_row_blocks_no_input(flow: Flow) -> None:
    flow.serve(a=1)
    flow.do("DELETE FROM dims_metrics WHERE metric = 'm.sum'")
    assert set(flow.serve(b=2)) == {"m.b"}


# --- requests -----------------------------------------------------------------------------------------


def test_critical_drift_is_held_and_the_baseline_stays(flow: Flow) -> None:
    flow.serve(c=100)
    item = flow.serve(c=115)["m.c"]
    assert (item.outcome, item.tier, item.baseline) == ("held", "approve", 100)
    state = flow.state("m.c")
    assert (state.value, state.baseline, state.baseline_version, state.due) == (115, 100, 1, False)
    request = flow.open("m.c")
    assert request is not None
    assert (request.value, request.anchor, request.baseline, request.version, request.baseline_version) == (
        115,
        115,
        100,
        1,
        1,
    )
    assert request.as_of == state.as_of
    assert type(request.value) is int


def test_a_run_counts_the_readings_it_holds(flow: Flow) -> None:
    query = "SELECT readings, held, failed FROM dims_verification_runs ORDER BY run_id DESC LIMIT 1"
    flow.serve(a=1, c=100)
    assert tuple(flow.rows(query)[0]) == (2, 0, 0)
    flow.serve(a=5, c=150)  # m.a drifts as well, and is not critical
    assert tuple(flow.rows(query)[0]) == (2, 1, 0)
    flow.serve(a=Down("away"), c=100)
    assert tuple(flow.rows(query)[0]) == (2, 0, 1)


def test_a_request_is_updated_inside_its_band_and_its_version_moves_with_its_value_alone(flow: Flow) -> None:
    flow.serve(c=100)
    flow.serve(c=150)
    first = flow.open("m.c")
    flow.serve(c=150)
    same = flow.open("m.c")
    flow.serve(c=153)  # 2 % of 150, the value first proposed
    moved = flow.open("m.c")
    assert first and same and moved
    assert (first.id, first.version) == (same.id, same.version)
    assert same.as_of > first.as_of
    assert (moved.id, moved.version, moved.value, moved.anchor) == (first.id, 2, 153, 150)
    flow.serve(c=154)  # inside 2 % of 153, outside 2 % of 150
    other = flow.open("m.c")
    assert other
    assert (other.id, other.version, other.value, other.anchor) == (first.id + 1, 1, 154, 154)
    assert flow.states_of_requests() == ["superseded", "open"]


def test_an_accepted_reading_withdraws_the_request_in_its_transaction(flow: Flow) -> None:
    flow.serve(c=100)
    flow.serve(c=150)
    assert flow.serve(c=110)["m.c"].outcome == "accepted"
    assert (flow.state("m.c").baseline, flow.states_of_requests()) == (110, ["withdrawn"])


def test_a_return_to_the_baseline_withdraws_the_request(flow: Flow) -> None:
    flow.serve(c=100)
    flow.serve(c=150)
    flow.serve(c=100)
    assert (flow.state("m.c").baseline_version, flow.states_of_requests()) == (1, ["withdrawn"])


def test_a_failed_reading_leaves_the_request_open(flow: Flow) -> None:
    flow.serve(c=100)
    flow.serve(c=150)
    flow.record(flow.claimed("m.c"), {"m.c": Down("away")})
    assert flow.states_of_requests() == ["open"]


def test_many_small_steps_are_held_before_they_add_up(flow: Flow) -> None:
    """Ten steps of 14 % would be 270 %. Each is also compared with the value that a person last accepted."""
    value = 100.0
    outcomes = []
    flow.serve(c=value)
    for _ in range(3):
        value *= 1.14
        outcomes.append(flow.serve(c=value)["m.c"].outcome)
    assert outcomes == ["accepted", "held", "held"]
    assert math.isclose(flow.state("m.c").baseline, 114)
    assert flow.state("m.c").accepted == 100


def test_the_database_refuses_a_second_open_request(flow: Flow) -> None:
    flow.serve(c=100)
    flow.serve(c=150)
    copy = "INSERT INTO dims_approval_requests (metric, state, unit, as_of, baseline_version, severity, reason, run_id)"
    with pytest.raises(Exception, match="dims_approval_requests_open"), flow.engine.begin() as connection:
        connection.execute(
            text(f"{copy} SELECT metric, state, unit, as_of, 1, severity, reason, run_id FROM dims_approval_requests")
        )


def test_a_derived_critical_metric_is_held_too(make_flow: Callable[[str], Flow]) -> None:
    flow = make_flow(CONFIG.replace('derive: "m.a + m.b"', 'derive: "m.a + m.b", critical: true'))
    flow.serve(a=50)
    flow.serve(b=50)
    assert flow.serve(a=100)["m.sum"].outcome == "held"
    assert flow.state("m.sum").baseline == 100
    assert flow.open("m.sum")
    flow.serve(a=50)
    assert flow.states_of_requests() == ["withdrawn"]
