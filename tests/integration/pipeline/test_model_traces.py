"""The traces that models of the protocol found. Each is the shortest way to lose an event if one rule were missing.

| trace | test |
|---|---|
| failed reading at the claimed generation | test_leases.py::test_a_failure_leaves_the_metric_due_and_doubles_its_back_off |
| a slow holder that records after its lease was lost | test_leases.py::test_a_run_recorded_after_its_lease_was_lost_changes_only_the_history |
| `verify --update` beside a worker | test_worker.py::test_verify_update_beside_a_worker_is_measured_once_and_held |
| two inputs of one derived metric recorded at once | test_record.py::test_two_inputs_recorded_at_once_give_the_right_sum |
| a check between event and run | test_model_traces.py::test_a_check_between_event_and_run |
| a dispatcher that dies between key and wake-up | test_model_traces.py::test_a_dispatcher_that_dies_between_key_and_wakeup |
| a consumer group made after the first XADD | test_ingest.py::test_entries_sent_before_the_group_existed_are_read |
| an ingest killed after reading | test_model_traces.py::test_an_ingest_killed_after_reading |
| an ingest killed after its commit | test_model_traces.py::test_an_ingest_killed_after_its_commit |
| a second event during the cooldown | test_model_traces.py::test_a_second_event_during_the_cooldown |
| a metric removed while due | test_model_traces.py::test_a_metric_removed_while_due |
| a metric whose definition changes while it is measured | test_model_traces.py::test_a_metric_whose_definition_changes_while_it_is_measured |
| a metric that becomes derived while it is due | test_model_traces.py::test_a_metric_that_becomes_derived_while_it_is_due |
| a new formula whose inputs an older worker measures | test_model_traces.py::test_a_new_formula_whose_inputs_an_older_worker_measures |
| checks that overtake a worker | test_model_traces.py::test_checks_that_overtake_a_worker_cost_it_no_attempt |
| a check that fails between two events | test_model_traces.py::test_a_check_that_fails_between_two_events |
"""  # noqa: E501

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from redis import Redis

from dims_worker.broker import event_stream, pending_wakeups
from dims_worker.broker.queues import INGEST, VERIFY
from dims_worker.config import Config
from dims_worker.domain.run import Run
from dims_worker.errors import DatabaseRefused
from dims_worker.events import STREAM, Event
from dims_worker.pipeline import verify
from dims_worker.worker.wakeups import wakeup_key
from tests.integration.helpers import CONFIG, Flow, request
from tests.integration.pipeline.wakeups import Wakeups
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
    """Replaces the folders: numbers that the test changes."""
    simulated = World()
    monkeypatch.setattr(verify, "start_scan", lambda config, _, names, *known: Scan(simulated, config, tuple(names)))
    return simulated


@pytest.fixture
def wakeups(flow: Flow, broker_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Wakeups]:
    monkeypatch.setattr(event_stream, "consumer_name", lambda: process.name if (process := current()) else "next")
    with HaltingRedis.from_url(broker_url) as redis, halting(flow.engine):
        yield Wakeups(flow.engine, redis)


def send(redis: Redis, *events: Event) -> None:
    for event in events:
        redis.xadd(STREAM, {"event": event.to_json()})


def served(wakeups: Wakeups, config: Config) -> list[tuple[str, ...]]:
    """Run one dispatcher round, and handle its wake-ups and those that follow. Return them in order."""
    found = []
    wakeups.round(config)
    while wakeups.sent:
        found.append(wakeups.pop())
        wakeups.handle(config, *found[-1])
    return found


# --- between the stream and PostgreSQL ----------------------------------------------------------------


def test_a_dispatcher_that_dies_between_key_and_wakeup(
    flow: Flow, wakeups: Wakeups, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With many events it sets the key, and dies before it sends the wake-up. The next sweep sees the key and an empty
    queue, and sends the wake-up. Its worker claims what the dispatcher had read."""
    monkeypatch.setattr(event_stream, "BATCH", 1)
    dispatcher = Process("dispatcher", lambda: wakeups.round(flow.config))
    while dispatcher.halted_at != "BEGIN" or not wakeups.redis.exists(STREAM):
        dispatcher.step()  # it has registered, and is about to sweep
    dispatcher.step()
    assert dispatcher.halted_at == "BEGIN"  # it has swept, and is about to delete old rows
    send(wakeups.redis, request("m.a", id="e"))
    while dispatcher.halted_at != "send":
        dispatcher.step()
    dispatcher.kill()
    key = pending_wakeups.PREFIX + INGEST
    assert (wakeups.redis.hlen(key), wakeups.sent, held(wakeups.redis)) == (1, set(), {b"dispatcher": 1})
    make_idle(wakeups.redis)
    assert wakeups.round(flow.config) == set()  # a worker may just have received it
    wakeups.redis.hincrby(key, wakeup_key(INGEST, ""), -5_001)  # a sweep period passes
    assert wakeups.round(flow.config) == {(INGEST,)}
    wakeups.handle(flow.config, *wakeups.pop())
    assert not wakeups.redis.exists(key)
    assert (flow.state("m.a").due, wakeups.redis.xlen(STREAM), wakeups.sent) == (True, 0, {ONE})


def test_an_ingest_killed_after_reading(flow: Flow, wakeups: Wakeups) -> None:
    """No worker has the entries. The next ingest claims them once they were idle for `orphan`."""
    send(wakeups.redis, request("m.a", id="1"), request("m.b", id="2"))
    ingest = Process("first", lambda: wakeups.handle(flow.config, INGEST))
    while ingest.halted_at != "BEGIN":  # then it has read
        ingest.step()
    assert (ingest.halted_at, held(wakeups.redis)) == ("BEGIN", {b"first": 2})
    ingest.kill()
    wakeups.handle(flow.config, INGEST)
    assert flow.scalar("SELECT count(*) FROM dims_event_log") == 0
    make_idle(wakeups.redis)
    assert wakeups.round(flow.config) == {(INGEST,)}
    wakeups.handle(flow.config, *wakeups.pop())
    assert flow.scalar("SELECT count(*) FROM dims_event_log") == 2
    assert (wakeups.redis.xlen(STREAM), held(wakeups.redis), wakeups.sent) == (0, {}, {ONE, TWO})


def test_an_ingest_killed_after_its_commit(flow: Flow, wakeups: Wakeups) -> None:
    """Everything is stored, nothing acknowledged, no wake-up sent. The next ingest stores nothing, and a sweep sends a
    wake-up."""
    send(wakeups.redis, request("m.a", id="1"))
    ingest = Process("first", lambda: wakeups.handle(flow.config, INGEST))
    while ingest.halted_at != "XACK":
        ingest.step()
    ingest.kill()
    assert (flow.state("m.a").requested_gen, held(wakeups.redis)) == (1, {b"first": 1})
    make_idle(wakeups.redis)
    wakeups.handle(flow.config, INGEST)
    assert (flow.state("m.a").requested_gen, wakeups.redis.xlen(STREAM), wakeups.sent) == (1, 0, set())
    assert wakeups.round(flow.config) == {ONE}


def held(redis: Redis) -> dict[bytes, int]:
    """Return how many entries each consumer holds."""
    consumers = redis.xinfo_consumers(STREAM, event_stream.GROUP)
    return {consumer["name"]: consumer["pending"] for consumer in consumers if consumer["pending"]}


def make_idle(redis: Redis) -> None:
    """Make every consumer look idle for an hour."""
    for entry in redis.xpending_range(STREAM, event_stream.GROUP, "-", "+", 100):
        consumer, ids = entry["consumer"], [entry["message_id"]]
        redis.xclaim(STREAM, event_stream.GROUP, consumer, 0, ids, idle=3_600_000, justid=True)


# --- between PostgreSQL and a measurement -------------------------------------------------------------


def test_a_check_between_event_and_run(flow: Flow, wakeups: Wakeups, world: World) -> None:
    """A check sees the change, but does not serve its event: the metric stays due, and its baseline stays."""
    flow.serve(a=100, c=100)
    world.values["m.c"] = 200
    flow.ask("m.c")
    before = flow.state("m.c")
    run = verify.check_now(flow.engine, flow.config, ["m.c"])
    assert [(item.metric, item.value, item.outcome) for item in run.items] == [("m.c", 200, "looked")]
    checked = flow.state("m.c")
    assert checked.value == 200
    assert (checked.baseline, checked.baseline_version) == (before.baseline, before.baseline_version)
    assert (checked.requested_gen, checked.measured_gen) == (before.requested_gen, before.measured_gen)
    assert checked.due
    assert flow.open("m.c") is None
    assert served(wakeups, flow.config) == [ONE]
    assert (flow.state("m.c").due, flow.state("m.c").baseline) == (False, 100)
    request = flow.open("m.c")
    assert request is not None
    assert request.value == 200


def test_a_second_event_during_the_cooldown(make_flow: Callable[[str], Flow], wakeups: Wakeups, world: World) -> None:
    """The first event is served at once. One run after the cooldown serves those that follow."""
    flow = make_flow(CONFIG.replace("path: one}", "path: one, cooldown: 1h}"))

    def change(value: int) -> list[tuple[str, ...]]:
        world.values["m.a"] = value
        send(wakeups.redis, request("m.a"))
        return served(wakeups, flow.config)

    assert change(101) == [(INGEST,), ONE]
    assert (flow.state("m.a").value, flow.state("m.a").due) == (101, False)
    for value in (102, 103):
        assert change(value) == [(INGEST,)]  # no wake-up for a source that cools down
    assert (flow.state("m.a").value, flow.state("m.a").due) == (101, True)
    assert wakeups.round(flow.config) == set()  # a sweep sends no wake-up during the cooldown
    flow.do(PASS.format("dims_sources"))
    assert served(wakeups, flow.config) == [ONE]
    assert (flow.state("m.a").value, flow.state("m.a").due) == (103, False)
    readings = flow.rows("SELECT value, generation FROM dims_metrics_history WHERE metric = 'm.a' ORDER BY id")
    assert [tuple(row) for row in readings] == [(101, 1), (103, 3)]
    assert wakeups.round(flow.config) == set()


def test_checks_that_overtake_a_worker_cost_it_no_attempt(flow: Flow, wakeups: Wakeups, world: World) -> None:
    """A check that begins later and is recorded earlier supersedes the worker's reading. The worker is alive, so its
    metric is never suspected of crashing it."""
    for _ in range(6):
        claim = flow.claimed("m.a")
        verify.check_now(flow.engine, flow.config, ["m.a"])
        (item,) = flow.record(claim, {"m.a": 100}).items
        assert (item.outcome, flow.state("m.a").attempts, flow.state("m.a").due) == ("superseded", 0, True)
    assert served(wakeups, flow.config) == [ONE]
    assert not flow.state("m.a").due


def test_a_check_that_fails_between_two_events(flow: Flow, wakeups: Wakeups, world: World) -> None:
    """m.sum = m.a + m.b. A check cannot measure m.a, which is not due. Then an event about m.b comes. The sum uses the
    last good reading of m.a, because no event would cause another measurement of m.a."""
    flow.serve(a=100)
    flow.serve(b=100)
    world.unreachable.add("m.a")
    run = verify.check_now(flow.engine, flow.config, ["m.sum"])
    assert {item.metric: item.outcome for item in run.items} == {"m.a": "failed", "m.b": "looked", "m.sum": "failed"}
    world.values["m.b"] = 110
    flow.ask("m.b")
    served(wakeups, flow.config)
    state = flow.state("m.sum")
    assert (state.value, state.baseline, state.error) == (210, 210, None)
    flow.ask("m.a", "m.b")  # while m.a is due, its failure fails the sum
    served(wakeups, flow.config)
    assert "m.a: it is unreachable" in str(flow.state("m.sum").error)


def test_a_record_that_the_database_refuses_costs_no_attempt(
    flow: Flow, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker is alive, and its claim is returned. So the metric is never quarantined for a refusal."""

    def refuse(*_: object) -> Run:
        raise DatabaseRefused("the user lacks the right to insert into dims_verification_runs")

    flow.ask("m.a")
    with monkeypatch.context() as patched:
        patched.setattr(verify, "record_run", refuse)
        for _ in range(6):
            with pytest.raises(DatabaseRefused):
                verify.measure_due(flow.engine, flow.config, "one", at_once=True)
            assert (flow.state("m.a").attempts, flow.state("m.a").due) == (0, True)
    run = verify.measure_due(flow.engine, flow.config, "one")
    assert run is not None
    assert [(item.metric, item.outcome) for item in run.items if item.metric == "m.a"] == [("m.a", "accepted")]


# --- configurations -----------------------------------------------------------------------------------

E = "e: {source: two, measure: count}"
WITHOUT_E = CONFIG.replace(f"    {E}\n", "").replace("m.sum / m.e", "m.sum / 2")
E_IN_BYTES = CONFIG.replace(E, "e: {source: two, measure: bytes}")
E_DERIVED = CONFIG.replace(E, 'e: {derive: "m.b * 2"}')


def test_a_metric_removed_while_due(flow: Flow, restart: Restart, wakeups: Wakeups, world: World) -> None:
    """It is no longer due, and no wake-up is sent. A running measurement records nothing. A restored metric is new."""
    flow.serve(b=1, e=50)
    claim = flow.claimed("m.e")
    flow.ask("m.e")
    later = restart(WITHOUT_E)
    (item,) = [item for item in flow.record(claim, {"m.e": 60}).items if item.metric == "m.e"]
    state = flow.state("m.e")
    assert (item.outcome, state.value, state.due, state.retired_at is not None) == ("superseded", 50, False, True)
    flow.ask("m.e")  # an ingest with the old configuration
    assert not flow.state("m.e").due
    served(wakeups, later.config)
    assert wakeups.round(later.config) == set()
    assert flow.state("m.e").value == 50

    back = restart(CONFIG)
    assert flow.state("m.e").due
    served(wakeups, back.config)
    state = flow.state("m.e")
    assert (state.value, state.baseline, state.status, state.due) == (100, 100, "new", False)


def test_a_metric_whose_definition_changes_while_it_is_measured(
    flow: Flow, restart: Restart, wakeups: Wakeups, world: World
) -> None:
    """The reading belongs to the old definition. It goes to the history, and the metric is due under the new one."""
    flow.serve(b=1, e=50)
    claim = flow.claimed("m.e")
    later = restart(E_IN_BYTES)
    run = flow.record(claim, {"m.e": 60})
    assert next((item.metric, item.outcome) for item in run.items) == ("m.e", "superseded")
    state = flow.state("m.e")
    assert (state.value, state.baseline_as_of, state.due) == (50, None, True)
    stale = flow.claim("two")
    assert stale is None or "m.e" not in stale.generations  # a worker with the old definition does not claim it
    served(wakeups, later.config)
    state = flow.state("m.e")
    assert (state.value, state.baseline, state.status, state.due) == (100_000, 100_000, "new", False)


def test_a_metric_that_becomes_derived_while_it_is_due(
    flow: Flow, restart: Restart, wakeups: Wakeups, world: World
) -> None:
    """A metric without a source is never claimed, so it must not be due."""
    flow.ask("m.e")
    later = restart(E_DERIVED)
    assert not flow.state("m.e").due
    served(wakeups, later.config)
    state = flow.state("m.e")
    assert (state.value, state.due, state.due_since) == (200, False, None)
    assert wakeups.round(later.config) == set()


def test_a_new_formula_whose_inputs_an_older_worker_measures(
    flow: Flow, restart: Restart, wakeups: Wakeups, world: World
) -> None:
    """The older worker measures the inputs, but does not know the formula. Nothing is due then, so the next sweep of a
    worker with the formula computes it."""
    flow.serve(a=100)
    flow.serve(b=100)
    later = restart(CONFIG.replace('"m.a + m.b"', '"m.a + m.b + 1"'))
    for wakeup in (ONE, TWO):
        wakeups.handle(flow.config, *wakeup)
    assert (flow.state("m.a").due, flow.state("m.b").due, flow.state("m.sum").value) == (False, False, 200)
    runs = len(flow.rows("SELECT * FROM dims_verification_runs"))
    assert wakeups.round(later.config) == set()
    state = flow.state("m.sum")
    assert (state.value, state.baseline, state.status) == (201, 201, "new")
    wakeups.round(later.config)  # only once
    assert len(flow.rows("SELECT * FROM dims_verification_runs")) == runs + 1


def test_a_repaired_metric_does_not_wait_for_its_earlier_failures(
    flow: Flow, restart: Restart, wakeups: Wakeups, world: World
) -> None:
    """It failed, is in back-off, and lost leases. All of that belongs to its old definition."""
    world.unreachable.add("m.e")
    flow.ask("m.e")
    served(wakeups, flow.config)
    flow.do("UPDATE dims_metrics SET attempts = 4 WHERE metric = 'm.e'")
    assert wakeups.round(flow.config) == set()
    world.unreachable.clear()
    later = restart(E_IN_BYTES)
    state = flow.state("m.e")
    assert (state.failures, state.attempts, state.not_before, state.error) == (0, 0, None, None)
    served(wakeups, later.config)
    assert flow.state("m.e").value == 100_000
