"""The limit of what a spool may hold.

Counting the files for each event would be slow, so each event counts with a small chance. On the way to the limit this
happens about a hundred times, so about one percent too much may come in. A file marks a full spool for every process
that shares it. The git hooks ignore the limit: they write a few hundred bytes per commit, and must neither wait nor
fail.
"""

from __future__ import annotations

import contextlib
import os
import random
import time
from collections.abc import Sequence
from pathlib import Path

from dims_producers.file_owner import give_to_owner
from dims_worker.errors import SpoolFull

MAX_FILES = 100_000
MAX_BYTES = 1024**3
"""The most that a spool holds, including the files that could not be read."""

_COUNTS = 100  # expected number of counts while an empty spool fills up
_RECOUNT = 10.0  # seconds until a full spool is counted again: you may have removed files


class SpoolLimit:
    """The limit for the files in `folders`. The file `mark` exists while it is reached."""

    def __init__(self, mark: Path, folders: Sequence[Path], max_files: int, max_bytes: int) -> None:
        self._mark = mark
        self._folders = folders
        self._max_files = max_files
        self._max_bytes = max_bytes

    def check(self, size: int) -> None:
        """Raise SpoolFull if there is no room for a file of `size` bytes, or OSError if the disk fails."""
        try:
            age = time.time() - self._mark.stat().st_mtime
        except FileNotFoundError:
            chance = _COUNTS * max(1 / self._max_files, size / self._max_bytes)
            is_full = random.random() < chance and self._count()  # noqa: S311 - guessing it gains nothing
        else:
            is_full = 0 <= age < _RECOUNT or self._count()
        if is_full:
            raise SpoolFull(
                f"the spool {self._mark.parent} is full: it holds {self._max_files:,} events or {self._max_bytes:,} "
                "bytes that the broker has not accepted yet. Start the broker (`dims up`) or set DIMS_BROKER_URL: then "
                "`dims watch` or the next event sends what waits."
            )

    def review(self) -> None:
        """Remove the mark if there is room again."""
        if self._mark.exists():
            self._count()

    def _count(self) -> bool:
        """Count the files, update the mark, and return whether the limit is reached."""
        files = size = 0
        for folder in self._folders:
            with contextlib.suppress(FileNotFoundError), os.scandir(folder) as entries:
                for entry in entries:
                    with contextlib.suppress(FileNotFoundError):  # sent since it was listed
                        size += entry.stat(follow_symlinks=False).st_size
                        files += 1
        is_full = files >= self._max_files or size >= self._max_bytes
        if is_full:
            self._mark.touch()
            give_to_owner(self._mark, self._mark.parent)
        else:
            self._mark.unlink(missing_ok=True)
        return is_full
