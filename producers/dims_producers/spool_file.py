"""A file that a spool keeps, and what turns such files into events."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from dims_worker.errors import EventError
from dims_worker.events import Event


@dataclass(frozen=True, slots=True)
class SpoolFile:
    """A file of the spool: its name, what it holds, and when it was written (nanoseconds since 1970)."""

    name: str
    raw: bytes
    written: int


Reader = Callable[[Sequence[SpoolFile]], Sequence[Event | EventError | None]]
"""Turns files into their events, one for one; None: not whole yet, leave it; EventError: it never will be."""


def read_events(files: Sequence[SpoolFile]) -> list[Event | EventError | None]:
    """The events of `.json` files: an envelope each."""
    return [_event(file.raw) for file in files]


def _event(raw: bytes) -> Event | EventError:
    try:
        return Event.from_json(raw)
    except EventError as error:
        return error
