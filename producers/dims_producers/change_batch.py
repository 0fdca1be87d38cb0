"""Collect the paths that change below one folder until the folder is quiet."""

from __future__ import annotations

import threading

from dims_producers.path_list import bounded_paths
from dims_worker.events import MAX_PATHS


class ChangeBatch:
    """Paths that changed, added from any thread. Times are seconds of one monotonic clock, given by the caller.

    The batch is due `settle` seconds after the last change, and at most `longest` seconds after the first. So a program
    that never stops writing cannot delay it for ever.
    """

    def __init__(self, settle: float, longest: float = 2.0) -> None:
        self._settle = settle
        self._longest = max(longest, settle)
        self._lock = threading.Lock()
        self._paths: set[str] = set()
        self._unknown = False
        self._first: float | None = None
        self._last = 0.0

    def add(self, path: str | None, now: float) -> bool:
        """Add a path relative to the folder, or None if it is unknown. Return whether it is the first of the batch."""
        with self._lock:
            first = self._first is None
            if self._first is None:
                self._first = now
            self._last = now
            if path is None or len(self._paths) > MAX_PATHS:
                self._unknown = True
            else:
                self._paths.add(path)
            return first

    def due(self) -> float | None:
        """Return when to take the batch, or None if it is empty."""
        with self._lock:
            if self._first is None:
                return None
            return min(self._last + self._settle, self._first + self._longest)

    def take(self) -> list[str]:
        """Return the paths for an event (`[]` means unknown, see `dims_producers.path_list`) and start a new batch."""
        with self._lock:
            paths = [] if self._unknown else bounded_paths(self._paths)
            self._paths, self._unknown, self._first = set(), False, None
            return paths
