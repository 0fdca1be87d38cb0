"""Invariant 11: a tick is one event, however many beats and sweeps publish it. Sweeps publish a missed tick, once."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

import pytest
from celery import Celery
from redis import Redis

from dims_worker.domain.schedule import last_tick, tick_event
from dims_worker.events import STREAM
from dims_worker.pipeline.ingest import ingest_stream
from dims_worker.store import schedules
from dims_worker.store.engine import transaction
from dims_worker.worker import sweep as sweep_module
from dims_worker.worker.wakeups import WakeupSender
from tests.integration.helpers import CONFIG, Flow, event

Restart = Callable[[str], Flow]
Sweep = Callable[[Flow], list[str]]
DAILY = CONFIG + '  daily: {schedule: "0 9 * * *", metrics: ["m.a"]}\n'
LAX = CONFIG + '  daily: {schedule: "0 9 * * *", metrics: ["m.a"], catch_up: false}\n'


@pytest.fixture
def sweep(redis: Redis, monkeypatch: pytest.MonkeyPatch) -> Sweep:
    """Run a sweep without wake-ups, and return what it adds to the stream."""
    monkeypatch.setattr(WakeupSender, "repeat_lost", lambda *_, **__: None)

    def run(flow: Flow) -> list[str]:
        monkeypatch.setattr(sweep_module, "engine", lambda _: flow.engine)
        before = redis.xlen(STREAM)
        sweep_module.sweep(WakeupSender(Celery(), redis, flow.config))
        return [str(entry[1][b"event"], "utf-8") for entry in redis.xrange(STREAM)[before:]]

    return run


def states(flow: Flow) -> dict[str, schedules.ScheduleState]:
    with transaction(flow.engine) as connection:
        return schedules.schedule_states(connection)


def ids(flow: Flow) -> list[str]:
    return [row.event_id for row in flow.rows("SELECT event_id FROM dims_event_log ORDER BY seq")]


def latest_tick(flow: Flow) -> datetime:
    return last_tick(flow.config.rules["daily"], flow.clock() - timedelta(minutes=1))


def simulate_days_of_downtime(flow: Flow) -> None:
    earlier = "first_seen_at = first_seen_at - interval '5 days', last_tick = last_tick - interval '5 days'"
    flow.do(f"UPDATE dims_schedules SET {earlier}")


def test_the_same_tick_of_two_beats_and_a_sweep_is_one_event_and_one_generation(restart: Restart) -> None:
    flow = restart(DAILY)
    before = flow.state("m.a").requested_gen
    tick = tick_event("daily", latest_tick(flow))
    flow.store(tick)
    flow.store(tick, tick)
    assert ids(flow) == [tick.id]
    assert flow.state("m.a").requested_gen == before + 1
    assert states(flow)["daily"].last_tick == tick.time


def test_a_rule_that_is_new_has_missed_nothing(restart: Restart, sweep: Sweep) -> None:
    assert sweep(restart(DAILY)) == []


def test_ticks_missed_while_everything_was_down_are_published_once(
    restart: Restart, redis: Redis, sweep: Sweep
) -> None:
    flow = restart(DAILY)
    simulate_days_of_downtime(flow)
    tick = tick_event("daily", latest_tick(flow))
    assert sweep(flow) == [tick.to_json()]
    assert sweep(flow) == [tick.to_json()]  # not stored yet: it is the same event, so it counts once
    assert (r := ingest_stream(redis, flow.engine, flow.planner)).stored == 1 and r.known == 1
    assert sweep(flow) == []
    assert ids(flow) == [tick.id]


def test_a_rule_without_catch_up_gets_no_missed_ticks(restart: Restart, sweep: Sweep) -> None:
    flow = restart(LAX)
    simulate_days_of_downtime(flow)
    assert sweep(flow) == []


def test_an_old_tick_that_arrives_late_does_not_change_the_last_tick(restart: Restart) -> None:
    flow = restart(DAILY)
    tick = latest_tick(flow)
    flow.store(tick_event("daily", tick))
    flow.store(tick_event("daily", tick - timedelta(days=1)))
    assert states(flow)["daily"].last_tick == tick


def test_a_forged_tick_of_the_future_does_not_hide_a_missed_one(restart: Restart, sweep: Sweep) -> None:
    flow = restart(DAILY)
    simulate_days_of_downtime(flow)
    flow.store(tick_event("daily", flow.clock() + timedelta(days=300)))
    assert states(flow)["daily"].last_tick is None
    assert len(sweep(flow)) == 1


def test_a_tick_without_a_rule_is_unmatched(restart: Restart) -> None:
    flow = restart(DAILY)
    flow.store(event("dims.schedule.tick", rule="nightly"), event("dims.schedule.tick", rule=7))
    assert {row.outcome for row in flow.rows("SELECT outcome FROM dims_event_log")} == {"unmatched"}


def test_a_removed_rule_starts_from_scratch_when_it_is_restored(restart: Restart, sweep: Sweep) -> None:
    flow = restart(DAILY)
    simulate_days_of_downtime(flow)
    restart(CONFIG)
    assert sweep(restart(DAILY)) == []


def test_a_sweep_without_schedules_makes_no_query_about_them(flow: Flow, queries: list[str], sweep: Sweep) -> None:
    queries.clear()
    sweep(flow)
    assert queries
    assert not [query for query in queries if "dims_schedules" in query]
