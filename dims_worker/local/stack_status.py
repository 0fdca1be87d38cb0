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
from dims_worker.local.servers import existing_servers, is_temporary, stop
from dims_worker.local.supervisor import GRACE, end_orphans


@dataclass(frozen=True, slots=True)
class ProcessStatus:
    """One server or process of a data directory.

    `state` is one of: `running`; `waiting` (it ended and is restarted soon); `missing` (its program is not installed);
    `orphan` (it runs, but its supervisor does not); `stopped`. `since` is when it was started (UTC).
    """

    name: str
    pid: int | None
    since: datetime | None
    restarts: int
    state: str
    reason: str | None = None
    """Why the supervisor last restarted it."""


def stack_status(home: Path) -> list[ProcessStatus]:
    """Return the servers, then the processes in the order of the Procfile. Empty where none ever ran. Only reads.

    A server that is `running` may still refuse connections or hang.
    """
    directory = DataDirectory(home)
    saved = read_json(directory.processes_json)
    # A new supervisor first has to end what an earlier one started, so the earlier one's entries are not "running".
    supervisor = lock_owner_identity(home) if lock_owner(home) else None
    supervised = supervisor is not None and supervisor == Identity.from_json(saved.get("supervisor"))
    up = existing_servers(directory)  # a server that hangs would delay the answer
    restarts = {entry["name"]: int(entry["restarts"]) for entry in saved.get("servers", [])}
    reasons = {entry["name"]: entry.get("reason") for entry in saved.get("servers", [])} if supervised else {}
    statuses = []
    for key, server in (("postgres", up.postgres), ("valkey", up.valkey)):
        count = restarts.get(key, 0) if supervised else 0
        if server is not None:
            statuses.append(_running(key, server.identity, count, "running", reasons.get(key)))
        elif key in read_json(directory.servers_json) or key in restarts:  # else the configuration names other servers
            statuses.append(ProcessStatus(key, None, None, count, "stopped", reasons.get(key)))
    return statuses + [_from_json(entry, supervised) for entry in saved.get("processes", [])]


def end_stack(home: Path, timeout: float) -> list[str]:
    """End everything that runs for this data directory. Return a sentence for each thing that ended.

    The supervisor gets SIGTERM and ends its processes itself. If it was killed, its processes end here, in the same
    order: processes, Valkey, PostgreSQL. A PostgreSQL that another command has started for itself keeps running.

    Args:
        timeout: seconds to wait for the supervisor. Its processes have 20 s each, one after the other.

    Raises:
        ServiceError: the supervisor has not ended in time, or cannot be seen from here.
    """
    directory = DataDirectory(home)
    if not directory.run.is_dir():
        return []
    sentences = _end_supervisor(home, timeout) if lock_owner(home) is not None else []
    with hold_home(home):
        sentences += end_orphans(directory, min(GRACE, timeout))
        if is_temporary(directory):
            sentences += stop(home, database=False)
            sentences.append(f"{postgres.NAME} keeps running: another command uses it and stops it when it ends.")
        else:
            sentences += stop(home)
    return sentences


def _end_supervisor(home: Path, timeout: float) -> list[str]:
    """Send SIGTERM to the supervisor and wait until the lock is free."""
    identity = lock_owner_identity(home)
    if identity is None:
        if lock_owner(home) is None:
            return []
        raise ServiceError(f"DIMS runs in {home} in another container or on another machine. Run `dims down` there.")
    before = [status for status in stack_status(home) if status.pid is not None]
    identity.send(signal.SIGTERM)
    if not wait_until(lambda: lock_owner(home) != identity.pid, timeout):
        raise ServiceError(
            f"The supervisor (pid {identity.pid}) has not ended within {timeout:.0f} s. "
            "See `dims status`, or run `dims down` again with a longer --timeout."
        )
    titles = {"postgres": postgres.NAME, "valkey": valkey.NAME}
    ended = [f"{titles.get(status.name, status.name)} (pid {status.pid}) was stopped." for status in reversed(before)]
    return [*ended, f"The supervisor (pid {identity.pid}) has ended."]


def _from_json(entry: Mapping[str, Any], supervised: bool) -> ProcessStatus:
    identity = Identity.from_json(entry)
    name, restarts, state = str(entry["name"]), int(entry["restarts"]), str(entry["state"])
    reason = entry.get("reason") if supervised else None
    if identity is not None and identity.alive():
        return _running(name, identity, restarts, "running" if supervised else "orphan", reason)
    if state == "running" and supervised:
        state = "waiting"  # it has ended, and its supervisor has not noticed yet
    return ProcessStatus(name, None, None, restarts, state if supervised or state == "missing" else "stopped", reason)


def _running(name: str, identity: Identity, restarts: int, state: str, reason: str | None) -> ProcessStatus:
    since = datetime.fromtimestamp(identity.started, UTC)
    return ProcessStatus(name, identity.pid, since, restarts, state, reason)
