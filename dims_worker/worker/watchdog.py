"""The progress watchdog of a worker: a thread that ends a worker which does nothing although work waits.

It observes: wake-ups wait in the worker's queues, a child is free to take one, and none reaches a child. Then Celery's
consumer is silent, or the children hang. Only a restart helps. What supervises the worker (`dims up`, systemd, Docker)
starts it again.

These are no stalls, and do not end a worker:

* The broker or the database does not answer. The observation is then worth nothing.
* All children are busy. A child is busy for as long as a lease lasts, and for longer while it renews its lease.
* The observation comes late, because the computer slept or the whole worker was suspended. Counting starts again.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from datetime import timedelta
from typing import Any

from celery.worker import state
from redis.exceptions import RedisError
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from dims_producers.publish import connect
from dims_worker.broker import event_stream
from dims_worker.broker.outage_log import BROKER, outages
from dims_worker.broker.queues import INGEST
from dims_worker.checks.bounded import BoundedCalls
from dims_worker.checks.database import probe_engine
from dims_worker.config import Config
from dims_worker.errors import DimsError
from dims_worker.formatting import pluralize
from dims_worker.local.stall import EXIT_STALLED, StallDetector, observation_period, stall_patience
from dims_worker.store import leases
from dims_worker.store.engine import engine, transaction
from dims_worker.worker.progress import WorkerProgress

log = logging.getLogger(__name__)

RECONNECT_PATIENCE = 90.0
"""How long Celery's consumer may take to connect again. It waits up to 32 s between two attempts."""
GRACE = 20.0
"""How long tasks that make progress have to end, as when the supervisor stops the worker."""
BROKER_SECONDS = 3.0
ANSWER_SECONDS = 10.0
"""How long the servers may take to answer one observation. A lock can keep a query waiting, but not one of these."""


class WorkerWatchdog(threading.Thread):
    """Observes one worker until it is stopped, or ends it. `problem` says why, for the worker's row.

    Args:
        worker: Celery's WorkController.
        queues: the queues that it serves. A person can make Celery stop serving one, until the next restart.
        end: called with the reason when the worker is stalled.
    """

    def __init__(
        self, worker: Any, config: Config, progress: WorkerProgress, queues: Collection[str], end: Callable[[str], None]
    ) -> None:
        super().__init__(name="watchdog", daemon=True)
        self.problem: str | None = None
        self._worker, self._config, self._progress, self._end = worker, config, progress, end
        self._queues = sorted(queues)
        self._patience = stall_patience(config.settings.sweep)
        self._detector = StallDetector(observation_period(config.settings.sweep))
        self._stopped = threading.Event()
        self._calls = BoundedCalls()

    def run(self) -> None:
        while not self._stopped.wait(self._detector.period):
            reason, patience = self._observe()
            if self._detector.observe(time.monotonic(), reason, self._progress.latest, patience):
                self.problem = reason
                self._end(str(reason))
                return

    def stop(self) -> None:
        self._stopped.set()

    def _observe(self) -> tuple[str | None, float]:
        """Return why the worker seems stalled, and how long that may last. None if it does not, or nothing is known."""
        try:
            if _stops() or outages.is_out(BROKER):  # a broker that refuses commands answers a PING all the same
                return None, self._patience
            if not self._connected():
                connect(str(self._config.broker_url), timeout=BROKER_SECONDS).ping()
                return "it does not connect to the broker, which answers", RECONNECT_PATIENCE
            done = self._calls.run({"work": self._unserved_work}, ANSWER_SECONDS)
            return done["work"] if "work" in done else self._hanging(), self._patience
        except (DimsError, SQLAlchemyError, RedisError, OSError):
            return None, self._patience  # a server is unreachable, and others report that
        except Exception:
            log.exception("the watchdog cannot observe this worker")
            return None, self._patience

    def _connected(self) -> bool:
        connection = getattr(getattr(self._worker, "consumer", None), "connection", None)
        return bool(connection is not None and connection.connected)

    def _hanging(self) -> str | None:
        """Return the reason if the connections of this worker hang, and a new one does not. A network can do that."""
        done = self._calls.run({"database": self._try_database, "broker": self._try_broker}, ANSWER_SECONDS)
        if len(done) < 2:
            return None  # a server hangs, which a restart of this worker does not change
        return f"its connections have not answered for {ANSWER_SECONDS:g} s, and new ones do"

    def _try_database(self) -> None:
        with probe_engine(str(self._config.database_url)).connect() as connection:
            connection.execute(text("SELECT 1"))

    def _try_broker(self) -> None:
        connect(str(self._config.broker_url), timeout=BROKER_SECONDS).ping()

    def _unserved_work(self) -> str | None:
        with connect(str(self._config.broker_url), timeout=BROKER_SECONDS) as redis:
            waiting = {name: int(redis.llen(name)) for name in self._queues}
            unread = 0
            if INGEST in self._queues:
                unread, _ = event_stream.backlog(redis, timedelta(seconds=self._patience))
        busy = self._progress.busy_children()
        taken = max(len(state.reserved_requests) - len(busy), 0)
        if not any(waiting.values()) and not taken and not unread:
            return None
        free = len(self.children()) - len(self._working(busy))  # also the test that the database answers
        if unread:
            return f"no process reads the stream, in which {pluralize(unread, 'event')} can be read"
        if free <= 0:
            return None
        where = ", ".join(f"{pluralize(number, 'wake-up')} in {name}" for name, number in waiting.items() if number)
        where = where or f"{pluralize(taken, 'wake-up')} in its memory"
        return f"work waits ({where}), {free} of its child processes could take it, and none does"

    def children(self) -> list[int]:
        """Return the pids of the pool's children. A pool without children counts as one."""
        pool = getattr(getattr(self._worker.pool, "_pool", None), "_pool", None)
        return [child.pid for child in pool] if pool else [os.getpid()]

    def _working(self, busy: dict[int, float]) -> set[int]:
        """Return the busy children that count as working: those that started lately, or that hold a lease."""
        children, host = set(self.children()), socket.gethostname()
        with transaction(engine(str(self._config.database_url))) as connection:
            holders = leases.lease_holders(connection)
        fresh = time.monotonic() - self._config.settings.lease.total_seconds()
        return {pid for pid, since in busy.items() if pid in children and (since > fresh or f"{host}:{pid}" in holders)}


def _stops() -> bool:
    """Return whether Celery was asked to stop the worker. The flags hold an exit code, and 0 is one."""
    return any(flag is not None and flag is not False for flag in (state.should_stop, state.should_terminate))


def end_stalled_worker(watchdog: WorkerWatchdog, progress: WorkerProgress, reason: str) -> None:
    """End this worker with the exit code 75. Tasks that run have `GRACE` seconds to end.

    Celery's own loop stops the worker if it still runs. Otherwise this kills the children and ends the process.
    """
    log.error(
        "this worker makes no progress: %s. It ends now with the exit code %d, so that its supervisor starts it again",
        reason,
        EXIT_STALLED,
    )
    state.should_stop = EXIT_STALLED
    deadline = time.monotonic() + (GRACE if progress.busy_children() else GRACE / 4)
    while time.monotonic() < deadline:
        time.sleep(0.2)
        if not progress.busy_children():
            deadline = min(deadline, time.monotonic() + GRACE / 4)
    for pid in watchdog.children():
        if pid != os.getpid():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    os._exit(EXIT_STALLED)
