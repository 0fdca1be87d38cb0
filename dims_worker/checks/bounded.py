"""Call functions that may never return, and wait for a limited time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass
class BoundedCalls:
    """Runs calls side by side, each in a thread of its own that does not keep the process alive.

    A server that accepts a connection and never answers can block its thread for minutes. While it does, no second
    thread is started for the call of this name.
    """

    _threads: dict[str, threading.Thread] = field(default_factory=dict)

    def run(self, calls: Mapping[str, Callable[[], Any]], seconds: float) -> dict[str, Any]:
        """Return the result of each call that returns within `seconds`, by its name. The others are left out.

        Raises what a call raises, if it raises within that time.
        """
        results: dict[str, Any] = {}
        errors: list[Exception] = []
        started = [name for name in calls if self._start(name, calls[name], results, errors)]
        end = time.monotonic() + seconds
        for name in started:
            self._threads[name].join(max(0.0, end - time.monotonic()))
        if errors:
            raise errors[0]
        return dict(results)

    def _start(self, name: str, call: Callable[[], Any], results: dict[str, Any], errors: list[Exception]) -> bool:
        if (last := self._threads.get(name)) is not None and last.is_alive():
            return False

        def run() -> None:
            try:
                results[name] = call()
            except Exception as error:  # noqa: BLE001 - the caller raises it
                errors.append(error)

        self._threads[name] = threading.Thread(target=run, name=f"check {name}", daemon=True)
        self._threads[name].start()
        return True
