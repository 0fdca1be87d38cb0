"""The outbox: empties a spool while a process lives; soon after a file came, and again while any remains."""

from __future__ import annotations

import logging
from collections.abc import Callable

from dims_producers.publish import check_broker, publish
from dims_producers.spool import Spool
from dims_worker.errors import DimsError

log = logging.getLogger(__name__)

RETRY = 5.0
"""Seconds between two attempts at most, while anything waits."""

GATHER = 0.02
"""Seconds between a file's arrival and the sending: what comes together goes in one trip, and git, which
left a note in the middle of a commit, ends that commit before we ask it anything."""

_FIRST_RETRY = 0.5


class SpoolSender:
    """Empties `spool` to the broker of `url()`, which is asked each time: it may come to be known later."""

    def __init__(self, spool: Spool, url: Callable[[], str]) -> None:
        self._spool = spool
        self._url = url
        self._rung: float | None = None
        self._failures = 0
        self._next = 0.0

    def ring(self, now: float) -> None:
        """A file has come. From any thread; a plain assignment, so that no lock is needed."""
        self._rung = now

    def due(self) -> float:
        """When `work` is to be called next. A broker that is away is not asked sooner because of a file."""
        rung = self._rung
        return min(rung + GATHER, self._next) if rung is not None and not self._failures else self._next

    def work(self, now: float) -> bool:
        """Send what waits; whether all that could be read has left. Raises nothing: what fails, waits.

        `now`: seconds of a monotonic clock, as in `due`.
        """
        self._rung = None  # before the look, so that what comes during it rings again
        try:
            waiting = len(self._spool)
            if waiting:
                url = self._url()
                if self._failures:  # before much is read in vain
                    check_broker(url)
                self._spool.flush(lambda events: publish(events, url), wait=1.0)
        except (DimsError, OSError) as error:
            return self._failed(error, now)
        if self._failures and waiting:
            log.info("the broker is back; what waited in %s was sent", self._spool.folder)
        self._failures, self._next = 0, now + RETRY
        return True

    def _failed(self, error: Exception, now: float) -> bool:
        if not self._failures:
            log.warning("events wait in %s: %s", self._spool.folder, error)
        self._next = now + min(RETRY, _FIRST_RETRY * 2 ** min(self._failures, 10))
        self._failures += 1
        return False
