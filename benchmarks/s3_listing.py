"""Compare the metrics of a bucket with its bare listing: speed and memory for a million keys, and time over HTTP."""

from __future__ import annotations

import logging
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Any
from unittest import mock

from dims_worker.config import S3Metric, S3Source
from dims_worker.config.metrics import ExpectedObjects, Pair
from dims_worker.probes.base import Deadline, ScanContext
from dims_worker.probes.s3.probe import S3Probe

KEYS = 1_000_000
MIN_KEYS_PER_SECOND = 300_000
MAX_MB = 150
ROUNDS = {5_300: 5, 50_300: 2}
MAX_RATIO = 1.3
FEEDS = ("espn", "hoopr", "basketball")
PARTS = ("box_scores", "pbp", "schedules", "team_stats")
BUCKET = "lake"


def metrics(local: str | None = None) -> dict[str, S3Metric]:
    """Return 35 metrics: 11 for each feed and two for the bucket. `local` adds one that compares a folder."""

    def metric(measure: str, *prefixes: str, **more: Any) -> S3Metric:
        return S3Metric(source=BUCKET, measure=measure, **({"prefix": prefixes} if prefixes else {}), **more)

    chosen = {"objects": metric("count"), "bytes": metric("bytes", unit="GB")}
    for feed in FEEDS:
        pbp, schedules = f"{feed}/pbp/", f"{feed}/schedules/"
        chosen |= {f"{feed}.{part}": metric("count", f"{feed}/{part}/") for part in PARTS}
        chosen |= {
            f"{feed}.newest": metric("newest_age", pbp),
            f"{feed}.oldest": metric("oldest_age", pbp),
            f"{feed}.size": metric("bytes", *(f"{feed}/{part}/" for part in PARTS), unit="GB"),
            f"{feed}.mean": metric("mean_size", pbp, unit="kB"),
            f"{feed}.small": metric("count", pbp, smaller_than="1KiB"),
            f"{feed}.gaps": metric("missing_days", schedules),
            f"{feed}.complete": metric(
                "completeness", pbp, expected=ExpectedObjects(prefix="expected/", pointer="games.*.id")
            ),
        }
    if local is not None:
        pairs = tuple(Pair(folder=f"{feed}/pbp", prefix=f"{feed}/pbp/") for feed in FEEDS)
        chosen["sync"] = metric("sync_status", local=local, pairs=pairs)
    return chosen


def keys(total: int) -> Iterator[str]:
    """Yield `total` keys in order: most by game, a few thousand by day."""
    days = 3_650 if total > 100_000 else 365
    rest = total - 1 - len(FEEDS) * days
    games = rest // 9
    first = datetime(2001, 1, 1, tzinfo=UTC)
    for number, feed in enumerate(sorted(FEEDS)):
        if feed == "hoopr":
            yield "expected/all.json"
        for part in PARTS:
            if part == "schedules":
                yield from (f"{feed}/schedules/{first + timedelta(days=day):%Y%m%d}.json" for day in range(days))
                continue
            extra = rest - 9 * games if number == 0 and part == PARTS[0] else 0
            yield from (f"{feed}/{part}/{game:010}.json" for game in range(games + extra))


class FakeS3Client:
    """Answers like boto3 and creates the keys as it goes, so that it uses no memory."""

    def __init__(self, total: int) -> None:
        self._keys, self._left = keys(total), total
        self._at = datetime(2025, 1, 1, tzinfo=UTC)

    def list_objects_v2(self, **_: Any) -> dict[str, Any]:
        page = [
            {
                "Key": key,
                "LastModified": self._at,
                "ETag": '"d41d8cd98f00b204e9800998ecf8427e"',
                "Size": len(key) * 40,
                "StorageClass": "STANDARD",
            }
            for key in islice(self._keys, 1000)
        ]
        self._left -= len(page)
        token = {"NextContinuationToken": str(self._left)} if self._left > 0 else {}
        return {"Contents": page, "KeyCount": len(page), "IsTruncated": self._left > 0, **token}

    def get_object(self, **_: Any) -> dict[str, Any]:
        body = mock.Mock()
        body.read.return_value = b'{"games": [{"id": "0000000001"}]}'
        return {"Body": body}

    def close(self) -> None: ...


def _scan(probe: S3Probe, source: S3Source, chosen: dict[str, S3Metric], folder: Path) -> int:
    scanned = probe.scan(source, chosen, ScanContext(folder, folder / ".dims"), Deadline.after(timedelta(minutes=5)))
    failed = [reading for reading in scanned.readings if reading.method == "failed"]
    assert not failed, failed
    return scanned.api_calls


def million() -> None:
    """Print the keys per second of this process's CPU time, with creating the keys, and its peak memory."""
    chosen = metrics()
    begun = time.process_time()  # independent of what else the machine does
    _scan(S3Probe(lambda _source, _deadline: FakeS3Client(KEYS)), S3Source(type="s3", bucket=BUCKET), chosen, Path("/"))
    rate = KEYS / (time.process_time() - begun)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e6
    verdict = "within" if rate >= MIN_KEYS_PER_SECOND and peak < MAX_MB else "OVER"
    print(
        f"s3 listing, {KEYS:,} keys and {len(chosen)} metrics: {rate:,.0f} keys/s, peak memory {peak:.0f} MB; "
        f"{verdict} the limits of {MIN_KEYS_PER_SECOND:,} keys/s and {MAX_MB} MB"
    )


@contextmanager
def _moto(total: int) -> Iterator[str]:
    """Run a moto server with a bucket of `total` objects in this process, and yield its URL."""
    from moto.s3.models import s3_backends
    from moto.server import ThreadedMotoServer

    backend = s3_backends["123456789012"]["aws"]
    backend.create_bucket(BUCKET, "us-east-1")
    for key in keys(total):
        backend.put_object(BUCKET, key, b'{"games": [{"id": 1}]}')
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    try:
        yield "http://{}:{}".format(*server.get_host_and_port())
    finally:
        server.stop()
        backend.buckets.clear()
        s3_backends.bucket_accounts.clear()


def _bare(url: str) -> int:
    import boto3

    client = boto3.client("s3", endpoint_url=url)
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET)
    return sum(len(page["Contents"]) for page in pages)


def ratio(total: int, folder: Path) -> tuple[float, int, int]:
    """Time a verify of all metrics, with a sync of 1,500 files, and a bare listing in turns.

    Returns the median ratio, the API calls of the verify, and the API calls that the limit allows.
    """
    for feed in FEEDS:
        (folder / feed / "pbp").mkdir(parents=True, exist_ok=True)
        for game in range(500):
            (folder / feed / "pbp" / f"{game:010}.json").write_bytes(b'{"games": [{"id": 1}]}')
    times, api_calls = [], 0
    chosen = metrics(str(folder))
    with _moto(total) as url:
        source = S3Source(type="s3", bucket=BUCKET, endpoint_url=url)
        for number in range(ROUNDS.get(total, 1) * 2 + 2):
            begun = time.perf_counter()
            if number % 2:
                api_calls = _scan(S3Probe(), source, chosen, folder)
            else:
                _bare(url)
            times.append(time.perf_counter() - begun)
    bare, scans = times[2::2], times[3::2]
    return statistics.median(s / b for s, b in zip(scans, bare, strict=True)), api_calls, -(-total // 1000)


def main() -> None:
    """Scan a million keys in a new process, to measure its memory. Then compare over HTTP."""
    subprocess.run([sys.executable, "-c", "from benchmarks.s3_listing import million; million()"], check=True)
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    access = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}
    with mock.patch.dict(os.environ, access):
        for total, rounds in ROUNDS.items():
            with tempfile.TemporaryDirectory() as scratch:
                times, api_calls, allowed = ratio(total, Path(scratch))
            verdict = "within" if times <= MAX_RATIO and api_calls <= allowed else "OVER"
            print(
                f"s3 verify, {total:,} objects: {len(metrics(''))} metrics, with sync, take {times:.2f} times "
                f"a bare listing (median of {rounds}), {api_calls} of {allowed} API calls; "
                f"{verdict} the limit of {MAX_RATIO:g} times"
            )
