"""Which files of a source's folder a change is about: paths below one root, seen from another folder."""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Sequence
from functools import lru_cache

from dims_worker.probes import glob
from dims_worker.probes.base import PathsChanged, ScanContext, printable_path

IGNORE_FILE = ".gitignore"

_ODD = re.compile(r"(^|/)\.{0,2}(/|$)")
"""A path with an empty part, `.` or `..`."""


@lru_cache(1024)
def resolve_places(around: ScanContext, path: str) -> tuple[str, str]:
    """The source's folder and DIMS's home, resolved; the disk is asked once, not for every event."""
    return str(around.path_of(path)), _real(str(around.home))


def why_affected(
    folder: str, home: str, change: PathsChanged, patterns: tuple[str, ...], exclude: tuple[str, ...] = ()
) -> str | None:
    """Why a change can alter what `patterns` less `exclude` find below `folder`; None where it cannot.

    `folder` is resolved. A changed path may be a folder: it concerns the patterns that spell it out
    (`docs` and `docs/**/*.md`), and written with a last `/` all that could match below it.
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
            return f"{printable_path(path)} matches {_first(path, patterns)}"
        if found := _holds(path, patterns, exclude):
            return f"{printable_path(path)} changed, where {found} may match"
    return None


@lru_cache(256)
def changed_gitignore(folder: str, home: str, change: PathsChanged) -> str | None:
    """The `.gitignore` among the changed paths that says what counts below `folder`."""
    for path in paths_below_folder(folder, home, change) or ():
        if posixpath.basename(path) == IGNORE_FILE:
            return f"{printable_path(path)} changed"
    for path in change.paths:  # of a folder above as well
        place, _, name = posixpath.join(_real(change.root), path).rpartition("/")
        if name == IGNORE_FILE and f"{folder}/".startswith(f"{place}/"):
            return f"{printable_path(path)} changed"
    return None


@lru_cache(256)
def paths_below_folder(folder: str, home: str, change: PathsChanged) -> Sequence[str] | None:
    """The changed paths relative to `folder`; "" for the folder itself or one above it; those in `home` or
    a `.git` left out. None where none of them concerns the folder, () where they are unknown."""
    bridges = _bridges(folder, change)
    if not bridges:
        return None
    if not change.paths:
        return ()
    found = {
        path: None
        for bridge in bridges
        for changed in change.paths
        if (path := _across(bridge, changed, change.root)) is not None and not is_never_measured(folder, path, home)
    }
    return tuple(found) or None


def related(folder: str, change: PathsChanged) -> bool:
    """Whether the change's root is `folder`, holds it or lies in it."""
    return bool(_bridges(folder, change))


def is_never_measured(folder: str, path: str, home: str) -> bool:
    """Whether a path below `folder` is never measured: it lies in a `.git` or in DIMS's own home."""
    if ".git" in path and ".git" in path.split("/"):
        return True
    return f"{folder.rstrip('/')}/{path}/".startswith(f"{home}/")


def _bridges(folder: str, change: PathsChanged) -> set[tuple[str, str]]:
    # A producer may name the root as it was given to it, or resolved
    roots = {change.root, _real(change.root)}
    return {bridge for root in roots if (bridge := _bridge(folder, root))}


@lru_cache(4096)
def _real(path: str) -> str:
    return os.path.realpath(path)


@lru_cache(4096)
def _bridge(folder: str, root: str) -> tuple[str, str] | None:
    """What to take off a path below `root`, and what to put before it, to see it from `folder`."""
    inside, outside = (f"{path.rstrip('/')}/" for path in (folder, root))
    if inside.startswith(outside):
        return inside.removeprefix(outside), ""
    if outside.startswith(inside):
        return "", outside.removeprefix(inside)
    return None


def _across(bridge: tuple[str, str], changed: str, root: str) -> str | None:
    off, before = bridge
    if _ODD.search(changed):
        changed = _tidied(changed, root)
        if changed.startswith("../"):
            return None
    if not changed:
        return before  # the root itself: as a folder, or "" where the source's folder lies in it
    if not off:
        return before + changed
    if changed.startswith(off):
        return changed.removeprefix(off)
    return "" if off.startswith(f"{changed.removesuffix('/')}/") else None


def _tidied(path: str, root: str) -> str:
    """Without `.`, `..`, `//` and the root; a last `/` stays, for it says that the path is a folder."""
    if path.startswith("/"):
        path = posixpath.relpath(path, root) + ("/" if path.endswith("/") else "")
    tidy = posixpath.normpath(path)
    if tidy == ".":
        return ""
    return "../" if tidy == ".." else tidy + ("/" if path.endswith("/") else "")


def _first(path: str, patterns: tuple[str, ...]) -> str:
    return next(pattern for pattern in patterns if glob.matcher((pattern,))(path))


def _holds(path: str, patterns: tuple[str, ...], exclude: tuple[str, ...]) -> str | None:
    """The pattern that could match below `path`, if that is a folder: it spells it out, or `path` says so."""
    if path in glob.folders_of(patterns):
        return next(pattern for pattern in patterns if path in glob.folders_of((pattern,)))
    folder = path.removesuffix("/")
    if folder == path or glob.cover(exclude)(folder):
        return None
    return next((pattern for pattern in patterns if glob.reach((pattern,))(folder)), None)
