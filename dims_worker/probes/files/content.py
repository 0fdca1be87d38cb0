"""Read the content of a file once for all selections: its lines, its entries, and whether it is only a pointer.

Git LFS and git-annex replace a large file with a pointer until its content is fetched. A pointer is a small text that
names the content and its size. See https://github.com/git-lfs/git-lfs/blob/main/docs/spec.md and
https://git-annex.branchable.com/internals/pointer_file/.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from dataclasses import dataclass, field
from io import BufferedReader, FileIO

from dims_worker.probes.base import Deadline, open_regular_file

MAX_POINTER = 1024
"""A pointer has fewer bytes."""
_MIN_POINTER = 32
_BLOCK = 1 << 18
_CHECK_EVERY = 256
"""The number of lines between two checks of the deadline."""

_LFS = re.compile(rb"version https?://(git-lfs|hawser)\.github\.com/spec/v\d+\r?\n")
_LFS_SIZE = re.compile(rb"^size (\d+)\r?$", re.MULTILINE)
_ANNEX = re.compile(rb"/annex/objects/[A-Z0-9_]+E?(-[a-zA-Z]\d+)*--[^\n]*\n?")
_ANNEX_SIZE = re.compile(rb"-s(\d+)(?=-)")


@dataclass(frozen=True, slots=True)
class Content:
    """What a file contains. `pointer` says what the file is, with the fix, if its content is elsewhere. `size` is the
    size of that content, or None: if the file is no pointer, or its pointer names no size."""

    lines: int = 0
    entries: Counter[str] = field(default_factory=Counter)
    pointer: str | None = None
    size: int | None = None


NOT_READ = Content()


def may_be_pointer(size: int) -> bool:
    """Return whether a file of this many bytes can be a pointer."""
    return _MIN_POINTER <= size < MAX_POINTER


def pointer_in(head: bytes) -> Content | None:
    """Return what the pointer says, or None if the whole content of a file is not that of a pointer."""
    if _LFS.match(head):
        size = _LFS_SIZE.search(head)
        reason = "is a Git LFS pointer, not the file. Run git lfs pull"
    elif _ANNEX.match(head):
        size = _ANNEX_SIZE.search(head)
        reason = "is a git-annex pointer, not the file. Run git annex get"
    else:
        return None
    return Content(pointer=reason, size=int(size[1]) if size else None)


class ContentReader:
    """Reads files until the deadline. Its buffer is used again for each file."""

    def __init__(self, deadline: Deadline) -> None:
        self._deadline = deadline
        self._buffer = bytearray(_BLOCK)

    def pointer(self, path: str, size: int) -> Content:
        """Return what a file says if it is a pointer, otherwise NOT_READ. Raises OSError."""
        if not may_be_pointer(size):
            return NOT_READ
        with open_regular_file(path) as file:
            return pointer_in(file.read(MAX_POINTER) or b"") or NOT_READ

    def read(self, path: str, size: int, entry: set[str]) -> Content:
        """Return the newlines of a file, as `wc -l` counts them, and the lines that match each of `entry`.

        Raises OSError, and MeasureError once the deadline is over.
        """
        with open_regular_file(path) as file:
            if may_be_pointer(size):
                if pointer := pointer_in(file.read(MAX_POINTER) or b""):
                    return pointer
                file.seek(0)
            return self._entries_of(file, entry) if entry else Content(lines=self._lines(file))

    def _lines(self, file: FileIO) -> int:
        buffer, lines = self._buffer, 0
        while size := os.readv(file.fileno(), [buffer]):
            lines += buffer.count(b"\n", 0, size)
            self._deadline.check()
        return lines

    def _entries_of(self, file: FileIO, entry: set[str]) -> Content:
        """Match line by line. Invalid UTF-8 is replaced, and a line longer than a block is matched in parts."""
        searches = [(pattern, re.compile(pattern).search) for pattern in sorted(entry)]
        matches: Counter[str] = Counter()
        lines = 0
        with BufferedReader(file, _BLOCK) as document:
            for number, raw in enumerate(iter(lambda: document.readline(_BLOCK), b"")):
                if number % _CHECK_EVERY == 0:
                    self._deadline.check()
                lines += raw.endswith(b"\n")
                line = raw.decode(errors="replace").rstrip("\r\n")
                for pattern, search in searches:
                    matches[pattern] += search(line) is not None
        return Content(lines, matches)
