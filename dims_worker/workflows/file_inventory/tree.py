"""List the paths of a tree, as the files probe walks it, and the date of the last commit of each."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Collection, Generator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import cast

from dims_worker.errors import MeasureError
from dims_worker.probes.base import Deadline, printable_path
from dims_worker.probes.changed_paths import is_never_measured
from dims_worker.probes.files.content import Content
from dims_worker.probes.files.git_answers import ignored_paths
from dims_worker.probes.files.git_listing import list_with_git
from dims_worker.probes.files.selection import Selection
from dims_worker.probes.files.tree import Tree, check_root
from dims_worker.probes.git.command import Git, GitError
from dims_worker.workflows.file_inventory.kinds import kind_by_name

_HEADER = re.compile(rb"\x01[0-9a-f]{40,64} (\d+)")
"""The header of a commit. The hash makes it different from any likely path."""
_LOG = ("-z", "--format=%x01%H %ct", "--name-only", "--relative", "--no-renames", "--no-show-signature", "--no-color")
_CHECK_EVERY = 4096
MAX_NAMES = 5
"""The number of files that are named for one reason."""


@dataclass(frozen=True, slots=True)
class LeftOut:
    """The files that a pattern leaves out: how many, how many of them are scripts or SQL, and the first of these."""

    pattern: str
    files: int
    scripts: int
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TreePaths:
    """The paths of the regular files from the root, in the order of the walk. `problems` are the folders that could not
    be read, with the reason. The other attributes are what the paths leave out (see `Selection`)."""

    paths: list[str]
    problems: list[str]
    left_out: tuple[LeftOut, ...] = ()
    links: int = 0
    not_checked_out: int = 0
    repositories: tuple[str, ...] = ()
    uninitialized: tuple[str, ...] = ()
    ignored: tuple[int, tuple[str, ...]] = (0, ())
    """How many files and whole folders git ignores, and the first of them."""


@dataclass(slots=True)
class PathList(Selection):
    """The files of some patterns, with their paths."""

    found: list[str] = field(default_factory=list)

    def add(self, path: str, status: os.stat_result, fingerprint: int, content: Content) -> None:
        """Keep the path of a file."""
        self.found.append(path)


@dataclass(slots=True)
class LeftOutFiles(Selection):
    """The files of a pattern that leaves them out, with the names of the first scripts among them."""

    scripts: int = 0
    names: list[str] = field(default_factory=list)

    def add(self, path: str, status: os.stat_result, fingerprint: int, content: Content) -> None:
        """Count a file."""
        self.count += 1
        kind = kind_by_name(path)
        if kind and kind.category in ("scripts", "sql", "tests"):
            self.scripts += 1
            if len(self.names) < MAX_NAMES:
                self.names.append(printable_path(path))


def paths_below(
    root: str,
    home: str,
    exclude: tuple[str, ...],
    deadline: Deadline,
    *,
    use_git: bool = False,
    source_exclude: tuple[str, ...] = (),
) -> TreePaths:
    """List the files below `root` in one walk, without those that match `exclude` and, with `use_git`, those that
    git ignores. Files that match `exclude` are counted. Those that match `source_exclude` are not looked at.

    A path may vanish. Raises MeasureError if the root is missing or not a folder, or `use_git` is set and git fails.
    """
    deadline.check()
    try:
        check_root(root, home)
    except (FileNotFoundError, NotADirectoryError):
        raise MeasureError(f"{printable_path(root)} does not exist") from None
    everything = PathList(("**",), exclude)
    left_out = [LeftOutFiles((pattern,)) for pattern in exclude]
    tree = Tree(root, home, source_exclude, deadline, reads=False)
    selections: list[Selection] = [everything, *left_out]
    list_with_git(tree, selections) if use_git else tree.walk(selections)
    return TreePaths(
        everything.found,
        everything.problems,
        tuple(LeftOut(each.paths[0], each.count, each.scripts, tuple(each.names)) for each in left_out if each.count),
        everything.links,
        everything.not_checked_out,
        tuple(everything.repositories),
        tuple(everything.uninitialized),
        _ignored(root, home, deadline) if use_git else (0, ()),
    )


def _ignored(root: str, home: str, deadline: Deadline) -> tuple[int, tuple[str, ...]]:
    count, names = 0, []
    for path in ignored_paths(root, deadline):
        if not is_never_measured(root, path.rstrip("/"), home):
            count += 1
            names += [printable_path(path)] if count <= MAX_NAMES else []
    return count, tuple(names)


def last_commits(
    root: str, paths: Collection[str], repositories: Collection[str], deadline: Deadline
) -> tuple[dict[str, str], str | None]:
    """Return the date (UTC) of the last commit of each path, from one pass over the history of each repository.

    `repositories` are those in the tree, as paths from the root. The second value is None, or the reason why there are
    no dates: no git, no repository, no commits.
    """
    dates, reason = _dates(root, paths, deadline)
    for folder in repositories:
        below = [path.removeprefix(f"{folder}/") for path in paths if path.startswith(f"{folder}/")]
        found, _ = _dates(f"{root}/{folder}", below, deadline)
        dates |= {f"{folder}/{path}": day for path, day in found.items()}
    return dates, reason


def _dates(root: str, paths: Collection[str], deadline: Deadline) -> tuple[dict[str, str], str | None]:
    git = Git(root, deadline)
    waiting = set(paths)
    dates: dict[str, str] = {}
    day, first = "", False
    try:
        with contextlib.closing(cast("Generator[bytes, None, None]", git.records("log", *_LOG))) as records:
            for number, record in enumerate(records):
                if number % _CHECK_EVERY == 0:
                    deadline.check()
                if header := _HEADER.fullmatch(record):
                    day, first = datetime.fromtimestamp(int(header[1]), UTC).date().isoformat(), True
                    continue
                path = os.fsdecode(record.removeprefix(b"\n") if first else record)
                first = False
                if path in waiting:
                    waiting.remove(path)
                    dates[path] = day
                    if not waiting:
                        break
    except GitError as error:
        return {}, str(error)
    return dates, None
