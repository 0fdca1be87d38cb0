"""A worker replaces its children after a number of tasks, and loses nothing by that."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from redis import Redis
from sqlalchemy import Engine, text

from dims_worker.events import FIELD, STREAM, Event
from dims_worker.store.engine import transaction
from dims_worker.worker.celery_app import build_app
from tests.conftest import GIT_ENV, Project, wait_for
from tests.integration.helpers import NOW

SOURCES = 6
MOST_EVENTS = 600
"""Events that come at once share one task, so a slow machine needs more of them until a child is replaced."""
YAML = (
    "settings: {sweep: 1s}\nsources:\n"
    + "".join(f"  s{i}: {{type: command}}\n" for i in range(SOURCES))
    + "metrics:\n  m:\n"
    + "".join(f'    a{i}: {{source: s{i}, command: ["date", "+%s%N"]}}\n' for i in range(SOURCES))
    + 'rules:\n  all: {on: dims.scraper.complete, metrics: ["m.*"]}\n'
)


@pytest.fixture
def configured(project: Project) -> Project:
    project.write({"dims.yaml": YAML})
    return project


def test_children_are_replaced_by_default(configured: Project) -> None:
    app = build_app(configured.config)
    assert app.conf.worker_max_tasks_per_child == 10_000
    assert app.conf.worker_max_memory_per_child == 512 * 1024


def test_a_child_that_is_replaced_after_each_few_tasks_loses_nothing(
    configured: Project, engine: Engine, redis: Redis, tmp_path: Path
) -> None:
    log = tmp_path / "worker.log"
    arguments = ["-m", "celery", "-A", "dims_worker.tasks", "worker", "-l", "INFO", "-Q", "dims.ingest,dims.verify"]
    with log.open("wb") as output:
        worker = subprocess.Popen(
            [sys.executable, *arguments, "-c", "2", "--max-tasks-per-child", "3", "--without-gossip"],
            cwd=configured.folder,
            env={**os.environ, **GIT_ENV, **configured.env},
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    children: set[int] = set()
    sent = 0

    def is_served() -> bool:
        children.update(child.pid for child in psutil.Process(worker.pid).children())
        with transaction(engine) as connection:
            stored = connection.execute(text("SELECT count(*) FROM dims_event_log")).scalar_one()
            due = connection.execute(text("SELECT count(*) FROM dims_metrics WHERE requested_gen > measured_gen"))
            return bool(stored == sent and due.scalar_one() == 0)

    try:
        wait_for(lambda: " ready." in log.read_text())
        while len(children) <= 4 and sent < MOST_EVENTS:
            for _ in range(10):
                sent += 1
                event = Event.new("dims.scraper.complete", "test", now=NOW, data={}, id=f"event-{sent}")
                redis.xadd(STREAM, {FIELD: event.to_json()})
            wait_for(is_served, timeout=90)
    finally:
        worker.terminate()
        assert worker.wait(40) == 0
    with transaction(engine) as connection:
        attempts = connection.execute(text("SELECT max(attempts) FROM dims_metrics")).scalar_one()
    assert attempts == 0
    assert len(children) > 4
    assert "WorkerLostError" not in log.read_text()
