"""A scan process, seen by the process that started it."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

from dims_worker.probes.scan_process.channel import Channel
from dims_worker.probes.scan_process.child import run_child
from dims_worker.probes.scan_process.process_tree import kill_tree

_SEND = 5.0
"""Seconds to send a call. A scan process that does not read it in this time is broken."""
_PATIENCE = 1.0
"""Seconds to wait for a killed process. One that waits for a dead mount cannot be killed until the mount answers."""
_unkillable: list[int] = []
"""Processes that did not end in that time, to be reaped later."""


class ScanProcess:
    """A process that answers calls. `inherited` is passed to the function of each call, and is never pickled.

    Raises OSError if the system cannot start another process.
    """

    def __init__(self, inherited: Any) -> None:
        self.inherited = inherited
        _reap_unkillable()
        ours, theirs = socket.socketpair()
        with warnings.catch_warnings():
            # From Python 3.12 on, fork() warns of threads. The child uses no lock that another thread may hold.
            warnings.simplefilter("ignore", DeprecationWarning)
            try:
                self.pid = os.fork()
            except OSError:
                ours.close()
                theirs.close()
                raise
        if self.pid == 0:
            run_child(theirs, inherited)
        theirs.close()
        ours.settimeout(_SEND)
        self._channel = Channel(ours)

    def fileno(self) -> int:
        return self._channel.fileno()

    def call(self, function: Callable[..., Any], arguments: tuple[Any, ...], limit: float) -> None:
        """Send a call. The kernel ends the process `limit` seconds after it begins. Raises OSError if it is gone."""
        self._channel.send((function, arguments, limit))

    def receive(self) -> Iterator[tuple[str, Any]]:
        """Yield the messages that have arrived. Raises EOFError if the process has ended."""
        return self._channel.receive()

    def kill(self) -> tuple[int | None, float]:
        """Kill the process and everything that it has started.

        Returns its exit status in the form of `os.waitstatus_to_exitcode`, and the seconds of CPU time that it used.
        The status is None if the system cannot end it now.
        """
        kill_tree(self.pid)
        return self.reap()

    def reap(self) -> tuple[int | None, float]:
        """Wait for the end of the process, which has closed its connection or was killed. See `kill`."""
        self._channel.close()
        end = time.monotonic() + _PATIENCE
        while True:
            pid, status, usage = os.wait4(self.pid, os.WNOHANG)
            if pid:
                return os.waitstatus_to_exitcode(status), usage.ru_utime + usage.ru_stime
            if time.monotonic() > end:
                _unkillable.append(self.pid)
                kill_tree(self.pid)
                return None, 0.0
            time.sleep(0.002)


def _reap_unkillable() -> None:
    for pid in [*_unkillable]:
        with contextlib.suppress(ChildProcessError):  # it belongs to the process that forked this one
            if os.waitpid(pid, os.WNOHANG) == (0, 0):
                continue
        _unkillable.remove(pid)


def describe_end(status: int | None) -> str:
    """Return how a process ended, in words: `with signal 9 (SIGKILL)`."""
    if status is None:
        return "and cannot be removed"
    if status >= 0:
        return f"with exit code {status}"
    names = {number.value: number.name for number in signal.Signals}
    return f"with signal {-status} ({names.get(-status, 'unknown')})"
