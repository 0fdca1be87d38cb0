"""The back-off after a failure: how long DIMS waits before it measures a metric or sends to a channel again. Pure."""

from __future__ import annotations

from datetime import timedelta

FIRST_WAIT = timedelta(seconds=10)
MAX_WAIT = timedelta(minutes=15)


def retry_wait(failures: int) -> timedelta:
    """Return the wait after a failure: FIRST_WAIT, doubled for each of the `failures` before it, at most MAX_WAIT."""
    doubled: timedelta = FIRST_WAIT * 2 ** min(failures, 10)
    return min(doubled, MAX_WAIT)
