"""A file of the spool, and the readers that turn such files into events."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from dims_worker.errors import EventError
from dims_worker.events import Event


@dataclass(frozen=True, slots=True)
class SpoolFile:
    """A file of the spool: its name, its content, and when it was written (nanoseconds since 1970)."""

    name: str
    raw: bytes
    written: int


Reader = Callable[[Sequence[SpoolFile]], Sequence[Event | EventError | None]]
"""Turns each file into its event. None means that the file is not complete yet, EventError that it never will be."""


def read_events(files: Sequence[SpoolFile]) -> list[Event | EventError | None]:
    """Return the events of `.json` files. Each file holds one envelope."""
    return [_event(file.raw) for file in files]


def _event(raw: bytes) -> Event | EventError:
    try:
        return Event.from_json(raw)
    except EventError as error:
        return error
