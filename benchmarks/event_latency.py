"""Compare the latency of an event with that of a plain Celery task on the same broker, in turns on an idle machine.

Nothing is polled. The plain task records when it runs. A trigger and LISTEN report when an event and its reading are
committed. So the time of DIMS includes the notification, and the time of the task ends when the task starts.
"""

from __future__ import annotations

import select
import statistics
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime

import psycopg2
from kombu import Connection
from psycopg2.extensions import ISOLATION_LEVEL_AUTOCOMMIT
from redis import Redis
from sqlalchemy import text

from benchmarks.local_stack import LocalStack, local_stack, wait_until
from benchmarks.plain import nothing
from dims_producers.publish import FIELD, connect
from dims_worker.events import FILES_CHANGED, STREAM, Event
from dims_worker.worker.celery_app import INGEST, VERIFY

TURNS = 100
WARM_UP = 10
PAUSE = 0.2
LIMIT_STORED, LIMIT_RECORDED = 1.5, 5.0

CONFIG = """
sources: {tiny: {type: files, path: tiny}}
metrics: {tiny: {files: {source: tiny, measure: count}}}
rules: {saved: {on: dims.files.changed}}
"""
NOTIFYING_TABLES = {"stored": "dims_event_log", "recorded": "dims_metrics_history"}


@dataclass
class CommitListener:
    """Waits for commits. `times`: when each was notified, in seconds of the monotonic clock."""

    connection: psycopg2.extensions.connection
    times: dict[str, float] = field(default_factory=dict)

    def listen(self, *names: str) -> None:
        """Wait until all of these were notified. Raises TimeoutError."""
        while not all(name in self.times for name in names):
            if not select.select([self.connection], [], [], 10)[0]:
                raise TimeoutError(f"not {' and '.join(names)} within 10 s")
            now = time.monotonic()
            self.connection.poll()
            for notify in self.connection.notifies:
                self.times.setdefault(notify.channel, now)
            self.connection.notifies.clear()


@contextmanager
def listen_for_commits(stack: LocalStack) -> Iterator[CommitListener]:
    """Add a trigger to each table, and yield a listener for its notifications."""
    with stack.engine.begin() as connection:
        for channel, table in NOTIFYING_TABLES.items():
            connection.execute(
                text(
                    f"CREATE FUNCTION notify_{channel}() RETURNS trigger LANGUAGE plpgsql AS "
                    f"$$ BEGIN NOTIFY {channel}; RETURN NULL; END $$"
                )
            )
            connection.execute(
                text(f"CREATE TRIGGER notify AFTER INSERT ON {table} EXECUTE FUNCTION notify_{channel}()")
            )
    url = str(stack.config.database_url).replace("postgresql+psycopg2://", "postgresql://")
    with closing(psycopg2.connect(url)) as opened:
        opened.set_isolation_level(ISOLATION_LEVEL_AUTOCOMMIT)
        with opened.cursor() as cursor:
            for channel in NOTIFYING_TABLES:
                cursor.execute(f"LISTEN {channel}")
        yield CommitListener(opened)


@dataclass
class Latencies:
    """Milliseconds per turn."""

    plain: list[float] = field(default_factory=list)
    stored: list[float] = field(default_factory=list)
    recorded: list[float] = field(default_factory=list)

    def event(self, stack: LocalStack, redis: Redis, listener: CommitListener, number: int) -> None:
        """Time an event from XADD until it is stored, and until the reading of a small folder is recorded."""
        folder = stack.project / "tiny"
        (folder / f"{number}.txt").touch()
        event = Event.new(
            FILES_CHANGED,
            "files:bench",
            now=datetime.now(UTC),
            data={"root": str(stack.project), "paths": [f"tiny/{number}.txt"]},
        )
        listener.times.clear()
        sent = time.monotonic()
        redis.xadd(STREAM, {FIELD: event.to_json()})
        listener.listen("stored", "recorded")
        self.stored.append((listener.times["stored"] - sent) * 1000)
        self.recorded.append((listener.times["recorded"] - sent) * 1000)

    def task(self, stack: LocalStack, producer: object) -> None:
        """Time a task from sending it until it runs."""
        before = len(stack.ran())
        sent = time.monotonic()
        nothing.apply_async(producer=producer)
        wait_until(lambda: len(stack.ran()) > before, 10)
        self.plain.append((stack.ran()[-1] - sent) * 1000)


def measure(stack: LocalStack) -> Latencies:
    latencies = Latencies()
    with (
        listen_for_commits(stack) as listener,
        connect(stack.broker_url, timeout=10) as redis,
        Connection(stack.broker_url) as connection,
        nothing.app.amqp.Producer(connection) as producer,
    ):
        for number in range(WARM_UP + TURNS):
            latencies.event(stack, redis, listener, number)
            time.sleep(PAUSE)
            latencies.task(stack, producer)
            time.sleep(PAUSE)
    return Latencies(*(times[WARM_UP:] for times in (latencies.plain, latencies.stored, latencies.recorded)))


def main() -> None:
    """Run the workers of the Procfile and one worker of the plain task, and print the latencies."""
    files = {"dims.yaml": CONFIG, "tiny/a.txt": ""}
    with (
        local_stack(files) as stack,
        stack.dims(INGEST, concurrency=1),
        stack.dims(VERIFY, concurrency=4),
        stack.plain(concurrency=2),
    ):
        wait_until(lambda: not stack.scalar("SELECT count(*) FROM dims_metrics WHERE requested_gen > measured_gen"), 30)
        latencies = measure(stack)
        if stack.scalar("SELECT value::int FROM dims_metrics") != 1 + WARM_UP + TURNS:
            raise AssertionError("the last reading is not the number of files")
    plain = statistics.median(latencies.plain)
    print(f"event latency: a plain Celery task starts after {_format_times(latencies.plain)}")
    for name, limit, values in (
        ("is stored", LIMIT_STORED, latencies.stored),
        ("has a recorded reading", LIMIT_RECORDED, latencies.recorded),
    ):
        ratio = statistics.median(values) / plain
        verdict = "within" if ratio <= limit else "OVER"
        print(
            f"event latency: an event {name} after {_format_times(values)}, {ratio:.2f} times the task; "
            f"{verdict} the limit of {limit:g} times"
        )


def _format_times(values: list[float]) -> str:
    p50, p95 = statistics.median(values), statistics.quantiles(values, n=20)[-1]
    return f"p50 {p50:.1f} ms, p95 {p95:.1f} ms ({len(values)} turns)"
