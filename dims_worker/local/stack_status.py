"""What `dims status` shows and what `dims down` does."""

from __future__ import annotations

import signal
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dims_worker.errors import ServiceError
from dims_worker.local import postgres, valkey
from dims_worker.local.home import DataDirectory, read_json
from dims_worker.local.home_lock import hold_home, lock_owner, lock_owner_identity
from dims_worker.local.process import Identity, wait_until
from dims_worker.local.servers import is_temporary, running_servers, stop_servers
from dims_worker.local.supervisor import GRACE, end_orphans


@dataclass(frozen=True, slots=True)
class ProcessStatus:
    """One server or process of a home.

    `state`: `running`; `waiting` (it ended and is started again soon); `missing` (its program is not here);
    `orphan` (it runs and its supervisor does not); `stopped`. `since` is when it was started, UTC.
    """

    name: str
    pid: int | None
    since: datetime | None
    restarts: int
    state: str


def stack_status(home: Path) -> list[ProcessStatus]:
    """The servers, then the processes in the order of the Procfile. Reads only; empty where none ever ran."""
    made = DataDirectory.at(home)
    notes = read_json(made.processes_json)
    # What an earlier supervisor wrote is not what the present one runs: that has yet to end it.
    supervisor = lock_owner_identity(home) if lock_owner(home) else None
    supervised = supervisor is not None and supervisor == Identity.from_json(notes.get("supervisor"))
    up = running_servers(made)
    counts = {note["name"]: int(note["restarts"]) for note in notes.get("servers", [])}
    found = []
    for key, server in (("postgres", up.postgres), ("valkey", up.valkey)):
        restarts = counts.get(key, 0) if supervised else 0
        if server is not None:
            found.append(_running(key, server.identity, restarts, "running"))
        elif key in read_json(made.servers_json) or key in counts:  # else the configuration names others
            found.append(ProcessStatus(key, None, None, restarts, "stopped"))
    return found + [_of_note(note, supervised) for note in notes.get("processes", [])]


def end_stack(home: Path, timeout: float) -> list[str]:
    """End all that runs for this home; a plain sentence for each thing that was ended.

    The supervisor is told to end (SIGTERM) and ends its processes itself. Where it was killed, what it left
    is ended here, in the same order: processes, Valkey, PostgreSQL. A PostgreSQL that another command has
    just started for itself is left to that command.

    Args:
        timeout: seconds to wait for the supervisor; its processes have 20 s each, one after the other.

    Raises:
        ServiceError: the supervisor has not ended in time, or cannot be seen from here.
    """
    made = DataDirectory.at(home)
    if not made.run.is_dir():
        return []
    told = _end_holder(home, timeout) if lock_owner(home) is not None else []
    with hold_home(home):
        told += end_orphans(made, min(GRACE, timeout))
        if is_temporary(made):
            told += stop_servers(made, database=False)
            told.append(f"{postgres.NAME} is used by a command, which stops it when it ends.")
        else:
            told += stop_servers(made)
    return told


def _end_holder(home: Path, timeout: float) -> list[str]:
    """Tell the supervisor to end and wait until the home is free."""
    identity = lock_owner_identity(home)
    if identity is None:
        if lock_owner(home) is None:
            return []
        raise ServiceError(f"{home} is up in another container or on another machine: end it there.")
    before = [one for one in stack_status(home) if one.pid is not None]
    identity.send(signal.SIGTERM)
    if not wait_until(lambda: lock_owner(home) != identity.pid, timeout):
        raise ServiceError(
            f"The supervisor (pid {identity.pid}) has not ended within {timeout:.0f} s: see `dims status`."
        )
    titles = {"postgres": postgres.NAME, "valkey": valkey.NAME}
    ended = [f"{titles.get(one.name, one.name)} (pid {one.pid}) was stopped." for one in reversed(before)]
    return [*ended, f"The supervisor (pid {identity.pid}) has ended."]


def _of_note(note: Mapping[str, Any], supervised: bool) -> ProcessStatus:
    identity = Identity.from_json(note)
    name, restarts, state = str(note["name"]), int(note["restarts"]), str(note["state"])
    if identity is not None and identity.alive():
        return _running(name, identity, restarts, "running" if supervised else "orphan")
    return ProcessStatus(name, None, None, restarts, state if supervised or state == "missing" else "stopped")


def _running(name: str, identity: Identity, restarts: int, state: str) -> ProcessStatus:
    since = datetime.fromtimestamp(identity.started, UTC)
    return ProcessStatus(name, identity.pid, since, restarts, state)
