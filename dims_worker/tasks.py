"""The Celery tasks. Each calls one function and sends the wake-ups for what comes next.

`celery -A dims_worker.tasks` names this module. Importing it reads the configuration.
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
from dims_worker.worker import dispatcher, process_step
from dims_worker.worker.celery_app import build_app
from dims_worker.worker.progress import progress
from dims_worker.worker.sweep import sweep
from dims_worker.worker.wakeups import send_notify_wakeup, send_verify_wakeup

log = logging.getLogger(__name__)

config = load_config(None, os.environ, Path.cwd())
app = build_app(config)
app.dims_config = config
app.steps["worker"].add(dispatcher.DispatcherStep)
app.steps["worker"].add(process_step.ProcessStep)


def _engine() -> Engine:
    if config.database_url is None:
        raise DatabaseUnreachable("no database is configured: set DIMS_DATABASE_URL, or start one with `dims up`")
    return engine(config.database_url)


@cache
def _redis(pid: int) -> Redis:
    """Return the client of this process: a connection must not cross a fork."""
    return connect(str(config.broker_url), timeout=5)


@cache
def _planner() -> Planner:
    return Planner(config)


def _task(name: str) -> Callable[[Callable[..., str]], Any]:
    """Register a task that ends with a warning if the broker or the database is unreachable. A sweep repeats it."""

    def wrap(run: Callable[..., str]) -> Any:
        @functools.wraps(run)
        def task(*args: Any) -> str:
            try:
                return run(*args)
            except (BrokerUnreachable, DatabaseUnreachable, RedisError, OperationalError) as error:
                log.warning("%s failed, and the next sweep repeats it: %s", name, error)
                return f"failed: {error}"

        return app.task(name=name)(task)

    return wrap


@_task(INGEST)
def ingest_task() -> str:
    """Store the events that wait in the stream, and send a wake-up for each source that they concern."""
    redis = _redis(os.getpid())
    redis.delete(HELP_REQUESTED)  # before reading: a later event sends a new wake-up
    ingested = ingest_stream(redis, _engine(), _planner())
    if ingested.stored:
        progress.note_stored()
    for source, pending in sorted(ingested.sources.items()):
        send_verify_wakeup(app, config, source, str(pending), pending.details_command)
    return str(ingested)


@_task(VERIFY)
def verify_task(source: str) -> str:
    """Measure the due metrics of a source until none is due. After the run of a workflow, write its report."""
    runs = []
    while run := measure_due(_engine(), config, source, claimed=progress.note_claim):
        runs.append(f"dims runs {run.run_id}: {pluralize(len(run.items), 'reading')}, {run.status}")
        try:
            write_workflow_report(_engine(), config, run)
        except OSError as error:
            log.warning(
                "cannot write the report of %s; `dims workflow NAME --last` shows the result: %s", source, error
            )
        for channel in config.notify.on.keys() & run.channels:
            send_notify_wakeup(app, channel)
    return "; ".join(runs[-3:]) or "nothing to do"


@_task(NOTIFY)
def notify_task(channel: str) -> str:
    """Send a channel its pending notifications."""
    return str(send_pending(_engine(), config, channel))


@_task(TICK)
def tick_task(rule: str) -> str:
    """Publish the latest tick of a rule."""
    event = tick_event(rule, last_tick(config.rules[rule], datetime.now(UTC)))
    publish([event], str(config.broker_url))
    return event.id


@_task(SWEEP)
def sweep_task(*_: Any) -> str:
    """Send wake-ups for everything that waits, and record that beat is alive: only beat sends this task."""
    redis = _redis(os.getpid())
    redis.set(BEAT, str(time.time()))
    sweep(app, config, redis)
    return "swept"
