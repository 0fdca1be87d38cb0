"""Send many events from a file with one JSON object per line: an envelope, or the parts of one.

    {"type": "dims.scraper.complete", "subject": "espn", "data": {"games": 12}, "id": "espn-2026-11-22"}

Only `type` is required. A line with `specversion` is an envelope, and is sent unchanged.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Iterator
from typing import Any, BinaryIO

from dims_producers.publish import publish
from dims_producers.spool import Spool, in_batches
from dims_worker.errors import DimsError, EventError
from dims_worker.events import MAX_BYTES, Event

log = logging.getLogger(__name__)

Make = Callable[[Any, Any, Any, Any], Event]
"""Makes an event of type, subject, data and id. Raises EventError if they are not valid."""

MAX_LINE = 2 * MAX_BYTES
"""The longest line in bytes: an envelope, and room for blanks and escapes."""

_PARTS = ("type", "subject", "data", "id")


def events_in(file: BinaryIO, make: Make) -> Iterator[tuple[int, Event | EventError]]:
    """Yield the number (from 1) of each line that is not blank, and its event or its error.

    Reads one line at a time, and at most MAX_LINE bytes of it at once.
    """
    number = 0
    while line := file.readline(MAX_LINE + 1):
        number += 1
        whole = line
        while not whole.endswith(b"\n") and (more := file.readline(MAX_LINE)):
            whole = more  # the rest of a line that is too long
        if not line.strip():
            continue
        try:
            if len(line) > MAX_LINE:
                raise EventError(f"the line has more than {MAX_LINE:,} bytes")
            yield number, _event(line, make)
        except EventError as error:
            yield number, error


def _event(line: bytes, make: Make) -> Event:
    try:
        parts = json.loads(line.decode())
    except (ValueError, RecursionError) as error:
        raise EventError(f"the line is not JSON: {error}") from None
    if not isinstance(parts, dict):
        raise EventError(f"the line must be a JSON object, not {type(parts).__name__}")
    if "specversion" in parts:
        return Event.from_json(line)
    if unknown := sorted(parts.keys() - set(_PARTS)):
        raise EventError(f"unknown keys {', '.join(map(ascii, unknown))[:200]}. Use {', '.join(_PARTS)}")
    if not isinstance(parts.get("data", {}), dict | None):
        raise EventError(f"data must be a JSON object, not {type(parts['data']).__name__}")
    if parts.get("id") == "":
        raise EventError("id is empty. Leave it out, and DIMS creates one")
    return make(parts.get("type"), parts.get("subject"), parts.get("data"), parts.get("id"))


class BatchSender:
    """Sends events in batches, after those that wait in the spool. If the broker is unreachable, it stores them there.

    `failure` is the first error of the broker. After it, the sender does not try again.
    """

    def __init__(self, spool: Spool, url: str | None) -> None:
        self._spool = spool
        self._url = url
        self.failure: DimsError | None = None

    def send(self, entries: Iterable[tuple[int, Event | EventError]]) -> Iterator[tuple[int, Event | EventError]]:
        """Yield each entry once it is sent or stored. A round trip holds up to 1,000 events or 1 MiB.

        Raises OSError if the spool does not accept an event that cannot be sent either.
        """
        for batch in in_batches(entries, _size):
            events = [event for _, event in batch if isinstance(event, Event)]
            sent = self._sent(events)
            for number, event in batch:
                if isinstance(event, Event) and not sent:
                    self._spool.put(event)
                yield number, event

    def _sent(self, events: list[Event]) -> bool:
        url = self._url
        if url is None or self.failure:
            return False
        try:
            self._flush(url)
            publish(events, url)
        except DimsError as error:
            self.failure = error
            return False
        return True

    def _flush(self, url: str) -> None:
        try:
            self._spool.flush(lambda waiting: publish(waiting, url))
        except OSError as error:
            log.warning("cannot send what waits in %s now: %s", self._spool.folder, error)


def _size(entry: tuple[int, Event | EventError]) -> int:
    return len(entry[1].to_json().encode()) if isinstance(entry[1], Event) else 0
