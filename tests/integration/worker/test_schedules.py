"""Invariant 11: a tick is one event, however many beats and sweeps publish it; one that nobody published is made up
for, once."""

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
from tests.integration.helpers import CONFIG, Flow, event

Restart = Callable[[str], Flow]
Sweep = Callable[[Flow], list[str]]
DAILY = CONFIG + '  daily: {schedule: "0 9 * * *", metrics: ["m.a"]}\n'
LAX = CONFIG + '  daily: {schedule: "0 9 * * *", metrics: ["m.a"], catch_up: false}\n'


@pytest.fixture
def sweep(redis: Redis, monkeypatch: pytest.MonkeyPatch) -> Sweep:
    """A sweep of the doorman's, without its bells: what it puts into the stream."""
    monkeypatch.setattr(sweep_module, "send_ingest_wakeup", lambda *_: None)
    monkeypatch.setattr(sweep_module, "send_verify_wakeup", lambda *_: None)

    def run(flow: Flow) -> list[str]:
        monkeypatch.setattr(sweep_module, "engine", lambda _: flow.engine)
        before = redis.xlen(STREAM)
        sweep_module.sweep(Celery(), flow.config, redis)
        return [str(entry[1][b"event"], "utf-8") for entry in redis.xrange(STREAM)[before:]]

    return run


def seen(flow: Flow) -> dict[str, schedules.ScheduleState]:
    with transaction(flow.engine) as connection:
        return schedules.schedule_states(connection)


def ids(flow: Flow) -> list[str]:
    return [row.event_id for row in flow.rows("SELECT event_id FROM dims_event_log ORDER BY seq")]


def the_tick(flow: Flow) -> datetime:
    return last_tick(flow.config.rules["daily"], flow.clock() - timedelta(minutes=1))


def was_down_for_days(flow: Flow) -> None:
    flow.do(
        "UPDATE dims_schedules SET first_seen_at = first_seen_at - interval '5 days', last_tick = last_tick - interval '5 days'"
    )


def test_the_same_tick_of_two_beats_and_a_sweep_is_one_event_and_one_generation(restart: Restart) -> None:
    flow = restart(DAILY)
    before = flow.state("m.a").requested_gen
    tick = tick_event("daily", the_tick(flow))
    flow.store(tick)
    flow.store(tick, tick)
    assert ids(flow) == [tick.id]
    assert flow.state("m.a").requested_gen == before + 1
    assert seen(flow)["daily"].last_tick == tick.time


def test_a_rule_that_is_new_has_missed_nothing(restart: Restart, sweep: Sweep) -> None:
    assert sweep(restart(DAILY)) == []


def test_ticks_missed_while_everything_was_down_are_made_up_for_once(
    restart: Restart, redis: Redis, sweep: Sweep
) -> None:
    flow = restart(DAILY)
    was_down_for_days(flow)
    tick = tick_event("daily", the_tick(flow))
    assert sweep(flow) == [tick.to_json()]
    assert sweep(flow) == [tick.to_json()]  # not stored yet; the same event, so it counts once
    assert (r := ingest_stream(redis, flow.engine, flow.planner)).stored == 1 and r.known == 1
    assert sweep(flow) == []
    assert ids(flow) == [tick.id]


def test_who_does_not_want_to_catch_up_is_left_alone(restart: Restart, sweep: Sweep) -> None:
    flow = restart(LAX)
    was_down_for_days(flow)
    assert sweep(flow) == []


def test_an_old_tick_that_comes_late_changes_nothing_about_what_is_known(restart: Restart) -> None:
    flow = restart(DAILY)
    tick = the_tick(flow)
    flow.store(tick_event("daily", tick))
    flow.store(tick_event("daily", tick - timedelta(days=1)))
    assert seen(flow)["daily"].last_tick == tick


def test_a_forged_tick_of_the_future_hides_no_missed_one(restart: Restart, sweep: Sweep) -> None:
    flow = restart(DAILY)
    was_down_for_days(flow)
    flow.store(tick_event("daily", flow.clock() + timedelta(days=300)))
    assert seen(flow)["daily"].last_tick is None
    assert len(sweep(flow)) == 1


def test_a_tick_of_no_rule_is_unmatched_and_harms_nothing(restart: Restart) -> None:
    flow = restart(DAILY)
    flow.store(event("dims.schedule.tick", rule="nightly"), event("dims.schedule.tick", rule=7))
    assert {row.outcome for row in flow.rows("SELECT outcome FROM dims_event_log")} == {"unmatched"}


def test_a_rule_that_is_removed_is_forgotten_and_begins_anew_when_it_comes_back(restart: Restart, sweep: Sweep) -> None:
    flow = restart(DAILY)
    was_down_for_days(flow)
    restart(CONFIG)
    assert sweep(restart(DAILY)) == []


def test_a_sweep_without_schedules_asks_nothing_about_them(flow: Flow, queries: list[str], sweep: Sweep) -> None:
    queries.clear()
    sweep(flow)
    assert queries
    assert not [query for query in queries if "dims_schedules" in query]
