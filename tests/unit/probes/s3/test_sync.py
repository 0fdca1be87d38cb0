# ruff: noqa: N803 - the argument names of boto3
"""The merge of a local tree and a listing: equal to set operations, in order, and its errors."""

from __future__ import annotations

import hashlib
import os
import sys
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dims_worker.config import S3Metric, S3Source
from dims_worker.errors import MeasureError
from dims_worker.probes.base import Deadline, Reading, ScanContext
from dims_worker.probes.s3 import sync
from dims_worker.probes.s3.local_tree import LocalTree
from dims_worker.probes.s3.pages import KeySpan
from dims_worker.probes.s3.probe import S3Probe
from dims_worker.probes.s3.survey import Survey
from dims_worker.probes.s3.sync import KeyDifference, SyncTotals, status_of

AT = datetime(2025, 1, 1, tzinfo=UTC)
PAIR = {"folder": "f", "prefix": "p/"}


class Stub:
    """Lists these objects in the order of their keys, or in the given order."""

    def __init__(self, objects: dict[str, Any], page: int = 1000, in_order: bool = True) -> None:
        self.entries: list[dict[str, Any]] = [
            {"Key": key, "Size": len(content), "LastModified": AT, "ETag": f'"{tag(content)}"'}
            for key, content in (sorted(objects.items()) if in_order else objects.items())
        ]
        self.page = page

    def list_objects_v2(
        self,
        Prefix: str,
        StartAfter: str = "",
        ContinuationToken: str = "0/",
        **_: Any,
    ) -> dict[str, Any]:
        number, _slash, begun_after = ContinuationToken.partition("/")
        at, after = int(number), begun_after or StartAfter
        results = [e for e in self.entries if e["Key"].startswith(Prefix) and e["Key"] > after]
        more = len(results) > at + self.page
        page = results[at : at + self.page]
        return {
            "Contents": page,
            "KeyCount": len(page),
            "IsTruncated": more,
            **({"NextContinuationToken": f"{at + self.page}/{after}"} if more else {}),
        }

    def close(self) -> None: ...


def tag(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def fill(folder: Path, files: dict[str, bytes]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def compare(
    root: Path, client: Any, shards: tuple[str, ...] = (), ordered: bool = True, **more: Any
) -> tuple[Reading, list[KeyDifference] | None]:
    context = ScanContext(root, root / ".dims")
    metric = S3Metric(source="lake", measure="sync_status", **{"local": "lake", "pairs": [PAIR], **more})
    source = S3Source(type="s3", bucket="b", shards=shards, ordered=ordered)
    deadline = Deadline.after(timedelta(seconds=30))
    (reading,) = S3Probe(lambda _s, _d: client).scan(source, {"m": metric}, context, deadline).readings
    survey = Survey({"m": metric.model_copy(update={"names": sys.maxsize})}, context, deadline)
    survey.list(client, source)
    whole = survey.problems.get("m") or survey.comparisons["m"].reading("m")
    assert (whole.value, whole.error, whole.details.keys()) == (reading.value, reading.error, reading.details.keys())
    compared = reading.method == "exact" and "m" in survey.comparisons
    return reading, survey.comparisons["m"].differences if compared else None


def objects(files: dict[str, bytes], prefix: str = "p/") -> dict[str, bytes]:
    return {prefix + name: content for name, content in files.items()}


# --- set operations ----------------------------------------------------------------------------------

PART = st.text(alphabet="ab-.0 +%~\U0001f3c0\uffee", min_size=1, max_size=3).filter(lambda name: name.strip("."))
PATHS = st.lists(PART, min_size=1, max_size=3).map("/".join)
TREES = st.dictionaries(PATHS, st.sampled_from([b"", b"1", b"2", b"33"]), max_size=12)


def possible(tree: dict[str, bytes]) -> dict[str, bytes]:
    """Remove files whose path is a folder of another file."""
    return {path: content for path, content in tree.items() if not any(o.startswith(f"{path}/") for o in tree)}


@settings(max_examples=60, deadline=None)
@given(TREES, TREES, st.integers(1, 4), st.sets(PATHS, max_size=3))
def test_the_merge_equals_set_operations(
    local: dict[str, bytes], there: dict[str, bytes], page: int, shards: set[str]
) -> None:
    local = possible(local)
    here, remote = objects(local), objects(there)
    with tempfile.TemporaryDirectory() as scratch:
        fill(Path(scratch) / "lake" / "f", local)
        aside = {"o/x": b"1", "p": b"1", "p0": b"2"}
        for cut in ((), tuple(objects(dict.fromkeys(shards, b"")))):
            reading, results = compare(Path(scratch), Stub(remote | aside, page), cut, names=2)
            only_local, only_s3 = here.keys() - remote.keys(), remote.keys() - here.keys()
            different = {key for key in here.keys() & remote.keys() if here[key] != remote[key]}
            assert results is not None
            assert [(each.kind, each.key) for each in results] == sorted(
                [("only_local", key) for key in only_local]
                + [("only_s3", key) for key in only_s3]
                + [("different", key) for key in different],
                key=lambda each: each[1],
            )
            details = reading.details
            for kind, keys in (("only_local", only_local), ("only_s3", only_s3), ("different", different)):
                assert (details[kind], details[f"{kind}_names"]) == (len(keys), sorted(keys)[:2])
            assert details["union"] == len(here.keys() | remote.keys())


@settings(deadline=None)
@given(TREES, st.one_of(st.none(), PATHS), st.one_of(st.none(), PATHS))
def test_the_walk_is_in_the_order_of_keys(tree: dict[str, bytes], after: str | None, until: str | None) -> None:
    tree = possible(tree)
    with tempfile.TemporaryDirectory() as scratch:
        fill(Path(scratch), tree)
        deadline = Deadline.after(timedelta(seconds=30))
        span = KeySpan(after and f"p/{after}", until and f"p/{until}")
        results = [file.key for file in LocalTree(scratch, "p/", "", deadline, span).files(lambda _: True)]
    assert results == sorted((key for key in objects(tree) if span.holds(key)), key=str.encode)


# --- examples ----------------------------------------------------------------------------------------


def test_equal_counts_and_different_files(tmp_path: Path) -> None:
    fill(tmp_path / "lake/f", {f"{n}": b"x" for n in range(10)})
    reading, results = compare(tmp_path, Stub(objects({f"{n}": b"x" for n in range(5, 15)})))
    assert (reading.value, reading.unit) == ("major_drift", "")
    assert reading.details == {
        "only_local": 5,
        "only_s3": 5,
        "different": 0,
        "same": 5,
        "markers": 0,
        "same_by_size": 0,
        "union": 15,
        "sync_drift_pct": pytest.approx(200 / 3),
        "only_local_names": [f"p/{n}" for n in range(5)],
        "only_s3_names": [f"p/{n}" for n in range(10, 15)],
        "different_names": [],
        "pairs": [
            {
                "folder": "f",
                "prefix": "p/",
                "only_local": 5,
                "only_s3": 5,
                "different": 0,
                "same": 5,
                "markers": 0,
                "same_by_size": 0,
                "union": 15,
                "sync_drift_pct": pytest.approx(200 / 3),
            }
        ],
    }
    assert results is not None
    assert results[0] == KeyDifference("only_local", "p/0", str(tmp_path / "lake/f/0"), 1, None)


@pytest.mark.parametrize(
    ("etag", "checksum", "different"),
    [
        ('"' + tag(b"old") + '"', True, 1),
        ('"' + tag(b"old") + '"', False, 0),
        ('"' + tag(b"new").upper() + '"', True, 0),
        ('"' + tag(b"old") + '-2"', True, 0),  # uploaded in parts: the ETag is not an MD5
        (None, True, 0),
    ],
)
def test_checksums_are_compared_if_the_etag_is_an_md5(
    tmp_path: Path, etag: str | None, checksum: bool, different: int
) -> None:
    fill(tmp_path / "lake/f", {"a": b"new"})
    client = Stub(objects({"a": b"old"}))
    client.entries[0]["ETag"] = etag
    reading, results = compare(tmp_path, client, checksum=checksum)
    assert reading.details["different"] == different
    assert [(each.local, each.s3) for each in results or []] == [(3, 3)] * different


def test_several_pairs_and_filters(tmp_path: Path) -> None:
    fill(tmp_path / "lake", {"f/a.json": b"1", "f/a.tmp": b"1", "g/deep/b.json": b"1"})
    there = {"p/a.json": b"2", "p/x.tmp": b"1", "q/deep/b.json": b"1", "q/deep/c.json": b"", "q2/z.json": b""}
    pairs = [PAIR, {"folder": "g", "prefix": "q"}]
    reading, results = compare(tmp_path, Stub(there), pairs=pairs, suffix=".json")
    assert [(each.kind, each.key) for each in results or []] == [
        ("different", "p/a.json"),
        ("only_s3", "q/deep/c.json"),
    ]
    assert [(each["prefix"], each["union"]) for each in reading.details["pairs"]] == [("p/", 1), ("q", 2)]


def test_folder_markers_are_not_files(tmp_path: Path) -> None:
    fill(tmp_path / "lake/f", {"a/b": b"1"})
    reading, _ = compare(tmp_path, Stub(objects({"": b"", "a/": b"", "a/b": b"1"})))
    assert (reading.value, reading.details["markers"], reading.details["union"]) == ("synced", 1, 1)


def test_two_empty_sides(tmp_path: Path) -> None:
    (tmp_path / "lake/f").mkdir(parents=True)
    reading, results = compare(tmp_path, Stub({}))
    assert (reading.value, reading.details["sync_drift_pct"], results) == ("synced", 0.0, [])
    assert reading.details["empty_prefixes"] == ["p/"]


def test_links_and_the_data_directory_are_left_out(tmp_path: Path) -> None:
    fill(tmp_path / "lake/f", {"a": b"1"})
    (tmp_path / "lake/f/link").symlink_to("a")
    (tmp_path / "lake/f/loop").symlink_to(".")
    os.mkfifo(tmp_path / "lake/f/pipe")
    assert compare(tmp_path, Stub(objects({"a": b"1"})))[0].details["union"] == 1
    fill(tmp_path, {".dims/x": b"1", "b": b"1"})
    reading, _ = compare(tmp_path, Stub({}), local=".", pairs=[{"folder": ".", "prefix": "p"}])
    assert reading.details["only_local_names"] == ["p/b", "p/lake/f/a"]


def test_names_that_are_not_utf8(tmp_path: Path) -> None:
    fill(tmp_path / "lake/f", {"a": b"1", "\uffee": b"1"})
    (tmp_path / "lake/f/\udcff").mkdir()
    (tmp_path / "lake/f/\udcff/x").write_bytes(b"1")
    for shards in ((), ("p/b", "p/\uffee")):
        reading, _ = compare(tmp_path, Stub(objects({"a": b"1", "\uffee": b"1"})), shards)
        assert reading.details["only_local_names"] == ["p/\\xff/x"]
        assert (reading.details["same"], reading.details["union"]) == (2, 3)


def test_a_missing_folder(tmp_path: Path) -> None:
    fill(tmp_path / "lake", {"file": b""})
    assert compare(tmp_path, Stub({}))[0].error == f"{tmp_path}/lake/f does not exist"
    assert compare(tmp_path, Stub({}))[1] is None
    absent, _ = compare(tmp_path, Stub({}), absent=None)
    assert (absent.value, absent.method) == (None, "exact")
    no_folder, _ = compare(tmp_path, Stub({}), pairs=[{"folder": "file", "prefix": "p/"}])
    assert "is not a folder" in str(no_folder.error)


def test_a_listing_out_of_order_fails(tmp_path: Path) -> None:
    fill(tmp_path / "lake/f", {"a": b"1", "b": b"1"})
    with pytest.raises(MeasureError, match="lists keys out of order: p/a after p/b"):
        compare(tmp_path, Stub(objects({"b": b"1", "a": b"1"}), in_order=False))


def test_a_store_without_order_is_compared_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path / "lake/f", {"a": b"1", "b": b"1", "d": b"1"})
    store = Stub(objects({"c": b"1", "b": b"1", "a": b"2"}), page=2, in_order=False)
    reading, results = compare(tmp_path, store, ordered=False)
    assert results is not None and reading.details["same"] == 1
    assert [(each.kind, each.key) for each in results] == [
        ("different", "p/a"),
        ("only_s3", "p/c"),
        ("only_local", "p/d"),
    ]
    monkeypatch.setattr(sync, "MAX_SORTED", 2)
    reading, results = compare(tmp_path, store, ordered=False)
    assert "more than 2 objects are under p/" in str(reading.error) and results is None


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_an_unreadable_folder_fails(tmp_path: Path) -> None:
    fill(tmp_path / "lake/f", {"a/b": b"1"})
    (tmp_path / "lake/f/a").chmod(0)
    reading, _ = compare(tmp_path, Stub({}))
    (tmp_path / "lake/f/a").chmod(0o700)
    assert "Permission denied" in str(reading.error)


def test_filters_without_a_local_equivalent_are_rejected(tmp_path: Path) -> None:
    (tmp_path / "lake/f").mkdir(parents=True)
    with pytest.raises(ValueError, match="remove smaller_than and storage_class"):
        compare(tmp_path, Stub({}), storage_class="GLACIER")


@pytest.mark.parametrize(
    ("drift", "status"),
    [
        (0, "synced"),
        (4.9, "synced"),
        (5, "minor_drift"),
        (15, "moderate_drift"),
        (30, "major_drift"),
        (100, "major_drift"),
    ],
)
def test_status(drift: float, status: str) -> None:
    assert status_of(drift) == status
    assert SyncTotals(only_local=1, only_s3=1, different=1, same=1).drift_pct == 75
