"""Whether anybody takes in and measures; where nobody does, every page says so above all else."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from redis.exceptions import RedisError, ResponseError
from sqlalchemy import Engine

from dims_producers.publish import connect
from dims_worker.broker import event_stream
from dims_worker.config import Config
from dims_worker.errors import DimsError
from dims_worker.formatting import format_utc_short, pluralize
from dims_worker.store import metric_states
from dims_worker.store.engine import transaction

UNMEASURED = timedelta(minutes=2)
UNREAD = timedelta(minutes=1)
"""So long a metric may be due and an event may wait before anything is said."""
KEPT = 5.0
"""Seconds for which an answer is good enough for every page."""
BOUND = 0.5
"""Seconds that the broker has to answer; the page waits for it."""
AWAY = "the broker does not answer"


@dataclass
class StallMonitor:
    """What every page says of it. `broker_url` None: nobody told where it is, and nothing is said of it."""

    config: Config
    engine: Engine
    broker_url: str | None = field(repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)
    _said: str = ""
    _until: float = float("-inf")

    def told(self) -> str:
        """A sentence, or nothing where all is as usual. One page at a time asks; meanwhile others have the last answer.

        Raises DatabaseUnreachable.
        """
        if time.monotonic() >= self._until and self._lock.acquire(blocking=False):
            try:
                self._said = "; ".join(self._parts())
                self._until = time.monotonic() + KEPT
            finally:
                self._lock.release()
        return self._said

    def _parts(self) -> Iterator[str]:
        names = [name for scanned in self.config.scans.values() for name in scanned]
        patience = max(UNMEASURED, 3 * self.config.settings.sweep)
        with transaction(self.engine) as connection:
            due, since = metric_states.unclaimed_due(connection, names, patience)
        events, first = self._waiting()
        if since:
            waits = f" ({pluralize(events, 'event')} {'waits' if events == 1 else 'wait'})" if first else ""
            yield f"Nothing is being measured: {_are(due, 'metric')} due since {format_utc_short(since)}{waits}"
        elif first:
            yield f"No event is taken in: {_are(events, 'event')} waiting since {format_utc_short(first)}"
        if events < 0:
            yield AWAY if since else f"{AWAY[0].upper()}{AWAY[1:]}, so no event comes in"

    def _waiting(self) -> tuple[int, datetime | None]:
        """The events that nobody takes in, and since when; -1 of them where the broker does not answer."""
        if self.broker_url is None:
            return 0, None
        try:
            with connect(self.broker_url, timeout=BOUND) as client:
                return event_stream.backlog(client, UNREAD)
        except ResponseError:  # it answers; whoever may only add events is told no more
            return 0, None
        except (DimsError, RedisError, OSError):
            return -1, None


def _are(number: int, noun: str) -> str:
    return f"{pluralize(number, noun)} {'is' if number == 1 else 'are'}"
