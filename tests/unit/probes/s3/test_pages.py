# ruff: noqa: N803 - the argument names of boto3
"""Skips and spans: every object once, with fewer API calls, on a store that answers like S3."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError
from hypothesis import given, settings
from hypothesis import strategies as st

from dims_worker.config import S3Metric, S3Source
from dims_worker.errors import MeasureError
from dims_worker.probes.base import Deadline, ScanContext, readings_by_name
from dims_worker.probes.s3 import page_checks
from dims_worker.probes.s3.page_body import BrokenPage
from dims_worker.probes.s3.pages import KeySpan, disjoint, key_spans
from dims_worker.probes.s3.probe import S3Probe

AT = datetime(2025, 1, 1, tzinfo=UTC)


class FakeS3:
    """Lists like S3: in the order of UTF-8 bytes, `page` keys at a time, with tokens and StartAfter."""

    def __init__(self, keys: Iterable[str], page: int = 1000, order: Any = lambda keys: keys) -> None:
        self.keys = order(sorted(set(keys), key=lambda key: key.encode()))
        self.page = page
        self.api_calls: list[dict[str, Any]] = []
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
            self.api_calls.append({"prefix": Prefix, "after": StartAfter, "token": ContinuationToken})
        keys = [key for key in self.keys if key.startswith(Prefix) and key.encode() > StartAfter.encode()]
        start = keys.index(ContinuationToken) + 1 if ContinuationToken else 0
        results = keys[start : start + self.page]
        entries = [{"Key": k, "Size": len(k), "LastModified": AT, "ETag": '"-"'} for k in results]
        more = len(keys) > start + len(results)
        token = {"NextContinuationToken": results[-1]} if more else {}
        return {"Contents": entries, "KeyCount": len(entries), "IsTruncated": more, **token}

    def close(self) -> None: ...


def count(
    store: Any, context: ScanContext, deadline: Deadline, *prefixes: str, shards: Iterable[str] = (), **more: Any
) -> list[Any]:
    """The counts of a scan with one metric for each prefix, followed by the number of its API calls."""
    metrics = {
        f"m.{number}.{measure}": S3Metric(source="lake", measure=measure, prefix=prefix)
        for number, prefix in enumerate(prefixes)
        for measure in ("count", "bytes")
    }
    source = S3Source(type="s3", **{"bucket": "lake", "shards": tuple(shards), **more})
    scanned = S3Probe(lambda _source, _deadline: store).scan(source, metrics, context, deadline)
    return [*(reading.value for reading in scanned.readings), scanned.api_calls]


def true(keys: Iterable[str], prefixes: Iterable[str]) -> list[int]:
    below = [[key for key in keys if key.startswith(prefix)] for prefix in prefixes]
    return [number for results in below for number in (len(results), sum(map(len, results)))]


LETTERS = st.text(alphabet="ab/ +%~-\U0001f3c0\uffee", min_size=1, max_size=4)
CONTEXT = ScanContext(Path("/project"), Path("/home"))


def soon() -> Deadline:
    return Deadline.after(timedelta(seconds=30))


@settings(deadline=None)
@given(st.sets(LETTERS, max_size=60), st.sets(LETTERS, max_size=4), st.sets(LETTERS, min_size=1), st.integers(1, 9))
def test_skips_and_shards_return_every_object_once(
    keys: set[str], shards: set[str], prefixes: set[str], page: int
) -> None:
    wanted = sorted(prefixes)
    plain = FakeS3(keys, page)
    count(plain, CONTEXT, soon(), "")
    leaping = FakeS3(keys, page)
    *results, api_calls = count(leaping, CONTEXT, soon(), *wanted)
    assert results == true(keys, wanted)
    assert api_calls == len(leaping.api_calls) <= len(plain.api_calls)
    sharded = FakeS3(keys, page)
    *results, api_calls = count(sharded, CONTEXT, soon(), "", *wanted, shards=shards)
    assert results == true(keys, ["", *wanted])
    assert api_calls == len(sharded.api_calls) <= len(plain.api_calls) + len(shards)


def test_only_requested_prefixes_are_listed() -> None:
    keys = [f"{folder}/{n:05}" for folder in "abcdefgh" for n in range(5000)]
    store = FakeS3(keys)
    assert count(store, CONTEXT, soon(), "b/", "g/")[-1] <= 11  # of 40 in all, 30 below the common prefix
    assert (store.api_calls[0], store.api_calls[5]["after"], store.api_calls[-1]["prefix"]) == (
        {"prefix": "", "after": "b.~", "token": ""},
        "",
        "g/",
    )
    few = FakeS3([*keys, "b2/x", "g2/y"])
    assert count(few, CONTEXT, soon(), "b2/", "g2/") == [1, 4, 1, 4, 2]


def test_small_neighbouring_prefixes_share_a_call() -> None:
    keys = [f"p{number}/{n}" for number in range(20) for n in range(10)]
    store = FakeS3(keys)
    assert count(store, CONTEXT, soon(), *(f"p{number}/" for number in range(20)))[-1] == 1


def test_a_key_that_is_a_shard_or_a_prefix_itself() -> None:
    keys = ["a", "a/", "a/b", "b/", "b/c", "c"]
    for shards in ((), ("b/",), ("a/", "b/"), ("a/", "a/b", "c")):
        *results, _ = count(FakeS3(keys, 2), CONTEXT, soon(), "", "a/", "b/", shards=shards)
        assert results == true(keys, ["", "a/", "b/"])


def test_a_store_without_order_is_listed_in_one_stream() -> None:
    keys = [f"{folder}/{n}" for folder in "abc" for n in range(10)]
    store = FakeS3(keys, 7, order=lambda results: results[::-1])
    *results, api_calls = count(store, CONTEXT, soon(), "a/", "c/", shards=["b/"], ordered=False)
    assert results == [10, 30, 10, 30]
    assert api_calls == len(store.api_calls) == 5
    assert [each["prefix"] for each in store.api_calls] == [""] * 5


def test_an_error_names_the_shard() -> None:
    class Short(FakeS3):
        def list_objects_v2(self, **query: Any) -> dict[str, Any]:
            answer = super().list_objects_v2(**query)
            return {**answer, "KeyCount": 4} if answer["Contents"][0]["Key"].startswith("b/3") else answer

    store = Short([f"{folder}/{n}" for folder in "abc" for n in range(9)], 3)
    with pytest.raises(MeasureError, match="page 2 of the whole bucket after b/ has 3 keys, and its KeyCount is 4"):
        count(store, CONTEXT, soon(), "", shards=["b/"])


class DirectoryBucket(FakeS3):
    """Lists in no order, and refuses StartAfter and prefixes that are not folders, as directory buckets do."""

    def __init__(self, keys: Iterable[str], page: int = 1000) -> None:
        super().__init__(keys, page, order=lambda results: sorted(results, key=lambda key: key[::-1]))

    def list_objects_v2(self, **query: Any) -> dict[str, Any]:
        if "StartAfter" in query:
            raise refusal("NotImplemented", 501)
        if query["Prefix"] and not query["Prefix"].endswith("/"):
            raise refusal("InvalidRequest", 400)
        return super().list_objects_v2(**query)


def refusal(code: str, status: int) -> Exception:
    answer: Any = {"Error": {"Code": code, "Message": code}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return ClientError(answer, "ListObjectsV2")


@pytest.mark.parametrize("bucket", ["lake", "lake--use1-az4--x-s3"])
@pytest.mark.parametrize("prefixes", [("raw/",), ("ra",), ("raw/", "z"), ("rax/", "raw/"), ("",), ("raw/0", "raw/1")])
def test_directory_buckets(bucket: str, prefixes: tuple[str, ...]) -> None:
    keys = [*(f"raw/{n:02}" for n in range(20)), *(f"rax/{n}" for n in range(5)), "z"]
    store = DirectoryBucket(keys, 7)
    *results, api_calls = count(store, CONTEXT, soon(), *prefixes, shards=["raw/1"], bucket=bucket)
    assert results == true(keys, prefixes)
    assert api_calls == len(store.api_calls) <= 5
    if bucket != "lake":
        assert not any(call["after"] for call in store.api_calls)


def test_a_page_that_a_store_without_order_repeats() -> None:
    class Repeating(DirectoryBucket):
        first: Any = None

        def list_objects_v2(self, **query: Any) -> dict[str, Any]:
            answer = super().list_objects_v2(**query)
            if len(self.api_calls) == 4:
                answer["Contents"] = self.first
            self.first = answer["Contents"] if len(self.api_calls) == 1 else self.first
            return answer

    store = Repeating([f"raw/{n:02}" for n in range(50)], 7)
    with pytest.raises(MeasureError, match="page 4 of prefix raw/ repeats a key of a page before it"):
        count(store, CONTEXT, soon(), "raw/", ordered=False)


def test_the_sample_of_keys_is_bounded_and_notices_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page_checks, "_SAMPLED_KEYS", 500)
    sample = page_checks.KeySample()
    pages: list[Any] = [[{"Key": f"{page}/{n}"} for n in range(1000)] for page in range(20)]
    for page in pages:
        sample.add(page)
    assert len(sample._known) <= 500
    for page in pages:
        with pytest.raises(BrokenPage, match="repeats a key"):
            sample.add(page)


def test_a_refusal_names_the_requester_as_its_fix() -> None:
    class Refusing(FakeS3):
        def list_objects_v2(self, **query: Any) -> dict[str, Any]:
            raise refusal("AccessDenied", 403)

    fix = "If its requesters pay, set `request_payer: requester`"
    with pytest.raises(MeasureError, match=fix):
        count(Refusing([]), CONTEXT, soon(), "")
    with pytest.raises(MeasureError, match=r"Grant s3:ListBucket on the bucket$"):
        count(Refusing([]), CONTEXT, soon(), "", request_payer="requester")


def test_the_failure_of_a_shard_fails_the_scan() -> None:
    class Broken(FakeS3):
        def list_objects_v2(self, **query: Any) -> dict[str, Any]:
            if query.get("StartAfter") == "b/":
                raise OSError("no")
            return super().list_objects_v2(**query)

    with pytest.raises(MeasureError, match="no"):
        count(Broken([f"{folder}/{n}" for folder in "abc" for n in range(10)], 3), CONTEXT, soon(), "", shards=["b/"])


def test_a_missing_storage_class_is_standard() -> None:
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
    results = readings_by_name(probe.scan(S3Source(type="s3", bucket="lake"), metrics, CONTEXT, soon()).readings)
    assert {name: reading.value for name, reading in results.items()} == {"cold": 2, "warm": 1, "both": 14}
    assert results["cold"].details["storage_classes"] == {"GLACIER": 2, "STANDARD": 1}


def test_spans_cover_all_keys() -> None:
    assert key_spans(()) == (KeySpan(None, None),)
    assert key_spans(("b", "a", "b", "")) == (KeySpan(None, "a"), KeySpan("a", "b"), KeySpan("b", None))
    assert disjoint(["a/b/", "b", "a/", "a/"]) == ("a/", "b")
    assert disjoint(["a", ""]) == ("",)
