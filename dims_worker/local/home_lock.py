"""Who has a home: one supervisor at a time, said by a lock that its death opens."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dims_worker.errors import AlreadyRunning
from dims_worker.local.home import DataDirectory, open_lock, try_lock
from dims_worker.local.process import Identity, wait_until

LOCK = "up.lock"


@contextmanager
def hold_home(home: Path) -> Iterator[None]:
    """Have this home for the length of the block. Enter it in the process that runs the supervisor.

    Raises:
        AlreadyRunning: another process has it.
    """
    made = DataDirectory.at(home).make()
    descriptor = open_lock(made.run / LOCK)
    try:
        # Who only asks whether the home is held locks it for an instant: so not only one attempt.
        if not wait_until(lambda: try_lock(descriptor) or lock_owner_identity(home) is not None, 1.0) or (
            not try_lock(descriptor)
        ):
            raise AlreadyRunning(_refusal(home))
        me = Identity.of(os.getpid())
        os.truncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(me.to_json() if me else {}).encode(), 0)
        try:
            yield
        finally:
            os.truncate(descriptor, 0)
    finally:
        os.close(descriptor)


def lock_owner(home: Path) -> int | None:
    """The pid of the process that has this home; None when nobody has it.

    0 stands for a process that this one cannot see: one in another container, or on another machine.
    """
    if not _held(home):
        return None
    # Who has just taken it writes its name a moment later.
    wait_until(lambda: lock_owner_identity(home) is not None or not _held(home), 0.5)
    identity = lock_owner_identity(home)
    if identity is None:
        return 0 if _held(home) else None
    return identity.pid


def lock_owner_identity(home: Path) -> Identity | None:
    """The process that wrote its name into the lock, if it lives."""
    try:
        text = (DataDirectory.at(home).run / LOCK).read_text(encoding="utf-8")
        identity = Identity.from_json(json.loads(text))
    except (FileNotFoundError, ValueError):
        return None  # Nobody has ever had it, or its name is just being written.
    return identity if identity and identity.alive() else None


def _held(home: Path) -> bool:
    """Has somebody the lock?"""
    path = DataDirectory.at(home).run / LOCK
    if not path.exists():
        return False
    descriptor = open_lock(path)
    try:
        return not try_lock(descriptor, shared=True)
    finally:
        os.close(descriptor)


def _refusal(home: Path) -> str:
    identity = lock_owner_identity(home)
    who = f"process {identity.pid}" if identity else "a process that cannot be seen from here"
    return f"{home} is up already, run by {who}. `dims status` shows it, `dims down` ends it."
