"""The layout of `$DIMS_HOME`: its folders, its locks, and files that only their owner can read."""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dims_worker.errors import ServiceError
from dims_worker.local.server_user import ServerUser

FOLDERS = ("pg", "valkey", "logs", "run", "spool")

LOG_BYTES = 5_000_000
"""A log that is longer than this when its process starts is set aside as `NAME.log.1`."""

LOCK_PATIENCE = 180.0
"""Seconds to wait for another command that is starting or stopping the servers of the same home."""


@dataclass(frozen=True, slots=True)
class DataDirectory:
    """One folder that holds all that this machine's stack owns. `path` is absolute; it may hold spaces."""

    path: Path

    @classmethod
    def at(cls, path: Path) -> DataDirectory:
        """The home at `path`, made absolute. Makes nothing on disk."""
        return cls(path.absolute())

    @property
    def pg(self) -> Path:
        return self.path / "pg"

    @property
    def valkey(self) -> Path:
        return self.path / "valkey"

    @property
    def logs(self) -> Path:
        return self.path / "logs"

    @property
    def run(self) -> Path:
        return self.path / "run"

    @property
    def spool(self) -> Path:
        return self.path / "spool"

    @property
    def producer_env(self) -> Path:
        return self.path / "producer.env"

    @property
    def servers_json(self) -> Path:
        return self.path / "servers.json"

    @property
    def processes_json(self) -> Path:
        return self.run / "processes.json"

    def make(self) -> DataDirectory:
        """Make the folders that are missing, each for its owner alone. A home that exists keeps its mode.

        Raises:
            ServiceError: the folder cannot be made.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
            for name in FOLDERS:
                private_folder(self.path / name)
        except OSError as error:
            raise ServiceError(f"The folder {self.path} cannot be made ready: {error.strerror}.") from error
        return self

    def log(self, name: str) -> Path:
        """The log of one process, `logs/NAME.log`; one that has grown too long is set aside first."""
        path = self.logs / f"{name}.log"
        if path.exists() and path.stat().st_size > LOG_BYTES:
            path.replace(path.with_suffix(".log.1"))
        return path


def private_folder(path: Path, account: ServerUser | None = None) -> None:
    """Make `path` a folder of mode 700, and give it to `account`, if one is named.

    A folder that belongs to somebody else already is left as it is.
    """
    path.mkdir(mode=0o700, exist_ok=True)
    found = path.stat()
    if found.st_uid != os.geteuid():
        return
    if found.st_mode & 0o777 != 0o700:
        path.chmod(0o700)
    if account is not None:
        os.chown(path, account.uid, account.gid)


def write_private(path: Path, text: str, account: ServerUser | None = None) -> None:
    """Write `text` to `path` whole or not at all, readable by its owner alone (mode 600).

    The owner is this process's user, or `account`. What was there before is replaced in one step.
    """
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
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
    """The password kept in `folder/NAME`: drawn at the first call, then the same for ever.

    It lies beside the data it opens, so a home whose other files were lost can still be used.
    """
    path = folder / name
    if not path.exists():
        write_private(path, secrets.token_hex(24), account)
    return path.read_text(encoding="utf-8").strip()


def read_json(path: Path) -> dict[str, Any]:
    """The object in `path`, or an empty one where there is no such file.

    Raises:
        ServiceError: the file is not a JSON object. DIMS writes it in one step, so it was edited by hand.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise ServiceError(f"{path} is not JSON. Remove it; it is written again.") from error
    if not isinstance(found, dict):
        raise ServiceError(f"{path} is not a JSON object. Remove it; it is written again.")
    return found


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write `value` to `path` in one step, mode 600."""
    write_private(path, json.dumps(value, indent=1) + "\n")


def open_lock(path: Path) -> int:
    """A descriptor of the lock file `path`. The file is never removed, so that all lock the same one."""
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def try_lock(descriptor: int, *, shared: bool = False) -> bool:
    """Lock without waiting; False when somebody else holds it. The lock goes when its holder dies."""
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
    descriptor = open_lock(path)
    try:
        deadline = time.monotonic() + patience
        while not try_lock(descriptor):
            if time.monotonic() > deadline:
                raise ServiceError(f"Another command has held {path} for {patience:.0f} s.")
            time.sleep(0.02)
        yield
    finally:
        os.close(descriptor)
