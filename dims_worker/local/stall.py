"""Decide from observations that a process makes no progress, or that a server does not answer."""

from __future__ import annotations

import math
from datetime import timedelta

EXIT_STALLED = 75
"""The exit code of a process that its watchdog ended (EX_TEMPFAIL of sysexits.h)."""
SWEEPS = 3
"""A process is stalled after this many sweep periods, but not before `MIN_PATIENCE` and not after `MAX_PATIENCE`."""
MIN_PATIENCE = 15.0
MAX_PATIENCE = 60.0
OBSERVE_SECONDS = 5.0
"""At most this long between two observations."""


class StallDetector:
    """Counts observations in a row that found a stall. Times are monotonic seconds.

    A clock that a person sets does not matter. While a computer sleeps, no observation is made, and the first one
    after that starts the count again.
    """

    def __init__(self, period: float) -> None:
        self.period = period
        self._at = -math.inf
        self._latest = 0.0
        self._count = 0

    def observe(self, now: float, reason: str | None, latest: float, patience: float) -> bool:
        """Add an observation. Return whether the stall has lasted for `patience` seconds.

        Args:
            reason: why the process seems stalled. None: it does not, or that cannot be known now.
            latest: when the process last made progress.
        """
        late = now - self._at > 2 * self.period + 5
        moved = latest != self._latest
        self._at, self._latest = now, latest
        self._count = 0 if reason is None or late or moved else self._count + 1
        return self._count > 0 and self._count >= math.ceil(patience / self.period)


def stall_patience(sweep: timedelta) -> float:
    """Return how many seconds a process may do nothing while work waits."""
    return min(max(SWEEPS * sweep.total_seconds(), MIN_PATIENCE), MAX_PATIENCE)


def observation_period(sweep: timedelta) -> float:
    """Return the seconds between two observations."""
    return min(sweep.total_seconds(), OBSERVE_SECONDS)
