"""Processes that a test lets on step by step, or kills: real code, in the order that the test wants.

A process halts wherever it is about to touch what others see: before each transaction, before it acknowledges
entries, before it rings, before it reads the world that it measures. Nothing else runs meanwhile, so one order gives
one outcome.
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
"""Seconds that a process may run between two halts."""

_here = threading.local()


class Killed(BaseException):
    """What `kill -9` is to the code that it meets."""


class Process:
    """A call in a thread of its own, which runs only while the test waits for it."""

    def __init__(self, name: str, call: Callable[[], object]) -> None:
        self.name = name
        self.halted_at: str | None = "start"
        """What it is about to do; None: it has ended."""
        self.error: BaseException | None = None
        self._killed = False
        self._trouble: Exception | None = None
        self._troubled = False
        self._mine, self._tests = threading.Semaphore(0), threading.Semaphore(0)
        self._thread = threading.Thread(target=self._run, args=(call,), name=name, daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        return self.halted_at is not None

    def go_on(self) -> None:
        """Let it on to its next halt, or its end. Raises what it ended with."""
        if not self.alive:
            return
        self._mine.release()
        assert self._tests.acquire(timeout=PATIENCE), f"{self.name} went on from {self.halted_at} and hangs"
        if not self.alive:
            self._thread.join()
        if self.error is not None:
            raise self.error

    def finish(self, halts: int = 100) -> None:
        """Let it on until it ends. Raises what it ended with."""
        while self.alive:
            self.go_on()
            halts -= 1
            assert halts, f"{self.name} does not end, and is halted at {self.halted_at}"

    def kill(self) -> None:
        """End it where it stands: a transaction it was in is rolled back, and no word of it is heard any more."""
        self._killed = True
        self.finish()

    def trouble(self, error: Exception) -> None:
        """Let it on, but what it is about to do fails with this error. It may end with that."""
        self._trouble = error
        self.go_on()

    def halt(self, at: str) -> None:
        """From the process itself: wait until the test lets it on."""
        if not self._killed:
            self.halted_at = at
            self._tests.release()
            assert self._mine.acquire(timeout=10 * PATIENCE), f"the test has forgotten {self.name}"
        if self._killed:
            raise Killed
        if self._trouble and not self._troubled:
            self._troubled = True
            raise self._trouble

    def _run(self, call: Callable[[], object]) -> None:
        self._mine.acquire()
        try:
            _here.process = self
            if not self._killed:
                call()
        except Killed:
            pass
        except BaseException as error:
            self.error = error if error is not self._trouble else None
        self.halted_at = None
        self._tests.release()


def current() -> Process | None:
    """The process that runs now; None: the test itself."""
    return getattr(_here, "process", None)


def halt(at: str) -> None:
    """A process waits here until it is let on; the test itself goes by."""
    if (process := current()) is not None:
        process.halt(at)


@contextmanager
def halting(engine: Engine) -> Iterator[Engine]:
    """Processes halt before each transaction of this engine."""

    def before(_: Any) -> None:
        halt("BEGIN")

    event.listen(engine, "begin", before)
    yield engine
    event.remove(engine, "begin", before)


class HaltingRedis(Redis):
    """Processes halt before they acknowledge or delete entries of the stream."""

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
