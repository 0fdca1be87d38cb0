"""The spool keeps events on disk until the broker has them. Like a maildir, it survives crashes.

    FOLDER/tmp/      a file is written and synced here first
    FOLDER/new/      then renamed to here: these files are complete, and wait to be sent
    FOLDER/bad/      files that could not be read, so that they block nothing
    FOLDER/lock      held (flock) by the process that sends
    FOLDER/full      exists while the spool accepts no more events (see `dims_producers.spool_limit`)

A file of `new/` ends in `.json` (an event) or `.git` (a note, which a git hook writes faster than an event). It is
removed only after the broker has accepted it. A crash in between sends it twice, with the same id. A note that several
calls of a hook share is renamed before it is read (see `dims_producers.git_notes`). Format:
https://cr.yp.to/proto/maildir.html, and files keep their order of arrival.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import stat
import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from dims_producers.file_owner import give_to_owner, make_folder
from dims_producers.git_notes import SHARED, claim_shared, is_covered, read_notes
from dims_producers.publish import publish
from dims_producers.spool_file import Reader, SpoolFile, read_events
from dims_producers.spool_limit import MAX_BYTES, MAX_FILES, SpoolLimit
from dims_worker.errors import BrokerUnreachable, ConfigError, EventError
from dims_worker.events import Event

log = logging.getLogger(__name__)

T = TypeVar("T")

FULL = "full"
"""The file that exists while the spool accepts no more events."""

BATCH = 1000
"""The most events in one round trip."""

BATCH_BYTES = 1024 * 1024
"""The most bytes in one round trip, unless one event is larger. A slow network carries this within a timeout."""

_STALE_SECONDS = 36 * 3600  # as long as a maildir keeps an incomplete file


READERS: dict[str, Reader] = {".json": read_events, ".git": read_notes}
"""The reader of each kind of file, by suffix."""


class Spool:
    """A spool in `folder` (`$DIMS_HOME/spool`). The first `put` creates the folder."""

    def __init__(self, folder: Path, *, max_files: int = MAX_FILES, max_bytes: int = MAX_BYTES) -> None:
        self.folder = folder
        self.new = folder / "new"
        self.tmp = folder / "tmp"
        self.bad = folder / "bad"
        self._limit = SpoolLimit(folder / FULL, (self.new, self.bad), max_files, max_bytes)

    def __len__(self) -> int:
        """Return how many files wait to be sent."""
        return len(self._waiting())

    def holds_notes(self) -> bool:
        """Return whether a note of changed refs waits for one that says more (see `hold` of `flush`)."""
        return any(name.startswith(SHARED) for name in self._waiting())

    def _waiting(self) -> list[str]:
        try:
            with os.scandir(self.new) as entries:
                return [each.name for each in entries if not each.name.startswith(".") and not is_covered(each)]
        except FileNotFoundError:
            return []

    def put(self, event: Event) -> Path:
        """Store `event`. Once this returns, the event survives a crash and a power cut.

        Raises OSError if the event is not stored: SpoolFull if too much waits, else the disk's reason.
        """
        self.make()
        raw = event.to_json().encode()
        self._limit.check(len(raw))
        name = f"{time.time_ns():020d}-{os.getpid()}-{uuid.uuid4().hex[:8]}.json"
        draft, path = self.tmp / name, self.new / name
        try:
            with draft.open("xb") as file:
                give_to_owner(file.fileno(), self.folder)
                file.write(raw)
                file.flush()
                os.fsync(file.fileno())
            draft.rename(path)
            _sync_folder(self.new)
        except OSError:
            for left in (draft, path):
                with contextlib.suppress(OSError):
                    left.unlink(missing_ok=True)
            raise
        return path

    def make(self) -> None:
        """Create the folders that are missing."""
        for folder in (self.new, self.tmp):
            make_folder(folder)

    def flush(self, send: Callable[[Sequence[Event]], object], *, wait: float = 5.0, hold: float = 0.0) -> int:
        """Send the waiting events in their order of arrival, and return how many were sent.

        One process sends at a time. Files that cannot be read are moved to `bad/`, with a line in the log.

        Args:
            send: sends a batch of 1 to 1,000 events. If it raises, the batch and what follows stay in the spool, and
                `flush` raises the same error.
            wait: seconds to wait for another process that sends. After that, this returns 0.
            hold: seconds for which a note of changed refs waits in the spool, for a note that says more.
        """
        if not self.folder.is_dir():
            return 0
        sent = 0
        with self._locked(wait) as locked:
            seen: set[str] = set()
            # Repeat until there is no new file: a process that gave up waiting for the lock relies on it.
            while locked and (names := [name for name in self._in_order(hold) if name not in seen]):
                seen.update(names)
                files = filter(None, (self._load(self.new / name) for name in names))
                for group in in_batches(files, lambda file: len(file.raw)):
                    for batch in in_batches(self._events(group), lambda entry: len(entry[1].to_json().encode())):
                        send([event for _, event in batch])
                        for path, _ in batch:
                            path.unlink(missing_ok=True)
                        sent += len(batch)
            if locked:
                self._remove_stale()
        return sent

    def _in_order(self, hold: float = 0.0) -> list[str]:
        """Return the names in `new/`, oldest first (by mtime, then name), without shared notes that are younger."""
        files = []
        for listed in _names(self.new):
            with contextlib.suppress(OSError):  # sent since it was listed
                name = self._claim(listed, hold) if listed.startswith(SHARED) else listed
                if name is not None:
                    files.append(((self.new / name).lstat().st_mtime_ns, name))
        return [name for _, name in sorted(files)]

    def _claim(self, name: str, hold: float) -> str | None:
        folder = os.open(self.new, os.O_RDONLY | os.O_DIRECTORY)
        try:
            return claim_shared(folder, name, hold)
        finally:
            os.close(folder)

    def _load(self, path: Path) -> SpoolFile | None:
        try:
            status = path.lstat()
            if path.suffix not in READERS:
                self._move_to_bad(path, "it is not a file of the spool")
            elif not stat.S_ISREG(status.st_mode):
                self._move_to_bad(path, "it is not a regular file")
            elif status.st_size > BATCH_BYTES:
                self._move_to_bad(path, f"it has {status.st_size:,} bytes")
            else:
                return SpoolFile(path.name, path.read_bytes(), status.st_mtime_ns)
        except FileNotFoundError:
            return None  # sent since it was listed
        except OSError as error:  # too many open files, or a disk that fails now and then: try again later
            log.warning("cannot read %s now, so it waits: %s", path, error)
        return None

    def _events(self, files: Sequence[SpoolFile]) -> Iterator[tuple[Path, Event]]:
        """Yield the events of the files, in their order. A file without a valid event is moved to `bad/`."""
        of_suffix: dict[str, list[SpoolFile]] = defaultdict(list)
        for file in files:
            of_suffix[Path(file.name).suffix].append(file)
        read = {suffix: iter(READERS[suffix](group)) for suffix, group in of_suffix.items()}
        for file in files:
            event = next(read[Path(file.name).suffix])
            if isinstance(event, EventError):
                self._move_to_bad(self.new / file.name, event)
            elif event is not None:
                yield self.new / file.name, event

    def _move_to_bad(self, path: Path, reason: object) -> None:
        try:
            make_folder(self.bad)
            target = self.bad / path.name
            if os.path.lexists(target):
                target = self.bad / f"{path.stem}-{uuid.uuid4().hex[:8]}{path.suffix}"
            path.rename(target)
            log.warning("cannot read %s, moved to %s: %s", path.name, target, reason)
        except OSError as error:
            log.warning("cannot read %s (%s), and cannot move it: %s", path, reason, error)

    def _remove_stale(self) -> None:
        """Remove the incomplete files of writers that died from `tmp/`. Their events were never reported as stored."""
        for name in _names(self.tmp):
            with contextlib.suppress(OSError):
                if time.time() - (self.tmp / name).lstat().st_mtime > _STALE_SECONDS:
                    (self.tmp / name).unlink()
        self._limit.review()

    @contextlib.contextmanager
    def _locked(self, wait: float) -> Iterator[bool]:
        """Yield True while this thread of this process holds the lock, or False after `wait` seconds."""
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW
        with os.fdopen(os.open(self.folder / "lock", flags, 0o666), "r+b") as file:
            give_to_owner(file.fileno(), self.folder)
            yield _flock(file.fileno(), wait)  # closing the file, or the end of the process, releases the lock


def spool_and_send(event: Event, spool: Spool, url: str | None, *, timeout: float = 2.0) -> bool:
    """Store `event` in the spool, then try to send everything there. Return whether this event was sent.

    False means that it waits: the broker is unreachable, `url` is None, or another process is sending. If the spool
    does not accept the event (OSError: it or the disk is full), this sends it directly, and raises only if that fails
    too. `timeout` is that of `publish`, in seconds.
    """
    path = None
    try:
        path = spool.put(event)
    except OSError as error:
        if url is None:
            raise
        log.warning("the spool %s does not accept the event, so it is sent directly: %s", spool.folder, error)
        publish([event], url, timeout=timeout)
    if url is None:
        return False
    try:
        spool.flush(lambda events: publish(events, url, timeout=timeout), wait=2 * timeout)
    except (BrokerUnreachable, ConfigError, OSError) as error:
        log.info("events wait in %s: %s", spool.folder, error)
    return path is None or not path.exists()


def in_batches(items: Iterable[T], size: Callable[[T], int]) -> Iterator[list[T]]:
    """Yield the items in groups for one round trip: at most BATCH items, and BATCH_BYTES in total of their `size`."""
    batch: list[T] = []
    total = 0
    for item in items:
        length = size(item)
        if batch and (len(batch) == BATCH or total + length > BATCH_BYTES):
            yield batch
            batch, total = [], 0
        batch.append(item)
        total += length
    if batch:
        yield batch


def _names(folder: Path) -> list[str]:
    try:
        return [name for name in os.listdir(folder) if not name.startswith(".")]  # noqa: PTH208 - names, fast
    except FileNotFoundError:
        return []


def _flock(descriptor: int, wait: float) -> bool:
    end = time.monotonic() + wait
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= end:
                return False
            time.sleep(0.02)
        else:
            return True


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
