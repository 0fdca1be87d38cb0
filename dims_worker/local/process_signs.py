"""A thread of the supervisor that reads `dims_processes`: which processes of this host give no sign of life."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from dims_worker.local.stall import OBSERVE_SECONDS, StallDetector

SILENT_PATIENCE = 20.0
"""Seconds that a process must stay silent before it is ended."""


class ProcessSigns(threading.Thread):
    """Reads the rows of this host every few seconds. `silent` and `problems` are by pid.

    A process counts as silent only while another process reports itself. Otherwise the database accepts no rows, or is
    too slow, and a restart does not help.
    """

    def __init__(self, database_url: Callable[[], str | None], sweep: Callable[[], timedelta]) -> None:
        super().__init__(name="process signs", daemon=True)
        self.silent: dict[int, str] = {}
        self.problems: dict[int, str] = {}
        self._database_url = database_url
        self._sweep = sweep
        self._detectors: dict[int, StallDetector] = {}
        self._stopped = threading.Event()

    def run(self) -> None:
        while not self._stopped.wait(OBSERVE_SECONDS):
            try:
                self._observe()
            except Exception:  # noqa: BLE001 - the database is unreachable, which the processes report
                self._detectors.clear()

    def stop(self) -> None:
        self._stopped.set()

    def _observe(self) -> None:
        from dims_worker.store.engine import clock, engine, transaction
        from dims_worker.store.processes import process_rows, silent_after

        url = self._database_url()
        if url is None:
            return
        with transaction(engine(url)) as connection:
            rows, now = process_rows(connection), clock(connection)
        own = {row.pid: row for row in rows if row.host == socket.gethostname()}
        self.problems = {pid: row.problem for pid, row in own.items() if row.problem}
        longest = silent_after(self._sweep())
        accepts_rows = any(now - row.seen_at < longest for row in rows)
        self._detectors = {pid: self._detectors.get(pid) or StallDetector(OBSERVE_SECONDS) for pid in own}
        silent = {}
        for pid, row in own.items():
            age = now - row.seen_at
            reason = f"it has given no sign of life for {age.total_seconds():.0f} s"
            hangs = accepts_rows and age > longest
            seen = (row.seen_at - datetime.fromtimestamp(0, UTC)).total_seconds()
            observed = reason if hangs else None
            if self._detectors[pid].observe(time.monotonic(), observed, seen, SILENT_PATIENCE):
                silent[pid] = reason
        self.silent = silent
