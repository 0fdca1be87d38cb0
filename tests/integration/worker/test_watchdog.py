"""A worker that does nothing although work waits ends with the exit code 75. One that only waits keeps running."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
from celery import Celery
from redis import Redis
from sqlalchemy import Engine, text

from dims_worker.config import load_config
from dims_worker.events import FIELD, STREAM, Event
from dims_worker.local.stall import EXIT_STALLED
from dims_worker.store.engine import transaction
from dims_worker.store.processes import process_rows
from dims_worker.worker.celery_app import build_app
from dims_worker.worker.progress import WorkerProgress
from dims_worker.worker.watchdog import WorkerWatchdog
from tests.conftest import Project, Worker, wait_for
from tests.integration.helpers import NOW

YAML = """
settings: {sweep: 1s, lease: 4s}
sources:
  slow: {type: command, timeout: 60s}
  small: {type: command}
metrics:
  m:
    a: {source: slow, command: ["sleep", "22"], shell: false, absent: 0}
    b: {source: small, command: ["date", "+%s%N"], shell: false}
rules:
  small: {on: test.small, metrics: [m.b]}
  both: {on: test.both, metrics: [m.*]}
"""
ENDS_WITHIN = 90


@pytest.fixture
def app(project: Project) -> Iterator[Celery]:
    project.write({"dims.yaml": YAML.replace('["sleep", "22"]', '["true"]')})
    app = build_app(project.config)
    yield app
    app.close()


def publish(redis: Redis, kind: str, id: str) -> None:
    redis.xadd(STREAM, {FIELD: Event.new(kind, "test", now=NOW, data={}, id=id).to_json()})


def runs(engine: Engine, source: str) -> int:
    with transaction(engine) as connection:
        query = text("SELECT count(*) FROM dims_verification_runs WHERE source = :source")
        return int(connection.execute(query, {"source": source}).scalar_one())


def assert_ended(worker: Worker, engine: Engine, children: list[psutil.Process]) -> None:
    assert worker.process.wait(ENDS_WITHIN) == EXIT_STALLED
    assert "this worker makes no progress: work waits" in worker.log.read_text()
    wait_for(lambda: not any(child.is_running() and child.status() != "zombie" for child in children))
    with transaction(engine) as connection:
        (row,) = process_rows(connection)
    assert "could take it, and none does" in str(row.problem)


def test_a_worker_whose_consumer_is_silent_ends(
    app: Celery, engine: Engine, redis: Redis, start_worker: Callable[..., Worker]
) -> None:
    worker = start_worker()
    children = psutil.Process(worker.process.pid).children()
    publish(redis, "test.both", "event-a")
    wait_for(lambda: runs(engine, "small"))
    app.control.cancel_consumer("dims.verify")
    wait_for(lambda: "no longer accepting tasks" in worker.log.read_text().lower() or redis.llen("dims.verify"))
    publish(redis, "test.both", "event-b")
    assert_ended(worker, engine, children)


def test_a_worker_whose_children_hang_ends(
    app: Celery, engine: Engine, redis: Redis, start_worker: Callable[..., Worker]
) -> None:
    worker = start_worker()
    publish(redis, "test.both", "event-a")
    wait_for(lambda: runs(engine, "small"))
    children = psutil.Process(worker.process.pid).children()
    for child in children:
        child.send_signal(signal.SIGSTOP)
    publish(redis, "test.both", "event-b")
    assert_ended(worker, engine, children)


def test_a_worker_that_measures_for_long_keeps_running(
    project: Project, engine: Engine, redis: Redis, start_worker: Callable[..., Worker]
) -> None:
    project.write({"dims.yaml": YAML})
    worker = start_worker(concurrency=1)
    publish(redis, "test.both", "event-a")
    wait_for(lambda: runs(engine, "slow") and runs(engine, "small"), timeout=90)
    assert worker.process.poll() is None
    assert "makes no progress" not in worker.log.read_text()


def test_an_unreachable_broker_is_no_stall(project: Project, tmp_path: Path) -> None:
    project.write({"dims.yaml": YAML})
    config = load_config(None, {**project.env, "DIMS_BROKER_URL": "redis://127.0.0.1:1/0"}, project.folder)

    worker = SimpleNamespace(consumer=SimpleNamespace(connection=SimpleNamespace(connected=True)), pool=None)
    watchdog = WorkerWatchdog(worker, config, WorkerProgress(), {"dims.verify"}, lambda _: None)
    assert watchdog._observe()[0] is None
