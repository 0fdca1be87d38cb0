"""Send the notes of commits that the spool of the data directory did not accept.

A hook then writes its note into the repository's own git directory, where you can write, because you have just
committed. The process that sends may belong to another user, so it only reads complete files there, follows no
symbolic link, and removes what the broker has accepted.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import stat
from collections.abc import Callable, Sequence
from pathlib import Path

from dims_producers.git_notes import SHARED, claim_shared, is_covered, read_notes
from dims_producers.repository_paths import FOLDER, find_common
from dims_producers.spool_file import SpoolFile
from dims_worker.events import Event

log = logging.getLogger(__name__)

MAX_BYTES = 64 * 1024
"""A note that is larger than this is not one of ours."""

_BATCH = 1000


def repository_spools(repositories: Sequence[Path]) -> tuple[Path, ...]:
    """Return the spool of each repository. A folder that is in no repository has none."""
    folders = (find_common(repo) for repo in repositories)
    return tuple(dict.fromkeys(folder / FOLDER / "spool" for folder in folders if folder is not None))


def count_notes(spool: Path) -> int:
    """Return how many notes wait in the spool of a repository. Raises OSError if you may not read it."""
    try:
        return sum(1 for entry in os.scandir(spool / "new") if entry.name.endswith(".git") and not is_covered(entry))
    except FileNotFoundError:
        return 0


def send_notes(spool: Path, send: Callable[[Sequence[Event]], object], *, hold: float = 0.0) -> int:
    """Send the notes in the spool of a repository, oldest first. Return how many were sent. `hold` is as in `Spool`.

    What is not a valid note stays there, with a line in the log. Raises what `send` raises, and OSError if you may not
    read the folder or remove a note.
    """
    try:
        folder = os.open(spool / "new", os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except FileNotFoundError:
        return 0
    try:
        if not os.access(spool / "new", os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, "cannot remove what is sent", str(spool / "new"))
        names = [name for name in os.listdir(folder) if name.endswith(".git")]  # noqa: PTH208 - a descriptor
        claimed = [name for each in names[:_BATCH] if (name := _claim(folder, each, hold)) is not None]
        files = [file for name in claimed if (file := _read(folder, name)) is not None]
        files.sort(key=lambda file: (file.written, file.name))
        return _send(folder, files, send)
    finally:
        os.close(folder)


def _send(folder: int, files: Sequence[SpoolFile], send: Callable[[Sequence[Event]], object]) -> int:
    ready = []
    for file, event in zip(files, read_notes(files), strict=True):
        if isinstance(event, Event):
            ready.append((file.name, event))
        elif event is not None:
            log.warning("cannot read the note %s of a git hook, so it stays there: %s", file.name, event)
    if ready:
        send([event for _, event in ready])
    for name, _ in ready:
        with contextlib.suppress(FileNotFoundError):  # another process has sent it too. DIMS stores it once
            os.unlink(name, dir_fd=folder)
    return len(ready)


def _claim(folder: int, name: str, hold: float) -> str | None:
    """Rename a note that several calls of a hook share. Return the name to read, or None if the note waits."""
    if not name.startswith(SHARED):
        return name
    try:
        return claim_shared(folder, name, hold)
    except FileNotFoundError:  # another process has claimed it
        return None


def _read(folder: int, name: str) -> SpoolFile | None:
    try:
        descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
    except OSError as error:
        log.warning("cannot read the note %s of a git hook, so it stays there: %s", name, error)
        return None
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_size > MAX_BYTES:
            log.warning("%s in the notes of the git hooks is not a note, so it stays there", name)
            return None
        return SpoolFile(name, file.read(), status.st_mtime_ns)
