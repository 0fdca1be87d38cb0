"""What Celery runs. Thin: load, call one room, ring for what comes next.

This is the module for `celery -A dims_worker.tasks`; importing it reads the configuration.
"""

from __future__ import annotations

from dims_worker.worker import isolation  # noqa: F401 - before anything else is imported

# isort: split

import functools
import logging
import os
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from kombu.exceptions import OperationalError
from redis import Redis
from redis.exceptions import RedisError
from sqlalchemy import Engine

from dims_producers.publish import connect, publish
from dims_worker.broker.queues import BEAT, HELP_REQUESTED, INGEST, NOTIFY, SWEEP, TICK, VERIFY
from dims_worker.config import load_config
from dims_worker.domain.plan import Planner
from dims_worker.domain.schedule import last_tick, tick_event
from dims_worker.errors import BrokerUnreachable, DatabaseUnreachable
from dims_worker.formatting import pluralize
from dims_worker.notifications.sender import send_pending
from dims_worker.pipeline.ingest import ingest_stream
from dims_worker.pipeline.verify import measure_due, write_workflow_report
from dims_worker.store.engine import engine
from dims_worker.worker import dispatcher
from dims_worker.worker.celery_app import build_app
from dims_worker.worker.sweep import sweep
from dims_worker.worker.wakeups import send_notify_wakeup, send_verify_wakeup

log = logging.getLogger(__name__)

config = load_config(None, os.environ, Path.cwd())
app = build_app(config)
app.dims_config = config
app.steps["worker"].add(dispatcher.DispatcherStep)


def _engine() -> Engine:
    if config.database_url is None:
        raise DatabaseUnreachable("no database is named: set DIMS_DATABASE_URL, or start one with `dims up`")
    return engine(config.database_url)


@cache
def _redis(pid: int) -> Redis:
    """A client of this process: a connection must not cross a fork."""
    return connect(str(config.broker_url), timeout=5)


@cache
def _planner() -> Planner:
    return Planner(config)


def _patient(name: str) -> Callable[[Callable[..., str]], Any]:
    """A task whose broker or database may be away: it says so in a line and ends, and the sweep rings again."""

    def wrap(run: Callable[..., str]) -> Any:
        @functools.wraps(run)
        def patient(*args: Any) -> str:
            try:
                return run(*args)
            except (BrokerUnreachable, DatabaseUnreachable, RedisError, OperationalError) as error:
                log.warning("%s waits: %s", name, error)
                return f"waits: {error}"

        return app.task(name=name)(patient)

    return wrap


@_patient(INGEST)
def ingest_bell() -> str:
    """Store what waits in the stream, and ring for the sources that it concerns."""
    redis = _redis(os.getpid())
    redis.delete(HELP_REQUESTED)  # before reading: what comes later rings anew
    ingested = ingest_stream(redis, _engine(), _planner())
    for source, why in sorted(ingested.sources.items()):
        send_verify_wakeup(app, config, source, str(why), why.more)
    return str(ingested)


@_patient(VERIFY)
def verify_bell(source: str) -> str:
    """Measure what is due of a source, until nothing is; a workflow's report is written after its run."""
    runs = []
    while run := measure_due(_engine(), config, source):
        runs.append(f"dims runs {run.run_id}: {pluralize(len(run.items), 'reading')}, {run.status}")
        try:
            write_workflow_report(_engine(), config, run)
        except OSError as error:  # recorded it is: `dims workflow NAME --last` tells it all the same
            log.warning("the report of %s was not written: %s", source, error)
        for channel in config.notify.on.keys() & run.pending_channels:
            send_notify_wakeup(app, channel)
    return "; ".join(runs[-3:]) or "nothing to do"


@_patient(NOTIFY)
def notify_bell(channel: str) -> str:
    """Send a channel what it is to be told."""
    return str(send_pending(_engine(), config, channel))


@_patient(TICK)
def tick_bell(rule: str) -> str:
    """Publish a rule's latest tick."""
    event = tick_event(rule, last_tick(config.rules[rule], datetime.now(UTC)))
    publish([event], str(config.broker_url))
    return event.id


@_patient(SWEEP)
def sweep_bell(*_: Any) -> str:
    """Ring for whatever still waits, and note that beat lives: nobody else sends this."""
    redis = _redis(os.getpid())
    redis.set(BEAT, str(time.time()))
    sweep(app, config, redis)
    return "swept"
