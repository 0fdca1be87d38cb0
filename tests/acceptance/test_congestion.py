"""More events than workers can answer one by one: the queues stay short, and everything is measured."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import pytest
from redis import Redis
from sqlalchemy import Engine, text

from dims_producers.publish import publish
from dims_worker.events import STREAM, Event
from tests.conftest import Project, Worker, wait_for

SOURCES = 16
EVENTS = 300
CONFIG = """
settings: {sweep: 1s}
sources:
""" + "".join(f"  s{number}: {{type: files, path: d{{cooldown}}}}\n" for number in range(SOURCES))
METRICS = "metrics:\n  m:\n" + "".join(
    f"    n{number}: {{source: s{number}, measure: count}}\n" for number in range(SOURCES)
)
RULES = 'rules: {hot: {on: lab.hot, metrics: ["m.*"]}}\n'
DUE = "SELECT count(*) FROM dims_metrics WHERE requested_gen > measured_gen"
LATE = """
    SELECT count(*) FROM dims_metrics WHERE as_of <= (SELECT max(received_at) FROM dims_event_log)
"""
"""Metrics that were not measured after the last event."""


@pytest.fixture
def redis(project: Project) -> Iterator[Redis]:
    with Redis.from_url(project.env["DIMS_BROKER_URL"]) as client:
        yield client


def event(number: int) -> Event:
    return Event.new("lab.hot", "test", id=str(number), now=datetime.now(UTC), data={})


def scalar(engine: Engine, query: str) -> int:
    with engine.connect() as connection:
        return int(connection.execute(text(query)).scalar_one())


def run_a_busy_while(project: Project, engine: Engine, redis: Redis) -> int:
    """Send events faster than the sources can be measured. Return the longest that a queue was."""
    longest = 0
    for number in range(EVENTS):
        publish([event(number)], project.env["DIMS_BROKER_URL"], timeout=30)
        longest = max(longest, *(int(redis.llen(queue)) for queue in ("dims.verify", "dims.ingest")))
        time.sleep(0.02)
    wait_for(lambda: not redis.xlen(STREAM) and not scalar(engine, DUE), timeout=90)
    return longest


def test_a_queue_holds_one_wakeup_for_each_source(
    project: Project, engine: Engine, redis: Redis, start_worker: Callable[..., Worker]
) -> None:
    project.write({"dims.yaml": CONFIG.replace("{cooldown}", "") + METRICS + RULES, "d/file": "x"})
    start_worker(concurrency=2)
    wait_for(lambda: scalar(engine, "SELECT count(*) FROM dims_metrics WHERE value = '1'") == SOURCES)
    longest = run_a_busy_while(project, engine, redis)
    assert longest <= 2 * SOURCES
    assert scalar(engine, "SELECT count(*) FROM dims_event_log") == EVENTS
    assert scalar(engine, LATE) == 0
    wait_for(lambda: not redis.llen("dims.verify"))


def test_a_source_that_cools_down_gets_no_wakeup_until_its_cooldown_ends(
    project: Project, engine: Engine, redis: Redis, start_worker: Callable[..., Worker]
) -> None:
    project.write({"dims.yaml": CONFIG.replace("{cooldown}", ", cooldown: 3s") + METRICS + RULES, "d/file": "x"})
    worker = start_worker(concurrency=2)
    wait_for(lambda: scalar(engine, "SELECT count(*) FROM dims_metrics WHERE value = '1'") == SOURCES)
    began = time.monotonic()
    run_a_busy_while(project, engine, redis)
    rounds = (time.monotonic() - began) / 3 + 2
    received = worker.log.read_text().count("Task dims.verify[")  # two lines for each: received, succeeded
    assert scalar(engine, LATE) == 0
    # Each round needs one wake-up for each source. A second one is sent if an event arrives while it is claimed.
    assert received / 2 <= 2 * SOURCES * rounds


def test_wakeups_for_a_queue_without_a_worker_do_not_pile_up(
    project: Project, engine: Engine, redis: Redis, start_worker: Callable[..., Worker]
) -> None:
    config = "sources: {far: {type: files, path: d, queue: dims.far}, near: {type: files, path: d}}\n"
    config += "metrics: {m: {far: {source: far, measure: count}, near: {source: near, measure: count}}}\n"
    project.write({"dims.yaml": "settings: {sweep: 200ms}\n" + config + RULES, "d/file": "x"})
    start_worker(concurrency=1)
    for number in range(60):
        publish([event(number)], project.env["DIMS_BROKER_URL"], timeout=30)
        time.sleep(0.05)
    wait_for(lambda: scalar(engine, "SELECT count(*) FROM dims_event_log") == 60)
    wait_for(lambda: scalar(engine, DUE) == 1)
    assert redis.llen("dims.far") == 1
