"""Test that many uploads cause few listings, and that no upload is lost."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime

from redis import Redis
from sqlalchemy import Engine, text

from dims_producers.publish import publish
from dims_worker.events import STREAM, Event
from tests.conftest import Lake, Project, Worker, wait_for

UPLOADS = 10_000
BATCH = 100
SECONDS = 6.0
COOLDOWN = 2

CONFIG = f"""
settings: {{sweep: 1s}}
sources: {{lake: {{type: s3, bucket: lake, cooldown: {COOLDOWN}s}}}}
metrics: {{s3: {{objects: {{source: lake, measure: count}}, size: {{source: lake, measure: bytes}}}}}}
rules: {{uploaded: {{on: "com.amazonaws.s3.*"}}}}
"""


def upload(lake: Lake, broker_url: str) -> None:
    """Write a hundred objects a hundred times each, one byte longer each time, within SECONDS."""
    begun = time.monotonic()
    for batch in range(UPLOADS // BATCH):
        keys = [f"new/{number}" for number in range(BATCH)]
        lake.put("lake", dict.fromkeys(keys, b"x" * (batch + 1)))
        events = [
            Event.new(
                "com.amazonaws.s3.ObjectCreated:Put",
                "aws:s3.us-east-1.lake",
                id=f"{batch} {key}",
                now=datetime.now(UTC),
                subject=key,
                data={"bucket": "lake", "key": key, "size": batch + 1},
            )
            for key in keys
        ]
        publish(events, broker_url, timeout=30)
        time.sleep(max(0.0, begun + SECONDS * (batch + 1) * BATCH / UPLOADS - time.monotonic()))


def test_ten_thousand_uploads_cause_few_listings_and_none_is_lost(
    project: Project, engine: Engine, lake: Lake, start_worker: Callable[..., Worker]
) -> None:
    lake.put("lake", {})
    project.write({"dims.yaml": CONFIG})
    project.env |= lake.env

    def scalar(query: str) -> int:
        with engine.connect() as connection:
            return int(connection.execute(text(query)).scalar_one())

    def is_settled() -> bool:
        with Redis.from_url(project.env["DIMS_BROKER_URL"]) as redis:
            waiting = redis.xlen(STREAM)
        return not waiting and not scalar("SELECT count(*) FROM dims_metrics WHERE requested_gen > measured_gen")

    worker = start_worker(concurrency=2)
    wait_for(lambda: scalar("SELECT count(*) FROM dims_verification_runs") == 1)  # measured for the first time
    listed = len(lake.lists)
    begun = time.monotonic()
    upload(lake, project.env["DIMS_BROKER_URL"])
    wait_for(is_settled, timeout=60)
    most_runs = (time.monotonic() - begun) / COOLDOWN + 1
    worker.kill()

    runs = scalar("SELECT count(*) FROM dims_verification_runs") - 1
    assert 1 < runs <= most_runs
    assert runs <= len(lake.lists) - listed <= most_runs
    assert scalar("SELECT count(*) FROM dims_event_log WHERE outcome = 'planned'") == UPLOADS
    assert scalar("SELECT value::int FROM dims_metrics WHERE metric = 's3.objects'") == BATCH
    assert scalar("SELECT value::int FROM dims_metrics WHERE metric = 's3.size'") == BATCH * (UPLOADS // BATCH)
    last_event = "(SELECT max(received_at) FROM dims_event_log)"
    assert scalar(f"SELECT count(*) FROM dims_metrics WHERE as_of > {last_event}") == 2
    assert scalar("SELECT count(*) FROM dims_metrics_history WHERE method = 'failed'") == 0
