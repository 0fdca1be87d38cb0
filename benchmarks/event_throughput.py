"""Compare durable events per second with plain Celery tasks: same broker, same number of processes, in turns.

An event is done when PostgreSQL has committed it and its metrics are due. The plain task does nothing.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

from kombu import Connection

from benchmarks.local_stack import LocalStack, Worker, local_stack, wait_until
from benchmarks.plain import nothing
from benchmarks.traffic import mixed
from dims_producers.publish import publish
from dims_producers.spool import BATCH
from dims_worker.events import STREAM, Event
from dims_worker.worker.celery_app import INGEST

EVENTS = 20_000
TASKS = 1_000
ROUNDS = 4
WARM_UP = 10
"""The first round is this many times smaller, and does not count."""
PROCESSES = 2
MIN_RATIO, TARGET_RATIO = 15, 25
PATIENCE = 90.0


@dataclass(frozen=True)
class Speed:
    """Events or tasks per second, and the CPU milliseconds of worker and servers for each."""

    rate: float
    cpu: float


def _send_events(stack: LocalStack, events: list[Event]) -> None:
    """Send events in the batches in which a producer sends its spool."""
    for first in range(0, len(events), BATCH):
        publish(events[first : first + BATCH], stack.broker_url, timeout=30)


def _send_tasks(stack: LocalStack, count: int) -> None:
    with Connection(stack.broker_url) as connection, nothing.app.amqp.Producer(connection) as producer:
        for _ in range(count):
            nothing.apply_async(producer=producer)


def _timed(
    stack: LocalStack, worker: Worker, count: int, send: Callable[[], None], done: Callable[[], object], *, paused: bool
) -> Speed:
    """Time from the first send until all are done. `paused`: send all before the worker starts."""

    def cpu() -> float:
        return worker.cpu() + stack.servers_cpu()

    if paused:
        with worker.paused():
            send()
            used, begun = cpu(), time.monotonic()
    else:
        used, begun = cpu(), time.monotonic()
        send()
    wait_until(done, PATIENCE)
    seconds = time.monotonic() - begun
    return Speed(count / seconds, (cpu() - used) / count * 1000)


def durable(stack: LocalStack, worker: Worker, count: int, run: str, *, paused: bool) -> Speed:
    """Measure events. DIMS deletes stored events from the stream, so an empty stream means that all are stored."""
    events = mixed(count, stack.project, run=run)
    stored, batches = (stack.scalar(sql) for sql in (_STORED, _BATCHES))
    with stack.redis() as redis:
        speed = _timed(
            stack,
            worker,
            count,
            lambda: _send_events(stack, events),
            lambda: not redis.xlen(STREAM),
            paused=paused,
        )
    if stack.scalar(_STORED) - stored != count or stack.scalar(_BATCHES) == batches or not stack.scalar(_DUE):
        raise AssertionError("not every event is stored, or no metric became due")
    return speed


_STORED = "SELECT count(*) FROM dims_event_log WHERE outcome = 'planned'"
_BATCHES = "SELECT count(*) FROM dims_ingest_batches"
_DUE = "SELECT count(*) FROM dims_metrics WHERE requested_gen > measured_gen"


def plain(stack: LocalStack, worker: Worker, count: int, *, paused: bool) -> Speed:
    """Measure tasks that do nothing."""
    before = stack.plain_runs.stat().st_size
    end = before + 8 * count
    return _timed(
        stack,
        worker,
        count,
        lambda: _send_tasks(stack, count),
        lambda: stack.plain_runs.stat().st_size == end,
        paused=paused,
    )


def main() -> None:
    with (
        local_stack() as stack,
        stack.dims(INGEST, concurrency=PROCESSES) as ingest,
        stack.plain(concurrency=PROCESSES) as celery,
    ):
        metrics = len(stack.config.metrics)
        for paused in (False, True):
            pairs = []
            for number in range(ROUNDS + 1):
                divisor = 1 if number else WARM_UP
                pairs.append(
                    (
                        durable(stack, ingest, EVENTS // divisor, f"{paused} {number}", paused=paused),
                        plain(stack, celery, TASKS // divisor, paused=paused),
                    )
                )
            _print_result(pairs[1:], metrics, paused=paused)


def _print_result(pairs: list[tuple[Speed, Speed]], metrics: int, *, paused: bool) -> None:
    ratio = statistics.median(event.rate / task.rate for event, task in pairs)
    events, tasks = (statistics.median(speed.rate for speed in side) for side in zip(*pairs, strict=True))
    event_ms, task_ms = (statistics.median(speed.cpu for speed in side) for side in zip(*pairs, strict=True))
    case = "stored, after all were sent" if paused else "sent and stored"
    verdict = "within" if ratio >= MIN_RATIO else "UNDER"
    limit = "" if paused else f"; {verdict} the minimum of {MIN_RATIO} times (the target is {TARGET_RATIO})"
    print(
        f"event throughput, {case}: {events:,.0f}/s with {metrics} metrics, {ratio:.1f} times the {tasks:,.0f}/s "
        f"of plain Celery tasks ({PROCESSES} processes each, medians of {len(pairs)}; "
        f"CPU with servers: {event_ms:.2f} ms per event, {task_ms:.2f} ms per task){limit}"
    )
