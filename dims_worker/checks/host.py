"""Check what this host needs: the data directory, the spool and free disk space."""

from __future__ import annotations

import os
import pwd
import shutil
import stat
import tempfile
import time
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Literal

from dims_worker.checks.check import Check
from dims_worker.formatting import format_age, format_bytes, pluralize, shell_quote

ProcessState = Literal["alive", "suspended", "gone"]
FULL_BYTES = 100_000_000
"""Less free space than this is a problem: servers refuse to write, and the spool accepts no event."""
SCARCE_BYTES = 1_000_000_000
SCARCE_SHARE = 0.05
"""Less free space than the larger of these two is a warning, up to `SCARCE_MOST` on a large disk."""
SCARCE_MOST = 20_000_000_000
SPOOL_PATIENCE = timedelta(minutes=2)
"""An event that waits in the spool for longer is a warning: nothing sends it."""
SPOOL_FOLDERS = ("new", "tmp", "bad")


@dataclass(frozen=True, slots=True)
class SpoolState:
    """What is in the spool. `foreign` names folders and files that the owner of the data directory cannot use."""

    waiting: int = 0
    unreadable: int = 0
    oldest: timedelta | None = None
    full: bool = False
    foreign: tuple[Path, ...] = ()
    problem: str = ""


def data_directory_check(home: Path) -> Check:
    """Return whether this user can use the data directory. One that does not exist yet is fine."""
    try:
        owner = owner_of(home)
        usable = os.access(home, os.R_OK | os.W_OK | os.X_OK)
    except FileNotFoundError:
        return Check("data_directory", "ok", f"{home} does not exist yet")
    except OSError as error:
        return Check(
            "data_directory",
            "problem",
            f"{home} cannot be read: {error.strerror}",
            "Run this command as the owner of the data directory, or set DIMS_HOME to another folder.",
        )
    if not home.is_dir():
        return Check("data_directory", "problem", f"{home} is not a folder", "Remove the file, or set DIMS_HOME.")
    if not usable:
        return Check(
            "data_directory",
            "problem",
            f"{home} belongs to {owner}, and you cannot use it",
            f"Run this command as {owner}, or give the folder to its user: `chown -R USER {shell_quote(str(home))}`.",
        )
    return Check("data_directory", "ok", str(home))


def owner_of(path: Path) -> str:
    """Return the name of the user who owns a file, or the number if the user has no name here."""
    uid = path.stat().st_uid
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def read_spool(home: Path, now: float | None = None) -> SpoolState:
    """Return what waits in the spool. Never raises OSError."""
    folder = home / "spool"
    try:
        if not folder.is_dir():
            return SpoolState()
        owner = home.stat().st_uid
        waiting = _entries(folder / "new")
        oldest = min((status.st_mtime for _, status in waiting), default=None)
        age = None if oldest is None else timedelta(seconds=max(0.0, (now or time.time()) - oldest))
        folders = [folder, *(folder / name for name in SPOOL_FOLDERS)]
        foreign = [path for path in folders if path.is_dir() and path.stat().st_uid != owner]
        foreign += [path for path, status in waiting if _is_foreign(status, owner)]
        return SpoolState(
            waiting=len(waiting),
            unreadable=len(_entries(folder / "bad")),
            oldest=age,
            full=(folder / "full").exists(),
            foreign=tuple(foreign),
        )
    except OSError as error:
        return SpoolState(problem=f"{error.filename or folder} cannot be read: {error.strerror}")


def _entries(folder: Path) -> list[tuple[Path, os.stat_result]]:
    """Return the files of a folder of the spool. A file that is sent in the meantime is left out."""
    entries = []
    try:
        listed = list(os.scandir(folder))
    except FileNotFoundError:
        return []
    for entry in listed:
        try:
            entries.append((Path(entry.path), entry.stat(follow_symlinks=False)))
        except FileNotFoundError:
            continue
    return entries


def _is_foreign(status: os.stat_result, owner: int) -> bool:
    """Return whether a file belongs to another user and is closed to the owner of the data directory."""
    return owner not in (status.st_uid, 0) and not status.st_mode & stat.S_IROTH


def spool_check(home: Path, state: SpoolState) -> Check:
    """Return the check of the spool."""
    if state.problem:
        fix = f"Give the spool to the user who runs DIMS: `chown -R USER {shell_quote(str(home / 'spool'))}`."
        return Check("spool", "problem", state.problem, fix)
    bad = home / "spool" / "bad"
    unread = f"; {pluralize(state.unreadable, 'file')} could not be read: see {bad}" if state.unreadable else ""
    waited = f", the oldest for {format_age(state.oldest)}" if state.oldest and state.oldest > SPOOL_PATIENCE else ""
    summary = f"{pluralize(state.waiting, 'event')} to be sent{waited}{unread}" if state.waiting else f"empty{unread}"
    if state.foreign:
        owner = owner_of(home)
        summary += f"; {pluralize(len(state.foreign), 'path')} of another user, such as {state.foreign[0]}"
        return Check("spool", "problem", summary, f"Run `chown -R {owner} {shell_quote(str(home / 'spool'))}` as root.")
    if state.full:
        return Check("spool", "problem", f"full, so it accepts no event: {summary}", "Start `dims watch`, which sends.")
    if waited:
        return Check("spool", "warning", summary, "Run `dims watch`, which sends them. Check DIMS_BROKER_URL.")
    if unread:
        return Check("spool", "warning", summary, f"Read the files in {bad}, send what matters again, and remove them.")
    return Check("spool", "ok", summary)


def disk_check(paths: dict[str, Path]) -> tuple[Check, dict[str, int]]:
    """Return the check of the disks that hold these paths, and the free bytes of each.

    Args:
        paths: a path by what it is, such as `data directory`. Each disk is reported once.
    """
    free: dict[str, int] = {}
    findings: list[Check] = []
    disks: set[int] = set()
    for label, path in paths.items():
        existing = _existing(path)
        try:
            usage, device = shutil.disk_usage(existing), existing.stat().st_dev
        except OSError as error:
            findings.append(Check("disk", "warning", f"{existing} ({label}): {error.strerror}", "Check the folder."))
            continue
        free[label] = usage.free
        if device not in disks:
            disks.add(device)
            findings.append(_disk_finding(label, existing, usage.free, usage.total))
    worst = max(findings, key=lambda finding: ("ok", "warning", "problem").index(finding.state))
    summary = "; ".join(finding.summary for finding in findings if finding.state == worst.state)
    return Check("disk", worst.state, summary, worst.fix, worst.public), free


def _disk_finding(label: str, path: Path, free: int, total: int) -> Check:
    summary = f"{format_bytes(free)} of {format_bytes(total)} free at {path} ({label})"
    scarce = min(max(SCARCE_BYTES, int(SCARCE_SHARE * total)), SCARCE_MOST)
    if free < FULL_BYTES:
        return Check("disk", "problem", f"full: {summary}", "Free space on this disk.", "A disk of DIMS is full")
    if free < scarce:
        return Check(
            "disk", "warning", f"nearly full: {summary}", "Free space on this disk.", "A disk of DIMS is nearly full"
        )
    return Check("disk", "ok", summary)


def _existing(path: Path) -> Path:
    """Return the path, or the nearest folder above it that exists and can be read."""
    for candidate in (path, *path.parents):
        try:
            candidate.stat()
        except OSError:
            continue
        return candidate
    return Path("/")


def watched_disks(home: Path) -> dict[str, Path]:
    """Return the paths whose disks DIMS needs on this host."""
    return {"data directory": home, "temporary files": Path(tempfile.gettempdir())}


def process_state(pid: int) -> ProcessState | None:
    """Return whether a process of DIMS with this pid runs on this host. None where the system does not show it."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes()
        # The second field is the program's name in brackets. It may contain anything, so count from the last bracket
        state = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return "gone" if Path("/proc/self").exists() else None
    except OSError:
        return None
    if b"dims" not in words and b"celery" not in words:
        return "gone"  # another program has this pid now
    return "suspended" if state in "Tt" else "gone" if state in "ZX" else "alive"
