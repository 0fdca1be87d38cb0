"""The paths of a tree, as the files probe walks it, and when each was last committed."""

from __future__ import annotations

import contextlib
import os
import re
import stat
from collections.abc import Collection, Generator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import cast

from dims_worker.errors import MeasureError
from dims_worker.probes.base import Deadline, printable_path
from dims_worker.probes.files.tree import Selection, Tree
from dims_worker.probes.git.command import Git, GitFailed

_HEADER = re.compile(rb"\x01[0-9a-f]{40,64} (\d+)")
"""How a commit is told from a path, which could look like anything less."""
_OFTEN = 4096


@dataclass(frozen=True, slots=True)
class TreePaths:
    """The paths of a tree's files from its root, in the walk's order; `troubles` are folders that could not be
    looked into, each with why."""

    paths: list[str]
    troubles: list[str]


def paths_below(
    root: str, home: str, exclude: tuple[str, ...], deadline: Deadline, *, ask_git: bool = False
) -> TreePaths:
    """All files below `root` but for what `exclude` matches and, where git is asked, what it ignores; one walk.

    What is listed may have gone meanwhile or be no regular file. Raises MeasureError where the root is missing
    or no folder, and where git is asked and is none there.
    """
    deadline.check()
    try:
        if not stat.S_ISDIR(os.stat(root).st_mode):  # noqa: PTH116 - a str is what the walk works with
            raise MeasureError(f"{printable_path(root)} is no folder")
    except FileNotFoundError:
        raise MeasureError(f"{printable_path(root)} does not exist") from None
    except OSError as error:
        raise MeasureError(f"{printable_path(root)}: {error.strerror}") from None
    if f"{root}/".startswith(f"{home}/"):
        raise MeasureError(f"{printable_path(root)} lies in DIMS's own home, which is never measured")
    everything = Selection(("**",), exclude)
    found: list[str] = []
    wanted = everything.matches

    def noted(path: str) -> bool:
        if wanted(path):
            found.append(path)
        return False  # the walk need not count it

    everything.matches = noted
    tree = Tree(root, home, (), deadline)
    tree.listed_by_git([everything]) if ask_git else tree.walk([everything])
    inside = f"{home}/".removeprefix(f"{root.rstrip('/')}/")
    return TreePaths([path for path in found if not path.startswith(inside)], everything.troubles)


def last_commits(root: str, paths: Collection[str], deadline: Deadline) -> tuple[dict[str, str], str | None]:
    """The date (UTC) of the last commit of each path that has one, out of one pass over the history.

    The second is why there are no such dates: no git, no repository, no commits; None where there are.
    """
    git = Git(root, deadline)
    waiting = set(paths)
    dates: dict[str, str] = {}
    plain = (
        "-z",
        "--format=%x01%H %ct",
        "--name-only",
        "--relative",
        "--no-renames",
        "--no-show-signature",
        "--no-color",
    )
    day, first = "", False
    try:
        with contextlib.closing(cast("Generator[bytes, None, None]", git.records("log", *plain))) as records:
            for number, record in enumerate(records):
                if number % _OFTEN == 0:
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
    except GitFailed as error:
        return {}, str(error)
    return dates, None
