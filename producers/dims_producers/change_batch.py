"""What has changed below one folder since the last event: collected until it is quiet there."""

from __future__ import annotations

import threading

from dims_producers.path_list import MAX_PATHS, bounded_paths


class ChangeBatch:
    """Paths that changed, from any thread. Times are seconds of one monotonic clock, given by the caller.

    They are due `settle` seconds after the last change, and `longest` after the first, so that a program
    that never stops writing does not keep them back for ever.
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
        """Note a path, relative to the folder; None: unknown. Whether it is the first since `take`."""
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
        """When they are to be taken; None while there are none."""
        with self._lock:
            if self._first is None:
                return None
            return min(self._last + self._settle, self._first + self._longest)

    def take(self) -> list[str]:
        """The paths for an event (see `dims_producers.path_list`: `[]` is unknown), and begin anew."""
        with self._lock:
            paths = [] if self._unknown else bounded_paths(self._paths)
            self._paths, self._unknown, self._first = set(), False, None
            return paths
