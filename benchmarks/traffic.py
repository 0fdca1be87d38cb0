"""Events as producers send them: many uploads to a bucket, and some commits."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from dims_worker.events import GIT_COMMIT, Event

BUCKET = "example-lake"
SEED = 2013
_BEGUN = datetime(2026, 11, 22, 9, tzinfo=UTC)
_KEYS = (
    "espn_play_by_play/pbp_{:010}.json",
    "espn_box_scores/{:010}.json",
    "espn_schedules/{:08}.json",
    "hoopr_parquet/play_by_play/season=2013/pbp_{:09}.parquet",
    "hoopr_phase1/{:09}.parquet",
    "basketball_reference/pbp/{:09}IND.html",
    "basketball_reference/box_scores/{:09}IND.html",
    "books/chapter {:03}.pdf",
)
_PATHS = ("scripts/ml/train_model_{}.py", "docs/notes/{}.md", "sql/plus_minus/view_{}.sql", "tests/test_{}.py")


def uploads(count: int, *, bucket: str = BUCKET, run: str = "") -> Iterator[Event]:
    """Yield the events that `s3_lambda` sends for S3 notifications. Another `run` gives other ids."""
    chance = random.Random(SEED)
    for number in range(count):
        key = chance.choice(_KEYS).format(number)
        sequencer = f"{0x0065F0A1B2C3D4E5 + number:016X}"
        name = hashlib.sha256(f"{run} {bucket} {key} {sequencer}".encode()).hexdigest()
        yield Event(
            id=f"s3-{name}",
            producer=f"aws:s3.us-east-1.{bucket}",
            type="com.amazonaws.s3.ObjectCreated:Put",
            time=_BEGUN + timedelta(milliseconds=number),
            subject=key,
            data={
                "bucket": bucket,
                "key": key,
                "size": chance.randrange(500, 900_000),
                "etag": name[:32],
                "sequencer": sequencer,
                "region": "us-east-1",
            },
        )


def commits(count: int, root: Path, *, run: str = "") -> Iterator[Event]:
    """Yield the events of the git hook: commits of 1 to 20 files in the repository at `root`."""
    chance = random.Random(SEED)
    for number in range(count):
        sha = hashlib.sha1(f"{run} {number}".encode()).hexdigest()
        yield Event(
            id=sha,
            producer=f"git:bench:{root}",
            type=GIT_COMMIT,
            time=_BEGUN + timedelta(seconds=number),
            subject="main",
            data={
                "root": str(root),
                "commit": sha,
                "branch": "main",
                "subject": f"Find the games of season {number} by their ids",
                "author": "Ada",
                "paths": sorted(
                    chance.choice(_PATHS).format(chance.randrange(40)) for _ in range(chance.randint(1, 20))
                ),
            },
        )


def mixed(count: int, root: Path, *, run: str = "") -> list[Event]:
    """Return `count` events, with nine uploads for each commit."""
    few = count // 10
    committed = commits(few, root, run=run)
    events: list[Event] = []
    for number, upload in enumerate(uploads(count - few, run=run)):
        events.append(upload)
        if number % 9 == 8:
            events.extend(event for event in [next(committed, None)] if event)
    return events + list(committed)
