"""The dispatcher: a worker bootstep that waits on the stream and sweeps on a timer.

If its worker serves the ingest queue, the dispatcher stores new events itself, and asks for help with an ingest wake-up
if there is more than a batch. It is a consumer like any other: if it dies, another consumer claims what it had read.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import Any

from celery import Celery, bootsteps
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError
from sqlalchemy import Engine

from dims_producers.publish import connect
from dims_worker.broker import event_stream
from dims_worker.broker.queues import INGEST
from dims_worker.config import Config
from dims_worker.domain.plan import Planner
from dims_worker.errors import DimsError
from dims_worker.events import STREAM
from dims_worker.pipeline.ingest import ingest_batch, register_config
from dims_worker.store.engine import check_schema, engine, transaction
from dims_worker.store.identity import database_identity
from dims_worker.worker.broker_check import check_broker
from dims_worker.worker.outage_report import report_failure, report_success
from dims_worker.worker.progress import progress
from dims_worker.worker.sweep import SweepTurn, sweep
from dims_worker.worker.wakeups import WakeupSender, reasons

log = logging.getLogger(__name__)

WAIT_MS = 1_000
"""The longest wait for an event. Between two waits, the dispatcher checks cooldowns, and whether to sweep."""
RETRY = 1.0
"""Seconds between attempts while the broker or the database is unreachable."""


class Dispatcher:
    """Waits on the stream until it is stopped. It logs once if the broker or the database is unreachable, and waits.

    `ingests`: its worker serves the ingest queue. Such a worker registers its configuration when it starts.
    """

    def __init__(self, app: Celery, config: Config, *, ingests: bool) -> None:
        self.app = app
        self.config = config
        self.ingests = ingests
        self.registered = False
        self.planner = Planner(config)
        self.stopped = threading.Event()
        self.problem: str | None = None
        self.reading = False

    def run(self) -> None:
        while not self.stopped.is_set():
            try:
                self._serve()
            except (DimsError, RedisError, OperationalError, OSError) as error:
                self._report(error)
                self.stopped.wait(RETRY)
            except Exception:
                log.exception("the dispatcher failed and starts again")
                self.stopped.wait(RETRY)

    def _serve(self) -> None:
        """Wait on the stream, ingest new events, and sweep when it is time, until something fails."""
        redis = connect(str(self.config.broker_url), timeout=WAIT_MS / 1000 + 3)
        check_broker(self.config, redis)
        self._register()
        event_stream.ensure_group(redis)
        event_stream.remove_stale_consumers(redis)
        if self.problem is None:
            self._report(None)
        sender, turn = WakeupSender(self.app, redis, self.config), SweepTurn(redis)
        busy, started = False, time.monotonic()
        longest = min(WAIT_MS / 1000, self.config.settings.sweep.total_seconds())
        while not self.stopped.is_set():
            if turn.is_mine(self.config.settings.sweep):
                sweep(sender)
                progress.note_sweep()
                self._report(None)
            elif self.problem and time.monotonic() - started > 2 * self.config.settings.sweep.total_seconds():
                database_identity(self._engine)  # another worker sweeps, so ask both servers ourselves
                self._report(None)
            following = sender.verify_scheduled(self._engine)
            wait = min(longest, longest if following is None else following)
            if self.ingests:
                busy = self._ingest(sender, busy, wait)
            else:
                self.stopped.wait(wait)

    def _ingest(self, sender: WakeupSender, busy: bool, wait: float) -> bool:
        """Store what arrives within `wait` seconds: the first entry alone and then, if `busy`, whole batches. True if
        any arrived."""
        redis = sender.redis
        wait_ms = max(1, int(wait * 1000))  # 0 would wait for ever
        entries = event_stream.read_new(redis) if busy else event_stream.wait_for_entry(redis, wait_ms)
        if not entries:
            return False
        if len(entries) == event_stream.BATCH:
            sender.request_ingest()  # many events: ask the pool for help
        ingested = ingest_batch(redis, self._engine, self.planner, entries)
        progress.note_stored()
        sender.verify(self._engine, reasons(ingested))
        return True

    @property
    def _engine(self) -> Engine:
        return engine(str(self.config.database_url))

    def _register(self) -> None:
        """Check the tables and register the configuration, once: later, it may be older than the registered one."""
        if self.registered:
            return
        check_schema(self._engine)
        if self.ingests:
            with transaction(self._engine) as connection:
                register_config(connection, self.config)
        self.registered = True

    def _report(self, error: Exception | None) -> None:
        """Note an error, or that broker and database have served a sweep. Each outage is logged once."""
        if error is not None:
            self.problem = report_failure("the dispatcher", error, self.config)
        else:
            report_success("the dispatcher")
            if not self.reading:
                log.info("reading %s", STREAM)
            self.problem = None
        self.reading = error is None


class DispatcherStep(bootsteps.StartStopStep):  # type: ignore[misc]
    """Starts the dispatcher with its worker, and stops it with its worker."""

    requires = ("celery.worker.components:Pool",)

    def __init__(self, worker: Any, **options: Any) -> None:
        super().__init__(worker, **options)
        self.dispatcher: Dispatcher | None = None
        self.thread: threading.Thread | None = None

    def start(self, worker: Any) -> None:
        ingests = INGEST in worker.app.amqp.queues.consume_from
        self.dispatcher = Dispatcher(worker.app, worker.app.dims_config, ingests=ingests)
        self.thread = threading.Thread(target=self.dispatcher.run, name="dispatcher", daemon=True)
        self.thread.start()

    def stop(self, worker: Any) -> None:
        if self.dispatcher and self.thread:
            self.dispatcher.stopped.set()
            self.thread.join(timeout=WAIT_MS / 1000 + 5)
