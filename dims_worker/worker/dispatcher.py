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

from dims_producers.publish import connect
from dims_worker.broker import event_stream
from dims_worker.broker.queues import HELP_REQUESTED, INGEST
from dims_worker.config import Config
from dims_worker.domain.plan import Planner
from dims_worker.errors import DimsError
from dims_worker.events import STREAM
from dims_worker.pipeline.ingest import ingest_batch, register_config
from dims_worker.store.engine import engine, transaction
from dims_worker.worker.sweep import sweep
from dims_worker.worker.wakeups import send_ingest_wakeup, send_verify_wakeup

log = logging.getLogger(__name__)

WAKEUP_MS = 5_000
"""A bell that nobody answered is rung again after this."""
WAIT_MS = 1_000
RETRY = 1.0
"""Seconds between attempts while the broker or the database is away."""


class Dispatcher:
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
        event_stream.ensure_group(redis)
        event_stream.remove_stale_consumers(redis)
        self._say(None)
        period = self.config.settings.sweep.total_seconds()
        busy, swept = False, float("-inf")
        while not self.stopped.is_set():
            if time.monotonic() - swept >= period:
                if event_stream.repair_last_id(redis):
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
        entries = event_stream.read_new(redis) if busy else event_stream.wait_for_entry(redis, WAIT_MS)
        if not entries:
            return False
        if len(entries) == event_stream.BATCH and redis.set(HELP_REQUESTED, b"1", nx=True, px=WAKEUP_MS):
            send_ingest_wakeup(self.app)  # a rush: the pool is to help
        ingested = ingest_batch(redis, engine(str(self.config.database_url)), self.planner, entries)
        for source, why in sorted(ingested.sources.items()):
            send_verify_wakeup(self.app, self.config, source, str(why), why.more)
        return True

    def _register(self) -> None:
        """Once: a worker that lost its connection for a while must not bring back what was configured then."""
        if self.takes_in and not self.registered:
            with transaction(engine(str(self.config.database_url))) as connection:
                register_config(connection, self.config)
            self.registered = True

    def _say(self, trouble: str | None) -> None:
        if trouble != self.trouble:
            log.warning("waiting: %s", trouble) if trouble else log.info("watching the stream %s", STREAM)
        self.trouble = trouble


class DispatcherStep(bootsteps.StartStopStep):  # type: ignore[misc]
    """Starts the doorman with the worker and stops it with it."""

    requires = ("celery.worker.components:Pool",)

    def __init__(self, worker: Any, **options: Any) -> None:
        super().__init__(worker, **options)
        self.doorman: Dispatcher | None = None
        self.thread: threading.Thread | None = None

    def start(self, worker: Any) -> None:
        takes_in = INGEST in worker.app.amqp.queues.consume_from
        self.doorman = Dispatcher(worker.app, worker.app.dims_config, takes_in=takes_in)
        self.thread = threading.Thread(target=self.doorman.run, name="doorman", daemon=True)
        self.thread.start()

    def stop(self, worker: Any) -> None:
        if self.doorman and self.thread:
            self.doorman.stopped.set()
            self.thread.join(timeout=WAIT_MS / 1000 + 5)
