"""Fixtures: a flow, the broker, and threads."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from redis import Redis
from sqlalchemy import Engine
from sqlalchemy.event import listen, remove

from dims_worker.config import load_config
from tests.integration.helpers import CONFIG, Flow, Threads


@pytest.fixture
def make_flow(tmp_path: Path, engine: Engine) -> Callable[[str], Flow]:
    """Return a function that makes a flow from the text of a configuration."""

    def make(text: str) -> Flow:
        (tmp_path / "dims.yaml").write_text(text)
        return Flow(engine, load_config(None, {}, tmp_path))

    return make


@pytest.fixture
def flow(make_flow: Callable[[str], Flow]) -> Flow:
    return make_flow(CONFIG)


@pytest.fixture
def restart(tmp_path: Path, engine: Engine) -> Callable[[str], Flow]:
    """Return a function that starts a worker with another configuration on the same database."""

    def start(text: str) -> Flow:
        (tmp_path / "dims.yaml").write_text(text)
        return Flow(engine, load_config(None, {}, tmp_path), first=False)

    return start


@pytest.fixture
def queries(engine: Engine) -> Iterator[list[str]]:
    """Every statement that is sent to the database from now on."""
    seen: list[str] = []

    def record(connection: object, cursor: object, statement: str, *_: object) -> None:
        seen.append(statement)

    listen(engine, "before_cursor_execute", record)
    yield seen
    remove(engine, "before_cursor_execute", record)


@pytest.fixture
def redis(broker_url: str) -> Iterator[Redis]:
    with Redis.from_url(broker_url) as client:
        yield client


@pytest.fixture
def beside() -> Iterator[Threads]:
    """Return a function that runs a call in a thread beside the test."""
    threads = Threads()
    yield threads
    threads.pool.shutdown()
