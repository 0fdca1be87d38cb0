"""Check what the watcher needs: watches of the kernel, a file system that reports changes, and watchdog."""

from __future__ import annotations

import ctypes
import errno
import importlib.util
import os
import re
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from dims_worker.checks.check import Check
from dims_worker.config import Config, FilesSource
from dims_worker.formatting import pluralize

INOTIFY = Path("/proc/sys/fs/inotify")
MOUNTS = Path("/proc/self/mountinfo")
COUNT_SECONDS = 2.0
"""How long counting folders may take. What was counted by then is a lower bound."""
USED_SHARE = 0.8
"""More of the allowed watches than this is a warning, because other programs of the user share them."""
NETWORK = re.compile(
    r"(nfs\d?|cifs|smb\d?|smbfs|9p|afs|ceph|glusterfs|lustre|davfs2?|ncpfs|fuse\.(?!lxcfs|overlay).+)$"
)
"""File systems that another host may change without a word to this kernel."""


@dataclass(frozen=True, slots=True)
class FolderCount:
    """How many folders are below the watched ones. `complete` is False if time ran out."""

    folders: int
    complete: bool


def watching_checks(config: Config) -> Iterator[Check]:
    """Yield the checks of the watched folders, and of the file system of the data directory."""
    if config.watch:
        yield _watchdog_check()
        if INOTIFY.is_dir():
            yield inotify_check(_watched_folders(config), _number("max_user_watches"))
            yield _instances_check()
        yield _watched_mounts_check(config)
    yield _data_mount_check(config)


def _watched_folders(config: Config) -> list[Path]:
    sources = (config.sources[name] for name in config.watch)
    return [config.path_of(source.path) for source in sources if isinstance(source, FilesSource)]


def _watchdog_check() -> Check:
    if importlib.util.find_spec("watchdog") is None:
        return Check("watcher", "problem", "watchdog is not installed", "Run `pip install 'dims-worker[watch]'`.")
    return Check("watcher", "ok", "watchdog is installed")


def _number(name: str) -> int:
    return int((INOTIFY / name).read_text(encoding="ascii"))


def inotify_check(folders: list[Path], allowed: int) -> Check:
    """Return whether the kernel allows a watch for each folder below `folders`."""
    count = count_folders(folders, allowed + 1)
    least = "" if count.complete else "at least "
    summary = f"{least}{pluralize(count.folders, 'folder')} to watch, {allowed:,} watches allowed"
    fix = (
        f"sudo sysctl -w fs.inotify.max_user_watches={max(524_288, 2 * count.folders)}, and write the same line to "
        "/etc/sysctl.d/dims.conf. Or watch fewer folders."
    )
    if count.folders > allowed:
        return Check("watches", "problem", f"too few: {summary}", fix)
    if count.folders > USED_SHARE * allowed:
        return Check("watches", "warning", f"nearly too few: {summary}", fix)
    return Check("watches", "ok", summary)


def count_folders(folders: list[Path], most: int, seconds: float = COUNT_SECONDS) -> FolderCount:
    """Count these folders and those below them. Stop at `most`, or when the time is over."""
    end = time.monotonic() + seconds
    waiting: list[str | Path] = list(folders)
    seen = 0
    while waiting:
        if seen >= most or time.monotonic() > end:
            return FolderCount(seen, complete=False)
        try:
            with os.scandir(waiting.pop()) as entries:
                waiting.extend(entry.path for entry in entries if entry.is_dir(follow_symlinks=False))
            seen += 1
        except OSError:  # the source's own check reports a missing folder, and one that you may not read is not watched
            continue
    return FolderCount(seen, complete=True)


def _instances_check() -> Check:
    """Create an inotify instance, as the watcher does for each folder."""
    allowed = _number("max_user_instances")
    descriptor = ctypes.CDLL(None, use_errno=True).inotify_init1(os.O_CLOEXEC)
    if descriptor >= 0:
        os.close(descriptor)
        return Check("inotify", "ok", f"{allowed:,} instances allowed, and one more is free")
    reason = os.strerror(ctypes.get_errno())
    fix = f"End other watchers, or: sudo sysctl -w fs.inotify.max_user_instances={2 * allowed}"
    if ctypes.get_errno() == errno.EMFILE:
        return Check("inotify", "problem", f"all {allowed:,} instances of this user are in use", fix)
    return Check("inotify", "problem", f"the kernel allows no instance: {reason}", fix)


def _watched_mounts_check(config: Config) -> Check:
    kinds = {folder: kind for folder in _watched_folders(config) if (kind := network_file_system(folder))}
    if not kinds:
        return Check("watched mounts", "ok", "the kernel reports all changes of the watched folders")
    names = ", ".join(f"{folder} ({kind})" for folder, kind in kinds.items())
    fix = "Run `dims watch` on the host that changes the files, or add a rule with a `schedule` for their metrics."
    return Check("watched mounts", "warning", f"the kernel reports no change of another host in {names}", fix)


def _data_mount_check(config: Config) -> Check:
    kind = network_file_system(config.home)
    if kind is None:
        return Check("data mount", "ok", "the data directory is on a local disk")
    summary = f"the data directory is on a network file system ({kind}), where locks and syncs are not dependable"
    return Check("data mount", "warning", summary, "Set DIMS_HOME to a folder on a local disk.")


def network_file_system(path: Path) -> str | None:
    """Return the kind of the network file system that holds `path`, or None. None also where Linux does not say."""
    if sys.platform != "linux":
        return None
    try:
        lines = MOUNTS.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return None
    real = Path(os.path.realpath(path))
    best, kind = -1, ""
    for line in lines:
        before, _, after = line.partition(" - ")
        place = Path(_unescaped(before.split()[4]))
        if real.is_relative_to(place) and len(place.parts) >= best:
            best, kind = len(place.parts), after.split()[0]
    return kind if NETWORK.match(kind) else None


def _unescaped(text: str) -> str:
    r"""Return a path of mountinfo, in which \040 is a space."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)
