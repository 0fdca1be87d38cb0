"""The lock of a data directory. One supervisor holds it at a time, and its death releases it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dims_worker.errors import AlreadyRunning
from dims_worker.local.home import DataDirectory, opened_lock, try_lock
from dims_worker.local.process import Identity, wait_until

LOCK = "up.lock"


@contextmanager
def hold_home(home: Path) -> Iterator[None]:
    """Hold the lock for the length of the block. Call it in the process that runs the supervisor.

    Raises:
        AlreadyRunning: another process holds it.
    """
    directory = DataDirectory(home).make()
    with opened_lock(directory.run / LOCK) as descriptor:
        # A process that only checks whether the lock is held takes it for an instant. So try more than once.
        if not wait_until(lambda: try_lock(descriptor) or lock_owner_identity(home) is not None, 1.0) or (
            not try_lock(descriptor)
        ):
            raise AlreadyRunning(_refusal(home))
        identity = Identity.of(os.getpid())
        os.truncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(identity.to_json() if identity else {}).encode(), 0)
        try:
            yield
        finally:
            os.truncate(descriptor, 0)


def lock_owner(home: Path) -> int | None:
    """Return the pid of the process that holds the lock, or None.

    0 means a process that this one cannot see: it runs in another container or on another machine.
    """
    if not _is_held(home):
        return None
    # A process that has just taken the lock writes its pid a moment later.
    wait_until(lambda: lock_owner_identity(home) is not None or not _is_held(home), 0.5)
    identity = lock_owner_identity(home)
    if identity is None:
        return 0 if _is_held(home) else None
    return identity.pid


def lock_owner_identity(home: Path) -> Identity | None:
    """Return the process that is named in the lock file, if it is alive."""
    try:
        text = (DataDirectory(home).run / LOCK).read_text(encoding="utf-8")
        identity = Identity.from_json(json.loads(text))
    except (FileNotFoundError, ValueError):
        return None  # No process has held it yet, or its name is being written.
    return identity if identity and identity.alive() else None


def _is_held(home: Path) -> bool:
    path = DataDirectory(home).run / LOCK
    if not path.exists():
        return False
    with opened_lock(path) as descriptor:
        return not try_lock(descriptor, shared=True)


def _refusal(home: Path) -> str:
    identity = lock_owner_identity(home)
    owner = f"process {identity.pid}" if identity else "a process that this machine cannot see"
    return f"DIMS already runs in {home} ({owner}). `dims status` shows it, `dims down` stops it."
