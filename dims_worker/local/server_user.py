"""The user that the servers run as. PostgreSQL refuses root, so as root they run as somebody with no rights.

A home may lie beneath a folder that this user cannot enter (`/root`, mode 700). Nothing is opened up for it:
root opens the server's own folder and hands the child the descriptor. `/proc/self/fd/N` is a *magic link*
(proc(5)): following it needs no rights on the folders above, only on the folder itself.
"""

from __future__ import annotations

import os
import pwd
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from dims_worker.errors import ServiceError

MAGIC_LINKS = Path("/proc/self/fd")


@dataclass(frozen=True, slots=True)
class ServerUser:
    """A user and a group, by number."""

    uid: int
    gid: int


def unprivileged_user(folder: Path) -> ServerUser | None:
    """Who the server that owns `folder` must run as: None for an ordinary user (it runs as oneself).

    As root it is the owner of the folder, if it exists and is not root's (`sudo dims up` in a user's home),
    else `nobody`.

    Raises:
        ServiceError: this is root, and there is no user `nobody`.
    """
    if os.geteuid() != 0:
        return None
    if folder.exists():
        found = folder.stat()
        if found.st_uid != 0:
            return ServerUser(found.st_uid, found.st_gid)
    try:
        nobody = pwd.getpwnam("nobody")
    except KeyError as error:
        raise ServiceError(
            "PostgreSQL does not run as root, and this machine has no user `nobody` to run it as."
        ) from error
    return ServerUser(nobody.pw_uid, nobody.pw_gid)


@contextmanager
def doorway(folder: Path, account: ServerUser | None) -> Iterator[tuple[str, tuple[int, ...]]]:
    """A path to `folder` that a child running as `account` can use, and the descriptors to pass it."""
    if account is None or not sys.platform.startswith("linux") or not MAGIC_LINKS.is_dir():
        yield str(folder), ()
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"{MAGIC_LINKS}/{descriptor}", (descriptor,)
    finally:
        os.close(descriptor)


def can_reach(path: Path, account: ServerUser) -> bool:
    """Can `account` enter every folder above `path`, and read it (and run it, if its owner can)?"""
    real = path.resolve()
    if not all(_allows(parent, account, stat.S_IXOTH) for parent in real.parents):
        return False
    wanted = stat.S_IROTH
    if real.stat().st_mode & stat.S_IXUSR:
        wanted |= stat.S_IXOTH
    return _allows(real, account, wanted)


def _allows(path: Path, account: ServerUser, wanted: int) -> bool:
    """Do the mode bits of `path` give `account` the rights `wanted` (written as those of *others*)?"""
    found = path.stat()
    if found.st_uid == account.uid:
        wanted <<= 6
    elif found.st_gid == account.gid:
        wanted <<= 3
    return found.st_mode & wanted == wanted
