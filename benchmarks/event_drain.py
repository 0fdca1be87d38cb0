"""Count the runs that serve 20,000 events about four sources with a cooldown."""

from __future__ import annotations

import time
from datetime import UTC, datetime

from benchmarks.local_stack import LocalStack, local_stack, wait_until
from dims_producers.publish import publish
from dims_worker.events import FILES_CHANGED, STREAM, Event
from dims_worker.worker.celery_app import INGEST, VERIFY

SOURCES = 4
COOLDOWN = 2.0
EVENTS = 20_000
BATCH_SIZE = 250
SECONDS = 10.0
"""The time over which the events are sent."""

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


def send(stack: LocalStack) -> float:
    """Create files and send their events, evenly over SECONDS. Return how long it took."""
    begun = time.monotonic()
    for number in range(0, EVENTS, BATCH_SIZE):
        events = []
        for event_number in range(number, number + BATCH_SIZE):
            path = f"s{event_number % SOURCES}/{event_number // BATCH_SIZE}.txt"
            (stack.project / path).touch()
            data = {"root": str(stack.project), "paths": [path], "number": event_number}
            events.append(Event.new(FILES_CHANGED, "files:bench", now=datetime.now(UTC), data=data))
        publish(events, stack.broker_url, timeout=30)
        time.sleep(max(0.0, begun + SECONDS * (number + BATCH_SIZE) / EVENTS - time.monotonic()))
    return time.monotonic() - begun


def main() -> None:
    """Run the workers of the Procfile and print the number of runs."""
    files = {"dims.yaml": CONFIG, **{f"s{number}/first.txt": "" for number in range(SOURCES)}}
    with (
        local_stack(files) as stack,
        stack.dims(INGEST, concurrency=1),
        stack.dims(VERIFY, concurrency=4),
        stack.redis() as redis,
    ):
        wait_until(lambda: stack.scalar(_RUNS) >= SOURCES and not stack.scalar(_DUE), 30, 0.05)
        before, begun = stack.scalar(_RUNS), time.monotonic()
        sent = send(stack)
        wait_until(lambda: not redis.xlen(STREAM) and not stack.scalar(_DUE), 60, 0.05)
        duration = time.monotonic() - begun
        runs = stack.scalar(_RUNS) - before
        stored, late = stack.scalar("SELECT count(*) FROM dims_event_log"), stack.scalar(_LATE)
        counted = stack.scalar("SELECT sum(value::int) FROM dims_metrics")
    if (stored, late, counted) != (EVENTS, 0, SOURCES * (1 + EVENTS // BATCH_SIZE)):
        raise AssertionError(f"{stored:,} events stored, {late} metrics measured too early, {counted} files counted")
    limit = SOURCES * duration / COOLDOWN + SOURCES
    verdict = "within" if runs <= limit else "OVER"
    print(
        f"event drain: {EVENTS:,} events about {SOURCES} sources sent in {sent:.1f} s, cooldown {COOLDOWN:g} s; "
        f"measured after {duration:.1f} s in {runs} runs; {verdict} the limit of {limit:.0f} "
        f"(sources x duration / cooldown + sources); "
        f"every event is stored once and every source was measured after its last event"
    )
