"""The Celery tasks. Each calls one function and sends the wake-ups for what comes next.

`celery -A dims_worker.tasks` names this module. Importing it reads the configuration.
"""

from __future__ import annotations

from dims_worker.worker import isolation  # noqa: F401 - before anything else is imported

# isort: split

import functools
import logging
import os
from collections.abc import Callable
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from celery import current_task
from kombu.exceptions import OperationalError
from redis import Redis
from redis.exceptions import RedisError
from sqlalchemy import Engine

from dims_producers.publish import connect, publish
from dims_worker.broker import pending_wakeups
from dims_worker.broker.queues import INGEST, NOTIFY, TICK, VERIFY
from dims_worker.config import load_config
from dims_worker.domain.plan import Planner
from dims_worker.domain.schedule import last_tick, tick_event
from dims_worker.errors import BrokerUnreachable, DatabaseUnreachable, ScanStopped
from dims_worker.formatting import pluralize
from dims_worker.notifications.sender import send_pending
from dims_worker.pipeline.ingest import ingest_stream
from dims_worker.pipeline.verify import measure_due, write_workflow_report
from dims_worker.store.engine import engine
from dims_worker.worker import dispatcher, operator_stop, process_step
from dims_worker.worker.celery_app import build_app
from dims_worker.worker.outage_report import report_failure, report_success
from dims_worker.worker.progress import progress
from dims_worker.worker.slow_scans import WORKER_STOPS, ScanBudget
from dims_worker.worker.wakeups import SENT, Reason, WakeupSender, reasons, wakeup_key

log = logging.getLogger(__name__)

config = load_config(None, os.environ, Path.cwd())
app = build_app(config)
app.dims_config = config
app.steps["worker"].add(dispatcher.DispatcherStep)
app.steps["worker"].add(process_step.ProcessStep)
operator_stop.install(app)


def _engine() -> Engine:
    if config.database_url is None:
        raise DatabaseUnreachable("no database is configured: set DIMS_DATABASE_URL, or start one with `dims up`")
    return engine(config.database_url)


@cache
def _redis(pid: int) -> Redis:
    """Return the client of this process: a connection must not cross a fork."""
    return connect(str(config.broker_url), timeout=5)


@cache
def _sender(pid: int) -> WakeupSender:
    return WakeupSender(app, _redis(pid), config)


@cache
def _planner() -> Planner:
    return Planner(config)


def _task(name: str) -> Callable[[Callable[..., str]], Any]:
    """Register a task that ends, without an error, if the broker or the database is unreachable. A sweep repeats it."""

    def wrap(run: Callable[..., str]) -> Any:
        @functools.wraps(run)
        def task(*args: Any) -> str:
            try:
                result = run(*args)
            except (BrokerUnreachable, DatabaseUnreachable, RedisError, OperationalError) as error:
                return f"failed, and the next sweep repeats it: {report_failure(name, error, config)}"
            report_success(name)
            return result

        return app.task(name=name)(task)

    return wrap


def _received(task: str, name: str = "") -> None:
    """Note that a wake-up has arrived, BEFORE its work begins: what happens from now on needs another wake-up."""
    request = current_task.request
    sent = (request.headers or {}).get(SENT)
    queue = request.delivery_info["routing_key"]
    pending_wakeups.receive(_redis(os.getpid()), queue, wakeup_key(task, name), sent if isinstance(sent, int) else 0)


@_task(INGEST)
def ingest_task(*_: Any) -> str:
    """Store the events that wait in the stream, and send a wake-up for each source that they concern."""
    _received(INGEST)
    ingested = ingest_stream(_redis(os.getpid()), _engine(), _planner(), stored=progress.note_stored)
    _sender(os.getpid()).verify(_engine(), reasons(ingested))
    return str(ingested)


@_task(VERIFY)
def verify_task(source: str) -> str:
    """Claim a source once, measure its due metrics, and ask for another wake-up if more is due.

    After the run of a workflow, write its report.
    """
    _received(VERIFY, source)
    sender, queue = _sender(os.getpid()), current_task.request.delivery_info["routing_key"]
    budget = None
    try:
        with operator_stop.stop_condition() as is_stopped:
            budget = ScanBudget(_engine(), queue, is_stopped)
            run = measure_due(_engine(), config, source, claimed=progress.note_claim, stop=budget.is_spent)
    except ScanStopped:
        reason = budget.note_end(source) if budget else WORKER_STOPS
        sender.verify(_engine(), {source: Reason(reason)})
        return reason
    if run is None:
        return "nothing to do"
    try:
        write_workflow_report(_engine(), config, run)
    except OSError as error:
        log.warning("cannot write the report of %s; `dims workflow NAME --last` shows the result: %s", source, error)
    sender.notify(sorted(config.notify.on.keys() & run.channels))
    sender.verify(_engine(), {source: Reason("more is due")})
    if not run.run_id:
        return "nothing had changed"
    return f"dims runs {run.run_id}: {pluralize(len(run.items), 'reading')}, {run.status}"


@_task(NOTIFY)
def notify_task(channel: str) -> str:
    """Send a channel its pending notifications."""
    _received(NOTIFY, channel)
    return str(send_pending(_engine(), config, channel))


@_task(TICK)
def tick_task(rule: str) -> str:
    """Publish the latest tick of a rule."""
    event = tick_event(rule, last_tick(config.rules[rule], datetime.now(UTC)))
    publish([event], str(config.broker_url))
    return event.id
