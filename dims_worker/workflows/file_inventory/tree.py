"""List the paths of a tree, as the files probe walks it, and the date of the last commit of each."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Collection, Generator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import cast

from dims_worker.errors import MeasureError
from dims_worker.probes.base import Deadline, printable_path
from dims_worker.probes.files.tree import Selection, Tree, check_root
from dims_worker.probes.git.command import Git, GitError

_HEADER = re.compile(rb"\x01[0-9a-f]{40,64} (\d+)")
"""The header of a commit. The hash makes it different from any likely path."""
_LOG = ("-z", "--format=%x01%H %ct", "--name-only", "--relative", "--no-renames", "--no-show-signature", "--no-color")
_CHECK_EVERY = 4096


@dataclass(frozen=True, slots=True)
class TreePaths:
    """The paths of the files from the root, in the order of the walk. `problems` are the folders that could not be
    read, with the reason."""

    paths: list[str]
    problems: list[str]


def paths_below(
    root: str, home: str, exclude: tuple[str, ...], deadline: Deadline, *, use_git: bool = False
) -> TreePaths:
    """List the files below `root` in one walk, without those that match `exclude` and, with `use_git`, those that
    git ignores.

    A path may be something else than a regular file, or vanish. Raises MeasureError if the root is missing or not a
    folder, or `use_git` is set and git fails.
    """
    deadline.check()
    try:
        check_root(root, home)
    except (FileNotFoundError, NotADirectoryError):
        raise MeasureError(f"{printable_path(root)} does not exist") from None
    everything = Selection(("**",), exclude)
    paths: list[str] = []
    wanted = everything.matches

    def record(path: str) -> bool:
        if wanted(path):
            paths.append(path)
        return False  # so that the walk does not count it

    everything.matches = record
    tree = Tree(root, home, (), deadline)
    tree.list_with_git([everything]) if use_git else tree.walk([everything])
    inside = f"{home}/".removeprefix(f"{root.rstrip('/')}/")
    return TreePaths([path for path in paths if not path.startswith(inside)], everything.problems)


def last_commits(root: str, paths: Collection[str], deadline: Deadline) -> tuple[dict[str, str], str | None]:
    """Return the date (UTC) of the last commit of each path, from one pass over the history.

    The second value is None, or the reason why there are no dates: no git, no repository, no commits.
    """
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
