"""Both servers of a home: start what does not run, find what does, stop in order, lend to one command."""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dims_worker.errors import DatabaseUnreachable
from dims_worker.local import postgres, valkey
from dims_worker.local.home import DataDirectory, locked, open_lock, read_json, try_lock, write_json, write_private
from dims_worker.local.home_lock import lock_owner

LOCK = "servers.lock"
BORROWERS = "borrowers.lock"


@dataclass(frozen=True, slots=True)
class ServerUrls:
    """Where the servers of a home are; None for one that is not up. The URLs hold passwords: no repr."""

    database_url: str | None = field(repr=False)
    broker_url: str | None = field(repr=False)
    producer_url: str | None = field(default=None, repr=False)
    """The broker again, as a user that may do no more than producers need."""


@dataclass(frozen=True, slots=True)
class RunningServers:
    """The servers that run, with their processes."""

    postgres: postgres.PostgresServer | None
    valkey: valkey.ValkeyServer | None

    @property
    def servers(self) -> ServerUrls:
        return ServerUrls(
            self.postgres.url if self.postgres else None,
            self.valkey.url if self.valkey else None,
            self.valkey.producer_url if self.valkey else None,
        )


def start(home: Path, *, database: bool = True, broker: bool = True, fast: bool = False) -> ServerUrls:
    """Start PostgreSQL (`database`) and Valkey (`broker`) where they do not run yet; say where they are.

    Whoever else starts or stops servers of this home waits meanwhile. `fast` is for tests: a
    `kill -9` loses the last commits then, and a power cut the data. What this call started is stopped again
    if it fails.

    Raises:
        ServiceError: one does not start; the message names its log and holds its last lines.
    """
    return start_servers(DataDirectory.at(home), database=database, broker=broker, fast=fast).servers


def start_servers(
    home: DataDirectory, *, database: bool = True, broker: bool = True, fast: bool = False
) -> RunningServers:
    """What `start` does, with the processes as the answer."""
    home.make()
    with locked(home.run / LOCK):
        up = _start(home, database, broker, fast)
        _note(home, up, lent=False)
    return up


def running(home: Path) -> ServerUrls | None:
    """The servers that are up now and let us in, a part being None; None when neither is."""
    found = running_servers(DataDirectory.at(home)).servers
    return found if found.database_url or found.broker_url else None


def running_servers(home: DataDirectory) -> RunningServers:
    """What `running` finds, with the processes. Makes nothing on disk, and waits for nothing."""
    return RunningServers(postgres.running(home), valkey.running(home))


def stop(home: Path) -> list[str]:
    """Stop Valkey, then PostgreSQL, each within its time; a sentence for each that was stopped.

    Raises:
        ServiceError: one does not end.
    """
    return stop_servers(DataDirectory.at(home))


def stop_servers(home: DataDirectory, *, database: bool = True, broker: bool = True) -> list[str]:
    """What `stop` does, for those that are named."""
    if not home.run.is_dir():
        return []
    with locked(home.run / LOCK):
        ended = [
            (valkey.NAME, valkey.stop(home) if broker else None),
            (postgres.NAME, postgres.stop(home) if database else None),
        ]
    return [f"{name} (pid {identity.pid}) was stopped." for name, identity in ended if identity]


@contextmanager
def temporary_database(home: Path, *, fast: bool = False) -> Iterator[str]:
    """The URL of this home's database for one command: the running server's, or one started for it.

    A PostgreSQL that a borrower started is stopped by the last borrower to leave, unless `start` was called
    or the home was held in between: then it stays.

    Raises:
        ServiceError: it does not start.
    """
    made = DataDirectory.at(home).make()
    ticket = open_lock(made.run / BORROWERS)
    try:
        with locked(made.run / LOCK):
            # Under the lock of the servers, so that no leaving borrower stops the server in between.
            fcntl.flock(ticket, fcntl.LOCK_SH)
            before = postgres.find(made)
            lent = before is None or bool(read_json(made.servers_json).get("lent"))
            up = RunningServers(before or _start(made, True, False, fast).postgres, None)
            _note(made, up, lent=lent)
        if up.postgres is None:
            raise DatabaseUnreachable
        yield up.postgres.url
    finally:
        _leave(made, ticket)


def is_temporary(home: DataDirectory) -> bool:
    """Does a command use the PostgreSQL that it, or another command, started for itself?"""
    if not home.run.is_dir() or not read_json(home.servers_json).get("lent"):
        return False
    with locked(home.run / LOCK):  # else a borrower who leaves just now would think that another stays
        ticket = open_lock(home.run / BORROWERS)
        try:
            return not try_lock(ticket)
        finally:
            os.close(ticket)


def _leave(home: DataDirectory, ticket: int) -> None:
    """Give the ticket back; the last one out stops a server that was started only to be lent."""
    try:
        with locked(home.run / LOCK):
            last = try_lock(ticket)
            notes = read_json(home.servers_json)
            if last and notes.get("lent") and lock_owner(home.path) is None:
                postgres.stop(home)
                write_json(home.servers_json, notes | {"lent": False})
    finally:
        os.close(ticket)


def _start(home: DataDirectory, database: bool, broker: bool, fast: bool) -> RunningServers:
    """Start what is asked for. The caller holds the lock."""
    notes = read_json(home.servers_json)
    before = (postgres.main_process(home), valkey.main_process(home))
    up = RunningServers(None, None)
    try:
        if database:
            up = RunningServers(postgres.start(home, port=_port(notes, "database_url"), fast=fast), None)
        if broker:
            up = RunningServers(up.postgres, valkey.start(home, port=_port(notes, "broker_url"), fast=fast))
    except BaseException:  # an impatient Ctrl-C too
        try:
            if broker and before[1] is None:
                valkey.stop(home)
        finally:
            if database and before[0] is None:
                postgres.stop(home)
        raise
    return up


def _port(notes: dict[str, Any], key: str) -> int | None:
    """The port of last time, out of the URL that was noted."""
    found = re.search(r":(\d+)/\w+$", notes.get(key) or "")
    return int(found[1]) if found else None


def _note(home: DataDirectory, up: RunningServers, *, lent: bool) -> None:
    """Write down where the servers are (servers.json) and what producers need (producer.env)."""
    notes = read_json(home.servers_json) | {"lent": lent}
    if up.postgres:
        notes |= {"database_url": up.postgres.url, "postgres": up.postgres.identity.to_json()}
    if up.valkey:
        notes |= {"broker_url": up.valkey.url, "valkey": up.valkey.identity.to_json()}
    if up.servers.producer_url:
        remember_broker(home.path, up.servers.producer_url)
    write_json(home.servers_json, notes)


def remember_broker(home: Path, url: str) -> None:
    """Write a URL of the broker where the producers of this machine look for it (`producer.env`, mode 600)."""
    write_private(DataDirectory.at(home).producer_env, f"DIMS_BROKER_URL={url}\n")
