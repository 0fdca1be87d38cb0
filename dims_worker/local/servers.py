"""Both servers of a data directory: start, find and stop them, or lend the database to one command."""

from __future__ import annotations

import fcntl
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dims_worker.errors import DatabaseUnreachable
from dims_worker.local import postgres, valkey
from dims_worker.local.home import DataDirectory, locked, opened_lock, read_json, try_lock, write_json, write_private
from dims_worker.local.home_lock import lock_owner

LOCK = "servers.lock"
BORROWERS = "borrowers.lock"


@dataclass(frozen=True, slots=True)
class ServerUrls:
    """The URLs of the servers. None for a server that is not up. They hold passwords, so the repr hides them."""

    database_url: str | None = field(repr=False)
    broker_url: str | None = field(repr=False)
    producer_url: str | None = field(default=None, repr=False)
    """The broker, as the user that may only do what producers need."""


@dataclass(frozen=True, slots=True)
class RunningServers:
    """The running servers, with their processes."""

    postgres: postgres.PostgresServer | None
    valkey: valkey.ValkeyServer | None

    @property
    def urls(self) -> ServerUrls:
        return ServerUrls(
            self.postgres.url if self.postgres else None,
            self.valkey.url if self.valkey else None,
            self.valkey.producer_url if self.valkey else None,
        )


def start(home: Path, *, database: bool = True, broker: bool = True, fast: bool = False) -> ServerUrls:
    """Start PostgreSQL (`database`) and Valkey (`broker`) if they do not run yet, and return their URLs.

    Other commands that start or stop these servers wait meanwhile. If a server does not start, this stops again what it
    started. `fast` is for tests: a `kill -9` loses the last commits, and a power cut loses the data.

    Raises:
        ServiceError: a server does not start. The message names its log and has its last lines.
    """
    return start_servers(DataDirectory(home), database=database, broker=broker, fast=fast).urls


def start_servers(
    home: DataDirectory, *, database: bool = True, broker: bool = True, fast: bool = False
) -> RunningServers:
    """Do what `start` does, and return the processes."""
    home.make()
    with locked(home.run / LOCK):
        up = _start(home, database, broker, fast)
        _save(home, up, lent=False)
    return up


def running(home: Path) -> ServerUrls | None:
    """Return the servers that accept a connection now, or None if neither does."""
    urls = running_servers(DataDirectory(home)).urls
    return urls if urls.database_url or urls.broker_url else None


def running_servers(home: DataDirectory) -> RunningServers:
    """Return the servers that accept a connection now. Creates nothing on disk and does not wait."""
    return RunningServers(postgres.running(home), valkey.running(home))


def existing(home: Path) -> ServerUrls:
    """Return the servers whose processes run, even if one does not answer. Connects to none, so it never waits."""
    return existing_servers(DataDirectory(home)).urls


def existing_servers(home: DataDirectory) -> RunningServers:
    """Do what `existing` does, and return the processes."""
    return RunningServers(postgres.existing(home), valkey.existing(home))


def stop(home: Path, *, database: bool = True, broker: bool = True) -> list[str]:
    """Stop Valkey (`broker`), then PostgreSQL (`database`), each within its time. Return a sentence for each.

    Raises:
        ServiceError: a server does not end.
    """
    directory = DataDirectory(home)
    if not directory.run.is_dir():
        return []
    with locked(directory.run / LOCK):
        ended = [
            (valkey.NAME, valkey.stop(directory) if broker else None),
            (postgres.NAME, postgres.stop(directory) if database else None),
        ]
    return [f"{name} (pid {identity.pid}) was stopped." for name, identity in ended if identity]


@contextmanager
def temporary_database(home: Path, *, fast: bool = False) -> Iterator[str]:
    """Yield the URL of this data directory's database for one command. Starts PostgreSQL if it does not run.

    The last of the commands that borrow such a PostgreSQL stops it. It keeps running if `start` was called, or a
    supervisor took the data directory, in the meantime.

    Raises:
        ServiceError: it does not start.
    """
    directory = DataDirectory(home).make()
    with opened_lock(directory.run / BORROWERS) as ticket:
        try:
            with locked(directory.run / LOCK):
                # Under the servers' lock, so that another borrower that leaves does not stop the server in between.
                fcntl.flock(ticket, fcntl.LOCK_SH)
                before = postgres.find(directory)
                lent = before is None or bool(read_json(directory.servers_json).get("lent"))
                up = RunningServers(before or _start(directory, True, False, fast).postgres, None)
                _save(directory, up, lent=lent)
            if up.postgres is None:
                raise DatabaseUnreachable
            yield up.postgres.url
        finally:
            _leave(directory, ticket)


def is_temporary(home: DataDirectory) -> bool:
    """Return whether a command uses a PostgreSQL that it, or another command, started for itself."""
    if not home.run.is_dir() or not read_json(home.servers_json).get("lent"):
        return False
    # Under the servers' lock, else a borrower that leaves now would take this check for another borrower.
    with locked(home.run / LOCK), opened_lock(home.run / BORROWERS) as ticket:
        return not try_lock(ticket)


def _leave(home: DataDirectory, ticket: int) -> None:
    """Stop a server that was started only to be lent, if this is its last borrower."""
    with locked(home.run / LOCK):
        last = try_lock(ticket)
        saved = read_json(home.servers_json)
        if last and saved.get("lent") and lock_owner(home.path) is None:
            postgres.stop(home)
            write_json(home.servers_json, saved | {"lent": False})


def _start(home: DataDirectory, database: bool, broker: bool, fast: bool) -> RunningServers:
    """Start the given servers. The caller holds the lock."""
    saved = read_json(home.servers_json)
    before = (postgres.main_process(home), valkey.main_process(home))
    up = RunningServers(None, None)
    try:
        if database:
            up = RunningServers(postgres.start(home, port=_port(saved, "database_url"), fast=fast), None)
        if broker:
            up = RunningServers(up.postgres, valkey.start(home, port=_port(saved, "broker_url"), fast=fast))
    except BaseException:  # Ctrl-C too
        try:
            if broker and before[1] is None:
                valkey.stop(home)
        finally:
            if database and before[0] is None:
                postgres.stop(home)
        raise
    return up


def _port(saved: dict[str, Any], key: str) -> int | None:
    """Return the port of the last start, from the saved URL."""
    match = re.search(r":(\d+)/\w+$", saved.get(key) or "")
    return int(match[1]) if match else None


def _save(home: DataDirectory, up: RunningServers, *, lent: bool) -> None:
    """Write where the servers are (servers.json) and what producers need (producer.env)."""
    saved = read_json(home.servers_json) | {"lent": lent}
    if up.postgres:
        saved |= {"database_url": up.postgres.url, "postgres": up.postgres.identity.to_json()}
    if up.valkey:
        saved |= {"broker_url": up.valkey.url, "valkey": up.valkey.identity.to_json()}
    if up.urls.producer_url:
        remember_broker(home.path, up.urls.producer_url)
    write_json(home.servers_json, saved)


def remember_broker(home: Path, url: str) -> None:
    """Write the broker's URL where the producers of this machine look for it (`producer.env`, mode 600)."""
    write_private(DataDirectory(home).producer_env, f"DIMS_BROKER_URL={url}\n")
