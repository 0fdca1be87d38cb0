"""Many events at once, out of a file: one JSON object a line, a whole envelope or what an event is about.

    {"type": "dims.scraper.complete", "subject": "espn", "data": {"games": 12}, "id": "espn-2026-11-22"}

Of those, `type` must be there. A line with `specversion` is an envelope, and is sent as it is.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Iterator
from typing import Any, BinaryIO

from dims_producers.publish import publish
from dims_producers.spool import BATCH, BATCH_BYTES, Spool
from dims_worker.errors import DimsError, EventError
from dims_worker.events import MAX_BYTES, Event

log = logging.getLogger(__name__)

Make = Callable[[Any, Any, Any, Any], Event]
"""Makes an event of type, subject, data and id, whatever they are. Raises EventError."""

MAX_LINE = 2 * MAX_BYTES
"""The longest line that is read, in bytes: an envelope, and room for blanks and escapes."""

_PARTS = ("type", "subject", "data", "id")


def events_in(file: BinaryIO, make: Make) -> Iterator[tuple[int, Event | EventError]]:
    """For each line that is not blank its number, from 1, and its event, or why it is none.

    A line is read at a time, and no more of it than MAX_LINE.
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
                raise EventError(f"it has more than {MAX_LINE:,} bytes")
            yield number, _event(line, make)
        except EventError as error:
            yield number, error


def _event(line: bytes, make: Make) -> Event:
    try:
        parts = json.loads(line.decode())
    except (ValueError, RecursionError) as error:
        raise EventError(f"it is not JSON: {error}") from None
    if not isinstance(parts, dict):
        raise EventError(f"it must be a JSON object, not {type(parts).__name__}")
    if "specversion" in parts:
        return Event.from_json(line)
    if unknown := sorted(parts.keys() - set(_PARTS)):
        raise EventError(f"it has {', '.join(map(ascii, unknown))[:200]}; only {', '.join(_PARTS)} are taken")
    if not isinstance(parts.get("data", {}), dict | None):
        raise EventError(f"data must be a JSON object, not {type(parts['data']).__name__}")
    if parts.get("id") == "":
        raise EventError("id is empty; leave it out, and one is drawn")
    return make(parts.get("type"), parts.get("subject"), parts.get("data"), parts.get("id"))


class BatchSender:
    """Sends events a batch at a time, after what waits in the spool; with the broker away it keeps them there.

    `away` says why the broker is not asked any more, once it could not be reached.
    """

    def __init__(self, spool: Spool, url: str | None) -> None:
        self._spool = spool
        self._url = url
        self.away: DimsError | None = None

    def send(self, found: Iterable[tuple[int, Event | EventError]]) -> Iterator[tuple[int, Event | EventError]]:
        """Pass on what was given, once it is sent or kept: a round trip for up to 1,000 events or 1 MiB.

        Raises OSError where the spool takes no event that cannot be sent either.
        """
        for batch in _batches(found):
            events = [event for _, event in batch if isinstance(event, Event)]
            sent = self._sent(events)
            for number, event in batch:
                if isinstance(event, Event) and not sent:
                    self._spool.put(event)
                yield number, event

    def _sent(self, events: list[Event]) -> bool:
        url = self._url
        if url is None or self.away:
            return False
        try:
            self._flush(url)
            publish(events, url)
        except DimsError as error:
            self.away = error
            return False
        return True

    def _flush(self, url: str) -> None:
        try:
            self._spool.flush(lambda waiting: publish(waiting, url))
        except OSError as error:
            log.warning("what waits in %s is not sent now: %s", self._spool.folder, error)


def _batches(found: Iterable[tuple[int, Event | EventError]]) -> Iterator[list[tuple[int, Event | EventError]]]:
    batch: list[tuple[int, Event | EventError]] = []
    size = 0
    for number, event in found:
        length = len(event.to_json()) if isinstance(event, Event) else 0
        if batch and (len(batch) == BATCH or size + length > BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append((number, event))
        size += length
    if batch:
        yield batch
