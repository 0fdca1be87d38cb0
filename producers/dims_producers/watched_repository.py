"""Notice changes of HEAD, refs and the index of a repository by reading when git last wrote its own files.

This reads a few file times a second. It needs no notification of the kernel, so none can be lost. A linked worktree is
no special case, although its refs are in another folder than its HEAD.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from dims_producers.repository_paths import FoundRepository, find_repository

_REST = 2.0
"""The seconds without a change after which changes are reported. A hook reports them earlier, in about one second."""
_LONGEST = 5.0
"""The most seconds for which changes that never end delay an event."""

_OF_WORKTREE = ("HEAD", "index", "MERGE_HEAD", "CHERRY_PICK_HEAD", "REVERT_HEAD", "BISECT_LOG")
_OPERATIONS = ("rebase-merge", "rebase-apply", "sequencer")
_OF_REPOSITORY = ("packed-refs", "reftable/tables.list", "shallow")

FileState = tuple[str, int, int, int]
"""A file: its path, when it was written, its inode and its size."""

RepositoryFiles = frozenset[FileState]


class WatchedRepository:
    """The repository around `folder`, if there is one. Times are seconds of a monotonic clock.

    What changed before the first call of `changed` is unknown, so it reports one. With `known`, another event does.
    """

    def __init__(self, folder: Path, *, known: bool = False) -> None:
        self._folder = folder
        self._known = known
        self._root = ""
        self._reported: RepositoryFiles | None = None
        self._last: RepositoryFiles | None = None
        self._first_change: float | None = None
        self._last_change = 0.0

    @property
    def root(self) -> str:
        """The top of the worktree at the last `changed`, or "" if there was no repository."""
        return self._root

    def changed(self, now: float) -> bool:
        """Return whether to report a change: the files differ from those reported last, and are at rest."""
        files = self._files()
        if self._known:
            self._known, self._reported = False, files
        if files != self._last:
            self._last_change = now
        first, self._last = self._last is None, files
        if files == self._reported:
            self._first_change = None
            return False
        self._first_change = now if self._first_change is None else self._first_change
        due = first or now - self._last_change >= _REST or now - self._first_change >= _LONGEST
        return bool(self._root) and due

    def reports(self, roots: Sequence[str]) -> None:
        """Record that an event reports all changes until now, if it concerns this repository.

        The event must not have been sent yet. Otherwise DIMS may measure before the last change.
        """
        files = self._files()
        if self._root in roots:
            self._reported = self._last = files
            self._first_change = None

    def _files(self) -> RepositoryFiles:
        found = find_repository(self._folder)
        if found is None:
            return frozenset()
        self._root = os.path.realpath(found.top)
        return frozenset(_states(found))


def _states(found: FoundRepository) -> Iterator[FileState]:
    yield (str(found.git_dir), 0, 0, 0)
    for folder, names in ((found.git_dir, _OF_WORKTREE), (found.common, _OF_REPOSITORY)):
        yield from (state for name in names if (state := _state(str(folder / name))) is not None)
    # What git writes inside of these says nothing new
    yield from ((name, 0, 0, 0) for name in _OPERATIONS if (found.git_dir / name).exists())
    for folder in {found.git_dir, found.common}:
        yield from _refs(str(folder / "refs"))


def _refs(folder: str) -> Iterator[FileState]:
    try:
        with os.scandir(folder) as entries:
            found = list(entries)
    except OSError:  # removed since it was listed
        return
    for entry in found:
        if entry.name.endswith(".lock"):
            continue
        if entry.is_dir(follow_symlinks=False):
            yield from _refs(entry.path)
        elif (state := _state(entry.path)) is not None:
            yield state


def _state(path: str) -> FileState | None:
    try:
        status = os.lstat(path)
    except OSError:
        return None
    return (path, status.st_mtime_ns, status.st_ino, status.st_size)
