"""All S3 measures of a bucket from one listing over HTTP: number of calls, shards, gaps, the real lake."""

from __future__ import annotations

import json
from datetime import date, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from dims_worker.config import S3Metric, S3Source
from dims_worker.probes import probe_for
from dims_worker.probes.base import Deadline, KeysChanged, Reading, ScanContext, ScanResult, readings_by_name

if TYPE_CHECKING:
    from tests.integration.probes.conftest import Store

LAKE = Path(__file__).parents[5] / "shared" / "nba_lake_2013"
EXPECTED = {"prefix": "s/", "pointer": "games.*.id"}
ODD = ["p/sp ace.csv", "p/plus+.csv", "p/per%20cent.csv", "p/🏀.csv", "p/z/slash.csv", "q", "p-/x", "p0"]


def metric(measure: str = "count", *prefix: str, **more: Any) -> S3Metric:
    return S3Metric(source="lake", measure=measure, **({"prefix": prefix} if prefix else {}), **more)


def scan(store: Store, root: Path, shards: tuple[str, ...] = (), /, **metrics: S3Metric) -> ScanResult:
    source = S3Source(type="s3", bucket="lake", endpoint_url=store.url, shards=shards)
    context = ScanContext(root, root / ".dims")
    return probe_for("s3").scan(source, metrics, context, Deadline.after(timedelta(seconds=60)))


def readings(scanned: ScanResult) -> dict[str, Reading]:
    return readings_by_name(scanned.readings)


def made(tmp_path: Path) -> tuple[dict[str, bytes], dict[str, S3Metric]]:
    """2,300 objects, 1,001 of them below one prefix, and every measure of them."""
    games = {f"p/{game:010}.csv": b"x" * (game % 3) for game in range(1001)}
    days = {
        f"s/{date(2013, 1, 1) + timedelta(days=day):%Y%m%d}.json": json.dumps(
            {"games": [{"id": f"{day:010}"}]}
        ).encode()
        for day in range(30)
        if day not in (3, 4, 20)
    }
    objects = games | days | {"s/171031017.json": b"{}"} | dict.fromkeys(ODD, b"1")
    objects |= {f"z/{n:05}": b"1" for n in range(2300 - len(objects))}
    for game in range(990):
        path = tmp_path / "lake" / f"{game:010}.csv"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"x" * (game % 3))
    metrics = {
        "all": metric(),
        "bytes": metric("bytes"),
        "p": metric("count", "p/"),
        "standard": metric("count", storage_class="STANDARD"),
        "glacier": metric("count", storage_class="GLACIER"),
        "mean": metric("mean_size", "p/"),
        "newest": metric("newest_age", "z/"),
        "days": metric("missing_days", "s/"),
        "complete": metric("completeness", "p/", expected=EXPECTED),
        "sync": metric("sync_status", local="lake", pairs=[{"folder": ".", "prefix": "p/"}]),
    }
    return objects, metrics


def test_one_listing_serves_every_measure(store: Store, tmp_path: Path) -> None:
    objects, metrics = made(tmp_path)
    store.fill("lake", objects)
    scanned = scan(store, tmp_path, **metrics)
    results = readings(scanned)
    assert scanned.api_calls == len(store.lists) == 3
    assert {name: results[name].value for name in ("all", "p", "standard", "glacier", "days", "sync")} == {
        "all": 2300,
        "p": 1006,
        "standard": 2300,
        "glacier": 0,
        "days": 3,
        "sync": "synced",
    }
    assert results["days"].details["missing"] == ["2013-01-04", "2013-01-05", "2013-01-21"]
    assert results["days"].details["unreadable_names"] == ["s/171031017.json"]
    assert results["sync"].details["only_s3"] == 16 and results["sync"].details["same"] == 990
    complete = results["complete"]
    assert complete.value == pytest.approx(100 * 18 / 27)  # of the games of these days, every third is empty
    assert complete.details["missing_ids"][:2] == ["0000000000", "0000000006"]
    assert (complete.details["objects_read"], complete.details["objects_without_ids"]) == (28, 1)


def test_shards_change_nothing(store: Store, tmp_path: Path) -> None:
    objects, metrics = made(tmp_path)
    store.fill("lake", objects)
    plain = scan(store, tmp_path, **metrics)
    for shards in (("p/",), ("p/", "s/", "z/"), ("a/", "p/00000005", "zz/"), ("p/🏀",), ("p/plus+",)):
        store.lists.clear()
        sharded = scan(store, tmp_path, shards, **metrics)
        assert sharded.readings == plain.readings
        assert sharded.api_calls == len(store.lists) <= plain.api_calls + len(shards)


def test_only_requested_prefixes_are_listed(store: Store, tmp_path: Path) -> None:
    objects, metrics = made(tmp_path)
    store.fill("lake", objects)
    due = {name: metrics[name] for name in ("days", "p")}
    scanned = scan(store, tmp_path, **due)
    assert scanned.api_calls == len(store.lists) == 2
    assert {reading.metric: reading.value for reading in scanned.readings} == {"days": 3, "p": 1006}
    assert scan(store, tmp_path, days=metrics["days"]).api_calls == 1


def test_a_problem_of_one_metric_fails_only_that_metric(store: Store, tmp_path: Path) -> None:
    objects, metrics = made(tmp_path)
    store.fill("lake", {**objects, "s/x.json": b""})
    unsynced = metric("sync_status", local="gone", pairs=[{"folder": ".", "prefix": "p/"}])
    results = readings(scan(store, tmp_path, **{**metrics, "sync": unsynced}))
    assert {name for name, reading in results.items() if reading.method == "failed"} == {"complete", "sync"}
    assert "s/x.json is not JSON" in str(results["complete"].error)


def test_a_change_touches_the_metrics_that_read_its_keys(tmp_path: Path) -> None:
    _, metrics = made(tmp_path)
    source = S3Source(type="s3", bucket="lake")

    def touched(name: str, key: str) -> str | None:
        context = ScanContext(tmp_path, tmp_path / ".dims")
        return probe_for("s3").touched(source, metrics[name], KeysChanged("lake", (key,)), context)

    assert touched("complete", "p/1.csv") == "key p/1.csv is under p/"
    assert touched("complete", "s/1.json") == "key s/1.json is under s/"
    assert touched("complete", "z/1") is None
    assert touched("sync", "p/1.csv") == "key p/1.csv is under p/"
    assert touched("sync", "s/1.json") is None
    assert touched("days", "s/1.json") and touched("days", "p/1.csv") is None


@pytest.mark.skipif(not LAKE.is_dir(), reason=f"the real lake is not at {LAKE}")
def test_the_real_lake(store: Store, tmp_path: Path) -> None:
    names = ("espn_schedules", "espn_box_scores", "espn_play_by_play")
    files = [path for name in names for path in (LAKE / name).iterdir()]
    objects = {path.relative_to(LAKE).as_posix(): path.read_bytes() for path in files}
    listings = {}
    for side in ("local", "s3"):
        lines = (LAKE / "sync_listings" / f"{side}.tsv").read_text().splitlines()[1:]
        listings[side] = dict(line.split("\t") for line in lines)
    assert (len(listings["local"]), len(listings["s3"])) == (117, 217)
    for path, digest in listings["local"].items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(digest)
    store.fill("lake", objects | {path: digest.encode() for path, digest in listings["s3"].items()})
    expected = {"prefix": "espn_schedules/", "pointer": "games.*.id"}
    scanned = scan(
        store,
        tmp_path,
        days=metric("missing_days", "espn_schedules/"),
        pbp=metric("completeness", "espn_play_by_play/", expected=expected, names=1000),
        box=metric("completeness", "espn_box_scores/", expected=expected),
        content=metric("completeness", "espn_box_scores/", expected=expected, min_size="3 kB"),
        sync=metric("sync_status", local=".", pairs=[{"folder": "bbref", "prefix": "bbref/"}]),
    )
    results = readings(scanned)
    assert scanned.api_calls == 1
    gaps = results["days"]
    readme = (LAKE / "README.md").read_text()
    named = next(line.split()[-1] for line in readme.splitlines() if line.strip().startswith("which "))
    assert gaps.value == 15 and gaps.details["days"] == 82
    assert ",".join(gaps.details["missing"]).replace("-", "") == named
    assert {name: results[name].details["missing"] for name in ("pbp", "box", "content")} == {
        "pbp": 257,
        "box": 69,
        "content": 75,
    }
    assert results["pbp"].value == 100 * 85 / 342 and len(results["pbp"].details["missing_ids"]) == 257
    sides = results["sync"].details
    assert {name: sides[name] for name in ("only_local", "only_s3", "same", "different")} == {
        "only_local": 2,
        "only_s3": 102,
        "same": 109,
        "different": 6,
    }
    assert results["sync"].value == "major_drift"
