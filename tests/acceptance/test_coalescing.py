"""Coalescing: many uploads make few listings, and none of them is lost."""

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
LOT = 100
SECONDS = 6.0
COOLDOWN = 2

CONFIG = f"""
settings: {{sweep: 1s}}
sources: {{lake: {{type: s3, bucket: lake, cooldown: {COOLDOWN}s}}}}
metrics: {{s3: {{objects: {{source: lake, measure: count}}, size: {{source: lake, measure: bytes}}}}}}
rules: {{uploaded: {{on: "com.amazonaws.s3.*"}}}}
"""


def upload(lake: Lake, broker_url: str) -> None:
    """A hundred objects written a hundred times each, a byte longer each time, in some seconds."""
    begun = time.monotonic()
    for lot in range(UPLOADS // LOT):
        keys = [f"new/{number}" for number in range(LOT)]
        lake.put("lake", dict.fromkeys(keys, b"x" * (lot + 1)))
        happened = [
            Event.new(
                "com.amazonaws.s3.ObjectCreated:Put",
                "aws:s3.us-east-1.lake",
                id=f"{lot} {key}",
                now=datetime.now(UTC),
                subject=key,
                data={"bucket": "lake", "key": key, "size": lot + 1},
            )
            for key in keys
        ]
        publish(happened, broker_url, timeout=30)
        time.sleep(max(0.0, begun + SECONDS * (lot + 1) * LOT / UPLOADS - time.monotonic()))


def test_ten_thousand_uploads_make_few_listings_and_none_is_lost(
    project: Project, engine: Engine, lake: Lake, start_worker: Callable[..., Worker]
) -> None:
    lake.put("lake", {})
    project.write({"dims.yaml": CONFIG})
    project.env |= lake.env

    def scalar(query: str) -> int:
        with engine.connect() as connection:
            return int(connection.execute(text(query)).scalar_one())

    def quiet() -> bool:
        with Redis.from_url(project.env["DIMS_BROKER_URL"]) as redis:
            waiting = redis.xlen(STREAM)
        return not waiting and not scalar("SELECT count(*) FROM dims_metrics WHERE requested_gen > measured_gen")

    worker = start_worker(concurrency=2)
    wait_for(lambda: scalar("SELECT count(*) FROM dims_verification_runs") == 1)  # measured for the first time
    listed = len(lake.lists)
    begun = time.monotonic()
    upload(lake, project.env["DIMS_BROKER_URL"])
    wait_for(quiet, timeout=60)
    most = (time.monotonic() - begun) / COOLDOWN + 1
    worker.kill()

    runs = scalar("SELECT count(*) FROM dims_verification_runs") - 1
    assert 1 < runs <= most
    assert runs <= len(lake.lists) - listed <= most
    assert scalar("SELECT count(*) FROM dims_event_log WHERE outcome = 'planned'") == UPLOADS
    assert scalar("SELECT value::int FROM dims_metrics WHERE metric = 's3.objects'") == LOT
    assert scalar("SELECT value::int FROM dims_metrics WHERE metric = 's3.size'") == LOT * (UPLOADS // LOT)
    last_event = "(SELECT max(received_at) FROM dims_event_log)"
    assert scalar(f"SELECT count(*) FROM dims_metrics WHERE as_of > {last_event}") == 2
    assert scalar("SELECT count(*) FROM dims_metrics_history WHERE method = 'failed'") == 0
