"""How long DIMS waits before it retries a failed measurement or message."""

from __future__ import annotations

from datetime import timedelta

BACKOFF = timedelta(seconds=10)
BACKOFF_MAX = timedelta(minutes=15)


def retry_delay(failures: int) -> timedelta:
    """Return the delay after this many earlier failures in a row: 10 seconds, doubled each time, at most 15 minutes."""
    delay: timedelta = BACKOFF * 2 ** min(failures, 10)
    return min(delay, BACKOFF_MAX)
