"""Watch folders: turn changes below them into events, and send what arrives in the spool at once.

While the watcher's pid is in `spool/watcher.pid`, the git hooks only write their notes and start no sender.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
import uuid
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from dims_producers.change_batch import ChangeBatch
from dims_producers.file_owner import give_to_owner
from dims_producers.git_notes import TYPES, refs_event
from dims_producers.producer_name import producer_name
from dims_producers.spool import Spool
from dims_producers.spool_sender import SpoolSender
from dims_producers.watched_folder import SeenChange, WatchedFolder, overflows
from dims_producers.watched_repository import WatchedRepository
from dims_worker.errors import EventError
from dims_worker.events import FILES_CHANGED, Event

log = logging.getLogger(__name__)

PID_FILE = "watcher.pid"

_CHANGED = frozenset({"created", "modified", "attrib", "moved", "deleted", "closed"})  # not: opened, read
_ARRIVED = frozenset({"created", "moved", "closed"})
_CHECK = 1.0  # seconds between two checks that the folders still exist
_STOP = 0.2  # seconds within which `stop` has an effect
_CHECK_ALL = 600.0  # seconds between two checks that every folder below them is watched
_DISK_FULL = 5.0  # seconds until an event that the spool did not accept is tried again


class FolderWatcher:
    """Watches `folders` (name -> folder) until `stop` is set. One thread does the work. watchdog's threads only add
    changes and wake it.

    The changes of a folder are collected until nothing has changed for `settle` seconds (2 s at most). The event has
    the folder's real path, and its paths in POSIX form. The paths are `[]` (unknown) if they are too many, if a folder
    was moved away, or if the folder itself was gone for a while. An unreachable broker and a missing folder are waited
    for.

    Args:
        ignored: called with an absolute path. `.git` and the data directory around the spool are always ignored.
        send_url: returns the broker's URL. It is called before each attempt and may raise DimsError.
        repositories: folders of git repositories, whose own spools are sent too.
        followed: folders in git repositories. A change of HEAD, a ref or the index of such a repository is an event.
    """

    def __init__(
        self,
        folders: Mapping[str, Path],
        spool: Spool,
        send_url: Callable[[], str],
        *,
        ignored: Callable[[Path], bool],
        settle: float = 0.3,
        stop: threading.Event,
        repositories: Sequence[Path] = (),
        followed: Sequence[Path] = (),
    ) -> None:
        self._stop = stop
        self._wake = threading.Event()
        self._spool = spool
        self._repositories = [
            # The event of a watched folder at the start concerns the repository too
            WatchedRepository(folder, known=any(_is_related(folder, each) for each in folders.values()))
            for folder in followed
        ]
        self._sender = SpoolSender(spool, send_url, repositories, before_send=self._on_send)
        home = os.path.realpath(spool.folder.parent)
        self._trees = [
            _WatchedTree(folder, ChangeBatch(settle), home=home, ignored=ignored, wake=self._wake)
            for folder in folders.values()
        ]
        self._spool_watch = WatchedFolder(spool.new, self._on_spool_change, recursive=False)
        self._next_full_check = 0.0
        self._last_error = ""

    def run(self) -> None:
        """Watch until `stop` is set. Raises OSError if the spool cannot be created."""
        # watchdog 7.1 warns, at length, when it finds a folder in two ways at once (`mkdir -p`). Where warnings are
        # errors, its thread would die.
        warnings.filterwarnings("ignore", "Callback with id", RuntimeWarning)
        self._spool.make()
        folders = [self._spool_watch, *(tree.watched for tree in self._trees)]
        try:
            with overflows(self._on_overflow):
                self._check(folders)  # each folder first reports an unknown change: DIMS was not watching before
                with _pid_file(self._spool.folder / PID_FILE):
                    self._loop(folders)
            # The pid file is gone. A hook that still saw it has written its note by now, so send once more.
            for tree in self._trees:
                self._store(tree, None)
            self._sender.work(time.monotonic())
        finally:
            for folder in folders:
                folder.close()

    def _loop(self, folders: list[WatchedFolder]) -> None:
        next_check = 0.0
        while not self._stop.is_set():
            now = time.monotonic()
            if now >= next_check:
                self._check(folders)
                self._follow_repositories(now)
                next_check = now + _CHECK
            for tree in self._trees:
                self._store(tree, now)
            if now >= self._sender.due():
                self._sender.work(now)
            changes = [due for tree in self._trees if (due := tree.changes.due()) is not None]
            if self._wake.wait(max(0.0, min(now + _STOP, self._sender.due(), *changes) - time.monotonic())):
                self._wake.clear()

    def _check(self, folders: list[WatchedFolder]) -> None:
        check_all = time.monotonic() >= self._next_full_check
        for folder in folders:
            started = folder.check()
            if ((started or check_all) and folder.has_unwatched_folders()) or started:
                folder.on_change(None)  # changes before now, or in an unwatched folder, are unknown
        if check_all:
            self._next_full_check = time.monotonic() + _CHECK_ALL
        with contextlib.suppress(OSError):
            self._spool.make()

    def _store(self, tree: _WatchedTree, now: float | None) -> None:
        """Store the tree's changes in the spool if they are due at `now` (None: in any case)."""
        due = tree.changes.due()
        if due is None or (now is not None and now < due):
            return
        try:
            self._spool.put(files_event(tree.root, tree.changes.take(), datetime.now(UTC)))
        except EventError as error:
            log.error("cannot report the changes below %s: %s", tree.root, error)
        except OSError as error:
            self._log_full(error)
            tree.changes.add(None, time.monotonic() + _DISK_FULL)
        else:
            self._last_error = ""
            self._sender.wake(time.monotonic())

    def _log_full(self, error: OSError) -> None:
        if str(error) != self._last_error:
            log.error("the spool accepts no event, and DIMS tries again: %s", error)
        self._last_error = str(error)

    def _follow_repositories(self, now: float) -> None:
        """Store one event for each repository whose HEAD, refs or index have changed, unless a hook has reported it."""
        for repository in self._repositories:
            if not repository.changed(now):
                continue
            root = repository.root
            try:
                self._spool.put(refs_event(root, f"refs-watch-{uuid.uuid4().hex}", datetime.now(UTC)))
            except EventError as error:
                log.error("cannot report the changes of refs in %s: %s", root, error)
            except OSError as error:
                self._log_full(error)
                continue
            for each in self._repositories:  # two folders may be in one repository
                each.reports([root])
            self._sender.wake(time.monotonic())

    def _on_send(self, events: Sequence[Event]) -> None:
        """Note that hooks have reported what changed in a repository until now."""
        roots = [event.data["root"] for event in events if event.type in TYPES.values()]
        for repository in self._repositories if roots else ():
            repository.reports(roots)

    def _on_spool_change(self, event: SeenChange | None) -> None:
        if event is None or event.event_type in _ARRIVED:
            self._sender.wake(time.monotonic())
            self._wake.set()

    def _on_overflow(self) -> None:
        """Watch all folders again: the kernel dropped events, so changes and new folders may be missing."""
        for folder in (self._spool_watch, *(tree.watched for tree in self._trees)):
            folder.reopen()


def files_event(root: str, paths: list[str], now: datetime) -> Event:
    """Return the event for changed `paths` below `root`. Raises EventError if `root` is not UTF-8."""
    data = {"root": root, "paths": paths}
    return Event.new(FILES_CHANGED, producer_name("watch", root), now=now, data=data)


def _is_related(one: Path, other: Path) -> bool:
    """Return whether one of two folders contains the other."""
    first, second = (Path(os.path.realpath(folder)) for folder in (one, other))
    return first.is_relative_to(second) or second.is_relative_to(first)


class _WatchedTree:
    """A watched folder and the batch of its relevant changes."""

    def __init__(
        self, folder: Path, changes: ChangeBatch, *, home: str, ignored: Callable[[Path], bool], wake: threading.Event
    ) -> None:
        self.changes = changes
        self.watched = WatchedFolder(folder, self.on_change, recursive=True)
        self._home = home
        self._ignored = ignored
        self._wake = wake

    @property
    def root(self) -> str:
        return self.watched.root

    def on_change(self, event: SeenChange | None) -> None:
        """Add the paths of an event of watchdog. None means that the change is unknown."""
        for path in [None] if event is None else self._paths(event):
            if self.changes.add(path, time.monotonic()):
                self._wake.set()

    def _paths(self, event: SeenChange) -> Iterator[str | None]:
        if event.event_type not in _CHANGED:
            return
        paths = [os.fsdecode(path) for path in (event.src_path, event.dest_path) if path]
        if not event.is_directory:
            yield from (path for path in map(self._relative, paths) if path)
        # No event names the files of a folder that is moved or deleted. A new folder has an event for each file.
        elif event.event_type in ("moved", "deleted") and any(map(self._folder_counts, paths)):
            yield None

    def _relative(self, path: str) -> str | None:
        """Return the path relative to the root, or None if it is ignored."""
        below = Path(os.path.relpath(path, self.root))
        if below.parts[:1] == (os.pardir,) or ".git" in below.parts or Path(path).is_relative_to(self._home):
            return None
        return None if self._is_ignored(path) else below.as_posix()

    def _folder_counts(self, path: str) -> bool:
        # Patterns such as `build/` match files inside the folder. The folder itself is gone.
        return self._relative(path) is not None and self._relative(os.path.join(path, "-")) is not None  # noqa: PTH118

    def _is_ignored(self, path: str) -> bool:
        try:
            return self._ignored(Path(path))
        except Exception:
            log.exception("cannot decide whether %s is ignored, so it is not", path)
            return False


@contextlib.contextmanager
def _pid_file(path: Path) -> Iterator[None]:
    """Write this process's pid into `path`, and the number of its descriptor of that file.

    With these a hook can check, with shell builtins only, whether this process is alive. Another process may have the
    same pid later.
    """
    draft = path.with_name(f"{path.name}.{os.getpid()}")
    with draft.open("w+") as file:
        give_to_owner(file.fileno(), path.parent)
        text = f"{os.getpid()}\n{file.fileno()}\n"
        file.write(text)
        file.flush()
        draft.replace(path)
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                if path.read_text() == text:  # it is not the file of a later watcher
                    path.unlink()
