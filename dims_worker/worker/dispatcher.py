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
from dims_worker.worker.progress import progress
from dims_worker.worker.sweep import sweep
from dims_worker.worker.wakeups import send_ingest_wakeup, send_verify_wakeup

log = logging.getLogger(__name__)

WAKEUP_MS = 5_000
"""An ingest wake-up that no worker answered may be sent again after this."""
WAIT_MS = 1_000
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

    def run(self) -> None:
        while not self.stopped.is_set():
            try:
                self._serve()
            except (DimsError, RedisError, OperationalError, OSError) as error:
                self._report(str(error) or type(error).__name__)
                self.stopped.wait(RETRY)
            except Exception:
                log.exception("the dispatcher failed and starts again")
                self.stopped.wait(RETRY)

    def _serve(self) -> None:
        """Wait on the stream, ingest new events, and sweep when it is time, until something fails."""
        redis = connect(str(self.config.broker_url), timeout=WAIT_MS / 1000 + 3)
        self._register()
        event_stream.ensure_group(redis)
        event_stream.remove_stale_consumers(redis)
        self._report(None)
        period = self.config.settings.sweep.total_seconds()
        busy, swept = False, float("-inf")
        while not self.stopped.is_set():
            if time.monotonic() - swept >= period:
                if event_stream.repair_last_id(redis):
                    log.warning(
                        "a producer had set the last id of %s far ahead; DIMS has re-created the stream", STREAM
                    )
                sweep(self.app, self.config, redis)
                progress.note_sweep()
                swept = time.monotonic()
            if not self.ingests:
                self.stopped.wait(min(period, WAIT_MS / 1000))
            else:
                busy = self._ingest(redis, busy)

    def _ingest(self, redis: Redis, busy: bool) -> bool:
        """Store what arrives within a second: the first entry alone and then, if `busy`, whole batches. True if any
        arrived."""
        entries = event_stream.read_new(redis) if busy else event_stream.wait_for_entry(redis, WAIT_MS)
        if not entries:
            return False
        if len(entries) == event_stream.BATCH and redis.set(HELP_REQUESTED, b"1", nx=True, px=WAKEUP_MS):
            send_ingest_wakeup(self.app)  # many events: ask the pool for help
        ingested = ingest_batch(redis, engine(str(self.config.database_url)), self.planner, entries)
        progress.note_stored()
        for source, pending in sorted(ingested.sources.items()):
            send_verify_wakeup(self.app, self.config, source, str(pending), pending.details_command)
        return True

    def _register(self) -> None:
        """Register the configuration, once: after a lost connection, it may be older than the registered one."""
        if self.ingests and not self.registered:
            with transaction(engine(str(self.config.database_url))) as connection:
                register_config(connection, self.config)
            self.registered = True

    def _report(self, problem: str | None) -> None:
        """Log a change: a new problem, or that there is none."""
        if problem != self.problem:
            log.warning("waiting, and trying again: %s", problem) if problem else log.info("reading %s", STREAM)
        self.problem = problem


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
