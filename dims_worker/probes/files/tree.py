"""One walk over a tree of files for many selections."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from dims_worker.errors import MeasureError
from dims_worker.probes import glob
from dims_worker.probes.base import Deadline, printable_path
from dims_worker.probes.files.content import NOT_READ, Content, ContentReader
from dims_worker.probes.files.selection import (
    Selections,
    add_entered,
    add_problem,
    add_vanished,
    fingerprint,
    reason_of,
)

_CHECK_EVERY = 256
"""The number of entries between two checks of the deadline."""

YOUNG = 100_000_000
"""The nanoseconds in which a second change may leave a file with the same times. Clocks of kernels tick slowly."""
COARSE = 2_000_000_000
"""The same, for file systems that keep whole seconds, or every second one."""


def check_root(root: str, home: str) -> None:
    """Raise MeasureError if `root` is not a folder, cannot be read, or is in the data directory `home`.

    Raises FileNotFoundError or NotADirectoryError if it does not exist.
    """
    try:
        mode = os.stat(root).st_mode  # noqa: PTH116 - the pass works with str
    except (FileNotFoundError, NotADirectoryError):
        raise
    except OSError as error:
        raise MeasureError(f"{printable_path(root)} cannot be read: {error.strerror}") from None
    if not stat.S_ISDIR(mode):
        raise MeasureError(f"{printable_path(root)} is not a folder: set `path` of the source to one")
    if f"{root}/".startswith(f"{home}/"):
        raise MeasureError(f"{printable_path(root)} is in the data directory of DIMS, which is never measured")


@dataclass(slots=True)
class Tree:
    """The folder `root`, without `home` and what `exclude` matches. With `reads`, a pass reads what selections need.

    A pass sees one moment, its begin, unless a folder or a file changed since then. Each change leaves a young time:
    a rename in both folders, a write in the file. So a selection is `young` if its totals may mix two moments.
    """

    root: str
    home: str
    exclude: tuple[str, ...]
    deadline: Deadline
    reads: bool = True
    base: str = field(init=False)
    excluded: glob.Test = field(init=False)
    _reader: ContentReader = field(init=False)
    _begun: int = field(init=False)
    _now: int = field(init=False)

    def __post_init__(self) -> None:
        self.base = self.root.rstrip("/")
        self.excluded = glob.matcher(self.exclude)
        self._reader = ContentReader(self.deadline)
        self._begun = self._now = time.time_ns()

    def walk(self, selections: Selections) -> None:
        """Fill the selections from the regular files of the tree. Symbolic links are not followed.

        Raises MeasureError if the root itself has vanished.
        """
        covered = glob.cover(self.exclude)
        waiting: list[tuple[str, Selections]] = [("", selections)]
        while waiting:
            folder, active = waiting.pop()
            self.refresh_time()
            add_entered(active, folder)
            for entry, path in self._entries(folder, active):
                try:
                    is_folder, is_file = entry.is_dir(follow_symlinks=False), entry.is_file(follow_symlinks=False)
                except OSError as error:
                    add_problem(active, path, error)
                    continue
                if is_file:
                    self._add_walked(entry, path, active)
                elif not is_folder:
                    if entry.is_symlink():
                        self.add_link(path, active)
                elif not covered(path) and f"{self.base}/{path}" != self.home:
                    below = [each for each in active if each.enters(path)]
                    if below:
                        waiting.append((path, below))
            self.check_folder(folder, active)

    def _entries(self, folder: str, active: Selections) -> Iterator[tuple[os.DirEntry[str], str]]:
        """Yield the entries of a folder and their paths from the root. Record a problem if it cannot be read."""
        self.deadline.check()
        before = f"{folder}/" if folder else ""
        try:
            with os.scandir(f"{self.base}/{folder}") as entries:
                for number, entry in enumerate(entries, start=1):
                    if number % _CHECK_EVERY == 0:
                        self.refresh_time()
                    if entry.name != ".git":
                        yield entry, before + entry.name
        except FileNotFoundError:
            if not folder:  # an empty tree would be a false 0
                raise MeasureError(f"{printable_path(self.root)} disappeared during the scan") from None
            self._add_vanished(active)
        except OSError as error:
            add_problem(active, folder or self.root, error)

    def _add_walked(self, entry: os.DirEntry[str], path: str, active: Selections) -> None:
        wanted = [each for each in active if each.matches(path)]
        if not wanted or self.excluded(path):
            return
        try:
            status = entry.stat(follow_symlinks=False)
        except FileNotFoundError:
            self._add_vanished(wanted)
        except OSError as error:
            add_problem(wanted, path, error)
        else:
            self.add_file(path, wanted, status)

    def _add_vanished(self, selections: Selections) -> None:
        add_vanished(selections)
        now = time.time_ns()
        _note_young(selections, now, now)

    def refresh_time(self) -> None:
        """Read the clock, with which the times of files are compared, and check the deadline."""
        self._now = time.time_ns()
        self.deadline.check()

    def check_folder(self, folder: str, active: Selections) -> None:
        """Note whether entries of a folder, which has just been listed, changed since the pass began.

        A file that moves from a folder that is not listed yet to one that is listed would not count, and one that
        moves the other way would count twice. Either way, the folder that is listed later has changed by then.
        """
        try:
            changed = os.stat(f"{self.base}/{folder}").st_mtime_ns  # noqa: PTH116 - the pass works with str
        except OSError:
            changed = time.time_ns()  # it was readable a moment ago
        _note_young(active, changed, self._begun)

    def add_link(self, path: str, active: Selections) -> None:
        """Note a symbolic link out of the tree that a selection would count, or would enter if it were a folder."""
        place = f"{self.base}/{path}"
        if f"{os.path.realpath(place)}/".startswith(f"{self.base}/"):
            return  # what it leads to counts where it is
        is_folder = os.path.isdir(place)  # noqa: PTH112 - the pass works with str
        for each in active:
            if (each.enters(path) if is_folder else each.matches(path)) and not self.excluded(path):
                each.links += 1

    def add_file(self, path: str, wanted: Selections, status: os.stat_result) -> None:
        """Add one file to the selections. It is opened once for all of them."""
        try:
            content = self._content(path, wanted, status.st_size) if self.reads else NOT_READ
        except FileNotFoundError:
            self._add_vanished(wanted)
            return
        except OSError as error:
            content = NOT_READ
            for each in wanted:
                each.unread.append(reason_of(path, error))
        number = fingerprint(path, status)
        for each in wanted:
            each.add(path, status, number, content)
        _note_young(wanted, status.st_ctime_ns, self._now)

    def _content(self, path: str, wanted: Selections, size: int) -> Content:
        place = f"{self.base}/{path}"
        entry = {pattern for each in wanted for pattern in each.entry}
        if entry or any(each.reads for each in wanted):
            return self._reader.read(place, size, entry)
        return self._reader.pointer(place, size) if any(each.sizes for each in wanted) else NOT_READ


def _note_young(selections: Selections, changed: int, begun: int) -> None:
    """Note a change since shortly before `begun`. A time in the future is not young: another change would set it to
    the present."""
    margin = YOUNG if changed % 1_000_000_000 else YOUNG + COARSE
    if changed > begun - margin and changed < time.time_ns() + margin:
        for each in selections:
            each.young_until = max(each.young_until, changed + margin)
