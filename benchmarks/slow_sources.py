"""Send 200 events about 8 slow and 20 fast sources, and show how long the fast ones wait for their readings."""

from __future__ import annotations

import time
from datetime import UTC, datetime

from sqlalchemy import text

from benchmarks.local_stack import LocalStack, local_stack, wait_until
from dims_producers.publish import publish
from dims_worker.broker.queues import INGEST, VERIFY, VERIFY_SLOW
from dims_worker.events import Event

SLOW, FAST, EVENTS = 8, 20, 200
SLOW_SECONDS = 20
"""How long a scan of a slow source takes."""
COMMAND = f"sleep {SLOW_SECONDS}; echo 1"
GAP = 0.1
"""Seconds between two events."""
LIMIT = 2.0
"""Seconds within which 99 of 100 events have their readings of the fast sources."""

CONFIG = f"""
settings: {{sweep: 1s}}
sources:
{"".join(f"  slow{n}: {{type: command}}{chr(10)}" for n in range(SLOW))}
{"".join(f"  fast{n}: {{type: files, path: d}}{chr(10)}" for n in range(FAST))}
metrics:
  slow:
{"".join(f"    n{n}: {{source: slow{n}, command: '{COMMAND}', shell: true}}{chr(10)}" for n in range(SLOW))}
  fast:
{"".join(f"    n{n}: {{source: fast{n}, measure: count}}{chr(10)}" for n in range(FAST))}
rules: {{changed: {{on: lab.changed, metrics: ["*.*"]}}}}
"""
_SLOW_KNOWN = "SELECT count(*) FROM dims_sources WHERE source LIKE 'slow%' AND scan_seconds > 3"
_FAST_DUE = "SELECT count(*) FROM dims_metrics WHERE metric LIKE 'fast.%' AND requested_gen > measured_gen"
_DELAYS = """
    SELECT extract(epoch FROM max(served.recorded_at) - e.received_at)::float AS delay FROM dims_event_log e
    JOIN dims_ingest_batches b USING (batch_id) CROSS JOIN LATERAL (
      SELECT min(h.recorded_at) AS recorded_at FROM dims_metrics_history h
      WHERE h.metric = b.metric AND h.generation >= b.generation AND h.outcome <> 'superseded') AS served
    WHERE b.metric LIKE 'fast.%' GROUP BY e.seq, e.received_at ORDER BY 1
"""
"""For each event, the seconds until the last fast source had its reading."""


def delays(stack: LocalStack) -> list[float]:
    """Send the events, wait until the fast sources are measured, and return how long each event waited, sorted."""
    for number in range(EVENTS):
        publish([Event.new("lab.changed", "bench", id=str(number), now=datetime.now(UTC), data={})], stack.broker_url)
        time.sleep(GAP)
    wait_until(lambda: stack.scalar("SELECT count(*) FROM dims_event_log") == EVENTS, 60, 0.1)
    wait_until(lambda: not stack.scalar(_FAST_DUE), 60, 0.1)
    with stack.engine.connect() as connection:
        return [row.delay for row in connection.execute(text(_DELAYS))]


def main() -> None:
    """Run the workers of the Procfile and print the delays of the fast sources."""
    with (
        local_stack({"dims.yaml": CONFIG, "d/file.txt": "x"}) as stack,
        stack.dims(INGEST, concurrency=1),
        stack.dims(VERIFY_SLOW, concurrency=2),
        stack.dims(VERIFY, concurrency=4),
    ):
        wait_until(lambda: stack.scalar(_SLOW_KNOWN) == SLOW and not stack.scalar(_FAST_DUE), 120, 0.1)
        waited = delays(stack)
    p99 = waited[int(len(waited) * 0.99) - 1]
    verdict = "within" if p99 <= LIMIT else "OVER"
    median, longest = waited[len(waited) // 2], waited[-1]
    print(
        f"slow sources: {EVENTS} events about {SLOW} sources of {SLOW_SECONDS} s and {FAST} fast ones; "
        f"the fast ones were recorded after {median:.2f} s (median), {p99:.2f} s (p99), {longest:.2f} s (longest); "
        f"{verdict} the limit of {LIMIT:g} s at p99"
    )


if __name__ == "__main__":
    main()
