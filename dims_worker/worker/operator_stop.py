"""An operator's stop: scans that cannot end in time are killed, and their claims are returned uncounted.

Celery's main process gets the signal, and its children run the scans. They share a few bytes of memory that say when
the stop began. A child reads them while it waits for its scan process.
"""

from __future__ import annotations

import mmap
import os
import signal
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from celery import Celery, bootsteps
from celery.signals import worker_shutting_down

from dims_worker.errors import ScanStopped

SCAN_TIME = 5.0
"""Seconds that a running scan gets after the stop began. `docker stop` kills a container after 10."""

_INSTANT = struct.Struct("d")
_shared = mmap.mmap(-1, _INSTANT.size)
"""When the stop began, in seconds of the monotonic clock, which all processes share. 0 until then. Children that Celery
forks inherit this memory, and see what the main process writes."""


def install(app: Celery) -> None:
    """Make the workers of an app note that they stop, in whatever way."""
    worker_shutting_down.connect(begin_stop, weak=False)  # a signal, even while the broker is unreachable
    app.steps["worker"].add(OperatorStopStep)


def begin_stop(*_: Any, **__: Any) -> None:
    """Note that this worker stops. Running scans have `SCAN_TIME` seconds from now on."""
    if not is_stopping():
        _INSTANT.pack_into(_shared, 0, time.monotonic())


def is_stopping() -> bool:
    """Return whether this worker stops. It should claim nothing more."""
    return bool(_INSTANT.unpack_from(_shared)[0])


def is_time_over() -> bool:
    """Return whether running scans must end now."""
    (begun,) = _INSTANT.unpack_from(_shared)
    return bool(begun) and time.monotonic() >= begun + SCAN_TIME


class OperatorStopStep(bootsteps.StartStopStep):  # type: ignore[misc]
    """Notes a stop that no signal announces, such as a restart by SIGHUP or an error of the consumer."""

    def close(self, parent: Any) -> None:
        begin_stop()


@contextmanager
def stop_condition() -> Iterator[Callable[[], bool]]:
    """Yield a function that returns whether a running scan must end. Raises ScanStopped if the worker stops already.

    A cold shutdown ends this process with SIGTERM. Inside the block, the signal only ends the scan, so that the claim
    can be returned. The process ends after the block.
    """
    if is_stopping():
        raise ScanStopped
    if threading.current_thread() is not threading.main_thread():  # a pool of threads: only its main one gets signals
        yield is_time_over
        return
    terminated = False

    def note(number: int, frame: Any) -> None:
        nonlocal terminated
        terminated = True

    before = signal.signal(signal.SIGTERM, note)
    try:
        yield lambda: terminated or is_time_over()
    finally:
        signal.signal(signal.SIGTERM, before)
        if terminated:
            os.kill(os.getpid(), signal.SIGTERM)
