# ruff: noqa: N803 - boto3 names its arguments so
"""Leaps and spans: every object once, in fewer requests, on a store that answers like S3."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dims_worker.config import S3Metric, S3Source
from dims_worker.errors import MeasureError
from dims_worker.probes.base import Deadline, ScanContext, readings_by_name
from dims_worker.probes.s3.pages import KeySpan, disjoint, key_spans
from dims_worker.probes.s3.probe import S3Probe

AT = datetime(2025, 1, 1, tzinfo=UTC)


class FakeS3:
    """Lists as S3 does: by UTF-8 bytes, `page` keys at a time, with tokens and StartAfter."""

    def __init__(self, keys: Iterable[str], page: int = 1000, order: Any = lambda keys: keys) -> None:
        self.keys = order(sorted(set(keys), key=lambda key: key.encode()))
        self.page = page
        self.requests: list[dict[str, Any]] = []
        self._counting = threading.Lock()

    def list_objects_v2(
        self,
        Prefix: str,
        MaxKeys: int,
        StartAfter: str = "",
        ContinuationToken: str = "",
        **_: Any,
    ) -> dict[str, Any]:
        with self._counting:
            self.requests.append({"prefix": Prefix, "after": StartAfter, "token": ContinuationToken})
        keys = [key for key in self.keys if key.startswith(Prefix) and key.encode() > StartAfter.encode()]
        start = keys.index(ContinuationToken) + 1 if ContinuationToken else 0
        found = keys[start : start + self.page]
        entries = [{"Key": k, "Size": len(k), "LastModified": AT, "ETag": '"-"'} for k in found]
        more = len(keys) > start + len(found)
        return {"Contents": entries, "IsTruncated": more, **({"NextContinuationToken": found[-1]} if more else {})}

    def close(self) -> None: ...


def count(store: Any, around: ScanContext, deadline: Deadline, *prefixes: str, shards: Iterable[str] = ()) -> list[Any]:
    """What a scan with a metric a prefix counts, and at last the requests it says it made."""
    metrics = {
        f"m.{number}.{measure}": S3Metric(source="lake", measure=measure, prefix=prefix)
        for number, prefix in enumerate(prefixes)
        for measure in ("count", "bytes")
    }
    source = S3Source(type="s3", bucket="lake", shards=tuple(shards))
    scanned = S3Probe(lambda _source, _deadline: store).scan(source, metrics, around, deadline)
    return [*(reading.value for reading in scanned.readings), scanned.api_calls]


def true(keys: Iterable[str], prefixes: Iterable[str]) -> list[int]:
    below = [[key for key in keys if key.startswith(prefix)] for prefix in prefixes]
    return [number for found in below for number in (len(found), sum(map(len, found)))]


LETTERS = st.text(alphabet="ab/ +%~-\U0001f3c0\uffee", min_size=1, max_size=4)
AROUND = ScanContext(Path("/project"), Path("/home"))


def soon() -> Deadline:
    return Deadline.after(timedelta(seconds=30))


@given(st.sets(LETTERS, max_size=60), st.sets(LETTERS, max_size=4), st.sets(LETTERS, min_size=1), st.integers(1, 9))
def test_leaps_and_shards_lose_and_double_nothing(
    keys: set[str], shards: set[str], prefixes: set[str], page: int
) -> None:
    wanted = sorted(prefixes)
    plain = FakeS3(keys, page)
    count(plain, AROUND, soon(), "")
    leaping = FakeS3(keys, page)
    *found, requests = count(leaping, AROUND, soon(), *wanted)
    assert found == true(keys, wanted)
    assert requests == len(leaping.requests) <= len(plain.requests)
    sharded = FakeS3(keys, page)
    *found, requests = count(sharded, AROUND, soon(), "", *wanted, shards=shards)
    assert found == true(keys, ["", *wanted])
    assert requests == len(sharded.requests) <= len(plain.requests) + len(shards)


def test_only_what_is_due_is_listed() -> None:
    keys = [f"{folder}/{n:05}" for folder in "abcdefgh" for n in range(5000)]
    store = FakeS3(keys)
    assert count(store, AROUND, soon(), "b/", "g/")[-1] <= 11  # of 40 in all, 30 below the common prefix
    assert (store.requests[0], store.requests[5]["after"], store.requests[-1]["prefix"]) == (
        {"prefix": "", "after": "b.~", "token": ""},
        "",
        "g/",
    )
    few = FakeS3([*keys, "b2/x", "g2/y"])
    assert count(few, AROUND, soon(), "b2/", "g2/") == [1, 4, 1, 4, 2]


def test_small_neighbours_share_a_request() -> None:
    keys = [f"p{number}/{n}" for number in range(20) for n in range(10)]
    store = FakeS3(keys)
    assert count(store, AROUND, soon(), *(f"p{number}/" for number in range(20)))[-1] == 1


def test_a_key_that_is_a_shard_or_a_prefix_itself() -> None:
    keys = ["a", "a/", "a/b", "b/", "b/c", "c"]
    for shards in ((), ("b/",), ("a/", "b/"), ("a/", "a/b", "c")):
        *found, _ = count(FakeS3(keys, 2), AROUND, soon(), "", "a/", "b/", shards=shards)
        assert found == true(keys, ["", "a/", "b/"])


def test_a_store_without_order_is_listed_as_it_comes() -> None:
    keys = [f"{folder}/{n}" for folder in "abc" for n in range(10)]
    store = FakeS3(keys, 7, order=lambda found: found[::-1])
    *found, requests = count(store, AROUND, soon(), "a/", "c/", shards=["b/"])
    assert found == [10, 30, 10, 30]
    assert requests == len(store.requests)
    assert [each["prefix"] for each in store.requests[-5:]] == [""] * 5


def test_the_failure_of_a_shard_is_the_scan_s() -> None:
    class Broken(FakeS3):
        def list_objects_v2(self, **query: Any) -> dict[str, Any]:
            if query.get("StartAfter") == "b/":
                raise OSError("no")
            return super().list_objects_v2(**query)

    with pytest.raises(MeasureError, match="no"):
        count(Broken([f"{folder}/{n}" for folder in "abc" for n in range(10)], 3), AROUND, soon(), "", shards=["b/"])


def test_a_storage_class_that_is_not_named_is_standard() -> None:
    class Cold(FakeS3):
        def list_objects_v2(self, **query: Any) -> dict[str, Any]:
            answer = super().list_objects_v2(**query)
            for entry in answer["Contents"]:
                if entry["Key"].startswith("cold"):
                    entry["StorageClass"] = "GLACIER"
            return answer

    metrics = {
        "cold": S3Metric(source="lake", measure="count", storage_class="GLACIER"),
        "warm": S3Metric(source="lake", measure="count", storage_class=("STANDARD",)),
        "both": S3Metric(source="lake", measure="bytes", storage_class=("STANDARD", "GLACIER")),
    }
    probe = S3Probe(lambda _source, _deadline: Cold(["cold1", "cold2", "warm"]))
    found = readings_by_name(probe.scan(S3Source(type="s3", bucket="lake"), metrics, AROUND, soon()).readings)
    assert {name: reading.value for name, reading in found.items()} == {"cold": 2, "warm": 1, "both": 14}


def test_spans_cut_the_whole() -> None:
    assert key_spans(()) == (KeySpan(None, None),)
    assert key_spans(("b", "a", "b", "")) == (KeySpan(None, "a"), KeySpan("a", "b"), KeySpan("b", None))
    assert disjoint(["a/b/", "b", "a/", "a/"]) == ("a/", "b")
    assert disjoint(["a", ""]) == ("",)
