"""The data directory (`$DIMS_HOME`): its folders, its locks, and files that only their owner can read."""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dims_worker.errors import ServiceError, naming_file, reason_and_fix
from dims_worker.local.server_user import ServerUser

FOLDERS = ("pg", "valkey", "logs", "run", "spool")

LOG_BYTES = 5_000_000
"""A log that is longer than this when its process starts is renamed to `NAME.log.1`."""

LOCK_PATIENCE = 180.0
"""Seconds to wait for another command that starts or stops the servers of the same data directory."""


class DataDirectory:
    """The folder that holds everything the local stack owns. Its paths are absolute and may contain spaces."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self.pg = self.path / "pg"
        self.valkey = self.path / "valkey"
        self.logs = self.path / "logs"
        self.run = self.path / "run"
        self.spool = self.path / "spool"
        self.producer_env = self.path / "producer.env"
        self.servers_json = self.path / "servers.json"
        self.processes_json = self.run / "processes.json"

    def make(self) -> DataDirectory:
        """Create the folders that are missing, each for its owner alone. A folder `path` that exists keeps its mode.

        Raises:
            ServiceError: a folder cannot be created.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
            for name in FOLDERS:
                private_folder(self.path / name)
        except OSError as error:
            raise ServiceError(
                f"cannot create the data directory {self.path}: {reason_and_fix(error)} "
                "Or set DIMS_HOME to another folder."
            ) from error
        return self

    def log(self, name: str) -> Path:
        """Return the log of one process, `logs/NAME.log`. Renames one that has grown too long first."""
        path = self.logs / f"{name}.log"
        if path.exists() and path.stat().st_size > LOG_BYTES:
            path.replace(path.with_suffix(".log.1"))
        return path


def private_folder(path: Path, account: ServerUser | None = None) -> None:
    """Make `path` a folder of mode 700, owned by `account` if one is given.

    A folder of another user stays as it is.
    """
    path.mkdir(mode=0o700, exist_ok=True)
    status = path.stat()
    if status.st_uid != os.geteuid():
        return
    if status.st_mode & 0o777 != 0o700:
        path.chmod(0o700)
    if account is not None:
        os.chown(path, account.uid, account.gid)


def write_private(path: Path, text: str, account: ServerUser | None = None) -> None:
    """Replace `path` with `text` in one step, readable by its owner alone (mode 600).

    The owner is this process's user, or `account`.
    """
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW, 0o600)
    try:
        with naming_file(path), os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            if account is not None:
                os.fchown(file.fileno(), account.uid, account.gid)
            os.fsync(file.fileno())
        draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    """Make a rename inside `path` survive a power cut (fsync of the folder)."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def secret(folder: Path, account: ServerUser | None, name: str = "password") -> str:
    """Return the password in `folder/NAME`. The first call creates a random one, which never changes.

    It is beside the data that it opens, so you can still use a data directory whose other files are lost.
    """
    path = folder / name
    if not path.exists():
        write_private(path, secrets.token_hex(24), account)
    return path.read_text(encoding="utf-8").strip()


def read_json(path: Path) -> dict[str, Any]:
    """Return the object in `path`, or an empty one if there is no such file.

    Raises:
        ServiceError: the file is not a JSON object. DIMS writes it in one step, so a person edited it.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise ServiceError(f"{path} is not JSON. Remove it: DIMS writes it again.") from error
    if not isinstance(value, dict):
        raise ServiceError(f"{path} is not a JSON object. Remove it: DIMS writes it again.")
    return value


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write `value` to `path` in one step, mode 600."""
    write_private(path, json.dumps(value, indent=1) + "\n")


@contextmanager
def opened_lock(path: Path) -> Iterator[int]:
    """Open the lock file `path` and yield its descriptor. DIMS never removes the file, so all lock the same one."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def try_lock(descriptor: int, *, shared: bool = False) -> bool:
    """Lock without waiting, and return whether it worked. The kernel releases the lock when its holder dies."""
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextmanager
def locked(path: Path, patience: float = LOCK_PATIENCE) -> Iterator[None]:
    """Hold the lock file `path` for the length of the block.

    Raises:
        ServiceError: another command held it for longer than `patience` seconds.
    """
    with opened_lock(path) as descriptor:
        deadline = time.monotonic() + patience
        while not try_lock(descriptor):
            if time.monotonic() > deadline:
                raise ServiceError(
                    f"Another command has held the lock {path} for {patience:.0f} s. Wait until it ends, or end it."
                )
            time.sleep(0.02)
        yield
