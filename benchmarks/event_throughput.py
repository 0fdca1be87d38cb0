"""Durable events a second beside a plain Celery task that does nothing: same broker, same number of processes, in
turns. An event is done when it is committed to PostgreSQL with the metrics that it concerns marked as due."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

from kombu import Connection

from benchmarks.local_stack import Machine, Worker, machine, wait
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
"""The first round is a tenth of the others, and does not count."""
PROCESSES = 2
BAR, AIM = 15, 25
PATIENCE = 90.0


@dataclass(frozen=True)
class Speed:
    """So many a second; and the CPU that worker and servers used for one, in milliseconds."""

    rate: float
    cpu: float


def _send_events(made: Machine, events: list[Event]) -> None:
    """As a spool is flushed, by the producers' own call."""
    for first in range(0, len(events), BATCH):
        publish(events[first : first + BATCH], made.broker_url, timeout=30)


def _send_tasks(made: Machine, count: int) -> None:
    with Connection(made.broker_url) as connection, nothing.app.amqp.Producer(connection) as producer:
        for _ in range(count):
            nothing.apply_async(producer=producer)


def _timed(
    made: Machine, worker: Worker, count: int, send: Callable[[], None], done: Callable[[], object], *, paused: bool
) -> Speed:
    """From the first one sent to the last one done; `paused`: all are sent before the worker may begin."""

    def cpu() -> float:
        return worker.cpu() + made.servers_cpu()

    if paused:
        with worker.paused():
            send()
            used, begun = cpu(), time.monotonic()
    else:
        used, begun = cpu(), time.monotonic()
        send()
    wait(done, PATIENCE)
    seconds = time.monotonic() - begun
    return Speed(count / seconds, (cpu() - used) / count * 1000)


def durable(made: Machine, worker: Worker, count: int, run: str, *, paused: bool) -> Speed:
    """Events: the stream is empty only when all are stored, for they are deleted from it after the commit."""
    events = mixed(count, made.project, run=run)
    stored, batches = (made.scalar(sql) for sql in (_STORED, _BATCHES))
    with made.redis() as redis:
        speed = _timed(
            *(made, worker, count),
            *(lambda: _send_events(made, events), lambda: not redis.xlen(STREAM)),
            paused=paused,
        )
    if made.scalar(_STORED) - stored != count or made.scalar(_BATCHES) == batches or not made.scalar(_DUE):
        raise AssertionError("not every event is stored, or nothing was marked")
    return speed


_STORED = "SELECT count(*) FROM dims_event_log WHERE outcome = 'planned'"
_BATCHES = "SELECT count(*) FROM dims_ingest_batches"
_DUE = "SELECT count(*) FROM dims_metrics WHERE requested_gen > measured_gen"


def plain(made: Machine, worker: Worker, count: int, *, paused: bool) -> Speed:
    """Tasks that do nothing."""
    before = made.plain_runs.stat().st_size
    end = before + 8 * count
    return _timed(
        *(made, worker, count),
        *(lambda: _send_tasks(made, count), lambda: made.plain_runs.stat().st_size == end),
        paused=paused,
    )


def main() -> None:
    with (
        machine() as made,
        made.dims(INGEST, concurrency=PROCESSES) as ingest,
        made.plain(concurrency=PROCESSES) as celery,
    ):
        metrics = len(made.config.metrics)
        for paused in (False, True):
            pairs = []
            for number in range(ROUNDS + 1):
                less = 1 if number else WARM_UP
                pairs.append(
                    (
                        durable(made, ingest, EVENTS // less, f"{paused} {number}", paused=paused),
                        plain(made, celery, TASKS // less, paused=paused),
                    )
                )
            _say(pairs[1:], metrics, paused=paused)


def _say(pairs: list[tuple[Speed, Speed]], metrics: int, *, paused: bool) -> None:
    ratio = statistics.median(event.rate / task.rate for event, task in pairs)
    events, tasks = (statistics.median(speed.rate for speed in side) for side in zip(*pairs, strict=True))
    event_ms, task_ms = (statistics.median(speed.cpu for speed in side) for side in zip(*pairs, strict=True))
    what = "drained, sent before" if paused else "sent and stored"
    verdict = "" if paused else f"; {'within' if ratio >= BAR else 'UNDER'} the {BAR} times (the aim is {AIM})"
    print(
        f"events, {what}: {events:,.0f}/s at {metrics} metrics, {ratio:.1f} times a plain Celery task's {tasks:,.0f}/s "
        f"({PROCESSES} processes each, medians of {len(pairs)}; of CPU, servers included, one takes {event_ms:.2f} ms, "
        f"a task {task_ms:.2f}){verdict}"
    )
