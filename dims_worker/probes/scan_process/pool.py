"""A bounded number of scan processes, and the calls that run in them.

A thread has its own pool, which works only while the thread waits for a call. So no lock and no other thread is needed.
"""

from __future__ import annotations

import logging
import os
import selectors
import signal
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from dims_worker.errors import ScanStopped
from dims_worker.probes.scan_process import child
from dims_worker.probes.scan_process.process import ScanProcess, describe_end

AT_ONCE = 16
"""Scan processes of one thread. More calls wait for their turn, and their time begins with it."""
GRACE = 3.0
"""Seconds after its timeout at which a call that has not ended is killed. A scan should end at its timeout."""
MARGIN = 1.5
"""Seconds after that at which the kernel kills it, in case that the parent is dead or frozen."""
BUSY = 0.1
"""The share of its time for which a call must have used the CPU to count as busy, where nothing better is known."""
_TICK = 0.2
"""Seconds between two checks whether the worker stops."""


def never() -> bool:
    """Return False: nothing stops the calls."""
    return False


@dataclass(slots=True)
class Failure:
    """Why a call has no result. `crashed`: its process died or computed without an end, and may do so again."""

    reason: str
    crashed: bool


@dataclass(slots=True, eq=False)
class ProcessCall:
    """A function to run in a scan process, with a limit in seconds. It has a `result` or a `failure` at the end.

    The function is called with what the process has inherited, a function that reports progress, and the arguments.
    `title` names the call in messages: "the scan of lake".
    """

    title: str
    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    timeout: float
    progress: Callable[[str], None] = lambda _: None
    result: Any = None
    failure: Failure | None = None
    done: bool = False
    begun_at: float = 0.0
    begun: bool = False
    cpu_before: float = 0.0
    tries: int = 0

    @property
    def limit(self) -> float:
        """The monotonic instant at which the call is killed."""
        return self.begun_at + self.timeout + GRACE

    def end(self, result: Any = None, failure: Failure | None = None) -> None:
        self.result, self.failure, self.done = result, failure, True


@dataclass(slots=True)
class ScanPool:
    """The scan processes of one thread. Each inherits `inherited` when it is started, and serves calls for it only."""

    inherited: Any
    pid: int = field(default_factory=os.getpid)
    idle: list[ScanProcess] = field(default_factory=list)
    running: dict[ScanProcess, ProcessCall] = field(default_factory=dict)
    waiting: deque[ProcessCall] = field(default_factory=deque)

    def start(self, call: ProcessCall) -> None:
        """Begin a call now, or when another one has ended."""
        self.waiting.append(call)
        self._begin_waiting()

    def wait(self, call: ProcessCall, stop: Callable[[], bool] = never) -> None:
        """Wait until a call has ended.

        Raises ScanStopped once `stop` returns True. This and every other exception, such as Ctrl-C, kills all calls.
        """
        try:
            while not call.done:
                if stop():
                    raise ScanStopped
                self._step()
        except BaseException:
            self.kill()
            raise

    def kill(self) -> None:
        """Kill all scan processes, with what they have started. Calls that have not ended fail."""
        for process in [*self.running, *self.idle]:
            process.kill()
        for call in [*self.running.values(), *self.waiting]:
            call.end(failure=Failure(f"{call.title} was ended before it had a result", False))
        self.running.clear()
        self.idle.clear()
        self.waiting.clear()

    def _step(self) -> None:
        """Handle the messages of the next moment, end what exceeds its limit, and begin what waits."""
        now = time.monotonic()
        timeout = max(0.0, min([_TICK, *(call.limit - now for call in self.running.values())]))
        with selectors.DefaultSelector() as selector:
            for process in self.running:
                selector.register(process, selectors.EVENT_READ)
            ready = [key.fileobj for key, _ in selector.select(timeout)]
        for process in [*self.running]:
            if process in ready:  # even late: a result that has arrived counts
                self._receive(process)
            elif time.monotonic() > self.running[process].limit:
                self._kill_overdue(process)
        self._begin_waiting()

    def _begin_waiting(self) -> None:
        while self.waiting and len(self.running) < AT_ONCE:
            call = self.waiting.popleft()
            call.tries += 1
            call.begun, call.begun_at = False, time.monotonic()
            try:
                process = self._idle_process() or ScanProcess(self.inherited)
            except OSError as error:
                call.end(failure=Failure(f"a process for {call.title} cannot be started: {error.strerror}", False))
                continue
            self.running[process] = call
            try:
                process.call(call.function, call.arguments, call.timeout + GRACE + MARGIN)
            except OSError:
                self._lost(process)  # it ended when nothing had come for a while

    def _idle_process(self) -> ScanProcess | None:
        """Return an idle process that still runs, or None."""
        while self.idle:
            process = self.idle.pop()
            if not process.has_ended():
                return process
            process.kill()  # it has ended, because it had nothing to do for a while
        return None

    def _receive(self, process: ScanProcess) -> None:
        call = self.running[process]
        try:
            for kind, value in process.receive():
                if kind == child.BEGUN:
                    call.begun, call.begun_at, call.cpu_before = True, time.monotonic(), value
                elif kind == child.LOG:
                    logging.getLogger(value.name).handle(value)
                elif kind == child.PROGRESS:
                    call.progress(value)
                else:
                    del self.running[process]
                    self.idle.append(process)
                    self._end(call, kind, value)
        except EOFError:
            self._lost(process)

    def _end(self, call: ProcessCall, kind: str, value: Any) -> None:
        if kind == child.ENDED:
            call.end(value)
        else:
            call.end(failure=Failure(f"internal error: {value}", False))

    def _lost(self, process: ScanProcess) -> None:
        """Handle the end of a process: try once more if it had not begun the call."""
        call = self.running.pop(process)
        status, used = process.kill()
        if not call.begun and call.tries == 1:
            self.waiting.appendleft(call)
        elif status == -signal.SIGALRM:
            call.end(failure=self._overdue(call, used))
        else:
            call.end(failure=Failure(_crash_reason(call.title, status), True))

    def _kill_overdue(self, process: ScanProcess) -> None:
        call = self.running.pop(process)
        computing = process.is_computing()
        _, used = process.kill()
        call.end(failure=self._overdue(call, used, computing))

    def _overdue(self, call: ProcessCall, cpu_used: float, computing: bool | None = None) -> Failure:
        """Return the failure of a call that did not end in time, with its likely cause."""
        elapsed = time.monotonic() - call.begun_at
        busy = computing if computing is not None else cpu_used - call.cpu_before > BUSY * elapsed
        end = _COMPUTING if busy else _WAITING
        return Failure(f"{call.title} took longer than its timeout of {call.timeout:g} s and {end}", busy)


_COMPUTING = (
    "was killed. It was computing all the time: a pattern such as (a+)+$ can take years. Simplify the patterns, "
    "measure less, or raise `timeout`"
)
_WAITING = (
    "was killed. It was waiting for a server, a file system or a program that did not answer. Check that they work, "
    "or raise `timeout`"
)


def _crash_reason(title: str, status: int | None) -> str:
    likely = {
        -signal.SIGKILL: "The system may have run out of memory: measure less, or give it more memory",
        -signal.SIGSEGV: "A library crashed. The log may show which one",
    }.get(status or 0, "The log may show why")
    return f"{title} has no result: its process ended {describe_end(status)}. {likely}"


class _Pools(threading.local):
    """The pool of each thread."""

    current: ScanPool | None = None
    of_parent: ScanPool | None = None
    """In a scan process: the pool of the process that started it. It is kept, so that Python does not close it."""


_pools = _Pools()


def pool_for(inherited: Any) -> ScanPool:
    """Return the pool of this thread, for calls on `inherited`. A pool for something else ends."""
    pool = _pools.current
    if pool is not None and pool.pid != os.getpid():
        _pools.of_parent = pool
    elif pool is not None:
        if pool.inherited is inherited:
            return pool
        pool.kill()
    _pools.current = ScanPool(inherited)
    return _pools.current
