"""20,000 events of four sources with a cooldown, as they happen: how few runs serve them all."""

from __future__ import annotations

import time
from datetime import UTC, datetime

from benchmarks.local_stack import Machine, machine, wait
from dims_producers.publish import publish
from dims_worker.events import FILES_CHANGED, STREAM, Event
from dims_worker.worker.celery_app import INGEST, VERIFY

SOURCES = 4
COOLDOWN = 2.0
EVENTS = 20_000
LOT = 250
SECONDS = 10.0
"""The events are spread over so long."""

CONFIG = f"""
settings: {{sweep: 1s}}
sources:
{"".join(f"  s{n}: {{type: files, path: s{n}, cooldown: {COOLDOWN:g}s}}{chr(10)}" for n in range(SOURCES))}
metrics:
  files:
{"".join(f"    s{n}: {{source: s{n}, measure: count}}{chr(10)}" for n in range(SOURCES))}
rules: {{saved: {{on: dims.files.changed}}}}
"""
_DUE = "SELECT count(*) FROM dims_metrics WHERE requested_gen > measured_gen"
_RUNS = "SELECT count(*) FROM dims_verification_runs"
_LATE = """
    SELECT count(*) FROM (
      SELECT k.metric, max(e.received_at) AS last FROM dims_event_log e
      JOIN dims_ingest_batches k USING (batch_id) WHERE k.metric = ANY(e.metrics) GROUP BY 1) AS sent
    JOIN dims_metrics m USING (metric) WHERE m.as_of <= sent.last
"""
"""Metrics whose last measurement began before their last event was stored."""


def send(made: Machine) -> float:
    """All events, evenly over the time, each after the file that it tells of; the seconds it took."""
    begun = time.monotonic()
    for number in range(0, EVENTS, LOT):
        events = []
        for each in range(number, number + LOT):
            path = f"s{each % SOURCES}/{each // LOT}.txt"
            (made.project / path).touch()
            data = {"root": str(made.project), "paths": [path], "number": each}
            events.append(Event.new(FILES_CHANGED, "files:bench", now=datetime.now(UTC), data=data))
        publish(events, made.broker_url, timeout=30)
        time.sleep(max(0.0, begun + SECONDS * (number + LOT) / EVENTS - time.monotonic()))
    return time.monotonic() - begun


def main() -> None:
    """The workers of the Procfile."""
    files = {"dims.yaml": CONFIG, **{f"s{number}/first.txt": "" for number in range(SOURCES)}}
    with (
        machine(files) as made,
        made.dims(INGEST, concurrency=1),
        made.dims(VERIFY, concurrency=4),
        made.redis() as redis,
    ):
        wait(lambda: made.scalar(_RUNS) >= SOURCES and not made.scalar(_DUE), 30, 0.05)
        before, begun = made.scalar(_RUNS), time.monotonic()
        sent = send(made)
        wait(lambda: not redis.xlen(STREAM) and not made.scalar(_DUE), 60, 0.05)
        duration = time.monotonic() - begun
        runs = made.scalar(_RUNS) - before
        stored, late = made.scalar("SELECT count(*) FROM dims_event_log"), made.scalar(_LATE)
        counted = made.scalar("SELECT sum(value::int) FROM dims_metrics")
    if (stored, late, counted) != (EVENTS, 0, SOURCES * (1 + EVENTS // LOT)):
        raise AssertionError(f"{stored:,} events are stored, {late} metrics late, {counted} files counted")
    bar = SOURCES * duration / COOLDOWN + SOURCES
    verdict = "within" if runs <= bar else "OVER"
    print(
        f"drain, {EVENTS:,} events of {SOURCES} sources in {sent:.1f} s, cooldown {COOLDOWN:g} s: drained and measured "
        f"after {duration:.1f} s by {runs} runs; {verdict} the {bar:.0f} (sources x duration / cooldown + sources), "
        f"every event stored once, every source measured after its last event"
    )
