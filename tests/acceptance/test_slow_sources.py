"""Fast sources never wait for slow ones: those have a queue and workers of their own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import pytest
from sqlalchemy import Engine, text

from dims_producers.publish import publish
from dims_worker.events import Event
from tests.conftest import Project, Worker, wait_for

SLOW, FAST = 4, 6
BLOCKED = "while test ! -e go; do sleep 0.1; done; echo 1"
"""A command that ends when the test creates a file."""
SOURCES = [
    *(f"  slow{number}: {{type: command}}\n" for number in range(SLOW)),
    *(f"  fast{number}: {{type: files, path: d}}\n" for number in range(FAST)),
]
METRICS = [
    *(f"    slow{number}: {{source: slow{number}, command: '{BLOCKED}', shell: true}}\n" for number in range(SLOW)),
    *(f"    fast{number}: {{source: fast{number}, measure: count}}\n" for number in range(FAST)),
]
CONFIG = (
    "settings: {sweep: 1s}\n"
    f"sources:\n{''.join(SOURCES)}"
    f"metrics:\n  m:\n{''.join(METRICS)}"
    'rules: {all: {on: lab.changed, metrics: ["m.*"]}}\n'
)
DUE = "SELECT count(*) FROM dims_metrics WHERE requested_gen > measured_gen AND metric LIKE 'm.{}%'"


@pytest.fixture
def scalar(engine: Engine) -> Iterator[Callable[[str], int]]:
    def query(statement: str) -> int:
        with engine.connect() as connection:
            return int(connection.execute(text(statement)).scalar_one())

    yield query


def test_fast_sources_are_measured_while_slow_ones_occupy_all_their_workers(
    project: Project, scalar: Callable[[str], int], start_worker: Callable[..., Worker]
) -> None:
    project.write({"dims.yaml": CONFIG, "d/file": "x"})
    start_worker(queues="dims.verify.slow", concurrency=1)
    worker = start_worker(concurrency=2)

    def recorded() -> int:
        return scalar("SELECT count(*) FROM dims_metrics_history")

    wait_for(lambda: not scalar(DUE.format("fast")), timeout=60)  # though all sources are new, and 4 > 2 processes
    wait_for(lambda: scalar("SELECT count(*) FROM dims_sources WHERE scan_seconds > 3") == SLOW, timeout=60)
    for number in range(5):
        before = scalar("SELECT count(*) FROM dims_metrics_history")
        event = Event.new("lab.changed", "test", id=str(number), now=datetime.now(UTC), data={})
        publish([event], project.env["DIMS_BROKER_URL"], timeout=30)
        wait_for(lambda before=before: recorded() >= before + FAST, timeout=60)  # type: ignore[misc]
        wait_for(lambda: not scalar(DUE.format("fast")), timeout=60)
    assert scalar(DUE.format("slow")) == SLOW
    (project.folder / "go").touch()
    wait_for(lambda: not scalar(DUE.format("slow")), timeout=60)
    assert scalar("SELECT count(*) FROM dims_metrics_history WHERE method = 'failed'") == 0
    assert scalar("SELECT sum(attempts) FROM dims_metrics") == 0
    assert worker.log.read_text().count("takes longer than 3 s") == SLOW  # each slow source was stopped once


def test_without_a_slow_worker_the_default_one_scans_slow_sources_to_the_end(
    project: Project, scalar: Callable[[str], int], start_worker: Callable[..., Worker]
) -> None:
    config = "sources: {slow: {type: command}}\nmetrics: {m: {slow: {source: slow, command: 'sleep 4; echo 1', "
    project.write({"dims.yaml": "settings: {sweep: 1s}\n" + config + "shell: true}}}\n"})
    worker = start_worker(concurrency=1)
    wait_for(lambda: scalar("SELECT count(*) FROM dims_metrics WHERE value = '1'") == 1, timeout=60)
    assert "takes longer" not in worker.log.read_text()
    assert scalar("SELECT count(*) FROM dims_sources WHERE scan_seconds > 3") == 1
