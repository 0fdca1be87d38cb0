"""The plain Celery task that DIMS is measured beside: it does nothing, with the settings that serve it best.

Run by `celery -A benchmarks.plain worker`. It reads its broker from PLAIN_BROKER_URL, and leaves the moment of
each run, 8 bytes, in the file PLAIN_RUNS: with no results, nothing else would tell that a task has run, and
when. One write costs a microsecond or two of the task's millisecond.
"""

from __future__ import annotations

import os
import struct
import time
from functools import cache
from pathlib import Path

from celery import Celery

app = Celery("plain", broker=os.environ.get("PLAIN_BROKER_URL"))
app.conf.update(
    task_ignore_result=True,
    task_acks_late=False,
    worker_disable_rate_limits=True,
    broker_connection_retry_on_startup=True,
)


@app.task
def nothing() -> None:
    os.write(_runs(os.getpid()), struct.pack("d", time.monotonic()))


@cache
def _runs(_pid: int) -> int:
    return os.open(os.environ["PLAIN_RUNS"], os.O_WRONLY | os.O_APPEND)


def runs(file: Path) -> list[float]:
    """When the tasks ran, in seconds of the monotonic clock that all processes of a machine share."""
    return [when for (when,) in struct.iter_unpack("d", file.read_bytes())]
