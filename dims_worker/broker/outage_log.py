"""Log one line when a server goes away, and one when it is back. Each process does so once per outage.

Several parts of a process notice the same outage: the consumer, the dispatcher, tasks. The first one that fails logs
the line. The last one that works again logs the other line.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta

from dims_worker.formatting import format_duration

log = logging.getLogger(__name__)

BROKER = "the broker"
DATABASE = "the database"

REMINDER = 600.0
"""Seconds after which an outage that lasts is logged again, with its present reason."""


SHORT_OUTAGE = 5.0
"""A process does not report an outage that is shorter than this many seconds as its problem."""
FLAPPING = 3.0
"""An outage that begins within this many seconds after another one has ended is not logged again. A server that
refuses only some commands seems to come and go with each of them."""


@dataclass
class _Outage:
    since: float
    logged: float
    explained: bool
    quiet: bool = False
    parts: set[str] = field(default_factory=set)


class OutageLog:
    """The outages of one process. All methods may be called from any thread."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.clear()

    def clear(self) -> None:
        """Forget every outage. A forked process calls this, because what its parent saw is not what it sees."""
        self._lock = threading.Lock()
        self._outages: dict[str, _Outage] = {}
        self._ended: dict[str, float] = {}

    def failed(self, server: str, part: str, reason: str, *, explained: bool = False) -> None:
        """Note that `part` of this process cannot use `server`. The first part of an outage logs it.

        `explained`: the server itself said why. If the connection was lost first, that is worth a second line: a new
        password, for example.
        """
        now = self._clock()
        with self._lock:
            outage = self._outages.get(server)
            first = outage is None
            if outage is None:
                quiet = now - self._ended.get(server, float("-inf")) < FLAPPING
                outage = self._outages[server] = _Outage(now, now, explained, quiet)
            outage.parts.add(part)
            due = (
                (first and not outage.quiet) or (explained and not outage.explained) or now - outage.logged >= REMINDER
            )
            outage.explained |= explained
            if due:
                outage.logged = now
        if due:
            waited = "" if first else f" (for {format_duration(timedelta(seconds=now - outage.since))} now)"
            log.warning("%s is unreachable or refuses%s; DIMS waits and tries again: %s", server, waited, reason)

    def succeeded(self, server: str, part: str) -> None:
        """Note that `part` of this process can use `server`. The last part of an outage logs its end."""
        if server not in self._outages:
            return
        with self._lock:
            outage = self._outages.get(server)
            if outage is None or part not in outage.parts:
                return
            outage.parts.discard(part)
            if outage.parts:
                return
            del self._outages[server]
            self._ended[server] = self._clock()
        if not outage.quiet or outage.logged > outage.since:
            log.warning("%s is back after %s", server, format_duration(timedelta(seconds=self._clock() - outage.since)))

    def is_out(self, server: str) -> bool:
        """Return whether a part of this process cannot use `server`."""
        return server in self._outages

    def problem(self, server: str) -> str | None:
        """Return one sentence if `server` has been out for longer than `SHORT_OUTAGE`, and otherwise None."""
        outage = self._outages.get(server)
        if outage is None or self._clock() - outage.since < SHORT_OUTAGE:
            return None
        return f"it cannot use {server}"


outages = OutageLog()
"""The outages of this process."""
os.register_at_fork(after_in_child=outages.clear)
