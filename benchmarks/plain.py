"""The plain Celery task that the benchmarks compare DIMS with. It does nothing, with the fastest settings.

Run it with `celery -A benchmarks.plain worker`. PLAIN_BROKER_URL names its broker. The task has no result, so it writes
the time of each run, 8 bytes, to the file PLAIN_RUNS. One write takes one or two microseconds of about a millisecond.
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
    """Return when the tasks ran, in seconds of the monotonic clock, which all processes of a machine share."""
    return [when for (when,) in struct.iter_unpack("d", file.read_bytes())]
