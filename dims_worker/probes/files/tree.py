"""One pass over a tree of files for many selections: walk it, or let git list its files."""

from __future__ import annotations

import os
import re
import stat
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from io import BufferedReader, FileIO

from dims_worker.errors import MeasureError
from dims_worker.probes import glob
from dims_worker.probes.base import Deadline, open_regular_file, printable_path
from dims_worker.probes.changed_paths import is_never_measured
from dims_worker.probes.git.command import Git, GitError

_BLOCK = 1 << 18
_CHECK_EVERY = 256
"""The number of entries between two checks of the deadline."""

_UNOPENED = re.compile(r"^warning: could not open directory '(.*)': (.*)$", re.MULTILINE)


@dataclass(slots=True)
class Selection:
    """The files of some patterns, and the totals of a pass. One selection serves all metrics with its patterns.

    A pass always counts files. `reads` requests lines, `entry` the lines that match these regular expressions,
    and `stats` sizes and times.
    """

    paths: tuple[str, ...]
    exclude: tuple[str, ...] = ()
    reads: bool = False
    entry: set[str] = field(default_factory=set)
    stats: bool = False

    count: int = 0
    lines: int = 0
    entries: Counter[str] = field(default_factory=Counter)
    """The number of lines that match each regular expression of `entry`."""
    bytes: int = 0
    newest: int | None = None
    """In nanoseconds since 1970, like `oldest`."""
    oldest: int | None = None
    vanished: int = 0
    literals: set[str] = field(default_factory=set)
    """The counted files that a pattern without a wildcard names."""
    problems: list[str] = field(default_factory=list)
    """The reasons why files may be missing from all totals."""
    unread: list[str] = field(default_factory=list)
    """The reasons why lines are missing."""

    matches: glob.Test = field(init=False)
    covers: glob.Test = field(init=False)
    reaches: glob.Test = field(init=False)
    named: frozenset[str] = field(init=False)

    def __post_init__(self) -> None:
        self.matches = glob.matcher(self.paths, self.exclude)
        self.reaches = glob.reach(self.paths)
        self.covers = glob.cover(self.exclude)
        self.named = frozenset("/".join(glob.parts(path)) for path in self.paths if glob.is_literal(path))

    def enters(self, folder: str) -> bool:
        """Return whether a file below the folder can belong to the selection."""
        return self.reaches(folder) and not self.covers(folder)


Selections = Sequence[Selection]


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
    """The folder `root`, without `home` and what `exclude` matches."""

    root: str
    home: str
    exclude: tuple[str, ...]
    deadline: Deadline
    _buffer: bytearray = field(default_factory=lambda: bytearray(_BLOCK))
    _base: str = field(init=False)
    _excluded: glob.Test = field(init=False)

    def __post_init__(self) -> None:
        self._base = self.root.rstrip("/")
        self._excluded = glob.matcher(self.exclude)

    def walk(self, selections: Selections) -> None:
        """Fill the selections from the regular files of the tree. Symbolic links are not followed.

        Raises MeasureError if the root itself has vanished.
        """
        covered = glob.cover(self.exclude)
        waiting: list[tuple[str, Selections]] = [("", selections)]
        while waiting:
            folder, active = waiting.pop()
            for entry, path in self._entries(folder, active):
                try:
                    is_folder, is_file = entry.is_dir(follow_symlinks=False), entry.is_file(follow_symlinks=False)
                except OSError as error:
                    _add_problem(active, path, error)
                    continue
                if is_file:
                    self._add_walked(entry, path, active)
                elif is_folder and not covered(path) and f"{self._base}/{path}" != self.home:
                    below = [each for each in active if each.enters(path)]
                    if below:
                        waiting.append((path, below))

    def _entries(self, folder: str, active: Selections) -> Iterator[tuple[os.DirEntry[str], str]]:
        """Yield the entries of a folder and their paths from the root. Record a problem if it cannot be read."""
        self.deadline.check()
        before = f"{folder}/" if folder else ""
        try:
            with os.scandir(f"{self._base}/{folder}") as entries:
                for number, entry in enumerate(entries, start=1):
                    if number % _CHECK_EVERY == 0:
                        self.deadline.check()
                    if entry.name != ".git":
                        yield entry, before + entry.name
        except FileNotFoundError:
            if not folder:  # an empty tree would be a false 0
                raise MeasureError(f"{printable_path(self.root)} disappeared during the scan") from None
            _count_vanished(active)
        except OSError as error:
            _add_problem(active, folder or self.root, error)

    def _add_walked(self, entry: os.DirEntry[str], path: str, active: Selections) -> None:
        wanted = [each for each in active if each.matches(path)]
        if not wanted or self._excluded(path):
            return
        try:
            needs_stat = any(each.stats for each in wanted)
            status = entry.stat(follow_symlinks=False) if needs_stat else None
        except FileNotFoundError:
            _count_vanished(wanted)
        except OSError as error:
            _add_problem(wanted, path, error)
        else:
            self._add_file(path, wanted, status)

    def list_with_git(self, selections: Selections) -> None:
        """Fill the selections from all files that git does not ignore, tracked or not.

        Raises MeasureError if the root is in no repository, or git is missing.
        """
        git = Git(self.root, self.deadline)
        folders: dict[str, Selections] = {"": selections}
        seen: set[bytes] = set()
        try:
            for raw in git.records("ls-files", "-z", "--cached", "--others", "--exclude-standard"):
                if raw in seen:  # a conflict has up to three entries
                    continue
                seen.add(raw)
                if len(seen) % _CHECK_EVERY == 0:
                    self.deadline.check()
                path = os.fsdecode(raw)
                active = self._folder(path.rpartition("/")[0], folders)
                wanted = [each for each in active if each.matches(path)]
                if wanted and not self._excluded(path) and not is_never_measured(self.root, path, self.home):
                    self._listed(path, wanted)
        except GitError as error:
            raise MeasureError(f"{error} (`ignore: gitignore` needs git. Remove it to count all files)") from None
        self._note_unopened_folders(git, selections)

    def _folder(self, folder: str, known: dict[str, Selections]) -> Selections:
        """Return the selections that a folder's files can belong to. None do if the folder, or one above it, was
        replaced with a symbolic link, which the index of git does not show."""
        if folder not in known:
            above = self._folder(folder.rpartition("/")[0], known)
            active: Selections = [each for each in above if each.enters(folder)]
            try:
                if active and not stat.S_ISDIR(os.lstat(f"{self._base}/{folder}").st_mode):
                    active = ()
            except (FileNotFoundError, NotADirectoryError):
                active = ()
            except OSError as error:
                _add_problem(active, folder, error)
                active = ()
            known[folder] = active
        return known[folder]

    def _listed(self, path: str, wanted: Selections) -> None:
        try:
            status = os.lstat(f"{self._base}/{path}")
        except FileNotFoundError:
            return  # deleted, but still in the index
        except OSError as error:
            _add_problem(wanted, path, error)
            return
        if stat.S_ISREG(status.st_mode):
            self._add_file(path, wanted, status)

    def _note_unopened_folders(self, git: Git, selections: Selections) -> None:
        """Record the folders that git could not read. It only warns, with paths from the top of the repository."""
        unopened = _UNOPENED.findall(git.warnings)
        if not unopened:
            return
        prefix = git.text("rev-parse", "--show-prefix")
        for path, reason in unopened:
            folder = path.removeprefix(prefix).rstrip("/")
            for each in selections:
                if not folder or not path.startswith(prefix) or each.enters(folder):
                    each.problems.append(f"{folder or self.root}: {reason}")

    def _add_file(self, path: str, wanted: Selections, status: os.stat_result | None) -> None:
        """Add one file to the selections. It is opened once for all of them."""
        lines, entries = 0, Counter[str]()
        entry = {pattern for each in wanted for pattern in each.entry}
        if entry or any(each.reads for each in wanted):
            try:
                lines, entries = self._read(f"{self._base}/{path}", entry)
            except FileNotFoundError:
                _count_vanished(wanted)
                return
            except OSError as error:
                for each in wanted:
                    each.unread.append(_reason(path, error))
        for each in wanted:
            each.count += 1
            each.lines += lines
            for pattern in each.entry:
                each.entries[pattern] += entries[pattern]
            if path in each.named:
                each.literals.add(path)
            if status is not None:
                changed = status.st_mtime_ns
                each.bytes += status.st_size
                if each.newest is None or changed > each.newest:
                    each.newest = changed
                if each.oldest is None or changed < each.oldest:
                    each.oldest = changed

    def _read(self, path: str, entry: set[str]) -> tuple[int, Counter[str]]:
        """Return the newlines of a file, as `wc -l` counts them, and the lines that match each of `entry`."""
        with open_regular_file(path) as file:
            return self._entries_of(file, entry) if entry else (self._lines(file), Counter())

    def _lines(self, file: FileIO) -> int:
        buffer, lines = self._buffer, 0
        while size := os.readv(file.fileno(), [buffer]):
            lines += buffer.count(b"\n", 0, size)
            self.deadline.check()
        return lines

    def _entries_of(self, file: FileIO, entry: set[str]) -> tuple[int, Counter[str]]:
        """Match line by line. Invalid UTF-8 is replaced, and a line longer than a block is matched in parts."""
        searches = [(pattern, re.compile(pattern).search) for pattern in sorted(entry)]
        matches: Counter[str] = Counter()
        lines = 0
        with BufferedReader(file, _BLOCK) as document:
            for number, raw in enumerate(iter(lambda: document.readline(_BLOCK), b"")):
                if number % _CHECK_EVERY == 0:
                    self.deadline.check()
                lines += raw.endswith(b"\n")
                line = raw.decode(errors="replace").rstrip("\r\n")
                for pattern, search in searches:
                    matches[pattern] += search(line) is not None
        return lines, matches


def _reason(path: str, error: OSError) -> str:
    return f"{printable_path(path)}: {error.strerror or error}"


def _add_problem(selections: Selections, path: str, error: OSError) -> None:
    for each in selections:
        each.problems.append(_reason(path, error))


def _count_vanished(selections: Selections) -> None:
    for each in selections:
        each.vanished += 1
