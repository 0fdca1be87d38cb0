"""Detect what does not run: the broker, the database, the workers. Every page then shows a warning at the top."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from redis.exceptions import RedisError, ResponseError
from sqlalchemy import Engine

from dims_producers.publish import connect
from dims_worker.broker import event_stream
from dims_worker.checks.bounded import BoundedCalls
from dims_worker.checks.system import check_services
from dims_worker.config import Config
from dims_worker.errors import DimsError
from dims_worker.formatting import format_utc_short, pluralize
from dims_worker.local import ServerUrls
from dims_worker.store import metric_states
from dims_worker.store.engine import transaction

log = logging.getLogger(__name__)

DUE_PATIENCE = timedelta(minutes=2)
"""How long a metric may be due before the warning appears."""
EVENT_PATIENCE = timedelta(minutes=1)
"""How long an event may wait before the warning appears."""
CACHE_SECONDS = 5.0
"""How long all pages share one answer."""
WAIT_SECONDS = 1.0
"""How long a page waits for a new answer. After that it shows the last one."""
BROKER_SECONDS = 0.5
"""How long the broker may take to report what waits."""
WAITING_CHECKS = ("events",)
"""The checks that this module makes itself, with more patience."""


class StallWarning(NamedTuple):
    """A sentence about what does not run, without its full stop, and the fix. The fix can be empty."""

    sentence: str
    fix: str = ""


@dataclass
class StallMonitor:
    """Checks the servers and the workers, and whether events and metrics wait. Without `broker_url`, no events.

    The checks run beside the pages, so a server that hangs delays at most one page in `CACHE_SECONDS`.
    """

    config: Config
    engine: Engine
    broker_url: str | None = field(repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)
    _calls: BoundedCalls = field(default_factory=BoundedCalls, repr=False)
    _warnings: tuple[StallWarning, ...] = ()
    _valid_until: float = float("-inf")

    def warnings(self) -> tuple[StallWarning, ...]:
        """Return what does not run. One page at a time starts a check; others get the last answer."""
        if time.monotonic() >= self._valid_until and self._lock.acquire(blocking=False):
            thread = threading.Thread(target=self._refresh, name="check for stalls", daemon=True)
            thread.start()
            thread.join(WAIT_SECONDS)
        return self._warnings

    def _refresh(self) -> None:
        warnings: list[StallWarning] = []
        try:
            warnings.extend(self._failed_checks())
            warnings.extend(self._waiting())
        except DimsError as error:  # the page itself shows that the database is unreachable
            log.warning("cannot check what waits: %s", error)
        finally:
            self._warnings = tuple(warnings)
            self._valid_until = time.monotonic() + CACHE_SECONDS
            self._lock.release()

    def _failed_checks(self) -> Iterator[StallWarning]:
        """Yield what does not run. The texts name no host and no path, because every reader sees them."""
        broker_url = self.broker_url
        for check in check_services(self.config, self._servers(), self._calls, datetime.now(UTC)).checks:
            is_own = check.name in WAITING_CHECKS or (check.name == "broker" and broker_url is None)
            if check.state != "ok" and check.public and not is_own:
                yield StallWarning(check.public, check.fix)

    def _waiting(self) -> Iterator[StallWarning]:
        """Yield what waits and is not measured or stored. Raises DatabaseUnreachable."""
        names = [name for scanned in self.config.scans.values() for name in scanned]
        patience = max(DUE_PATIENCE, 3 * self.config.settings.sweep)
        with transaction(self.engine) as connection:
            due, due_since = metric_states.unclaimed_due(connection, names, patience)
        events, waiting_since = self._waiting_events()
        if due_since:
            since = format_utc_short(due_since)
            yield StallWarning(f"No worker is measuring: {_have(due, 'metric')} been due since {since}")
        if waiting_since:
            since = format_utc_short(waiting_since)
            yield StallWarning(f"No worker is ingesting: {_have(events, 'event')} waited since {since}")

    def _servers(self) -> ServerUrls:
        return ServerUrls(self.engine.url.render_as_string(hide_password=False), self.broker_url)

    def _waiting_events(self) -> tuple[int, datetime | None]:
        """Return how many events wait, and since when. A broker that does not answer has a warning of its own."""
        if self.broker_url is None:
            return 0, None
        try:
            with connect(self.broker_url, timeout=BROKER_SECONDS) as client:
                return event_stream.backlog(client, EVENT_PATIENCE)
        except (ResponseError, DimsError, RedisError, OSError):
            return 0, None


def _have(number: int, noun: str) -> str:
    return f"{pluralize(number, noun)} {'has' if number == 1 else 'have'}"
