"""The spool: events on disk, until the broker has them. Crash-safe in the manner of a maildir.

    FOLDER/tmp/      written here first, and synced
    FOLDER/new/      then renamed to here: what lies here is whole, and waits to be sent
    FOLDER/bad/      what could not be read, set aside so that it blocks nothing
    FOLDER/lock      held (flock) by the one that sends
    FOLDER/full      there while the spool takes no more events (see `dims_producers.spool_limit`)

A file of `new/` ends in `.json` (an event) or `.git` (a note of a git hook, which costs it less than an
event would). It is removed only after the broker took it; a crash in between sends it twice, under the
same id. Format: https://cr.yp.to/proto/maildir.html, with the order of arrival kept.
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

from dims_producers.git_notes import read_notes
from dims_producers.publish import publish
from dims_producers.spool_file import Reader, SpoolFile, read_events
from dims_producers.spool_limit import MAX_BYTES, MAX_FILES, SpoolLimit
from dims_worker.errors import BrokerUnreachable, ConfigError, EventError
from dims_worker.events import Event

log = logging.getLogger(__name__)

FULL = "full"
"""The file that says that the spool takes no more events."""

BATCH = 1000
"""The most events of one round trip."""

BATCH_BYTES = 1024 * 1024
"""The most bytes of one round trip (but for a single event): what a slow line carries within a timeout."""

_STALE_SECONDS = 36 * 3600  # as long as a maildir keeps what a writer left half done


READERS: dict[str, Reader] = {".json": read_events, ".git": read_notes}
"""What reads each kind of file that a spool may hold, by its suffix."""


class Spool:
    """A spool in `folder` (`$DIMS_HOME/spool`), which need not exist before the first `put`."""

    def __init__(self, folder: Path, *, max_files: int = MAX_FILES, max_bytes: int = MAX_BYTES) -> None:
        self.folder = folder
        self.new = folder / "new"
        self.tmp = folder / "tmp"
        self.bad = folder / "bad"
        self._limit = SpoolLimit(folder / FULL, (self.new, self.bad), max_files, max_bytes)

    def __len__(self) -> int:
        """How many files wait to be sent."""
        return len(_names(self.new))

    def put(self, event: Event) -> Path:
        """Keep `event`; once this returns it survives a crash and a power cut.

        Raises OSError, and then the event is not kept: SpoolFull where too much waits, else the disk's reason.
        """
        self.make()
        raw = event.to_json().encode()
        self._limit.check(len(raw))
        name = f"{time.time_ns():020d}-{os.getpid()}-{uuid.uuid4().hex[:8]}.json"
        draft, path = self.tmp / name, self.new / name
        try:
            with draft.open("xb") as file:
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
        """Make the folders, where they are missing."""
        for folder in (self.new, self.tmp):
            folder.mkdir(parents=True, exist_ok=True)

    def flush(
        self,
        send: Callable[[Sequence[Event]], object],
        *,
        wait: float = 5.0,
    ) -> int:
        """Send what waits, in the order of its arrival, and return how many events left.

        `send` takes a batch (1 to 1,000 events) and raises where it failed: then this batch and what follows
        stay, and the error is passed on. One flusher works at a time: a second waits up to `wait` seconds for the
        first, then returns 0. Files that cannot be read go to `bad/`, with a line in the log.
        """
        if not self.folder.is_dir():
            return 0
        sent = 0
        with self._locked(wait) as mine:
            seen: set[str] = set()
            # Again until nothing new has come: who gave up waiting for the lock relies on this last look.
            while mine and (names := [n for n in self._in_order() if n not in seen]):
                seen.update(names)
                for files in self._loads(names):
                    for batch in _batches(self._events(files)):
                        send([event for _, event in batch])
                        for path, _ in batch:
                            path.unlink(missing_ok=True)
                        sent += len(batch)
            if mine:
                self._sweep()
        return sent

    def _in_order(self) -> list[str]:
        """The names of `new/`, oldest first (mtime, then name)."""
        found = []
        for name in _names(self.new):
            with contextlib.suppress(OSError):  # gone since it was listed
                found.append(((self.new / name).lstat().st_mtime_ns, name))
        return [name for _, name in sorted(found)]

    def _loads(self, names: Iterable[str]) -> Iterator[list[SpoolFile]]:
        """The files, as many at once as are read together: about what one round trip takes."""
        load: list[SpoolFile] = []
        size = 0
        for name in names:
            file = self._load(self.new / name)
            if file is None:
                continue
            if load and (len(load) == BATCH or size + len(file.raw) > BATCH_BYTES):
                yield load
                load, size = [], 0
            load.append(file)
            size += len(file.raw)
        if load:
            yield load

    def _load(self, path: Path) -> SpoolFile | None:
        try:
            status = path.lstat()
            if path.suffix not in READERS:
                self._set_aside(path, "it is none of the spool's files")
            elif not stat.S_ISREG(status.st_mode):
                self._set_aside(path, "it is not a regular file")
            elif status.st_size > BATCH_BYTES:
                self._set_aside(path, f"it has {status.st_size:,} bytes")
            else:
                return SpoolFile(path.name, path.read_bytes(), status.st_mtime_ns)
        except FileNotFoundError:
            return None  # sent since it was listed
        except OSError as error:  # too many open files, a disk that stumbles: it may be read another time
            log.warning("%s cannot be read now, and waits: %s", path, error)
        return None

    def _events(self, files: Sequence[SpoolFile]) -> Iterator[tuple[Path, Event]]:
        """The events of the files, in their order; what is none is set aside."""
        of_suffix: dict[str, list[SpoolFile]] = defaultdict(list)
        for file in files:
            of_suffix[Path(file.name).suffix].append(file)
        read = {suffix: iter(READERS[suffix](group)) for suffix, group in of_suffix.items()}
        for file in files:
            event = next(read[Path(file.name).suffix])
            if isinstance(event, EventError):
                self._set_aside(self.new / file.name, event)
            elif event is not None:
                yield self.new / file.name, event

    def _set_aside(self, path: Path, reason: object) -> None:
        try:
            self.bad.mkdir(parents=True, exist_ok=True)
            target = self.bad / path.name
            if os.path.lexists(target):
                target = self.bad / f"{path.stem}-{uuid.uuid4().hex[:8]}{path.suffix}"
            path.rename(target)
            log.warning("%s could not be read and was moved to %s: %s", path.name, target, reason)
        except OSError as error:
            log.warning("%s could not be read (%s), nor set aside: %s", path, reason, error)

    def _sweep(self) -> None:
        """Remove what writers that died left in `tmp/`: nobody was ever told that it is kept."""
        for name in _names(self.tmp):
            with contextlib.suppress(OSError):
                if time.time() - (self.tmp / name).lstat().st_mtime > _STALE_SECONDS:
                    (self.tmp / name).unlink()
        self._limit.review()

    @contextlib.contextmanager
    def _locked(self, wait: float) -> Iterator[bool]:
        """True while this process, and this thread, is the one that sends; False after `wait` seconds."""
        with (self.folder / "lock").open("ab") as file:
            yield _flock(file.fileno(), wait)  # closing the file lets go of the lock, and so does dying


def spool_and_send(
    event: Event,
    spool: Spool,
    url: str | None,
    *,
    timeout: float = 2.0,
) -> bool:
    """Keep `event` in the spool, then try to send all that waits there; whether this event has left.

    False says that it waits: the broker is away, `url` is None, or another flusher is busy. `timeout`
    (seconds) is that of `publish`. Where the spool does not take the event (OSError: it is full, or the disk
    is) it is sent past it; only if that fails too does the call raise.
    """
    path = None
    try:
        path = spool.put(event)
    except OSError as error:
        if url is None:
            raise
        log.warning("the spool %s does not take the event, so it is sent at once: %s", spool.folder, error)
        publish([event], url, timeout=timeout)
    if url is None:
        return False
    try:
        spool.flush(lambda events: publish(events, url, timeout=timeout), wait=2 * timeout)
    except (BrokerUnreachable, ConfigError, OSError) as error:
        log.info("what waits in %s stays there: %s", spool.folder, error)
    return path is None or not path.exists()


def _batches(events: Iterable[tuple[Path, Event]]) -> Iterator[list[tuple[Path, Event]]]:
    batch: list[tuple[Path, Event]] = []
    size = 0
    for path, event in events:
        length = len(event.to_json().encode())
        if batch and (len(batch) == BATCH or size + length > BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append((path, event))
        size += length
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
