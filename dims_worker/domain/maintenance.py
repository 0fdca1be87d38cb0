"""Compute which maintenance windows are open at a time. Pure.

A window begins when its cron schedule ticks in its time zone, and ends when its length has passed. `schedule` explains
what a tick does when the clocks change. The length is a length of time, not of the clock: a window of 3 hours that
begins before the clocks change still lasts 3 hours.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from dims_worker.config import MaintenanceWindow
from dims_worker.domain.schedule import last_time, next_time

_JOINED = 10_000
"""The most windows that follow each other without a gap and count as one."""


def end_of_window(window: MaintenanceWindow, now: datetime) -> datetime | None:
    """Return when the window that is open at `now` ends, in UTC, or None if none is open.

    Windows that overlap, or follow each other without a gap, end with the last of them.
    """
    begin = last_time(window.cron, window.timezone, now)
    if begin + window.length <= now:
        return None
    for _ in range(_JOINED):
        following = next_time(window.cron, window.timezone, begin)
        if following > begin + window.length:
            break
        begin = following
    return begin + window.length


def begin_of_next_window(window: MaintenanceWindow, now: datetime) -> datetime:
    """Return when a window begins next after `now`, in UTC."""
    return next_time(window.cron, window.timezone, now)


def open_windows(windows: Mapping[str, MaintenanceWindow], now: datetime) -> dict[str, datetime]:
    """Return the names of the windows that are open at `now`, each with its end."""
    ends = {name: end_of_window(window, now) for name, window in windows.items()}
    return {name: end for name, end in ends.items() if end is not None}
