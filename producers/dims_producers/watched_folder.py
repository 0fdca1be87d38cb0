"""Watch one folder with watchdog (inotify, FSEvents) while it exists, and again when it comes back.

It also detects what watchdog does not report: a thread that died, a queue that overflowed, a folder that could not be
watched. `watchdog` is imported when watching starts.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

log = logging.getLogger(__name__)

_RETRY = 10.0  # seconds until a folder that could not be watched is tried again
_LIMIT = "on Linux, see fs.inotify.max_user_watches"


class SeenChange(Protocol):
    """The part of watchdog's FileSystemEvent that DIMS uses."""

    event_type: str
    is_directory: bool
    src_path: bytes | str
    dest_path: bytes | str


class WatchedFolder:
    """A folder that is watched. `on_change` is called with each change, or with None if the change is unknown."""

    def __init__(self, folder: Path, on_change: Callable[[SeenChange | None], None], *, recursive: bool) -> None:
        self.folder = folder
        self.root = os.path.realpath(folder)
        self.on_change = on_change
        self._recursive = recursive
        self._observer: Any = None
        self._threads: set[threading.Thread] = set()
        self._queues: set[Path] = set()
        self._identity: tuple[int, int] | None = None
        self._must_reopen = False
        self._reason = ""
        self._not_before = 0.0

    def dispatch(self, event: SeenChange) -> None:
        """Receive an event from watchdog, in one of its threads."""
        self.on_change(event)

    def check(self) -> bool:
        """Watch the folder if it exists. Return whether watching has just started: earlier changes are unknown.

        It also starts again if a thread of watchdog has died, because then no more changes would arrive. A thread ends
        when its folder is deleted, even if another folder replaces it.
        """
        identity = self._identify()
        reopen = self._must_reopen or not all(thread.is_alive() for thread in self._threads)
        if (identity == self._identity and not reopen) or time.monotonic() < self._not_before:
            return False
        self._must_reopen = False
        self.close()
        if identity is None:
            log.warning("%s does not exist. DIMS watches it once it does", self.folder)
            return False
        try:
            self._open()
        except OSError as error:
            self._log_error(f"cannot be watched: {error} ({_LIMIT}). DIMS tries again")
            self._not_before = time.monotonic() + _RETRY
            return False
        self._identity, self._reason = identity, ""
        return True

    def reopen(self) -> None:
        """Make the next `check` start to watch again. Call it from any thread."""
        self._must_reopen = True

    def has_unwatched_folders(self) -> bool:
        """Return whether some folders below are not watched. Always False without /proc."""
        if not (self._recursive and self._unwatched()):
            return False
        time.sleep(0.5)  # a new folder is watched by then
        if not (count := self._unwatched()):
            return False
        self._log_error(f"is not completely watched: {count:,} folders in it are not ({_LIMIT})")
        return True

    def close(self) -> None:
        """Stop watching."""
        observer, self._observer, self._identity = self._observer, None, None
        self._threads, self._queues = set(), set()
        if observer is not None:
            observer.stop()
            if observer.ident is not None:  # it has not started if opening failed
                observer.join()

    def _open(self) -> None:
        from watchdog import events
        from watchdog.observers import Observer

        self.root = os.path.realpath(self.folder)
        threads, queues = set(threading.enumerate()), _queues()
        self._observer = Observer()
        changes = [
            *(events.FileCreatedEvent, events.FileModifiedEvent, events.FileAttribEvent, events.FileClosedEvent),
            *(events.FileMovedEvent, events.FileDeletedEvent),
            *(events.DirCreatedEvent, events.DirMovedEvent, events.DirDeletedEvent),
        ]  # without the events of a program that only reads, such as a measurement, which would fill the queue
        self._observer.schedule(self, self.root, recursive=self._recursive, event_filter=changes)
        self._observer.start()
        self._threads, self._queues = set(threading.enumerate()) - threads, _queues() - queues

    def _unwatched(self) -> int:
        try:
            watches = sum((queue.read_text().count("inotify wd:")) for queue in self._queues)
        except OSError:
            return 0
        return max(0, sum(1 for _ in os.walk(self.root)) - watches) if self._queues else 0

    def _identify(self) -> tuple[int, int] | None:
        try:
            status = self.folder.stat()
        except OSError:
            return None
        return (status.st_dev, status.st_ino)

    def _log_error(self, reason: str) -> None:
        if reason != self._reason:
            self._reason = reason
            log.error("%s %s", self.folder, reason)


def _queues() -> set[Path]:
    """Return the files of this process's inotify queues. Each one lists what its queue watches."""
    files = set()
    with contextlib.suppress(OSError):  # no /proc
        for number in os.listdir("/proc/self/fd"):  # noqa: PTH208
            with contextlib.suppress(OSError):
                if "inotify" in os.readlink(f"/proc/self/fd/{number}"):  # noqa: PTH115
                    files.add(Path(f"/proc/self/fdinfo/{number}"))
    return files


@contextlib.contextmanager
def overflows(on_overflow: Callable[[], None]) -> Iterator[None]:
    """Call `on_overflow` when the kernel dropped events. watchdog only writes this to its log."""

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if "overflow" in record.getMessage():
                on_overflow()

    logger, listener = logging.getLogger("watchdog.observers.inotify_c"), Listener(logging.WARNING)
    level = logger.level
    logger.setLevel(min(logger.getEffectiveLevel(), logging.WARNING))  # the listener needs the warnings
    logger.addHandler(listener)
    try:
        yield
    finally:
        logger.removeHandler(listener)
        logger.setLevel(level)
