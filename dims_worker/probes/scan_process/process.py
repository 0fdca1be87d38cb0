"""A scan process, seen by the process that started it."""

from __future__ import annotations

import os
import signal
import socket
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

from dims_worker.probes.scan_process.child import run_child
from dims_worker.probes.scan_process.message_channel import MessageChannel
from dims_worker.probes.scan_process.process_tree import is_computing, kill_tree

_SEND = 5.0
"""Seconds to send a call. A scan process that does not read it in this time is broken."""
_PATIENCE = 1.0
"""Seconds to wait for a killed process. One that waits for a dead mount cannot be killed until the mount answers."""
_unreaped: list[tuple[int, int]] = []
"""Processes that did not end in that time, or whose thread has ended: the pid of their parent, and their own."""


class ScanProcess:
    """A process that answers calls. `inherited` is passed to the function of each call, and is never pickled.

    Raises OSError if the system cannot start another process.
    """

    def __init__(self, inherited: Any) -> None:
        self.inherited = inherited
        self.reaped = False
        _reap_others()
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
        self._parent = os.getpid()
        ours.settimeout(_SEND)
        self._channel = MessageChannel(ours)

    def fileno(self) -> int:
        return self._channel.fileno()

    def call(self, function: Callable[..., Any], arguments: tuple[Any, ...], limit: float) -> None:
        """Send a call. The kernel ends the process `limit` seconds after it begins. Raises OSError if it is gone."""
        self._channel.send((function, arguments, limit))

    def receive(self) -> Iterator[tuple[str, Any]]:
        """Yield the messages that have arrived. Raises EOFError if the process has ended."""
        return self._channel.receive()

    def __del__(self) -> None:
        """End the process of a thread that has ended: it ends when its connection is closed."""
        channel = getattr(self, "_channel", None)  # missing if the process could not be started
        if channel is not None and not self.reaped and self._parent == os.getpid():
            channel.close()
            self._leave_unreaped()

    def _leave_unreaped(self) -> None:
        self.reaped = True
        _unreaped.append((self._parent, self.pid))

    def has_ended(self) -> bool:
        """Return whether an idle process has ended: it sends nothing, so only the end can be read."""
        return self._channel.is_readable(0)

    def is_computing(self) -> bool | None:
        """Return whether it runs or wants to run now, and does not wait. None where the system does not show it."""
        return is_computing(self.pid)

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
                self.reaped = True
                return os.waitstatus_to_exitcode(status), usage.ru_utime + usage.ru_stime
            if time.monotonic() > end:
                self._leave_unreaped()
                return None, 0.0
            time.sleep(0.002)


def _reap_others() -> None:
    for parent, pid in [*_unreaped]:
        if parent == os.getpid() and os.waitpid(pid, os.WNOHANG) == (0, 0):
            continue
        _unreaped.remove((parent, pid))


def describe_end(status: int | None) -> str:
    """Return how a process ended, in words: `with signal 9 (SIGKILL)`."""
    if status is None:
        return "and cannot be removed"
    if status >= 0:
        return f"with exit code {status}"
    names = {number.value: number.name for number in signal.Signals}
    return f"with signal {-status} ({names.get(-status, 'unknown')})"
