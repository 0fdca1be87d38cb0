"""A thread that keeps the row of its process in `dims_processes` up to date."""

from __future__ import annotations

import logging
import os
import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from dims_worker import __version__
from dims_worker.config import Config
from dims_worker.errors import DimsError
from dims_worker.store.engine import transaction
from dims_worker.store.processes import (
    ProcessIdentity,
    ProcessProgress,
    delete_process,
    record_sign_of_life,
    report_period,
)

log = logging.getLogger(__name__)

STOP_SECONDS = 3.0
"""How long the end of a process waits until its row is deleted."""


def identify_process(
    role: str, config: Config, *, name: str | None = None, queues: Iterable[str] = ()
) -> ProcessIdentity:
    """Return the identity of this process, which starts now. Its name is role@host unless you give one."""
    host = socket.gethostname()
    return ProcessIdentity(
        process=name or f"{role}@{host}",
        host=host,
        role=role,
        pid=os.getpid(),
        version=__version__,
        config_hash=config.digest,
        queues=tuple(sorted(queues)),
        started_at=datetime.now(UTC),
    )


class ProcessReporter(threading.Thread):
    """Writes the row of this process every sweep period until it is stopped, then deletes the row.

    `progress` is called each time, in this thread. Nothing ends the thread: if the database does not accept a row, it
    logs that once, tries again every period, and logs once that it works again.
    """

    def __init__(
        self,
        engine: Engine,
        identity: ProcessIdentity,
        sweep: timedelta,
        progress: Callable[[], ProcessProgress] = ProcessProgress,
    ) -> None:
        super().__init__(name="process reporter", daemon=True)
        self.identity = identity
        self._engine = engine
        self._period = report_period(sweep).total_seconds()
        self._progress = progress
        self._stopping = threading.Event()
        self._due = threading.Event()
        self._failing = False

    def run(self) -> None:
        while not self._stopping.is_set():
            self._attempt(self._write)
            self._due.wait(self._period)
            self._due.clear()
        self._attempt(self._end)

    def report_now(self) -> None:
        """Write the row without waiting for the period."""
        self._due.set()

    def stop(self) -> None:
        """Delete the row and end the thread. Waits a few seconds at most: the row of a dead process grows old.

        The row of a process that ends because of a problem stays, so that others can read why.
        """
        self._stopping.set()
        self._due.set()
        if self.is_alive():
            self.join(STOP_SECONDS)

    def _attempt(self, write: Callable[[], None]) -> None:
        try:
            write()
        except (DimsError, SQLAlchemyError, OSError) as error:
            if not self._failing:
                log.warning("cannot report that %s runs, and tries again: %s", self.identity.process, error)
            self._failing = True
        except Exception:
            if not self._failing:
                log.exception("cannot report that %s runs, and tries again", self.identity.process)
            self._failing = True
        else:
            if self._failing:
                log.warning("reports again that %s runs", self.identity.process)
            self._failing = False

    def _write(self) -> None:
        progress = self._progress()
        with transaction(self._engine) as connection:
            record_sign_of_life(
                connection,
                self.identity,
                swept=progress.swept,
                claimed=progress.claimed,
                stored=progress.stored,
                problem=progress.problem,
                now=datetime.now(UTC),
            )

    def _end(self) -> None:
        if self._progress().problem is not None:
            return
        with transaction(self._engine) as connection:
            delete_process(connection, self.identity.process, self.identity.pid)


@contextmanager
def reported_process(engine: Engine, identity: ProcessIdentity, config: Config) -> Iterator[None]:
    """Keep the row of this process up to date for the length of the block."""
    reporter = ProcessReporter(engine, identity, config.settings.sweep)
    reporter.start()
    try:
        yield
    finally:
        reporter.stop()
