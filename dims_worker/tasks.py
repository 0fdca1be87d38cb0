"""What Celery runs. Thin: load, call one room, ring for what comes next.

This is the module for `celery -A dims_worker.tasks`; importing it reads the configuration.
"""

from __future__ import annotations

import logging
import os
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from redis import Redis
from sqlalchemy import Engine

from dims_worker import doorman
from dims_worker.app import INGEST, SWEEP, TICK, VERIFY, build_app, ring_verify
from dims_worker.config import load
from dims_worker.errors import DatabaseUnreachable
from dims_worker.events import SCHEDULE_TICK, Event
from dims_worker.ingest import drain
from dims_worker.plan import Planner
from dims_worker.store.engine import engine
from dims_worker.verify import report, serve
from producers.publish import connect, publish

log = logging.getLogger(__name__)

config = load(None, os.environ, Path.cwd())
app = build_app(config)
app.dims_config = config
app.steps["worker"].add(doorman.DoormanStep)


def _engine() -> Engine:
    if config.database_url is None:
        raise DatabaseUnreachable("no database is named: set DIMS_DATABASE_URL, or start one with `dims up`")
    return engine(config.database_url)


@cache
def _redis(pid: int) -> Redis:
    """A client of this process: a connection must not cross a fork."""
    return connect(str(config.broker_url), timeout=10)


@cache
def _planner() -> Planner:
    return Planner(config)


@app.task(name=INGEST)  # type: ignore[untyped-decorator]
def ingest_bell() -> None:
    """Store what waits in the stream, and ring for the sources that it concerns."""
    redis = _redis(os.getpid())
    redis.delete(doorman.BELL)  # before reading: what comes later rings anew
    for source in sorted(drain(redis, _engine(), _planner()).sources):
        ring_verify(app, config, source)


@app.task(name=VERIFY)  # type: ignore[untyped-decorator]
def verify_bell(source: str) -> None:
    """Measure what is due of a source, until nothing is; a workflow's report is written after its run."""
    while run := serve(_engine(), config, source):
        try:
            report(_engine(), config, run)
        except OSError as error:  # recorded it is: `dims workflow NAME --last` tells it all the same
            log.warning("the report of %s was not written: %s", source, error)


@app.task(name=TICK)  # type: ignore[untyped-decorator]
def tick_bell(rule: str) -> None:
    """Publish a rule's tick. It is named by its minute, so that two beats make one event."""
    tick = datetime.now(UTC).replace(second=0, microsecond=0)
    name = f"{rule}@{tick:%Y-%m-%dT%H:%MZ}"
    event = Event.new(SCHEDULE_TICK, "dims:beat", now=tick, subject=rule, data={"rule": rule}, id=name)
    publish([event], str(config.broker_url))


@app.task(name=SWEEP)  # type: ignore[untyped-decorator]
def sweep_bell(*_: Any) -> None:
    """Ring for whatever still waits."""
    doorman.sweep(app, config, _redis(os.getpid()))
