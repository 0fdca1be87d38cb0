"""Run real code step by step, or kill it, in the order that a test chooses.

A process halts before each action that others can see: before a transaction, before it acknowledges entries, before it
sends a wake-up, before it reads the simulated world. Nothing else runs meanwhile, so one order has one outcome.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from redis import Redis
from redis.client import Pipeline
from sqlalchemy import Engine, event

PATIENCE = 30.0
"""The most seconds that a process may run between two halts."""

_here = threading.local()


class Killed(BaseException):
    """Simulates `kill -9` for the code that it interrupts."""


class Process:
    """A call in its own thread, which runs only while the test waits for it."""

    def __init__(self, name: str, call: Callable[[], object]) -> None:
        self.name = name
        self.halted_at: str | None = "start"
        """What it is about to do. None if it has ended."""
        self.error: BaseException | None = None
        self._killed = False
        self._injected_error: Exception | None = None
        self._error_raised = False
        self._may_run, self._halted = threading.Semaphore(0), threading.Semaphore(0)
        self._thread = threading.Thread(target=self._run, args=(call,), name=name, daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        return self.halted_at is not None

    def step(self) -> None:
        """Run it to its next halt or its end. Raise the exception it ended with."""
        if not self.alive:
            return
        self._may_run.release()
        assert self._halted.acquire(timeout=PATIENCE), f"{self.name} continued from {self.halted_at} and hangs"
        if not self.alive:
            self._thread.join()
        if self.error is not None:
            raise self.error

    def finish(self, halts: int = 100) -> None:
        """Run it until it ends. Raise the exception it ended with."""
        while self.alive:
            self.step()
            halts -= 1
            assert halts, f"{self.name} does not end; it is halted at {self.halted_at}"

    def kill(self) -> None:
        """Kill it at its halt. Its open transaction is rolled back, and it does nothing more."""
        self._killed = True
        self.finish()

    def fail_with(self, error: Exception) -> None:
        """Run it, but let its next action fail with this error. The process may end with it."""
        self._injected_error = error
        self.step()

    def halt(self, at: str) -> None:
        """Wait until the test continues this process. Called in the process itself."""
        if not self._killed:
            self.halted_at = at
            self._halted.release()
            assert self._may_run.acquire(timeout=10 * PATIENCE), f"the test never continued {self.name}"
        if self._killed:
            raise Killed
        if self._injected_error and not self._error_raised:
            self._error_raised = True
            raise self._injected_error

    def _run(self, call: Callable[[], object]) -> None:
        self._may_run.acquire()
        try:
            _here.process = self
            if not self._killed:
                call()
        except Killed:
            pass
        except BaseException as error:
            self.error = error if error is not self._injected_error else None
        self.halted_at = None
        self._halted.release()


def current() -> Process | None:
    """Return the process that runs now, or None for the test itself."""
    return getattr(_here, "process", None)


def halt(at: str) -> None:
    """Halt the current process until the test continues it. Does nothing in the test itself."""
    if (process := current()) is not None:
        process.halt(at)


@contextmanager
def halting(engine: Engine) -> Iterator[Engine]:
    """Let processes halt before each transaction of this engine."""

    def before(_: Any) -> None:
        halt("BEGIN")

    event.listen(engine, "begin", before)
    yield engine
    event.remove(engine, "begin", before)


class HaltingRedis(Redis):
    """A client that halts processes before they acknowledge or delete stream entries."""

    def execute_command(self, *args: Any, **options: Any) -> Any:
        if args[0] in ("XACK", "XDEL"):
            halt(args[0])
        return super().execute_command(*args, **options)

    def pipeline(self, transaction: bool = True, shard_hint: str | None = None) -> Pipeline:
        return _HaltingPipeline(self.connection_pool, self.response_callbacks, transaction, shard_hint)


class _HaltingPipeline(Pipeline):
    def execute(self, raise_on_error: bool = True) -> list[Any]:
        if any(command[0][0] in ("XACK", "XDEL") for command in self.command_stack):
            halt("XACK")
        return super().execute(raise_on_error)
