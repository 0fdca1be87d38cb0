"""Find what still waits, and send its wake-up again. One worker sweeps in each period."""

from __future__ import annotations

import logging
import time
from datetime import UTC, datetime, timedelta
from typing import cast

from redis import Redis
from sqlalchemy import Connection

from dims_worker.broker import event_stream, pending_wakeups
from dims_worker.broker.queues import SWEEPS
from dims_worker.config import Config
from dims_worker.domain import schedule
from dims_worker.events import FIELD, STREAM, Event
from dims_worker.incidents.overdue import Sweep, sweep_incidents
from dims_worker.notifications.sender import queue_overdue
from dims_worker.pipeline.record import compute_missing_derived
from dims_worker.store import schedules
from dims_worker.store.approval_requests import expire_requests
from dims_worker.store.engine import clock, engine, transaction
from dims_worker.worker.retention import run_retention
from dims_worker.worker.wakeups import WakeupSender, due_by_queue

log = logging.getLogger(__name__)

_UP_SINCE = datetime.now(UTC)
"""When this process started."""


def sweep(sender: WakeupSender) -> None:
    """Send a wake-up for everything whose wake-up was lost, so that a lost wake-up costs one sweep period.

    Also publish missed ticks, compute missing derived metrics, expire requests, update the incidents that need no
    reading, and run the daily retention.
    """
    config, redis = sender.config, sender.redis
    database = engine(str(config.database_url))
    if event_stream.repair_last_id(redis):
        log.warning("a producer had set the last id of %s far ahead; DIMS has re-created the stream", STREAM)
    measured = [name for names in config.scans.values() for name in names]
    with transaction(database) as connection:
        compute_missing_derived(connection, config, event_stream.consumer_name())
        due = due_by_queue(connection, config, measured)
        expired = expire_requests(connection)
        ticks = _missed_ticks(connection, config)
        sweep_incidents(connection, config, Sweep(clock(connection), _UP_SINCE))
        channels = queue_overdue(connection, config)
    for metric in expired:
        log.info("the approval request of %s expired without a decision; its baseline stays", metric)
    for event in ticks:
        log.warning("the tick %s was missed; publishing it now", event.id)
        redis.xadd(STREAM, {FIELD: event.to_json()})
    sender.repeat_lost(due, channels, ingest=bool(redis.xlen(STREAM)))
    if deleted := run_retention(database, config):
        log.info("retention deleted %d old rows", deleted)


class SweepTurn:
    """Decides which worker sweeps: the first one that sees no sweep for a period.

    A counter in the broker lets the workers see each other's sweeps. Each measures the period by its own monotonic
    clock, so a wrong clock on a host or the broker neither prevents sweeps nor adds any.
    """

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._seen: bytes | None = None
        self._since = float("-inf")

    def is_mine(self, period: timedelta) -> bool:
        """Return whether this process sweeps now. The first call after its start says so, unless another is faster."""
        now, value = time.monotonic(), cast(bytes, self._redis.get(SWEEPS) or b"")
        if self._seen not in (None, value):
            self._seen, self._since = value, now
            return False
        self._seen = value
        if now - self._since < period.total_seconds() or not pending_wakeups.take_turn(self._redis, SWEEPS, value):
            return False
        self._seen, self._since = b"%d" % (int(value or 0) + 1), now
        return True


def _missed_ticks(connection: Connection, config: Config) -> list[Event]:
    if not any(rule.schedule for rule in config.rules.values()):
        return []
    return schedule.missed_ticks(
        config.rules, schedules.missed_since(schedules.schedule_states(connection)), clock(connection)
    )
