"""The doorman: a worker bootstep that waits on the stream and sweeps on a timer.

Where its worker takes events in, it stores what has come itself, at once, and rings `dims.ingest` for help where that
is more than a batch. It is a consumer like any other: if it dies, the next one claims what it had taken.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import Any

from celery import Celery, bootsteps
from kombu.exceptions import OperationalError
from redis import Redis
from redis.exceptions import RedisError
from sqlalchemy import Connection

from dims_worker import schedule, stream
from dims_worker.app import ring_ingest, ring_notify, ring_verify
from dims_worker.broker import BELL, INGEST
from dims_worker.config import Config
from dims_worker.errors import DimsError
from dims_worker.events import FIELD, STREAM, Event
from dims_worker.ingest import register, take_in
from dims_worker.notify import settle
from dims_worker.plan import Planner
from dims_worker.record import catch_up
from dims_worker.retention import keep_house
from dims_worker.store import schedules, states
from dims_worker.store.engine import clock, engine, transaction
from dims_worker.store.requests import expire_requests
from producers.publish import connect

log = logging.getLogger(__name__)

BELL_MS = 5_000
"""A bell that nobody answered is rung again after this."""
WAIT_MS = 1_000
RETRY = 1.0
"""Seconds between attempts while the broker or the database is away."""


class Doorman:
    """Waits at the stream until stopped. Broker or database away: it waits for them, and says so once.

    `takes_in`: its worker takes events in, so the configuration that it started with is the one that counts.
    """

    def __init__(self, app: Celery, config: Config, *, takes_in: bool) -> None:
        self.app = app
        self.config = config
        self.takes_in = takes_in
        self.registered = False
        self.planner = Planner(config)
        self.stopped = threading.Event()
        self.trouble: str | None = None

    def run(self) -> None:
        while not self.stopped.is_set():
            try:
                self._serve()
            except (DimsError, RedisError, OperationalError, OSError) as error:
                self._say(str(error) or type(error).__name__)
                self.stopped.wait(RETRY)
            except Exception:
                log.exception("the doorman stumbled, and starts again")
                self.stopped.wait(RETRY)

    def _serve(self) -> None:
        """Until something breaks: wait on the stream, take in what comes, and sweep when it is time."""
        redis = connect(str(self.config.broker_url), timeout=WAIT_MS / 1000 + 3)
        self._register()
        stream.ensure_group(redis)
        stream.forget_consumers(redis)
        self._say(None)
        period = self.config.settings.sweep.total_seconds()
        busy, swept = False, float("-inf")
        while not self.stopped.is_set():
            if time.monotonic() - swept >= period:
                if stream.mend(redis):
                    log.warning("a producer had set the last id of %s far ahead: the stream was made anew", STREAM)
                sweep(self.app, self.config, redis)
                swept = time.monotonic()
            if not self.takes_in:
                self.stopped.wait(min(period, WAIT_MS / 1000))
            else:
                busy = self._take_in(redis, busy)

    def _take_in(self, redis: Redis, busy: bool) -> bool:
        """Store what comes within a second: the first entry by itself and then, `busy`, what came meanwhile by the
        batch. Whether there was any."""
        entries = stream.new(redis) if busy else stream.first(redis, WAIT_MS)
        if not entries:
            return False
        if len(entries) == stream.BATCH and redis.set(BELL, b"1", nx=True, px=BELL_MS):
            ring_ingest(self.app)  # a rush: the pool is to help
        ingested = take_in(redis, engine(str(self.config.database_url)), self.planner, entries)
        for source, why in sorted(ingested.sources.items()):
            ring_verify(self.app, self.config, source, str(why), why.more)
        return True

    def _register(self) -> None:
        """Once: a worker that lost its connection for a while must not bring back what was configured then."""
        if self.takes_in and not self.registered:
            with transaction(engine(str(self.config.database_url))) as connection:
                register(connection, self.config)
            self.registered = True

    def _say(self, trouble: str | None) -> None:
        if trouble != self.trouble:
            log.warning("waiting: %s", trouble) if trouble else log.info("watching the stream %s", STREAM)
        self.trouble = trouble


def sweep(app: Celery, config: Config, redis: Redis) -> None:
    """Ring for whatever still waits, whether or not somebody rang before: a lost bell costs one period.

    Ticks of schedules that nobody published are made up for, and so are derived metrics that nobody computed. What is
    to be done once a day is done when the day's first sweep finds it undone.
    """
    if redis.xlen(STREAM):
        ring_ingest(app)
    measured = [name for names in config.scans.values() for name in names]
    with transaction(engine(str(config.database_url))) as connection:
        catch_up(connection, config, stream.consumer())
        sources = states.overdue(connection, measured)
        expired = expire_requests(connection)
        ticks = _missed(connection, config)
        channels = settle(connection, config)
    for metric in expired:
        log.info("nobody decided on %s in time: its baseline stays", metric)
    for event in ticks:
        log.warning("the tick %s was missed, and is made up for", event.id)
        redis.xadd(STREAM, {FIELD: event.to_json()})
    for source in sources:
        ring_verify(app, config, source, "still due")
    for channel in channels:
        ring_notify(app, channel)
    if forgotten := keep_house(engine(str(config.database_url)), config):
        log.info("%d old rows were forgotten", forgotten)


def _missed(connection: Connection, config: Config) -> list[Event]:
    if not any(rule.schedule for rule in config.rules.values()):
        return []
    return schedule.missed(config.rules, schedules.since(schedules.seen(connection)), clock(connection))


class DoormanStep(bootsteps.StartStopStep):  # type: ignore[misc]
    """Starts the doorman with the worker and stops it with it."""

    requires = ("celery.worker.components:Pool",)

    def __init__(self, worker: Any, **options: Any) -> None:
        super().__init__(worker, **options)
        self.doorman: Doorman | None = None
        self.thread: threading.Thread | None = None

    def start(self, worker: Any) -> None:
        takes_in = INGEST in worker.app.amqp.queues.consume_from
        self.doorman = Doorman(worker.app, worker.app.dims_config, takes_in=takes_in)
        self.thread = threading.Thread(target=self.doorman.run, name="doorman", daemon=True)
        self.thread.start()

    def stop(self, worker: Any) -> None:
        if self.doorman and self.thread:
            self.doorman.stopped.set()
            self.thread.join(timeout=WAIT_MS / 1000 + 5)
