"""Detect that no worker ingests events or measures metrics. Every page then shows a warning at the top."""

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

DUE_PATIENCE = timedelta(minutes=2)
"""How long a metric may be due before the warning appears."""
EVENT_PATIENCE = timedelta(minutes=1)
"""How long an event may wait before the warning appears."""
CACHE_SECONDS = 5.0
"""How long all pages share one answer."""
BROKER_SECONDS = 0.5
"""How long the broker may take to answer, because the page waits for it."""


@dataclass
class StallMonitor:
    """Checks whether events and metrics are waiting. Without `broker_url` it does not check events."""

    config: Config
    engine: Engine
    broker_url: str | None = field(repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)
    _message: str = ""
    _valid_until: float = float("-inf")

    def message(self) -> str:
        """Return the warning, or an empty text if all is well. One page at a time checks; others get the last answer.

        Raises DatabaseUnreachable.
        """
        if time.monotonic() >= self._valid_until and self._lock.acquire(blocking=False):
            try:
                self._message = ". ".join(self._warnings())
                self._valid_until = time.monotonic() + CACHE_SECONDS
            finally:
                self._lock.release()
        return self._message

    def _warnings(self) -> Iterator[str]:
        names = [name for scanned in self.config.scans.values() for name in scanned]
        patience = max(DUE_PATIENCE, 3 * self.config.settings.sweep)
        with transaction(self.engine) as connection:
            due, due_since = metric_states.unclaimed_due(connection, names, patience)
        events, waiting_since = self._waiting_events()
        if due_since:
            yield f"No worker is measuring: {_have(due, 'metric')} been due since {format_utc_short(due_since)}"
        if waiting_since:
            yield f"No worker is ingesting: {_have(events, 'event')} waited since {format_utc_short(waiting_since)}"
        if events < 0:
            yield "The broker is unreachable, so DIMS receives no events"

    def _waiting_events(self) -> tuple[int, datetime | None]:
        """Return how many events wait, and since when. The number is -1 if the broker does not answer."""
        if self.broker_url is None:
            return 0, None
        try:
            with connect(self.broker_url, timeout=BROKER_SECONDS) as client:
                return event_stream.backlog(client, EVENT_PATIENCE)
        except ResponseError:  # the broker answers, but this user may only add events
            return 0, None
        except (DimsError, RedisError, OSError):
            return -1, None


def _have(number: int, noun: str) -> str:
    return f"{pluralize(number, noun)} {'has' if number == 1 else 'have'}"
