"""Send wake-ups for everything that still waits."""

from __future__ import annotations

import logging

from celery import Celery
from redis import Redis
from sqlalchemy import Connection

from dims_worker.broker import event_stream
from dims_worker.config import Config
from dims_worker.domain import schedule
from dims_worker.events import FIELD, STREAM, Event
from dims_worker.notifications.sender import queue_overdue
from dims_worker.pipeline.record import compute_missing_derived
from dims_worker.store import metric_states, schedules
from dims_worker.store.approval_requests import expire_requests
from dims_worker.store.engine import clock, engine, transaction
from dims_worker.worker.retention import run_retention
from dims_worker.worker.wakeups import send_ingest_wakeup, send_notify_wakeup, send_verify_wakeup

log = logging.getLogger(__name__)


def sweep(app: Celery, config: Config, redis: Redis) -> None:
    """Send a wake-up for everything that waits, so that a lost wake-up costs one sweep period.

    Also publish missed ticks, compute missing derived metrics, expire requests, and run the daily retention.
    """
    if redis.xlen(STREAM):
        send_ingest_wakeup(app)
    measured = [name for names in config.scans.values() for name in names]
    with transaction(engine(str(config.database_url))) as connection:
        compute_missing_derived(connection, config, event_stream.consumer_name())
        sources = metric_states.due_sources(connection, measured)
        expired = expire_requests(connection)
        ticks = _missed_ticks(connection, config)
        channels = queue_overdue(connection, config)
    for metric in expired:
        log.info("the approval request of %s expired without a decision; its baseline stays", metric)
    for event in ticks:
        log.warning("the tick %s was missed; publishing it now", event.id)
        redis.xadd(STREAM, {FIELD: event.to_json()})
    for source in sources:
        send_verify_wakeup(app, config, source, "still due")
    for channel in channels:
        send_notify_wakeup(app, channel)
    if deleted := run_retention(engine(str(config.database_url)), config):
        log.info("retention deleted %d old rows", deleted)


def _missed_ticks(connection: Connection, config: Config) -> list[Event]:
    if not any(rule.schedule for rule in config.rules.values()):
        return []
    return schedule.missed_ticks(
        config.rules, schedules.missed_since(schedules.schedule_states(connection)), clock(connection)
    )
