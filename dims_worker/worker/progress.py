"""What the processes of one worker have done, in memory that its main process shares with its children.

A child writes when it takes a wake-up, claims a source, stores events or ends a task. The main process reads that. It
costs no query and no message, and it works while a child hangs.

The memory is anonymous. `multiprocessing.Value` uses a file in the temporary folder, and a full disk would end a child.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import time
from datetime import UTC, datetime, timedelta
from typing import Any

from dims_worker.store.processes import ProcessProgress

MAX_CHILDREN = 1024
"""Children beyond this number share a place."""


class _ChildFields(ctypes.Structure):
    """The place of one child. Each field has 8 bytes at a multiple of 8, so a reader never sees half a value."""

    _fields_ = (("pid", ctypes.c_int64), ("busy_since", ctypes.c_double))


class _SharedFields(ctypes.Structure):
    """The whole shared memory. Times are monotonic seconds, and 0 means never."""

    _fields_ = (
        ("consumed", ctypes.c_double),
        ("continued", ctypes.c_double),
        ("claimed", ctypes.c_double),
        ("stored", ctypes.c_double),
        ("swept", ctypes.c_double),
        ("children", _ChildFields * MAX_CHILDREN),
    )


class WorkerProgress:
    """The times at which a worker last made progress. Create it in the main process, before its children start."""

    def __init__(self) -> None:
        self._main = os.getpid()
        self._memory = mmap.mmap(-1, ctypes.sizeof(_SharedFields))
        self._fields: Any = _SharedFields.from_buffer(self._memory)

    def note_claim(self) -> None:
        """Note that this process has claimed a source."""
        self._fields.claimed = time.monotonic()

    def note_stored(self) -> None:
        """Note that this process has stored events.

        In a child, that is progress of its task. The dispatcher stores events too, even if all children hang.
        """
        self._fields.stored = time.monotonic()
        if os.getpid() != self._main:
            self._fields.continued = self._fields.stored

    def note_sweep(self) -> None:
        """Note that this process has sent wake-ups for everything that waited."""
        self._fields.swept = time.monotonic()

    def child_started(self, index: int) -> None:
        """Note that this process is the child with this number, and idle."""
        child = self._fields.children[index % MAX_CHILDREN]
        child.busy_since, child.pid = 0.0, os.getpid()

    def task_started(self, index: int) -> None:
        """Note that a wake-up has reached the child with this number, which is this process."""
        child = self._fields.children[index % MAX_CHILDREN]
        child.pid = os.getpid()
        child.busy_since = self._fields.consumed = time.monotonic()

    def task_ended(self, index: int) -> None:
        """Note that the child with this number is idle again."""
        self._fields.children[index % MAX_CHILDREN].busy_since = 0.0
        self._fields.continued = time.monotonic()

    def busy_children(self) -> dict[int, float]:
        """Return the children that run a task: the pid, and since when, in monotonic seconds.

        A child that was killed while it ran a task is among them until its successor starts.
        """
        return {child.pid: child.busy_since for child in self._fields.children if child.busy_since}

    @property
    def latest(self) -> float:
        """When a child last took a wake-up, made progress with it or ended it. 0 means never."""
        return float(max(self._fields.consumed, self._fields.continued, self._fields.claimed))

    def report(self, problem: str | None = None) -> ProcessProgress:
        """Return the progress for the row of the worker, by the clock of this host."""
        now, monotonic = datetime.now(UTC), time.monotonic()

        def at(since: float) -> datetime | None:
            return now - timedelta(seconds=monotonic - since) if since else None

        fields = self._fields
        return ProcessProgress(at(fields.swept), at(fields.claimed), at(fields.stored), problem)


progress = WorkerProgress()
"""The progress of this worker. It exists before the pool forks, so that its children share it."""
