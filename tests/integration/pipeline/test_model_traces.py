"""The traces that models of the design have found, each by its name: the shortest way to lose, were a rule left out.

| trace | test |
|---|---|
| failed reading at the claimed generation | test_leases.py::test_a_failure_is_stored_leaves_the_metric_due_and_backs_off_twice_as_long_each_time |
| a slow holder that records after its lease was lost | test_leases.py::test_who_records_after_the_lease_was_taken_over_leaves_history_and_nothing_else |
| `verify --update` beside a worker | test_worker.py::test_verify_update_beside_a_running_worker_is_served_once_shown_and_held |
| two inputs of one derived metric recorded at once | test_record.py::test_two_inputs_recorded_at_once_give_the_right_sum |
| a dry `verify` between event and run | test_model_traces.py::test_a_dry_verify_between_event_and_run |
| a doorman that dies between key and bell | test_model_traces.py::test_a_doorman_that_dies_between_key_and_bell |
| a consumer group made after the first XADD | test_ingest.py::test_what_was_sent_before_the_group_existed_is_read |
| an ingest killed after reading | test_model_traces.py::test_an_ingest_killed_after_reading |
| an ingest killed after its commit | test_model_traces.py::test_an_ingest_killed_after_its_commit |
| a second event during the cooldown | test_model_traces.py::test_a_second_event_during_the_cooldown |
| a metric removed while due | test_model_traces.py::test_a_metric_removed_while_due |
| a metric whose definition changes while it is measured | test_model_traces.py::test_a_metric_whose_definition_changes_while_it_is_measured |
| a metric that becomes derived while it is due | test_model_traces.py::test_a_metric_that_becomes_derived_while_it_is_due |
| a new formula whose inputs an older worker measures | test_model_traces.py::test_a_new_formula_whose_inputs_an_older_worker_measures |
| looks that overtake a worker | test_model_traces.py::test_looks_that_overtake_a_worker_cost_it_no_attempt |
| a look that fails between two events | test_model_traces.py::test_a_look_that_fails_between_two_events |
"""  # noqa: E501

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from redis import Redis

from dims_worker.broker import event_stream
from dims_worker.broker.queues import HELP_REQUESTED, INGEST, VERIFY
from dims_worker.config import Config
from dims_worker.events import STREAM, Event
from dims_worker.pipeline import verify
from tests.integration.helpers import CONFIG, Flow, request
from tests.integration.pipeline.wakeups import Bells
from tests.integration.pipeline.world import Scan, World
from tests.integration.stepped_process import HaltingRedis, Process, current, halting

Restart = Callable[[str], Flow]
TESTS = Path(__file__).parents[2]
ONE, TWO = (VERIFY, "one"), (VERIFY, "two")
PASS = "UPDATE {} SET not_before = clock_timestamp() - interval '1 s' WHERE not_before IS NOT NULL"


def test_every_trace_has_its_test() -> None:
    named = re.findall(r"\| (\w+\.py)::(\w+) \|", str(__doc__))
    assert len(named) == 16
    for file, test in named:
        (path,) = TESTS.rglob(file)
        assert f"\ndef {test}(" in path.read_text(), f"{file} has no {test}"


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    """In the place of the folders: numbers that the test changes."""
    made = World()
    monkeypatch.setattr(verify, "start_scan", lambda config, _, names: Scan(made, config, tuple(names)))
    return made


@pytest.fixture
def bells(flow: Flow, broker_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bells]:
    monkeypatch.setattr(event_stream, "consumer_name", lambda: process.name if (process := current()) else "next")
    with HaltingRedis.from_url(broker_url) as redis, halting(flow.engine):
        yield Bells(flow.engine, redis)


def send(redis: Redis, *events: Event) -> None:
    for one in events:
        redis.xadd(STREAM, {"event": one.to_json()})


def served(bells: Bells, config: Config) -> list[tuple[str, ...]]:
    """A doorman makes its round; the bells that are rung are answered, and those that this rings. Returns them."""
    found = []
    bells.round(config)
    while bells.rung:
        found.append(bells.take())
        bells.answer(config, *found[-1])
    return found


# --- between the stream and PostgreSQL ----------------------------------------------------------------


def test_a_doorman_that_dies_between_key_and_bell(flow: Flow, bells: Bells, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a rush it asks for help, and dies: the key says that somebody rang, nobody did, and what it had read is in
    nobody's hands. Sweeps ring all the same, the key is forgotten, and the next takes over what was read."""
    monkeypatch.setattr(event_stream, "BATCH", 1)
    doorman = Process("doorman", lambda: bells.round(flow.config))
    while doorman.halted_at != "BEGIN" or not bells.redis.exists(STREAM):
        doorman.go_on()  # it has registered, and is about to sweep: nothing waits
    send(bells.redis, request("m.a", id="e"))
    while doorman.halted_at != "ring":
        doorman.go_on()
    doorman.kill()
    assert (bells.redis.exists(HELP_REQUESTED), bells.rung, held(bells.redis)) == (1, set(), {b"doorman": 1})
    assert 0 < bells.redis.pttl(HELP_REQUESTED) <= 5_000
    left_for_long(bells.redis)
    assert bells.round(flow.config) == {(INGEST,)}
    bells.answer(flow.config, *bells.take())
    assert not bells.redis.exists(HELP_REQUESTED)
    assert (flow.state("m.a").due, bells.redis.xlen(STREAM), bells.rung) == (True, 0, {ONE})


def test_an_ingest_killed_after_reading(flow: Flow, bells: Bells) -> None:
    """The entries are in nobody's hands: the next takes them over once they were left for long enough."""
    send(bells.redis, request("m.a", id="1"), request("m.b", id="2"))
    ingest = Process("first", lambda: bells.answer(flow.config, INGEST))
    ingest.go_on()  # it has read
    assert (ingest.halted_at, held(bells.redis)) == ("BEGIN", {b"first": 2})
    ingest.kill()
    bells.answer(flow.config, INGEST)
    assert flow.scalar("SELECT count(*) FROM dims_event_log") == 0
    left_for_long(bells.redis)
    assert bells.round(flow.config) == {(INGEST,)}
    bells.answer(flow.config, *bells.take())
    assert flow.scalar("SELECT count(*) FROM dims_event_log") == 2
    assert (bells.redis.xlen(STREAM), held(bells.redis), bells.rung) == (0, {}, {ONE, TWO})


def test_an_ingest_killed_after_its_commit(flow: Flow, bells: Bells) -> None:
    """Everything is stored, nothing acknowledged, and no bell rung: the next stores nothing, and sweeps ring."""
    send(bells.redis, request("m.a", id="1"))
    ingest = Process("first", lambda: bells.answer(flow.config, INGEST))
    while ingest.halted_at != "XACK":
        ingest.go_on()
    ingest.kill()
    assert (flow.state("m.a").requested_gen, held(bells.redis)) == (1, {b"first": 1})
    left_for_long(bells.redis)
    bells.answer(flow.config, INGEST)
    assert (flow.state("m.a").requested_gen, bells.redis.xlen(STREAM), bells.rung) == (1, 0, set())
    assert bells.round(flow.config) == {ONE}


def held(redis: Redis) -> dict[bytes, int]:
    """How many entries each consumer holds."""
    return {one["name"]: one["pending"] for one in redis.xinfo_consumers(STREAM, event_stream.GROUP) if one["pending"]}


def left_for_long(redis: Redis) -> None:
    """As if whoever holds entries had been silent for an hour."""
    for one in redis.xpending_range(STREAM, event_stream.GROUP, "-", "+", 100):
        redis.xclaim(STREAM, event_stream.GROUP, one["consumer"], 0, [one["message_id"]], idle=3_600_000, justid=True)


# --- between PostgreSQL and a measurement -------------------------------------------------------------


def test_a_dry_verify_between_event_and_run(flow: Flow, bells: Bells, world: World) -> None:
    """A look sees what the event tells of, and is no measurement of it: the metric stays due, its baseline stays."""
    flow.serve(a=100, c=100)
    world.values["m.c"] = 200
    flow.ask("m.c")
    before = flow.state("m.c")
    run = verify.check_now(flow.engine, flow.config, ["m.c"])
    assert [(item.metric, item.value, item.outcome) for item in run.items] == [("m.c", 200, "looked")]
    looked = flow.state("m.c")
    assert looked.value == 200
    assert (looked.baseline, looked.baseline_version, looked.requested_gen, looked.measured_gen, looked.due) == (
        *(before.baseline, before.baseline_version, before.requested_gen, before.measured_gen, True),
    )
    assert flow.open("m.c") is None
    assert served(bells, flow.config) == [ONE]
    assert (flow.state("m.c").due, flow.state("m.c").baseline) == (False, 100)
    request = flow.open("m.c")
    assert request is not None
    assert request.value == 200


def test_a_second_event_during_the_cooldown(make_flow: Callable[[str], Flow], bells: Bells, world: World) -> None:
    """The first is served at once; those that follow are served by one run, when the time has come."""
    flow = make_flow(CONFIG.replace("path: one}", "path: one, cooldown: 1h}"))

    def comes(value: int) -> list[tuple[str, ...]]:
        world.values["m.a"] = value
        send(bells.redis, request("m.a"))
        return served(bells, flow.config)

    assert comes(101) == [(INGEST,), ONE]
    assert (flow.state("m.a").value, flow.state("m.a").due) == (101, False)
    for value in (102, 103):
        assert comes(value) == [(INGEST,), ONE]  # rung, and it found nothing to do
    assert (flow.state("m.a").value, flow.state("m.a").due) == (101, True)
    assert bells.round(flow.config) == set()  # no sweep rings for what cools down
    flow.do(PASS.format("dims_sources"))
    assert served(bells, flow.config) == [ONE]
    assert (flow.state("m.a").value, flow.state("m.a").due) == (103, False)
    readings = flow.rows("SELECT value, generation FROM dims_metrics_history WHERE metric = 'm.a' ORDER BY id")
    assert [tuple(row) for row in readings] == [(101, 1), (103, 3)]
    assert bells.round(flow.config) == set()


def test_looks_that_overtake_a_worker_cost_it_no_attempt(flow: Flow, bells: Bells, world: World) -> None:
    """A look that begins later and is recorded earlier outdates the worker's reading. The worker lives: however
    often that happens, its metric is no suspect."""
    for _ in range(6):
        claim = flow.claimed("m.a")
        verify.check_now(flow.engine, flow.config, ["m.a"])
        (item,) = flow.record(claim, {"m.a": 100}).items
        assert (item.outcome, flow.state("m.a").attempts, flow.state("m.a").due) == ("superseded", 0, True)
    assert served(bells, flow.config) == [ONE]
    assert not flow.state("m.a").due


def test_a_look_that_fails_between_two_events(flow: Flow, bells: Bells, world: World) -> None:
    """m.sum = m.a + m.b. A look cannot measure m.a, which is not due; an event about m.b comes. The sum is of the
    last good reading of m.a, which no event has outdated: nobody would ever measure it again to mend the sum."""
    flow.serve(a=100)
    flow.serve(b=100)
    world.away.add("m.a")
    run = verify.check_now(flow.engine, flow.config, ["m.sum"])
    assert {item.metric: item.outcome for item in run.items} == {"m.a": "failed", "m.b": "looked", "m.sum": "failed"}
    world.values["m.b"] = 110
    flow.ask("m.b")
    served(bells, flow.config)
    state = flow.state("m.sum")
    assert (state.value, state.baseline, state.error) == (210, 210, None)
    flow.ask("m.a", "m.b")  # and while m.a is due, its failure is the sum's
    served(bells, flow.config)
    assert "m.a: it is away" in str(flow.state("m.sum").error)


# --- configurations -----------------------------------------------------------------------------------

E = "e: {source: two, measure: count}"
WITHOUT_E = CONFIG.replace(f"    {E}\n", "").replace("m.sum / m.e", "m.sum / 2")
E_IN_BYTES = CONFIG.replace(E, "e: {source: two, measure: bytes}")
E_DERIVED = CONFIG.replace(E, 'e: {derive: "m.b * 2"}')


def test_a_metric_removed_while_due(flow: Flow, restart: Restart, bells: Bells, world: World) -> None:
    """It is due no more and nobody is rung for; who is measuring it records nothing; if it is back, it is new."""
    flow.serve(b=1, e=50)
    claim = flow.claimed("m.e")
    flow.ask("m.e")
    later = restart(WITHOUT_E)
    (item,) = [item for item in flow.record(claim, {"m.e": 60}).items if item.metric == "m.e"]
    state = flow.state("m.e")
    assert (item.outcome, state.value, state.due, state.retired_at is not None) == ("superseded", 50, False, True)
    flow.ask("m.e")  # an ingest that has not heard of it
    assert not flow.state("m.e").due
    served(bells, later.config)
    assert bells.round(later.config) == set()
    assert flow.state("m.e").value == 50

    back = restart(CONFIG)
    assert flow.state("m.e").due
    served(bells, back.config)
    state = flow.state("m.e")
    assert (state.value, state.baseline, state.status, state.due) == (100, 100, "new", False)


def test_a_metric_whose_definition_changes_while_it_is_measured(
    flow: Flow, restart: Restart, bells: Bells, world: World
) -> None:
    """The reading is of what nobody asks for any more. It is history, and the metric is due for the new one."""
    flow.serve(b=1, e=50)
    claim = flow.claimed("m.e")
    later = restart(E_IN_BYTES)
    run = flow.record(claim, {"m.e": 60})
    assert next((item.metric, item.outcome) for item in run.items) == ("m.e", "superseded")
    state = flow.state("m.e")
    assert (state.value, state.baseline_as_of, state.due) == (50, None, True)
    stale = flow.claim("two")
    assert stale is None or "m.e" not in stale.generations  # whoever measures the old way leaves it alone
    served(bells, later.config)
    state = flow.state("m.e")
    assert (state.value, state.baseline, state.status, state.due) == (100_000, 100_000, "new", False)


def test_a_metric_that_becomes_derived_while_it_is_due(
    flow: Flow, restart: Restart, bells: Bells, world: World
) -> None:
    """What has no source is claimed by nobody, and so must not be due."""
    flow.ask("m.e")
    later = restart(E_DERIVED)
    assert not flow.state("m.e").due
    served(bells, later.config)
    state = flow.state("m.e")
    assert (state.value, state.due, state.due_since) == (200, False, None)
    assert bells.round(later.config) == set()


def test_a_new_formula_whose_inputs_an_older_worker_measures(
    flow: Flow, restart: Restart, bells: Bells, world: World
) -> None:
    """The older worker knows the inputs as they are, and not the formula. Nothing is due any more, and nobody has
    computed it: the next sweep of a worker that knows it does so, from what was read."""
    flow.serve(a=100)
    flow.serve(b=100)
    later = restart(CONFIG.replace('"m.a + m.b"', '"m.a + m.b + 1"'))
    for bell in (ONE, TWO):
        bells.answer(flow.config, *bell)
    assert (flow.state("m.a").due, flow.state("m.b").due, flow.state("m.sum").value) == (False, False, 200)
    runs = len(flow.rows("SELECT * FROM dims_verification_runs"))
    assert bells.round(later.config) == set()
    state = flow.state("m.sum")
    assert (state.value, state.baseline, state.status) == (201, 201, "new")
    bells.round(later.config)  # and that is that
    assert len(flow.rows("SELECT * FROM dims_verification_runs")) == runs + 1


def test_a_metric_that_was_mended_does_not_wait_for_what_went_wrong_before(
    flow: Flow, restart: Restart, bells: Bells, world: World
) -> None:
    """It failed, backs off, and lost leases: all that is of its old definition."""
    world.away.add("m.e")
    flow.ask("m.e")
    served(bells, flow.config)
    flow.do("UPDATE dims_metrics SET attempts = 4 WHERE metric = 'm.e'")
    assert bells.round(flow.config) == set()
    world.away.clear()
    later = restart(E_IN_BYTES)
    state = flow.state("m.e")
    assert (state.failures, state.attempts, state.not_before, state.error) == (0, 0, None, None)
    served(bells, later.config)
    assert flow.state("m.e").value == 100_000
