"""Watch folders: what changes below them becomes events, and what arrives in the spool is sent at once.

The watcher is the spool's postman as well: while its pid stands in `spool/watcher.pid` the git hook does
nothing but leave its note.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path

from dims_producers.change_batch import ChangeBatch
from dims_producers.producer_name import producer_name
from dims_producers.spool import Spool
from dims_producers.spool_sender import SpoolSender
from dims_producers.watched_folder import SeenChange, WatchedFolder, overflows
from dims_worker.errors import EventError
from dims_worker.events import FILES_CHANGED, Event

log = logging.getLogger(__name__)

PID_FILE = "watcher.pid"

_CHANGED = frozenset({"created", "modified", "attrib", "moved", "deleted", "closed"})  # not: opened, read
_ARRIVED = frozenset({"created", "moved", "closed"})
_LOOK = 1.0  # seconds between two looks at whether the folders are still there
_STOP = 0.2  # seconds within which `stop` is noticed
_BLIND = 600.0  # seconds between two looks at whether all that is in them is watched
_DISK_FULL = 5.0  # seconds until an event that the spool did not take is tried again


def watch_folders(
    folders: Mapping[str, Path],
    spool: Spool,
    send_url: Callable[[], str],
    *,
    ignored: Callable[[Path], bool],
    settle: float = 0.3,
    stop: threading.Event,
) -> None:
    """Watch `folders` (name -> folder) until `stop` is set; blocks.

    Changes of a folder are collected until nothing has changed for `settle` seconds (2 s at most), and are
    one event `dims.files.changed`; paths are relative to the folder's real path, in POSIX form, and `[]`
    (unknown) where they cannot be told: too many, a folder moved away, the folder itself gone and back.
    `ignored` is asked with an absolute path; `.git` and the home around the spool are never reported.
    `send_url` is asked for the broker's URL before each attempt and may raise DimsError. A broker that is
    away, and a folder that vanishes, are waited for. Raises OSError where the spool cannot be made.
    """
    FolderWatcher(folders, spool, send_url, ignored=ignored, settle=settle, stop=stop).run()


class FolderWatcher:
    """See `watch`. One thread works; watchdog's threads only note what they saw, and wake it."""

    def __init__(
        self,
        folders: Mapping[str, Path],
        spool: Spool,
        send_url: Callable[[], str],
        *,
        ignored: Callable[[Path], bool],
        settle: float = 0.3,
        stop: threading.Event,
    ) -> None:
        self._stop = stop
        self._wake = threading.Event()
        self._spool = spool
        self._outbox = SpoolSender(spool, send_url)
        home = os.path.realpath(spool.folder.parent)
        self._trees = [
            _WatchedTree(folder, ChangeBatch(settle), home=home, ignored=ignored, wake=self._wake)
            for folder in folders.values()
        ]
        self._post = WatchedFolder(spool.new, self._arrived, recursive=False)
        self._blind = 0.0
        self._refusal = ""

    def run(self) -> None:
        """Watch until `stop` is set."""
        # watchdog 7.1 says so, pages long, whenever a folder is found on two ways at once (`mkdir -p`); and
        # where warnings are errors, it would go deaf.
        warnings.filterwarnings("ignore", "Callback with id", RuntimeWarning)
        self._spool.make()
        watched = [self._post, *(tree.watched for tree in self._trees)]
        try:
            with overflows(self._lost):
                self._look(watched)  # what changed while nobody watched is not known: each folder says so once
                with _pid_file(self._spool.folder / PID_FILE):
                    self._loop(watched)
            # Only now, without a pid: who still saw it had left the note before this last look.
            for tree in self._trees:
                self._report(tree, None)
            self._outbox.work(time.monotonic())
        finally:
            for one in watched:
                one.close()

    def _loop(self, watched: list[WatchedFolder]) -> None:
        look = 0.0
        while not self._stop.is_set():
            now = time.monotonic()
            if now >= look:
                self._look(watched)
                look = now + _LOOK
            for tree in self._trees:
                self._report(tree, now)
            if now >= self._outbox.due():
                self._outbox.work(now)
            changes = [due for tree in self._trees if (due := tree.changes.due()) is not None]
            if self._wake.wait(max(0.0, min(now + _STOP, self._outbox.due(), *changes) - time.monotonic())):
                self._wake.clear()

    def _look(self, watched: list[WatchedFolder]) -> None:
        blind = time.monotonic() >= self._blind
        for one in watched:
            began = one.look()  # it is watched from now on, or again: who knows what happened before
            if ((began or blind) and one.blind()) or began:
                one.saw(None)
        if blind:
            self._blind = time.monotonic() + _BLIND
        with contextlib.suppress(OSError):
            self._spool.make()

    def _report(self, tree: _WatchedTree, now: float | None) -> None:
        """Put the tree's changes into the spool, if they are due at `now` (None: whatever there is)."""
        due = tree.changes.due()
        if due is None or (now is not None and now < due):
            return
        try:
            self._spool.put(files_event(tree.root, tree.changes.take(), datetime.now(UTC)))
        except EventError as error:
            log.error("the changes below %s cannot be told: %s", tree.root, error)
        except OSError as error:
            if str(error) != self._refusal:
                log.error("the spool takes no event, so it is tried again: %s", error)
            self._refusal = str(error)
            tree.changes.add(None, time.monotonic() + _DISK_FULL)
        else:
            self._refusal = ""
            self._outbox.ring(time.monotonic())

    def _arrived(self, event: SeenChange | None) -> None:
        if event is None or event.event_type in _ARRIVED:
            self._outbox.ring(time.monotonic())
            self._wake.set()

    def _lost(self) -> None:
        """The kernel dropped notices: anything may have changed, and folders may have come that nobody watches."""
        for one in (self._post, *(tree.watched for tree in self._trees)):
            one.begin_anew()


def files_event(root: str, paths: list[str], now: datetime) -> Event:
    """The event that says which `paths` below `root` changed. Raises EventError where root is not UTF-8."""
    data = {"root": root, "paths": paths}
    return Event.new(FILES_CHANGED, producer_name("watch", root), now=now, data=data)


class _WatchedTree:
    """A folder whose changes are told: notes what concerns anybody."""

    def __init__(
        self,
        folder: Path,
        changes: ChangeBatch,
        *,
        home: str,
        ignored: Callable[[Path], bool],
        wake: threading.Event,
    ) -> None:
        self.changes = changes
        self.watched = WatchedFolder(folder, self.saw, recursive=True)
        self._home = home
        self._ignored = ignored
        self._wake = wake

    @property
    def root(self) -> str:
        return self.watched.root

    def saw(self, event: SeenChange | None) -> None:
        """Note what watchdog saw; None: it does not know."""
        for path in [None] if event is None else self._concerned(event):
            if self.changes.add(path, time.monotonic()):
                self._wake.set()

    def _concerned(self, event: SeenChange) -> Iterator[str | None]:
        if event.event_type not in _CHANGED:
            return
        paths = [os.fsdecode(path) for path in (event.src_path, event.dest_path) if path]
        if not event.is_directory:
            yield from (path for path in map(self._relative, paths) if path)
        # A folder that goes takes along what nobody names; of one that comes each file is told.
        elif event.event_type in ("moved", "deleted") and any(map(self._folder_counts, paths)):
            yield None

    def _relative(self, path: str) -> str | None:
        """The path relative to the root; None where nobody wants to know of it."""
        below = Path(os.path.relpath(path, self.root))
        if below.parts[:1] == (os.pardir,) or ".git" in below.parts or Path(path).is_relative_to(self._home):
            return None
        return None if self._is_ignored(path) else below.as_posix()

    def _folder_counts(self, path: str) -> bool:
        # Patterns such as `build/` match what is in it; that it was a folder cannot be seen any more.
        return self._relative(path) is not None and self._relative(os.path.join(path, "-")) is not None  # noqa: PTH118

    def _is_ignored(self, path: str) -> bool:
        try:
            return self._ignored(Path(path))
        except Exception:
            log.exception("whether %s is ignored could not be told; it is not", path)
            return False


@contextlib.contextmanager
def _pid_file(path: Path) -> Iterator[None]:
    """Keep this process's pid in `path`, and the number of the descriptor under which it holds that file.

    So the hook can ask, with a builtin of the shell, whether this very process still lives: a pid alone
    may by now be another's.
    """
    draft = path.with_name(f"{path.name}.{os.getpid()}")
    with draft.open("w+") as file:
        text = f"{os.getpid()}\n{file.fileno()}\n"
        file.write(text)
        file.flush()
        draft.replace(path)
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                if path.read_text() == text:  # not that of a watcher which came later
                    path.unlink()
