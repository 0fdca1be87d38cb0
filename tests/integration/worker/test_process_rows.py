"""Each process of DIMS has a row in dims_processes, and deletes it when it ends in an orderly way."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest
from redis import Redis
from sqlalchemy import Engine, create_engine

from dims_worker.events import FIELD, STREAM, Event
from dims_worker.store.engine import transaction
from dims_worker.store.process_reporter import ProcessReporter, identify_process
from dims_worker.store.processes import ProcessProgress, ProcessRow, process_rows
from tests.conftest import GIT_ENV, Project, Worker, wait_for
from tests.integration.helpers import CONFIG, NOW

YAML = CONFIG + "settings: {sweep: 1s}\n"


def rows(engine: Engine) -> dict[str, ProcessRow]:
    with transaction(engine) as connection:
        return {row.role: row for row in process_rows(connection)}


@pytest.fixture
def configured(project: Project) -> Project:
    project.write({"dims.yaml": YAML, "one/a": "", "two/a": ""})
    return project


@pytest.fixture
def start(configured: Project, tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Return a function that starts a process of DIMS."""
    started: list[subprocess.Popen[bytes]] = []

    def run(*arguments: str) -> subprocess.Popen[bytes]:
        with (tmp_path / f"{arguments[0]}.log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", *arguments],
                cwd=configured.folder,
                env={**os.environ, **GIT_ENV, **configured.env},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        started.append(process)
        return process

    yield run
    for process in started:
        if process.poll() is None:
            process.kill()
        process.wait(10)


def stored_event(redis: Redis) -> None:
    event = Event.new("dims.scraper.complete", "test", now=NOW, data={}, id="event-a")
    redis.xadd(STREAM, {FIELD: event.to_json()})


def test_a_worker_reports_what_it_does(
    configured: Project, engine: Engine, redis: Redis, start_worker: Callable[..., Worker]
) -> None:
    worker = start_worker()
    stored_event(redis)

    def complete() -> Any:
        row = rows(engine).get("worker")
        return row and row.last_sweep_at and row.last_claim_at and row.last_stored_at and row

    row: ProcessRow = wait_for(complete)
    assert (row.pid, row.queues) == (worker.process.pid, ("dims.ingest", "dims.verify"))
    assert row.config_hash == configured.config.digest
    assert abs(row.clock_offset or 0) < 5
    assert row.problem is None
    worker.process.terminate()
    assert worker.process.wait(30) == 0
    assert rows(engine) == {}


def test_a_worker_whose_children_are_stuck_still_reports(
    configured: Project, engine: Engine, start_worker: Callable[..., Worker]
) -> None:
    worker = start_worker()
    seen = wait_for(lambda: rows(engine).get("worker")).seen_at
    children = psutil.Process(worker.process.pid).children()
    for child in children:
        child.send_signal(signal.SIGSTOP)
    try:
        wait_for(lambda: rows(engine)["worker"].seen_at > seen)
    finally:
        for child in children:
            child.send_signal(signal.SIGCONT)


@pytest.mark.parametrize(
    ("role", "arguments"),
    [
        ("beat", ("celery", "-A", "dims_worker.tasks", "beat", "-s", "beat-schedule", "--pidfile=")),
        ("web", ("dims_worker", "web", "--port", "0")),
        ("watch", ("dims_worker", "watch")),
    ],
    ids=["beat", "web", "watch"],
)
def test_other_processes_report_themselves(
    engine: Engine, start: Callable[..., subprocess.Popen[bytes]], role: str, arguments: tuple[str, ...]
) -> None:
    process = start(*arguments)
    row: ProcessRow = wait_for(lambda: rows(engine).get(role))
    assert row.pid == process.pid
    wait_for(lambda: rows(engine)[role].seen_at > row.seen_at)
    process.send_signal(signal.SIGTERM)
    process.wait(20)
    assert rows(engine) == {}


def test_beat_reports_when_its_loop_last_ran(engine: Engine, start: Callable[..., subprocess.Popen[bytes]]) -> None:
    start("celery", "-A", "dims_worker.tasks", "beat", "-s", "beat-schedule", "--pidfile=")
    first: ProcessRow = wait_for(lambda: (row := rows(engine).get("beat")) and row.last_sweep_at and row)
    wait_for(lambda: (rows(engine)["beat"].last_sweep_at or NOW) > (first.last_sweep_at or NOW))


def test_an_outage_of_the_database_is_logged_once_and_does_not_end_the_thread(
    make_flow: Callable[[str], Any], engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    flow = make_flow(CONFIG)
    down = create_engine("postgresql+psycopg2://dims@127.0.0.1:1/none")
    attempts = []

    def progress() -> ProcessProgress:
        attempts.append(1)
        return ProcessProgress()

    identity = identify_process("worker", flow.config)
    with caplog.at_level(logging.WARNING):
        reporter = ProcessReporter(down, identity, timedelta(milliseconds=20), progress)
        reporter.start()
        wait_for(lambda: len(attempts) > 3)
        reporter._engine = engine  # the database is back
        wait_for(lambda: rows(engine).get("worker"))
        reporter.stop()
    assert not reporter.is_alive()
    messages = [record.getMessage() for record in caplog.records if record.name.endswith("process_reporter")]
    assert len(messages) == 2
    assert "cannot report" in messages[0]
    assert "again" in messages[1]


def test_a_process_that_ends_keeps_the_row_of_its_successor(make_flow: Callable[[str], Any], engine: Engine) -> None:
    flow = make_flow(CONFIG)
    first = ProcessReporter(engine, identify_process("beat", flow.config), timedelta(hours=1))
    first.start()
    wait_for(lambda: rows(engine).get("beat"))
    flow.do("UPDATE dims_processes SET pid = pid + 1")
    first.stop()
    assert "beat" in rows(engine)
