"""A flow, a stream, and threads."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from redis import Redis
from sqlalchemy import Engine

from dims_worker.config import load
from tests.integration.flow.kit import CONFIG, Flow, Threads


@pytest.fixture
def make_flow(tmp_path: Path, engine: Engine) -> Callable[[str], Flow]:
    """A flow of a configuration's text."""

    def make(text: str) -> Flow:
        (tmp_path / "dims.yaml").write_text(text)
        return Flow(engine, load(None, {}, tmp_path))

    return make


@pytest.fixture
def flow(make_flow: Callable[[str], Flow]) -> Flow:
    return make_flow(CONFIG)


@pytest.fixture
def redis(broker_url: str) -> Iterator[Redis]:
    with Redis.from_url(broker_url) as client:
        yield client


@pytest.fixture
def beside() -> Iterator[Threads]:
    """Runs a call in a thread beside the test."""
    threads = Threads()
    yield threads
    threads.pool.shutdown()
