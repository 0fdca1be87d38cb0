"""A folder under watchdog's eyes (inotify, FSEvents), for as long as it is there; and again when it comes back.

What watchdog keeps to itself is noticed here: a thread of it that died, a queue that overflowed, a folder below
that it could not watch. `watchdog` is imported when watching starts.
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

_REFUSED = 10.0  # seconds until a folder that could not be watched is tried again
_LIMIT = "on Linux, see fs.inotify.max_user_watches"


class SeenChange(Protocol):
    """What is used of watchdog's FileSystemEvent."""

    event_type: str
    is_directory: bool
    src_path: bytes | str
    dest_path: bytes | str


class WatchedFolder:
    """A folder that is watched. `saw` is called with what happened, or with None: that is not known."""

    def __init__(self, folder: Path, saw: Callable[[SeenChange | None], None], *, recursive: bool) -> None:
        self.folder = folder
        self.root = os.path.realpath(folder)
        self.saw = saw
        self._recursive = recursive
        self._observer: Any = None
        self._threads: set[threading.Thread] = set()
        self._queues: set[Path] = set()
        self._identity: tuple[int, int] | None = None
        self._anew = False
        self._reason = ""
        self._not_before = 0.0

    def dispatch(self, event: SeenChange) -> None:
        """Called by watchdog, in a thread of its own."""
        self.saw(event)

    def look(self) -> bool:
        """Watch the folder, if it is there; whether that began anew: what changed before is not known.

        It begins anew as well where a thread of watchdog has died, which leaves it deaf: one ends when its folder
        is deleted, though another may have come in its place.
        """
        identity = self._identify()
        anew = self._anew or not all(thread.is_alive() for thread in self._threads)
        if (identity == self._identity and not anew) or time.monotonic() < self._not_before:
            return False
        self._anew = False
        self.close()
        if identity is None:
            log.warning("%s is not there; it is watched once it is", self.folder)
            return False
        try:
            self._open()
        except OSError as error:
            self._complain(f"cannot be watched, and is tried again: {error} ({_LIMIT})")
            self._not_before = time.monotonic() + _REFUSED
            return False
        self._identity, self._reason = identity, ""
        return True

    def begin_anew(self) -> None:
        """Have the next `look` begin anew. From any thread."""
        self._anew = True

    def blind(self) -> bool:
        """Whether folders below are not watched, which watchdog does not say. Always False where /proc is not."""
        if not (self._recursive and self._unwatched()):
            return False
        time.sleep(0.5)  # one that came a moment ago is watched by now
        if not (lacks := self._unwatched()):
            return False
        self._complain(f"is not watched as a whole: {lacks:,} folders in it are not ({_LIMIT})")
        return True

    def close(self) -> None:
        """Stop watching."""
        observer, self._observer, self._identity = self._observer, None, None
        self._threads, self._queues = set(), set()
        if observer is not None:
            observer.stop()
            if observer.ident is not None:  # it may not have come so far
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
        ]  # whoever only reads, such as a measurement, does not fill the queue
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
            found = self.folder.stat()
        except OSError:
            return None
        return (found.st_dev, found.st_ino)

    def _complain(self, reason: str) -> None:
        if reason != self._reason:
            self._reason = reason
            log.error("%s %s", self.folder, reason)


def _queues() -> set[Path]:
    """This process's queues of inotify: the files that tell what each of them watches."""
    found = set()
    with contextlib.suppress(OSError):  # no /proc
        for number in os.listdir("/proc/self/fd"):  # noqa: PTH208
            with contextlib.suppress(OSError):
                if "inotify" in os.readlink(f"/proc/self/fd/{number}"):  # noqa: PTH115
                    found.add(Path(f"/proc/self/fdinfo/{number}"))
    return found


@contextlib.contextmanager
def overflows(lost: Callable[[], None]) -> Iterator[None]:
    """Call `lost` when the kernel dropped notices: watchdog tells that to its log, and nobody else."""

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if "overflow" in record.getMessage():
                lost()

    logger, listener = logging.getLogger("watchdog.observers.inotify_c"), Listener(logging.WARNING)
    level = logger.level
    logger.setLevel(min(logger.getEffectiveLevel(), logging.WARNING))  # whatever else is to be logged
    logger.addHandler(listener)
    try:
        yield
    finally:
        logger.removeHandler(listener)
        logger.setLevel(level)
