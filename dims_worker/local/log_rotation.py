"""Keep the logs of processes that run for months below a size, without restarting them.

Each log is open in its process for appending (O_APPEND). So its content can be copied to `NAME.log.1` and the file then
cut to zero: the process goes on at the new end. This is logrotate's `copytruncate`. Lines that are written between the
copy and the cut are lost, so the copy goes on until it has reached the end.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

MAX_BYTES = 5_000_000
"""A log that is longer than this is copied to `NAME.log.1` and cut."""
WITHOUT_COPY = 4
"""A log that is this many times too long is cut even if the copy fails, so that the logs do not fill a disk."""
PERIOD = 5.0
"""Seconds between two checks."""
REPORT_SECONDS = 3600.0
"""Seconds between two reports of logs that cannot be rotated."""
KEPT = 1_000_000
"""A log that is cut without a copy keeps about this many of its last bytes."""


def rotate_logs(folder: Path, max_bytes: int = MAX_BYTES) -> list[str]:
    """Rotate every log of `folder` that has grown too long. Return a sentence for each one that could not be copied.

    It never raises OSError: a full disk must not end the supervisor.
    """
    problems = []
    for path in _logs(folder):
        try:
            size = path.stat().st_size
            if size <= max_bytes or path.is_symlink():
                continue
            _copy_and_cut(path)
        except OSError as error:
            path.with_suffix(".log.1.part").unlink(missing_ok=True)
            if size <= WITHOUT_COPY * max_bytes:
                continue  # the disk may have room later
            problems.append(_cut_without_copy(path, error))
    return problems


class LogRotation:
    """Rotates the logs of a folder now and then. Call `check` as often as you like."""

    def __init__(self, folder: Path, report: Callable[[str], None]) -> None:
        self._folder, self._report = folder, report
        self._checked = self._reported = float("-inf")

    def check(self, now: float) -> None:
        """Rotate the logs if the last check is `PERIOD` seconds old. Reports a problem once an hour. `now`: seconds."""
        if now - self._checked < PERIOD:
            return
        self._checked = now
        problems = rotate_logs(self._folder)
        if problems and now - self._reported >= REPORT_SECONDS:
            self._reported = now
            for sentence in problems:
                self._report(sentence)


def _logs(folder: Path) -> list[Path]:
    try:
        return sorted(folder.glob("*.log"))
    except OSError:
        return []


def _copy_and_cut(path: Path) -> None:
    """Copy a log beside itself, then cut it to zero."""
    draft = path.with_suffix(".log.1.part")
    with path.open("rb") as source, draft.open("wb") as target:
        os.fchmod(target.fileno(), path.stat().st_mode & 0o777)
        shutil.copyfileobj(source, target, 1 << 20)
        target.flush()
        os.fsync(target.fileno())
        target.write(source.read())  # what was written meanwhile
        target.flush()
        os.truncate(path, 0)
    draft.replace(path.with_suffix(".log.1"))


def _cut_without_copy(path: Path, error: OSError) -> str:
    """Replace a log by its last bytes. Freeing its space first is what a full disk needs."""
    try:
        with path.open("rb") as source:
            source.seek(-KEPT, os.SEEK_END)
            end = source.read().partition(b"\n")[2]
        os.truncate(path, 0)
        with path.open("ab") as target:
            target.write(end)
    except OSError as second:
        return f"the log {path} grows and cannot be rotated: {second.strerror}. Free space on its disk."
    return f"the log {path} could not be copied ({error.strerror}), so only its end was kept. Free space on its disk."
