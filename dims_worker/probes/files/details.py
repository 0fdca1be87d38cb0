"""The details of a reading of files: what it leaves out, and what it counts that you may not expect."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from dims_worker.probes.base import Deadline, printable_path
from dims_worker.probes.files.git_answers import ignored_paths, ignoring_rule
from dims_worker.probes.files.selection import Selection
from dims_worker.probes.git.command import GitError

MAX_NAMES = 20
"""The number of names that a detail lists."""


def details_of(selection: Selection, *, sizes: bool) -> dict[str, Any]:
    """Return the details of a reading. `sizes` says whether its value has the sizes of files.

    Numbers: `vanished`, `symbolic_links`, `not_checked_out`, `lfs_pointers`. Names: `ignored_by_git`,
    `nested_repositories`, `submodules_not_initialized`.
    """
    details: dict[str, Any] = {
        "vanished": selection.vanished,
        "symbolic_links": selection.links,
        "not_checked_out": selection.not_checked_out,
        "lfs_pointers": selection.pointers if sizes else 0,
        "nested_repositories": _names(map(printable_path, selection.repositories)),
        "submodules_not_initialized": _names(map(printable_path, selection.uninitialized)),
    }
    return {name: value for name, value in details.items() if value}


def ignored_by_git(root: str, selection: Selection, deadline: Deadline) -> list[str]:
    """Return the files that count although git ignores them, each with the rule."""
    found = []
    for path in sorted(selection.ignored)[:MAX_NAMES]:
        folder, _, name = f"{root}/{path}".rpartition("/")
        try:
            rule = ignoring_rule(folder, name, deadline)
        except GitError as error:
            rule = str(error)
        found.append(f"{printable_path(path)} ({rule})" if rule else printable_path(path))
    return found


def ignored_matches(root: str, selection: Selection, deadline: Deadline) -> int:
    """Return how many files in the folders that the patterns name would match if git did not ignore them."""
    count = 0
    for folder in selection.folders:
        if any(folder.startswith(f"{above}/") for above in selection.folders):
            continue
        try:
            paths = ignored_paths(f"{root}/{folder}", deadline, whole_folders=False)
            count += sum(selection.matches(f"{folder}/{path}") for path in paths)
        except GitError:
            continue  # the folder is in no repository, so git ignores nothing in it
    return count


def _names(names: Iterable[str]) -> list[str]:
    """Return the first names, and how many more there are."""
    every = sorted(names)
    more = [f"and {len(every) - MAX_NAMES:,} more"] if len(every) > MAX_NAMES else []
    return every[:MAX_NAMES] + more
