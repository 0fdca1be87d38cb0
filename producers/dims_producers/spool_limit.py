"""How much a spool may hold. Nobody counts it at each event: one in so many looks, and what it finds stands on disk.

The chance of a look is such that a spool which fills up is counted a hundred times on the way: about a hundredth
too much may come in. A full spool is marked by a file, for all who share it. The hooks of git ask nobody. They write
a few hundred bytes for each thing that a person does, and must neither wait nor fail.
"""

from __future__ import annotations

import contextlib
import os
import random
import time
from collections.abc import Sequence
from pathlib import Path

from dims_worker.errors import SpoolFull

MAX_FILES = 100_000
MAX_BYTES = 1024**3
"""What a spool holds at most, what was set aside included."""

_LOOKS = 100
_RECOUNT = 10.0  # seconds until a full spool is counted again: somebody may have made room by hand


class SpoolLimit:
    """The limit of what lies in `folders`; `mark` is the file that is there while it is reached."""

    def __init__(self, mark: Path, folders: Sequence[Path], max_files: int, max_bytes: int) -> None:
        self._mark = mark
        self._folders = folders
        self._max_files = max_files
        self._max_bytes = max_bytes

    def check(self, size: int) -> None:
        """Raise SpoolFull where a file of `size` bytes finds no room, or OSError where the disk does not say."""
        try:
            age = time.time() - self._mark.stat().st_mtime
        except FileNotFoundError:
            chance = _LOOKS * max(1 / self._max_files, size / self._max_bytes)
            is_full = random.random() < chance and self._count()  # noqa: S311 - nobody gains by guessing it
        else:
            is_full = 0 <= age < _RECOUNT or self._count()
        if is_full:
            raise SpoolFull(
                f"the spool {self._mark.parent} is full: it holds {self._max_files:,} events or {self._max_bytes:,} "
                "bytes, and the broker has taken none for long. Start it (`dims up`), or see DIMS_BROKER_URL: what "
                "waits is then sent by `dims watch` or with the next event"
            )

    def review(self) -> None:
        """Take the mark away where there is room again."""
        if self._mark.exists():
            self._count()

    def _count(self) -> bool:
        """Whether the limit is reached, counted now and marked."""
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
        else:
            self._mark.unlink(missing_ok=True)
        return is_full
