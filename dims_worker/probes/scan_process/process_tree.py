"""Kill a process together with everything that it started, in whatever session or process group that is."""

from __future__ import annotations

import os
import signal
import subprocess
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

_PROC = Path("/proc")
_ROUNDS = 5
"""A process that is being killed may start another one. So the search is repeated this often at most."""


def kill_tree(pid: int) -> None:
    """Stop a child of this process, so that it starts no more processes, then kill it and its descendants."""
    _send(pid, signal.SIGSTOP)
    kill_descendants(pid)
    _send(pid, signal.SIGKILL)


def kill_descendants(pid: int) -> None:
    """Kill everything that a process has started and that still runs."""
    for _ in range(_ROUNDS):
        alive = [each for each in descendants(pid) if _send(each, signal.SIGKILL)]
        if not alive:
            return


def descendants(pid: int) -> list[int]:
    """Return the pids of the children of a process, their children and so on. Zombies are left out."""
    children = defaultdict(list)
    for child, parent in _parents():
        children[parent].append(child)
    below: list[int] = []
    waiting = [pid]
    while waiting:
        waiting += (direct := children[waiting.pop()])
        below += direct
    return below


def is_computing(pid: int) -> bool | None:
    """Return whether any thread of a process runs or wants to run now. None where the system does not show it."""
    try:
        threads = [*(_PROC / str(pid) / "task").iterdir()]
    except OSError:
        return None
    return any(_state_and_parent(thread)[0] == b"R" for thread in threads)


def _parents() -> Iterator[tuple[int, int]]:
    """Yield the pid and the parent's pid of every process that is not a zombie."""
    if not _PROC.joinpath("self", "stat").exists():  # macOS
        listed = subprocess.run(["ps", "-A", "-o", "pid=,ppid=,stat="], capture_output=True, text=True, check=False)
        for pid, parent, kind in (line.split(None, 2) for line in listed.stdout.splitlines()):
            if not kind.startswith("Z"):
                yield int(pid), int(parent)
        return
    for name in os.listdir(_PROC):  # noqa: PTH208 - this is read often, and a Path for each entry costs more
        if name.isdigit():
            state, parent_pid = _state_and_parent(_PROC / name)
            if state not in (b"Z", b"X"):
                yield int(name), parent_pid


def _state_and_parent(folder: Path) -> tuple[bytes, int]:
    """Return the state of a process or thread, and the pid of its parent. The state is X if it is gone."""
    try:
        # The name in brackets may contain anything, so count from the last bracket
        fields = (folder / "stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return b"X", 0
    return fields[0], int(fields[1])


def _send(pid: int, number: signal.Signals) -> bool:
    """Send a signal. False if the process is gone or belongs to another user."""
    try:
        os.kill(pid, number)
    except (ProcessLookupError, PermissionError):
        return False
    return True
