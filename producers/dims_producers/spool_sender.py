"""Send what is in a spool while a process runs: soon after a file arrives, and again while any file remains.

Every few seconds it also sends what hooks had to leave in the git directory of a repository.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

from dims_producers.git_notes import SETTLE
from dims_producers.publish import check_broker, publish
from dims_producers.repository_spool import repository_spools, send_notes
from dims_producers.spool import Spool
from dims_worker.errors import DimsError
from dims_worker.events import Event

log = logging.getLogger(__name__)

RETRY = 5.0
"""The most seconds between two attempts."""

GATHER = 0.02
"""Seconds between a file's arrival and the attempt. Files that arrive together are sent together. And git, whose hook
wrote a note in the middle of a commit, finishes that commit first."""

_FIRST_RETRY = 0.5


class SpoolSender:
    """Sends the files of `spool`, and the notes in the git directories of `repositories`.

    `url()` is the broker's. It is called each time, because it may change. `before_send` gets each batch of events.
    """

    def __init__(
        self,
        spool: Spool,
        url: Callable[[], str],
        repositories: Sequence[Path] = (),
        before_send: Callable[[Sequence[Event]], object] = lambda events: None,
    ) -> None:
        self._spool = spool
        self._before_send = before_send
        self._url = url
        self._repositories = repositories
        self._refused: dict[Path, str] = {}
        self._woken: float | None = None
        self._failures = 0
        self._next = 0.0

    def wake(self, now: float) -> None:
        """Note that a file has arrived. Call it from any thread: it is a plain assignment and needs no lock."""
        self._woken = now

    def due(self) -> float:
        """Return when to call `work` next. A new file does not shorten the wait for an unreachable broker."""
        woken = self._woken
        return min(woken + GATHER, self._next) if woken is not None and not self._failures else self._next

    def work(self, now: float) -> bool:
        """Send what waits, and return whether it worked. An error is logged, and the files stay.

        `now` is in seconds of a monotonic clock, as in `due`.
        """
        self._woken = None  # before the listing, so that a file that arrives during it counts
        try:
            waiting = len(self._spool)
            if waiting:
                url = self._url()
                if self._failures:  # before reading many files for nothing
                    check_broker(url)
                self._spool.flush(lambda events: self._publish(events, url), wait=1.0, hold=SETTLE)
            if now >= self._next:
                self._send_notes()
        except (DimsError, OSError) as error:
            return self._failed(error, now)
        if self._failures and waiting:
            log.info("the broker is reachable again: sent what waited in %s", self._spool.folder)
        self._failures = 0
        self._next = now + (SETTLE if self._spool.holds_notes() else RETRY)
        return True

    def _publish(self, events: Sequence[Event], url: str) -> None:
        self._before_send(events)
        publish(events, url)

    def _send_notes(self) -> None:
        """Send the notes that hooks left in repositories. Logs once per reason what another user's permissions keep."""
        for spool in repository_spools(self._repositories):
            try:
                sent = send_notes(spool, lambda events: self._publish(events, self._url()), hold=SETTLE)
            except OSError as error:
                if self._refused.get(spool) != str(error):
                    log.warning("the notes of git hooks in %s wait: %s", spool, error)
                self._refused[spool] = str(error)
            else:
                self._refused.pop(spool, None)
                if sent:
                    log.info("sent %d changes that git hooks had left in %s", sent, spool)

    def _failed(self, error: Exception, now: float) -> bool:
        if not self._failures:
            log.warning("events wait in %s: %s", self._spool.folder, error)
        self._next = now + min(RETRY, _FIRST_RETRY * 2 ** min(self._failures, 10))
        self._failures += 1
        return False
