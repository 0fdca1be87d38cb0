"""The files of some patterns: the totals of one pass over them, and the state that these totals follow from."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b

from dims_worker.probes import glob
from dims_worker.probes.base import printable_path
from dims_worker.probes.files.content import Content

_DIGEST = 16
"""The bytes of a digest."""


@dataclass(slots=True)
class Selection:
    """The files of some patterns, and the totals of a pass. One selection serves all metrics with its patterns.

    A pass always counts files, and adds their sizes and times. `reads` requests lines, `entry` the lines that match
    these regular expressions, and `sizes` the sizes of the files that pointers represent.
    """

    paths: tuple[str, ...]
    exclude: tuple[str, ...] = ()
    reads: bool = False
    entry: set[str] = field(default_factory=set)
    sizes: bool = False

    count: int = 0
    lines: int = 0
    entries: Counter[str] = field(default_factory=Counter)
    """The number of lines that match each regular expression of `entry`."""
    bytes: int = 0
    newest: int | None = None
    """In nanoseconds since 1970, like `oldest`."""
    oldest: int | None = None
    literals: set[str] = field(default_factory=set)
    """The counted files that a pattern without a wildcard names."""
    ignored: set[str] = field(default_factory=set)
    """The files among `literals` that git ignores."""

    fingerprint: int = 0
    """The sum of the fingerprints of the counted files, so it does not depend on their order."""
    young_until: int = 0
    """The time, in nanoseconds since 1970, until which a file or a folder is so young that another change could leave
    no trace. 0 if all are old enough."""

    problems: list[str] = field(default_factory=list)
    """The reasons why files may be missing from all totals."""
    unread: list[str] = field(default_factory=list)
    """The reasons why lines are missing."""
    unsized: list[str] = field(default_factory=list)
    """The reasons why bytes are missing."""
    vanished: int = 0
    links: int = 0
    """The symbolic links out of the tree that match, or lead to a folder in which files could match."""
    pointers: int = 0
    """The counted files whose content is elsewhere, such as Git LFS pointers."""
    not_checked_out: int = 0
    """The files that a sparse checkout leaves out."""
    repositories: list[str] = field(default_factory=list)
    """The repositories in the tree whose files count too."""
    uninitialized: list[str] = field(default_factory=list)
    """The submodules without files."""
    entered: set[str] = field(default_factory=set)
    """The folders among `folders` that the pass listed."""

    matches: glob.Test = field(init=False)
    covers: glob.Test = field(init=False)
    reaches: glob.Test = field(init=False)
    named: frozenset[str] = field(init=False)
    """The files that a pattern without a wildcard names."""
    starts: frozenset[str] = field(init=False)
    """For each pattern with a wildcard, the folder that all its matches are in. "" is the root."""
    folders: frozenset[str] = field(init=False)
    """The same without the root."""

    def __post_init__(self) -> None:
        self.matches = glob.matcher(self.paths, self.exclude)
        self.reaches = glob.reach(self.paths)
        self.covers = glob.cover(self.exclude)
        self.named = frozenset("/".join(glob.parts(path)) for path in self.paths if glob.is_literal(path))
        self.starts = frozenset(glob.folder_of(path) for path in self.paths if not glob.is_literal(path))
        self.folders = self.starts - {""}

    def enters(self, folder: str) -> bool:
        """Return whether a file below the folder can belong to the selection."""
        return self.reaches(folder) and not self.covers(folder)

    def add(self, path: str, status: os.stat_result, fingerprint: int, content: Content) -> None:
        """Add one file to the totals."""
        self.count += 1
        self.fingerprint += fingerprint
        self.bytes += status.st_size if content.size is None else content.size
        self.lines += content.lines
        for pattern in self.entry:
            self.entries[pattern] += content.entries[pattern]
        if path in self.named:
            self.literals.add(path)
        changed = status.st_mtime_ns
        if self.newest is None or changed > self.newest:
            self.newest = changed
        if self.oldest is None or changed < self.oldest:
            self.oldest = changed
        if content.pointer is not None:
            self._add_pointer(path, content)

    def _add_pointer(self, path: str, content: Content) -> None:
        assert content.pointer is not None
        self.pointers += 1
        reason = f"{printable_path(path)}: {content.pointer}"
        self.unread.append(reason)
        if content.size is None:
            self.unsized.append(reason)

    def state(self, reasons: Iterable[str]) -> str:
        """Return a digest of the counted files, and of what is left out, and why. Equal states have equal readings."""
        digest = blake2b(digest_size=_DIGEST)
        digest.update(f"{self.count} {self.fingerprint} {self.links} {self.not_checked_out}".encode())
        for names in (reasons, self.problems, self.uninitialized, self.repositories, self.ignored):
            for name in sorted(names):
                digest.update(b"\0" + os.fsencode(name))
            digest.update(b"\0\0")
        return f"files-1:{digest.hexdigest()}"


Selections = Sequence[Selection]


def fingerprint(path: str, status: os.stat_result) -> int:
    """Return a number that changes whenever the file at the path does: its content, its times, or the file itself."""
    facts = f"{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns} {status.st_ino} "
    return int.from_bytes(blake2b(facts.encode() + os.fsencode(path), digest_size=_DIGEST).digest(), "big")


def add_problem(selections: Selections, path: str, error: OSError) -> None:
    """Record that files at or below a path may be missing."""
    for each in selections:
        each.problems.append(reason_of(path, error))


def add_entered(selections: Selections, folder: str) -> None:
    """Record that the pass lists a folder."""
    for each in selections:
        if folder in each.folders:
            each.entered.add(folder)


def add_vanished(selections: Selections) -> None:
    """Record that a file or folder was removed during the pass."""
    for each in selections:
        each.vanished += 1


def reason_of(path: str, error: OSError) -> str:
    return f"{printable_path(path)}: {error.strerror or error}"
