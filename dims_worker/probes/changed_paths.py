"""Which files of a source a change concerns: paths below one root, seen from another folder."""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Sequence
from functools import lru_cache

from dims_worker.probes import glob
from dims_worker.probes.base import Change, PathsChanged, ScanContext, printable_path

IGNORE_FILE = ".gitignore"

_UNNORMALIZED = re.compile(r"(^|/)\.{0,2}(/|$)")
"""A path with an empty part, `.` or `..`."""

_STEPS_PER_PATH = 100
"""The steps for a path besides matching it: seeing it from another folder, and calls."""


@lru_cache(1024)
def resolve_folders(context: ScanContext, path: str) -> tuple[str, str]:
    """Return the folder of the source and the data directory, resolved. Cached, so not every event reads the disk."""
    return str(context.path_of(path)), _real(str(context.home))


def why_affected(
    folder: str, home: str, change: PathsChanged, patterns: tuple[str, ...], exclude: tuple[str, ...] = ()
) -> str | None:
    """Return why a change can alter what `patterns` without `exclude` match below `folder`, or None.

    `folder` is resolved. A changed path may be a folder. It concerns the patterns that name it (`docs` and
    `docs/**/*.md`). With a trailing `/` it concerns all patterns that can match below it.
    """
    seen = paths_below_folder(folder, home, change)
    if seen is None:
        return None
    if not change.paths:
        return "unknown paths changed"
    test = glob.matcher(patterns, exclude)
    for path in seen:
        if not path:
            return f"{printable_path(folder)} itself changed"
        if test(path):
            first = next(pattern for pattern in patterns if glob.matcher((pattern,))(path))
            return f"{printable_path(path)} matches {first}"
        if pattern := _pattern_below(path, patterns, exclude):
            return f"{printable_path(path)} changed, and {pattern} may match below it"
    return None


def steps_to_compare(change: Change, patterns: tuple[str, ...]) -> int:
    """Return a bound of the steps that comparing a change with patterns takes."""
    if not isinstance(change, PathsChanged):
        return 0
    return glob.steps_of(patterns, change.paths) + _STEPS_PER_PATH * len(change.paths)


@lru_cache(256)
def changed_gitignore(folder: str, home: str, change: PathsChanged) -> str | None:
    """Return the reason if a `.gitignore` that applies below `folder` is among the changed paths."""
    for path in paths_below_folder(folder, home, change) or ():
        if posixpath.basename(path) == IGNORE_FILE:
            return f"{printable_path(path)} changed"
    for path in change.paths:  # one in a folder above applies too
        place, _, name = posixpath.join(_real(change.root), path).rpartition("/")
        if name == IGNORE_FILE and f"{folder}/".startswith(f"{place}/"):
            return f"{printable_path(path)} changed"
    return None


@lru_cache(256)
def paths_below_folder(folder: str, home: str, change: PathsChanged) -> Sequence[str] | None:
    """Return the changed paths relative to `folder`, without those in `home` or a `.git`.

    "" is the folder itself or one above it. None means that no path concerns the folder, and () that the paths
    are unknown.
    """
    bridges = _rebases(folder, change)
    if not bridges:
        return None
    if not change.paths:
        return ()
    below = {
        path: None
        for rebase in bridges
        for changed in change.paths
        if (path := _rebased(rebase, changed, change.root)) is not None and not is_never_measured(folder, path, home)
    }
    return tuple(below) or None


def is_related(folder: str, change: PathsChanged) -> bool:
    """Return whether the root of the change is `folder`, contains it or is in it."""
    return bool(_rebases(folder, change))


def is_never_measured(folder: str, path: str, home: str) -> bool:
    """Return whether a path below `folder` is in a `.git` or in the data directory, which are never measured."""
    if ".git" in path and ".git" in path.split("/"):
        return True
    return f"{folder.rstrip('/')}/{path}/".startswith(f"{home}/")


def _rebases(folder: str, change: PathsChanged) -> set[tuple[str, str]]:
    # A producer may report the root as given or resolved
    roots = {change.root, _real(change.root)}
    return {rebase for root in roots if (rebase := _rebase(folder, root))}


@lru_cache(4096)
def _real(path: str) -> str:
    return os.path.realpath(path)


@lru_cache(4096)
def _rebase(folder: str, root: str) -> tuple[str, str] | None:
    """Return the prefix to remove from a path below `root`, and the one to add, to see it from `folder`."""
    inside, outside = (f"{path.rstrip('/')}/" for path in (folder, root))
    if inside.startswith(outside):
        return inside.removeprefix(outside), ""
    if outside.startswith(inside):
        return "", outside.removeprefix(inside)
    return None


def _rebased(rebase: tuple[str, str], changed: str, root: str) -> str | None:
    removed, added = rebase
    if _UNNORMALIZED.search(changed):
        changed = _normalized(changed, root)
        if changed.startswith("../"):
            return None
    if not changed:
        return added  # the root itself: as a folder, or "" if it contains the folder of the source
    if not removed:
        return added + changed
    if changed.startswith(removed):
        return changed.removeprefix(removed)
    return "" if removed.startswith(f"{changed.removesuffix('/')}/") else None


def _normalized(path: str, root: str) -> str:
    """Remove `.`, `..`, `//` and the root. A trailing `/` stays, because it marks a folder."""
    if path.startswith("/"):
        path = posixpath.relpath(path, root) + ("/" if path.endswith("/") else "")
    normalized = posixpath.normpath(path)
    if normalized == ".":
        return ""
    return "../" if normalized == ".." else normalized + ("/" if path.endswith("/") else "")


def _pattern_below(path: str, patterns: tuple[str, ...], exclude: tuple[str, ...]) -> str | None:
    """Return the pattern that could match below `path`, if a pattern or a trailing `/` says it is a folder."""
    if path in glob.folders_of(patterns):
        return next(pattern for pattern in patterns if path in glob.folders_of((pattern,)))
    folder = path.removesuffix("/")
    if folder == path or glob.cover(exclude)(folder):
        return None
    return next((pattern for pattern in patterns if glob.reach((pattern,))(folder)), None)
