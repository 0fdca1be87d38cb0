"""Keep slow scans out of the default queue, so that no fast source waits for them.

A source whose last scan took longer than `SLOW_SCAN` gets its wake-ups in the slow queue, which has its own workers. A
source that is new, or has just become slow, is stopped after that time in the default queue, once.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from dims_worker.broker.queues import VERIFY, VERIFY_SLOW
from dims_worker.errors import DimsError
from dims_worker.store import leases
from dims_worker.store.engine import transaction
from dims_worker.store.processes import serves_queue

log = logging.getLogger(__name__)

SLOW_SCAN = 3.0
"""A scan that takes longer than this many seconds is slow."""
WORKER_STOPS = "its worker stops"


class ScanBudget:
    """Decides whether a running scan must end: because its worker stops, or because it is slow and in the wrong queue.

    `is_stopped`: whether the worker stops. A source's own queue, and the slow queue, allow any duration. So does the
    default queue while no worker serves the slow one.
    """

    def __init__(self, engine: Engine, queue: str, is_stopped: Callable[[], bool]) -> None:
        self._engine, self._is_stopped = engine, is_stopped
        self._began = time.monotonic()
        self._may_be_slow = queue != VERIFY
        self.is_slow = False

    def is_spent(self) -> bool:
        """Return whether the scan must end now."""
        if self._is_stopped():
            return True
        if not self._may_be_slow and time.monotonic() - self._began > SLOW_SCAN:
            self.is_slow = self._has_slow_workers()
            self._may_be_slow = not self.is_slow
        return self.is_slow

    def note_end(self, source: str) -> str:
        """Return why the scan was stopped. If it was slow, note that in the row of its source."""
        if not self.is_slow:
            return WORKER_STOPS
        log.info("the scan of %s takes longer than %g s, so a slow worker scans it", source, SLOW_SCAN)
        with transaction(self._engine) as connection:
            leases.note_scan_seconds(connection, source, time.monotonic() - self._began)
        return "it is slow, so a slow worker scans it"

    def _has_slow_workers(self) -> bool:
        try:
            with transaction(self._engine) as connection:
                return serves_queue(connection, VERIFY_SLOW)
        except (DimsError, SQLAlchemyError):
            return False  # without a database, no other worker can claim it
