"""How long one event takes on an idle machine, beside a plain Celery task on the same broker, in turns.

Nothing is polled. The plain task itself notes when it runs; the database tells when an event, and then the
reading that it led to, is committed (a trigger of this benchmark's and LISTEN). So DIMS is timed until somebody
else has heard of it, the task only until it begins.
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

from benchmarks.local_stack import Machine, machine, wait
from benchmarks.plain import nothing
from dims_producers.publish import FIELD, connect
from dims_worker.events import FILES_CHANGED, STREAM, Event
from dims_worker.worker.celery_app import INGEST, VERIFY

TURNS = 100
WARM_UP = 10
PAUSE = 0.2
BAR_STORED, BAR_RECORDED = 1.5, 5.0

CONFIG = """
sources: {tiny: {type: files, path: tiny}}
metrics: {tiny: {files: {source: tiny, measure: count}}}
rules: {saved: {on: dims.files.changed}}
"""
TOLD = {"stored": "dims_event_log", "recorded": "dims_metrics_history"}


@dataclass
class Ear:
    """Hears of commits. `heard`: seconds of the monotonic clock."""

    connection: psycopg2.extensions.connection
    heard: dict[str, float] = field(default_factory=dict)

    def listen(self, *names: str) -> None:
        """Until all of these were told. Raises TimeoutError."""
        while not all(name in self.heard for name in names):
            if not select.select([self.connection], [], [], 10)[0]:
                raise TimeoutError(f"not {' and '.join(names)} within 10 s")
            now = time.monotonic()
            self.connection.poll()
            for notify in self.connection.notifies:
                self.heard.setdefault(notify.channel, now)
            self.connection.notifies.clear()


@contextmanager
def ear(made: Machine) -> Iterator[Ear]:
    """An ear at the database of a machine, whose tables tell of themselves from now on."""
    with made.engine.begin() as connection:
        for channel, table in TOLD.items():
            connection.execute(
                text(
                    f"CREATE FUNCTION tell_{channel}() RETURNS trigger LANGUAGE plpgsql AS "
                    f"$$ BEGIN NOTIFY {channel}; RETURN NULL; END $$"
                )
            )
            connection.execute(text(f"CREATE TRIGGER told AFTER INSERT ON {table} EXECUTE FUNCTION tell_{channel}()"))
    url = str(made.config.database_url).replace("postgresql+psycopg2://", "postgresql://")
    with closing(psycopg2.connect(url)) as opened:
        opened.set_isolation_level(ISOLATION_LEVEL_AUTOCOMMIT)
        with opened.cursor() as cursor:
            for channel in TOLD:
                cursor.execute(f"LISTEN {channel}")
        yield Ear(opened)


@dataclass
class Latencies:
    """Milliseconds, a turn each."""

    plain: list[float] = field(default_factory=list)
    stored: list[float] = field(default_factory=list)
    recorded: list[float] = field(default_factory=list)

    def event(self, made: Machine, redis: Redis, ear: Ear, number: int) -> None:
        """From XADD to stored, and to the recorded reading of a metric that counts the files of a tiny folder."""
        folder = made.project / "tiny"
        (folder / f"{number}.txt").touch()
        event = Event.new(
            FILES_CHANGED,
            "files:bench",
            now=datetime.now(UTC),
            data={"root": str(made.project), "paths": [f"tiny/{number}.txt"]},
        )
        ear.heard.clear()
        sent = time.monotonic()
        redis.xadd(STREAM, {FIELD: event.to_json()})
        ear.listen("stored", "recorded")
        self.stored.append((ear.heard["stored"] - sent) * 1000)
        self.recorded.append((ear.heard["recorded"] - sent) * 1000)

    def task(self, made: Machine, producer: object) -> None:
        """From send to run."""
        before = len(made.ran())
        sent = time.monotonic()
        nothing.apply_async(producer=producer)
        wait(lambda: len(made.ran()) > before, 10)
        self.plain.append((made.ran()[-1] - sent) * 1000)


def measure(made: Machine) -> Latencies:
    found = Latencies()
    with (
        ear(made) as told,
        connect(made.broker_url, timeout=10) as redis,
        Connection(made.broker_url) as connection,
        nothing.app.amqp.Producer(connection) as producer,
    ):
        for number in range(WARM_UP + TURNS):
            found.event(made, redis, told, number)
            time.sleep(PAUSE)
            found.task(made, producer)
            time.sleep(PAUSE)
    return Latencies(*(each[WARM_UP:] for each in (found.plain, found.stored, found.recorded)))


def main() -> None:
    """The workers of the Procfile, and one of the plain task."""
    files = {"dims.yaml": CONFIG, "tiny/a.txt": ""}
    with (
        machine(files) as made,
        made.dims(INGEST, concurrency=1),
        made.dims(VERIFY, concurrency=4),
        made.plain(concurrency=2),
    ):
        wait(lambda: not made.scalar("SELECT count(*) FROM dims_metrics WHERE requested_gen > measured_gen"), 30)
        found = measure(made)
        if made.scalar("SELECT value::int FROM dims_metrics") != 1 + WARM_UP + TURNS:
            raise AssertionError("the last reading is not what there is")
    plain = statistics.median(found.plain)
    print(f"latency of a plain Celery task, from send to run: {_shown(found.plain)}")
    for name, bar, values in (
        ("stored", BAR_STORED, found.stored),
        ("the recorded reading", BAR_RECORDED, found.recorded),
    ):
        ratio = statistics.median(values) / plain
        verdict = "within" if ratio <= bar else "OVER"
        print(f"latency of an event, from XADD to {name}: {_shown(values)}, {ratio:.2f} times; {verdict} the {bar:g}")


def _shown(values: list[float]) -> str:
    p50, p95 = statistics.median(values), statistics.quantiles(values, n=20)[-1]
    return f"p50 {p50:.1f} ms, p95 {p95:.1f} ms ({len(values)} turns)"
