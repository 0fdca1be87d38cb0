"""One pass over a tree of files for many selections: by walking it, or by asking git what belongs to it."""

from __future__ import annotations

import os
import re
import stat
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from dims_worker.errors import MeasureError
from dims_worker.probes import glob
from dims_worker.probes.base import Deadline, printable_path
from dims_worker.probes.files.paths import is_never_measured
from dims_worker.probes.git.command import Git, GitFailed

_BLOCK = 1 << 18
_OFTEN = 256
"""Entries between two looks at the clock."""

_UNOPENED = re.compile(r"^warning: could not open directory '(.*)': (.*)$", re.MULTILINE)


@dataclass(slots=True)
class Selection:
    """The files of some patterns, and what a pass found out about them. One serves every metric with these
    patterns. `reads`, `entry` and `stats` say what is wanted beside the number of files: lines; lines in which
    one of these regular expressions is found; sizes and times."""

    paths: tuple[str, ...]
    exclude: tuple[str, ...] = ()
    reads: bool = False
    entry: set[str] = field(default_factory=set)
    stats: bool = False

    count: int = 0
    lines: int = 0
    entries: Counter[str] = field(default_factory=Counter)
    """Lines by the regular expression of `entry` that is found in them."""
    bytes: int = 0
    newest: int | None = None
    """Nanoseconds since 1970, like `oldest`."""
    oldest: int | None = None
    vanished: int = 0
    literals: set[str] = field(default_factory=set)
    """The files found that a pattern without a wildcard names."""
    troubles: list[str] = field(default_factory=list)
    """Why files may be missing from all of these numbers."""
    unread: list[str] = field(default_factory=list)
    """Why lines are missing."""

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
        """Whether a file below the folder could belong to the selection."""
        return self.reaches(folder) and not self.covers(folder)


Selections = Sequence[Selection]


@dataclass(slots=True)
class Tree:
    """The folder `root` and how far a pass may look: not into `home`, nor at what `exclude` matches."""

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

    def walk(self, everyone: Selections) -> None:
        """Fill the selections from the regular files of the tree; symbolic links are not followed.

        Raises MeasureError where the root itself has vanished.
        """
        covered = glob.cover(self.exclude)
        waiting: list[tuple[str, Selections]] = [("", everyone)]
        while waiting:
            folder, active = waiting.pop()
            for entry, path in self._entries(folder, active):
                try:
                    is_folder, is_file = (
                        entry.is_dir(follow_symlinks=False),
                        entry.is_file(follow_symlinks=False),
                    )
                except OSError as error:
                    _trouble(active, path, error)
                    continue
                if is_file:
                    self._walked(entry, path, active)
                elif is_folder and not covered(path) and f"{self._base}/{path}" != self.home:
                    below = [each for each in active if each.enters(path)]
                    if below:
                        waiting.append((path, below))

    def _entries(self, folder: str, active: Selections) -> Iterator[tuple[os.DirEntry[str], str]]:
        """The entries of a folder and their paths from the root. One that cannot be read is a trouble."""
        self.deadline.check()
        before = f"{folder}/" if folder else ""
        try:
            with os.scandir(f"{self._base}/{folder}") as entries:
                for number, entry in enumerate(entries, start=1):
                    if number % _OFTEN == 0:
                        self.deadline.check()
                    if entry.name != ".git":
                        yield entry, before + entry.name
        except FileNotFoundError:
            if not folder:  # an empty tree would be a lie
                raise MeasureError(f"{printable_path(self.root)} vanished while it was measured") from None
            _vanished(active)
        except OSError as error:
            _trouble(active, folder or self.root, error)

    def _walked(self, entry: os.DirEntry[str], path: str, active: Selections) -> None:
        wanted = [each for each in active if each.matches(path)]
        if not wanted or self._excluded(path):
            return
        try:
            asked = any(each.stats for each in wanted)
            status = entry.stat(follow_symlinks=False) if asked else None
        except FileNotFoundError:
            _vanished(wanted)
        except OSError as error:
            _trouble(wanted, path, error)
        else:
            self._take(path, wanted, status)

    def listed_by_git(self, everyone: Selections) -> None:
        """Fill the selections from the files that git tracks, or would: all but what it ignores.

        Raises MeasureError where the root is in no repository, or git is missing.
        """
        git = Git(self.root, self.deadline)
        folders: dict[str, Selections] = {"": everyone}
        seen: set[bytes] = set()
        try:
            for raw in git.records("ls-files", "-z", "--cached", "--others", "--exclude-standard"):
                if raw in seen:  # a conflict has up to three entries
                    continue
                seen.add(raw)
                if len(seen) % _OFTEN == 0:
                    self.deadline.check()
                path = os.fsdecode(raw)
                active = self._folder(path.rpartition("/")[0], folders)
                wanted = [each for each in active if each.matches(path)]
                if wanted and not self._excluded(path) and not is_never_measured(self.root, path, self.home):
                    self._listed(path, wanted)
        except GitFailed as error:
            raise MeasureError(f"{error} (`ignore: gitignore` asks git; without it all files count)") from None
        self._unopened(git, everyone)

    def _folder(self, folder: str, known: dict[str, Selections]) -> Selections:
        """The selections that want to hear of a folder's files: none where it, or one above, is no folder
        but a symbolic link put in its place, which the index does not know of."""
        if folder not in known:
            above = self._folder(folder.rpartition("/")[0], known)
            active: Selections = [each for each in above if each.enters(folder)]
            try:
                if active and not stat.S_ISDIR(os.lstat(f"{self._base}/{folder}").st_mode):
                    active = ()
            except (FileNotFoundError, NotADirectoryError):
                active = ()
            except OSError as error:
                _trouble(active, folder, error)
                active = ()
            known[folder] = active
        return known[folder]

    def _listed(self, path: str, wanted: Selections) -> None:
        try:
            status = os.lstat(f"{self._base}/{path}")
        except FileNotFoundError:
            return  # deleted, and not yet for git
        except OSError as error:
            _trouble(wanted, path, error)
            return
        if stat.S_ISREG(status.st_mode):
            self._take(path, wanted, status)

    def _unopened(self, git: Git, everyone: Selections) -> None:
        """Git only warns of a folder that it cannot read, by its path from the repository's top."""
        found = _UNOPENED.findall(git.warnings)
        if not found:
            return
        above = git.text("rev-parse", "--show-prefix")
        for path, reason in found:
            folder = path.removeprefix(above).rstrip("/")
            for each in everyone:
                if not folder or not path.startswith(above) or each.enters(folder):
                    each.troubles.append(f"{folder or self.root}: {reason}")

    def _take(self, path: str, wanted: Selections, status: os.stat_result | None) -> None:
        """Add one file to the selections; it is opened once, whoever wants its lines."""
        lines, entries = 0, Counter[str]()
        entry = {pattern for each in wanted for pattern in each.entry}
        if entry or any(each.reads for each in wanted):
            try:
                lines, entries = self._read(f"{self._base}/{path}", entry)
            except FileNotFoundError:
                _vanished(wanted)
                return
            except OSError as error:
                for each in wanted:
                    each.unread.append(_said(path, error))
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
        """The newline bytes of a file, as `wc -l` counts them, and the lines in which each of `entry` is found."""
        # What has become a symbolic link or a pipe meanwhile is neither followed nor waited for
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            return self._entries_of(file, entry) if entry else (self._lines(file), Counter())
        finally:
            os.close(file)

    def _lines(self, file: int) -> int:
        buffer, lines = self._buffer, 0
        while size := os.readv(file, [buffer]):
            lines += buffer.count(b"\n", 0, size)
            self.deadline.check()
        return lines

    def _entries_of(self, file: int, entry: set[str]) -> tuple[int, Counter[str]]:
        """Bytes that are no UTF-8 stand for one odd character each; a line without end is looked at in parts."""
        searches = [(pattern, re.compile(pattern).search) for pattern in sorted(entry)]
        found: Counter[str] = Counter()
        lines = 0
        with os.fdopen(file, "rb", buffering=_BLOCK, closefd=False) as document:
            for number, raw in enumerate(iter(lambda: document.readline(_BLOCK), b"")):
                if number % _OFTEN == 0:
                    self.deadline.check()
                lines += raw.endswith(b"\n")
                line = raw.decode(errors="replace").rstrip("\r\n")
                for pattern, search in searches:
                    found[pattern] += search(line) is not None
        return lines, found


def _said(path: str, error: OSError) -> str:
    return f"{printable_path(path)}: {error.strerror or error}"


def _trouble(selections: Selections, path: str, error: OSError) -> None:
    for each in selections:
        each.troubles.append(_said(path, error))


def _vanished(selections: Selections) -> None:
    for each in selections:
        each.vanished += 1
