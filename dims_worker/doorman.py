"""The doorman: a worker bootstep that waits on the stream, rings `dims.ingest`, and sweeps on a timer.

It never reads events, it only notices them: a worker that dies between two bells loses nothing.
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
from dims_worker.ingest import register
from dims_worker.notify import settle
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

    `registers`: this worker takes events in, so the configuration it started with is the one that counts.
    """

    def __init__(self, app: Celery, config: Config, *, registers: bool) -> None:
        self.app = app
        self.config = config
        self.registers = registers
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
        """Until something breaks: wait on the stream, ring, and sweep when it is time."""
        redis = connect(str(self.config.broker_url), timeout=WAIT_MS / 1000 + 3)
        self._register()
        stream.ensure_group(redis)
        stream.forget_consumers(redis)
        self._say(None)
        last, swept = b"0-0", float("-inf")
        while not self.stopped.is_set():
            if time.monotonic() - swept >= self.config.settings.sweep.total_seconds():
                if stream.mend(redis):
                    log.warning("a producer had set the last id of %s far ahead: the stream was made anew", STREAM)
                sweep(self.app, self.config, redis)
                last, swept = b"0-0", time.monotonic()  # what already waits, and a stream made anew, are noticed
            if redis.xread({STREAM: last}, count=1, block=WAIT_MS):
                # Everything up to here is covered by the bell; what comes after wakes the next XREAD
                with redis.pipeline(transaction=False) as pipe:
                    pipe.xrevrange(STREAM, count=1)
                    pipe.set(BELL, b"1", nx=True, px=BELL_MS)
                    newest, first = pipe.execute()
                last = newest[0][0] if newest else last
                if first:
                    ring_ingest(self.app)

    def _register(self) -> None:
        """Once: a worker that lost its connection for a while must not bring back what was configured then."""
        if self.registers:
            with transaction(engine(str(self.config.database_url))) as connection:
                register(connection, self.config)
            self.registers = False

    def _say(self, trouble: str | None) -> None:
        if trouble != self.trouble:
            log.warning("waiting: %s", trouble) if trouble else log.info("watching the stream %s", STREAM)
        self.trouble = trouble


def sweep(app: Celery, config: Config, redis: Redis) -> None:
    """Ring for whatever still waits, whether or not somebody rang before: a lost bell costs one period.

    Ticks of schedules that nobody published are made up for.
    """
    if redis.xlen(STREAM):
        ring_ingest(app)
    measured = [name for names in config.scans.values() for name in names]
    with transaction(engine(str(config.database_url))) as connection:
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
        registers = INGEST in worker.app.amqp.queues.consume_from
        self.doorman = Doorman(worker.app, worker.app.dims_config, registers=registers)
        self.thread = threading.Thread(target=self.doorman.run, name="doorman", daemon=True)
        self.thread.start()

    def stop(self, worker: Any) -> None:
        if self.doorman and self.thread:
            self.doorman.stopped.set()
            self.thread.join(timeout=WAIT_MS / 1000 + 5)
