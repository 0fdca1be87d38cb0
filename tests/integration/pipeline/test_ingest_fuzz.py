"""Ten thousand envelopes of every kind: each is stored, known or rejected, and none stops the others."""

from __future__ import annotations

import contextlib
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from redis import Redis

from dims_worker.events import STREAM
from dims_worker.pipeline.ingest import IngestResult, ingest_stream
from tests.integration.helpers import Flow, event
from tests.integration.pipeline.envelopes import MAX_BYTES, Fields, Fuzz, parse_expected, typed

CONFIG = """
sources:
  one: {type: files, path: one}
  repo: {type: git, path: "."}
  lake: {type: s3, bucket: a}
metrics:
  m:
    a: {source: one, measure: count}
    b: {source: repo, measure: commits}
    c: {source: lake, measure: count, prefix: one/}
    sum: {derive: "m.a + m.b"}
rules:
  scraped: {on: dims.scraper.complete, metrics: ["m.*"]}
  changed: {on: ["dims.files.*", "dims.git.*", "com.amazonaws.s3.*"]}
  daily: {schedule: "0 9 * * *", metrics: [m.sum]}
"""
SEED = int(os.environ.get("DIMS_TEST_SEED") or random.SystemRandom().randrange(10**9))


def add(redis: Redis, entries: list[Fields]) -> None:
    with redis.pipeline(transaction=False) as pipe:
        for entry in entries:
            pipe.xadd(STREAM, entry)  # type: ignore[arg-type]
        pipe.execute()


def test_ten_thousand_envelopes_are_each_accounted_for(redis: Redis, make_flow: Callable[[str], Flow]) -> None:
    print(f"seed {SEED}; repeat with DIMS_TEST_SEED={SEED}")  # shown if the test fails
    flow, fuzz = make_flow(CONFIG), Fuzz(SEED)
    entries = list(fuzz.entries(9_990))
    for size in (10_000_000, 10_000_000, 10_000_000, 50_000_000, *[MAX_BYTES] * 3, *[MAX_BYTES + 1] * 3):
        entries.insert(fuzz.rng.randrange(len(entries)), fuzz.huge(size))
    total, sent = IngestResult(), 0
    while sent < len(entries):
        burst = entries[sent : sent + fuzz.rng.randrange(1, 3_000)]
        add(redis, burst)
        total.add(ingest_stream(redis, flow.engine, flow.planner))
        sent += len(burst)

    expected = [parse_expected(entry) for entry in entries]
    events = {event.key: event for event in expected if event}
    rejected = sum(event is None for event in expected)
    assert 3_000 < len(events) < 7_000  # the generator makes a fair mix
    assert 2_000 < rejected < 5_000
    assert (total.stored, total.rejected) == (len(events), rejected)
    assert total.stored + total.known + total.rejected == len(entries) == 10_000
    assert redis.xlen(STREAM) == 0
    assert redis.xpending(STREAM, "dims")["pending"] == 0

    rows = flow.rows("SELECT * FROM dims_event_log")
    stored = {
        (r.producer, r.event_id, r.type, r.subject, r.event_time, typed(r.data)): r.outcome
        for r in rows
        if r.outcome != "rejected"
    }
    assert stored.keys() == events.keys()
    assert len(stored) == total.stored
    reasons = [row.reason for row in rows if row.outcome == "rejected"]
    assert len(reasons) == rejected
    assert all(reasons)
    assert not [reason for reason in reasons if "internal error" in reason or "database" in reason]
    assert sum(outcome == "unmatched" for outcome in stored.values()) == total.unmatched


LARGE = 8 * 1024 * 1024
DRAIN = """
import os
from pathlib import Path
from dims_worker.config import load_config
from dims_worker.pipeline.ingest import ingest_stream
from dims_worker.domain.plan import Planner
from dims_worker.store.engine import engine
from dims_producers.publish import connect

config = load_config(None, os.environ, Path.cwd())
ingest_stream(connect(config.broker_url, timeout=30), engine(config.database_url), Planner(config))
"""


@pytest.mark.parametrize("order", ["large ones first", "small ones first"])
def test_forty_entries_of_8_mb_do_not_fill_the_memory_of_ingest(
    order: str, redis: Redis, make_flow: Callable[[str], Flow], broker_url: str, database_url: str, tmp_path: Path
) -> None:
    flow = make_flow(CONFIG)
    small: list[Fields] = [{b"event": event("scraped", id=f"small-{n}").to_json().encode()} for n in range(400)]
    large: list[Fields] = [{b"event": b"x" * LARGE}] * 40
    for entry in large + small if order == "large ones first" else small + large:
        redis.xadd(STREAM, entry)  # type: ignore[arg-type]
    env = {**os.environ, "DIMS_BROKER_URL": broker_url, "DIMS_DATABASE_URL": database_url}
    peak, end = 0, time.monotonic() + 60
    with subprocess.Popen([sys.executable, "-c", DRAIN], cwd=tmp_path, env=env) as process:
        seen = psutil.Process(process.pid)
        while process.poll() is None and time.monotonic() < end:
            with contextlib.suppress(psutil.Error):  # the process has just ended
                peak = max(peak, seen.memory_info().rss)
            time.sleep(0.002)
        process.kill()
    assert process.returncode == 0
    assert redis.xlen(STREAM) == 0
    rows = flow.rows("SELECT outcome, count(*) FROM dims_event_log GROUP BY 1 ORDER BY 1")
    assert [tuple(row) for row in rows] == [("planned", 400), ("rejected", 40)]
    assert LARGE < peak < 30 * LARGE  # all forty at once would be 320 MB, and as much again while they are read
