"""The user that the servers run as. PostgreSQL refuses root, so root starts them as a user without rights.

A data directory may be below a folder that this user cannot enter (`/root`, mode 700). DIMS changes no permissions
there. Root opens the server's own folder and passes the descriptor to the child. `/proc/self/fd/N` is a *magic link*
(proc(5)): following it needs rights on the folder itself, and none on the folders above.
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
    """Return the user that runs the server that owns `folder`. None means this process's own user.

    For root it is the owner of the folder, if the folder exists and is not root's (`sudo dims up` in a user's project),
    else `nobody`.

    Raises:
        ServiceError: this is root, and there is no user `nobody`.
    """
    if os.geteuid() != 0:
        return None
    if folder.exists():
        status = folder.stat()
        if status.st_uid != 0:
            return ServerUser(status.st_uid, status.st_gid)
    try:
        account = pwd.getpwnam("nobody")
    except KeyError as error:
        raise ServiceError(
            "PostgreSQL does not run as root, and this machine has no user `nobody`. Run DIMS as an ordinary user."
        ) from error
    return ServerUser(account.pw_uid, account.pw_gid)


@contextmanager
def reachable_path(folder: Path, account: ServerUser | None) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yield a path to `folder` that a child running as `account` can use, and the descriptors to pass to it."""
    if account is None or not sys.platform.startswith("linux") or not MAGIC_LINKS.is_dir():
        yield str(folder), ()
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"{MAGIC_LINKS}/{descriptor}", (descriptor,)
    finally:
        os.close(descriptor)


def can_reach(path: Path, account: ServerUser) -> bool:
    """Return whether `account` can enter every folder above `path`, and read it (and run it, if its owner can)."""
    real = path.resolve()
    if not all(_allows(parent, account, stat.S_IXOTH) for parent in real.parents):
        return False
    wanted = stat.S_IROTH
    if real.stat().st_mode & stat.S_IXUSR:
        wanted |= stat.S_IXOTH
    return _allows(real, account, wanted)


def _allows(path: Path, account: ServerUser, wanted: int) -> bool:
    """Return whether the mode of `path` gives `account` the rights `wanted`, written as the bits of *others*."""
    status = path.stat()
    if status.st_uid == account.uid:
        wanted <<= 6
    elif status.st_gid == account.gid:
        wanted <<= 3
    return status.st_mode & wanted == wanted
