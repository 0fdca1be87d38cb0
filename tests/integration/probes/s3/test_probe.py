"""S3Probe against moto over HTTP: one listing, true counts, clear errors."""

from __future__ import annotations

import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from botocore.httpsession import URLLib3Session

from dims_worker.config import S3Metric, S3Source
from dims_worker.errors import MeasureError
from dims_worker.probes.base import Deadline, Reading, ScanContext, ScanResult, readings_by_name
from dims_worker.probes.s3.probe import S3Probe

if TYPE_CHECKING:
    from tests.integration.probes.conftest import Store

CONTEXT = ScanContext(Path("/project"), Path("/project/.dims"))
LAKE = Path(__file__).parents[5] / "shared" / "nba_lake_2013"


def metric(measure: str = "count", *prefix: str, **more: Any) -> S3Metric:
    return S3Metric(source="lake", measure=measure, **({"prefix": prefix} if prefix else {}), **more)


def source(url: str, bucket: str = "lake", **more: Any) -> S3Source:
    return S3Source(type="s3", bucket=bucket, endpoint_url=url, **more)


def scan(where: S3Source, deadline: Deadline | None = None, /, **metrics: S3Metric) -> ScanResult:
    return S3Probe().scan(where, metrics, CONTEXT, deadline or within(30))


def within(seconds: float) -> Deadline:
    return Deadline.after(timedelta(seconds=seconds))


def values(scanned: ScanResult) -> dict[str, Any]:
    return {name: reading.value for name, reading in readings_by_name(scanned.readings).items()}


def test_twelve_metrics_take_six_calls(store: Store) -> None:
    csv = {f"a/{n:04}.csv": b"x" * (n % 7) for n in range(3000)}
    deep = {f"a/deep/{n:04}.json": b"xy" for n in range(1001)}
    rest = {f"z/{n:04}": b"z" for n in range(1299)}
    made = store.fill("lake", {**csv, **deep, **rest})
    made.keys["a/0003.csv"].last_modified = datetime(2030, 1, 2, 3, 4, 5)  # noqa: DTZ001 - moto's are naive
    made.keys["a/0001.csv"].last_modified = datetime(2001, 1, 2, 3, 4, 5)  # noqa: DTZ001
    scanned = scan(
        source(store.url),
        all=metric(),
        size=metric("bytes", unit="kB"),
        a=metric("count", "a/"),
        deep=metric("count", "a/deep/"),
        both=metric("count", "a/", "a/deep/"),
        csv=metric("count", "a/", suffix=".csv"),
        match=metric("count", "a/", match="*.json"),
        path=metric("count", "a/", match="deep/*1.json"),
        small=metric("count", "a/", suffix=".csv", smaller_than="1 bytes"),
        mean=metric("mean_size", "a/deep/"),
        newest=metric("newest_age", "a/"),
        oldest=metric("oldest_age", "a/"),
    )
    sizes = sum(n % 7 for n in range(3000))
    assert values(scanned) == {
        "all": 5300,
        "size": (sizes + 2002 + 1299) / 1000,
        "a": 4001,
        "deep": 1001,
        "both": 4001,
        "csv": 3000,
        "match": 1001,
        "path": 100,
        "small": 429,
        "mean": 2.0,
        "newest": "2030-01-02T03:04:05+00:00",
        "oldest": "2001-01-02T03:04:05+00:00",
    }
    assert scanned.api_calls == len(store.lists) == 6
    assert type(values(scanned)["a"]) is int and type(values(scanned)["mean"]) is float


def test_only_the_common_prefix_is_listed(store: Store) -> None:
    store.fill("lake", {**{f"b/{n}": b"" for n in range(1500)}, "feed_1/x": b"1", "feed_2/y": b"22"})
    scanned = scan(source(store.url), a=metric("bytes", "feed_1/"), b=metric("bytes", "feed_2/"))
    assert values(scanned) == {"a": 1, "b": 2}
    assert [query.get("prefix") for query in store.lists] == [["feed_"]]


def test_a_directory_bucket_without_sessions(store: Store) -> None:
    bucket = "lake--use1-az4--x-s3"
    store.fill(bucket, {"raw/a": b"1", "raw/b": b"1", "rax/c": b"1", "z": b"1"})
    scanned = scan(source(store.url, bucket), a=metric("count", "raw/a"), b=metric("count", "raw/b"))
    assert (values(scanned), scanned.api_calls) == ({"a": 1, "b": 1}, 1)
    assert [query.get("prefix") for query in store.lists] == [["raw/"]]


def test_requesters_pay_for_each_request(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    payers: list[str | None] = []
    send = URLLib3Session.send

    def recorded(session: Any, request: Any) -> Any:
        payers.append(request.headers.get("x-amz-request-payer"))
        assert b"x-amz-request-payer" in request.headers["Authorization"] or payers[-1] is None  # it is signed
        return send(session, request)

    monkeypatch.setattr(URLLib3Session, "send", recorded)
    store.fill("lake", {f"a/{n}.json": b'{"ids": [1]}' for n in range(3)})
    complete = metric("completeness", "a/", expected={"prefix": "a/", "pointer": "ids.*"})
    scan(source(store.url, request_payer="requester", shards=("a/1",)), m=complete)
    assert payers == [b"requester"] * (len(store.lists) + 3)
    payers.clear()
    scan(source(store.url), m=metric())
    assert payers == [None]


KEYS = ["plus + plus", "per%cent%20", "sp ace/é/ü", "🏀/ball.csv", "a&b=c?d#e", "tab\tx", "slash/", "q'\"<>", "日本/語"]


def test_keys_of_all_kinds(store: Store) -> None:
    store.fill("lake", {f"k/{key}": b"1" for key in KEYS} | {f"k/{n:05}": b"" for n in range(1001)})
    results = values(
        scan(
            source(store.url),
            all=metric("count", "k/"),
            ball=metric("count", "k/🏀/"),
            plus=metric("count", "k/plus + "),
            percent=metric("count", "k/", suffix="%20"),
            japan=metric("count", "k/", match="日本/*"),
            name=metric("count", "k/", match="語"),
        )
    )
    assert results == {"all": len(KEYS) + 1001, "ball": 1, "plus": 1, "percent": 1, "japan": 1, "name": 1}


def test_a_prefix_without_objects(store: Store) -> None:
    store.fill("lake", {"a/b.json": b"1"})
    results = readings_by_name(
        scan(
            source(store.url),
            none=metric("count", "gone/"),
            size=metric("bytes", "gone/"),
            null=metric("count", "gone/", absent=None),
            zero=metric("bytes", "gone/", absent=0),
            filtered=metric("count", "a/", suffix=".csv", absent=None),
            mean=metric("mean_size", "a/", suffix=".csv"),
            newest=metric("newest_age", "gone/"),
            age_null=metric("oldest_age", "gone/", absent=None),
        ).readings
    )
    assert {n: r.value for n, r in results.items() if r.method == "exact"} == {
        "none": 0,
        "size": 0,
        "null": None,
        "zero": 0,
        "filtered": 0,
        "age_null": None,
    }
    assert results["mean"].error == "no object under a/ matches"
    assert results["newest"].error == "no object under gone/ matches"
    assert results["none"].details["empty_prefixes"] == results["size"].details["empty_prefixes"] == ["gone/"]
    assert "empty_prefixes" not in results["filtered"].details
    assert results["null"].details == {"absent": "there are no objects under gone/"}


def test_a_reading_names_what_it_leaves_out(store: Store) -> None:
    store.fill("lake", {"a/b/c": b"1", "a/d": b"1", "a/": b""})
    scanned = scan(
        source(store.url),
        n=metric("count", "a/", "raww/"),
        b=metric("bytes", "a/b/"),
        all=metric(),
        deep=metric("count", "a/b"),
    )
    results = readings_by_name(scanned.readings)
    assert (results["n"].value, results["n"].details["empty_prefixes"]) == (3, ["raww/"])
    assert all("empty_prefixes" not in results[name].details for name in ("b", "all", "deep"))
    assert results["b"].details["not_counted"] == "old versions, and uploads that are not finished"


def test_an_empty_bucket(store: Store) -> None:
    store.fill("lake", {})
    scanned = scan(source(store.url), n=metric(), age=metric("newest_age"))
    assert [reading.method for reading in scanned.readings] == ["exact", "failed"]
    assert scanned.api_calls == 1


# --- errors ------------------------------------------------------------------------------------------


def failure(where: S3Source, deadline: Deadline | None = None) -> str:
    with pytest.raises(MeasureError) as caught:
        scan(where, deadline, n=metric(absent=0))
    assert "a-secret" not in str(caught.value)
    return str(caught.value)


def test_a_missing_bucket(store: Store) -> None:
    assert failure(source(store.url)).startswith(f"S3 bucket lake at {store.url}: the bucket does not exist")


@pytest.mark.usefixtures("store")
def test_a_refused_port() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://user:a-secret@127.0.0.1:{taken.getsockname()[1]}"
    text = failure(source(url, region="us-east-1"))
    assert text.startswith("S3 bucket lake at http://127.0.0.1") and ": unreachable (" in text


@pytest.mark.usefixtures("store")
def test_an_invalid_endpoint_fails() -> None:
    assert "lake" in failure(source("no url"))


def test_no_credentials(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    assert f"S3 bucket lake at {store.url}: no usable credentials" in failure(source(store.url))
    monkeypatch.setenv("AWS_PROFILE", "missing")
    assert "AWS_PROFILE" in failure(source(store.url))


@pytest.mark.usefixtures("store")
def test_without_boto3(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "boto3", None)
    assert "dims-worker[s3]" in failure(source("http://127.0.0.1:1"))


@pytest.mark.usefixtures("store")
@pytest.mark.parametrize(
    ("code", "status", "text"),
    [
        ("AccessDenied", 403, "s3:ListBucket"),
        ("InvalidAccessKeyId", 403, "unknown access key"),
        ("SignatureDoesNotMatch", 403, "wrong secret key"),
        ("ExpiredToken", 400, "have expired"),
        ("Strange", 400, ": refused: what?"),
    ],
)
def test_refusals_are_explained(code: str, status: int, text: str) -> None:
    body = f"<Error><Code>{code}</Code><Message>what?</Message></Error>"
    with answering(lambda _: http(status, body)) as (url, _seen):
        assert text in failure(source(url))


@pytest.mark.usefixtures("store")
def test_a_silent_server_is_abandoned_at_the_deadline() -> None:
    started = time.monotonic()
    with answering(lambda _: b"") as (url, _seen):
        assert failure(source(url), within(0.7))
    assert time.monotonic() - started < 30  # boto3 alone would wait a minute


@pytest.mark.usefixtures("store")
def test_a_temporary_error_is_retried() -> None:
    page = (
        "<ListBucketResult><KeyCount>0</KeyCount><IsTruncated>false</IsTruncated><Prefix></Prefix></ListBucketResult>"
    )
    with answering(lambda n: http(503, "") if n == 1 else http(200, page)) as (url, seen):
        scanned = scan(source(url), n=metric())
    assert (values(scanned), scanned.api_calls, len(seen)) == ({"n": 0}, 1, 2)


def http(status: int, body: str) -> bytes:
    head = f"HTTP/1.1 {status} X\r\nContent-Type: application/xml\r\nContent-Length: {len(body)}\r\n"
    return f"{head}Connection: close\r\n\r\n{body}".encode()


class answering:  # noqa: N801 - a context manager
    """A server that answers its n-th request (from 1) with `answer(n)`, and not at all if that is b""."""

    def __init__(self, answer: Callable[[int], bytes]) -> None:
        self._answer = answer
        self._seen: list[socket.socket] = []
        self._door = socket.create_server(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self) -> tuple[str, list[socket.socket]]:
        self._thread.start()
        return f"http://127.0.0.1:{self._door.getsockname()[1]}", self._seen

    def _serve(self) -> None:
        while True:
            try:
                caller, _ = self._door.accept()
            except OSError:
                return
            self._seen.append(caller)
            caller.recv(65536)
            if answer := self._answer(len(self._seen)):
                caller.sendall(answer)
                caller.close()

    def __exit__(self, *_: object) -> None:
        self._door.shutdown(socket.SHUT_RDWR)
        self._door.close()
        self._thread.join()
        for caller in self._seen:
            caller.close()


# --- a fake client ------------------------------------------------------------------------------------


class Stub:
    """Lists keys in the order given, a page at a time."""

    def __init__(self, keys: list[str], page: int = 10, **answer: Any) -> None:
        self.pages = [keys[at : at + page] for at in range(0, len(keys), page)]
        self.answer = answer
        self.closed = False

    def list_objects_v2(self, ContinuationToken: str = "0", **_: Any) -> dict[str, Any]:  # noqa: N803
        number = int(ContinuationToken)
        at = datetime(2025, 1, 1, tzinfo=UTC)
        entries = [{"Key": key, "Size": 1, "LastModified": at} for key in self.pages[number]]
        more = number + 1 < len(self.pages)
        token = {"NextContinuationToken": str(number + 1)} if more else {}
        return {"Contents": entries, "KeyCount": len(entries), "IsTruncated": more, **token, **self.answer}

    def close(self) -> None:
        self.closed = True


def read(
    client: Stub, deadline: Deadline | None = None, /, ordered: bool = True, **metrics: S3Metric
) -> dict[str, Reading]:
    probe = S3Probe(lambda _source, _deadline: client)
    return readings_by_name(
        probe.scan(source("http://x", ordered=ordered), metrics, CONTEXT, deadline or within(5)).readings
    )


def test_keys_may_come_in_any_order() -> None:
    keys = [f"{p}{n}" for n in range(20) for p in ("z", "a/b/", "", "a/", "\U0001f3c0/", "\uffee/", "a/b/c/")]
    metrics = {
        "all": metric(),
        "a": metric("count", "a/"),
        "ab": metric("count", "a/b/"),
        "z": metric("count", "z"),
        "ball": metric("count", "\U0001f3c0/"),
        "two": metric("count", "z", "a/b/c/", "a/b/"),
    }
    client = Stub(keys)
    results = {name: reading.value for name, reading in read(client, ordered=False, **metrics).items()}
    assert results == {"all": 140, "a": 60, "ab": 40, "z": 20, "ball": 20, "two": 60}
    assert client.closed


@pytest.mark.parametrize("token", [None, "0"])
def test_a_listing_that_would_never_end(token: str | None) -> None:
    client = Stub(["a"], IsTruncated=True, NextContinuationToken=token)
    with pytest.raises(MeasureError, match="not how to continue"):
        read(client, n=metric())
    assert client.closed


def test_the_deadline_is_checked_between_pages() -> None:
    class Slow(Stub):
        def list_objects_v2(self, ContinuationToken: str = "0", **_: Any) -> dict[str, Any]:  # noqa: N803
            time.sleep(0.05)
            return super().list_objects_v2(ContinuationToken)

    with pytest.raises(MeasureError, match="timeout"):
        read(Slow([f"{n:04}" for n in range(1000)]), within(0.12), n=metric())


# --- the real lake ------------------------------------------------------------------------------------

TRUE_COUNTS = {
    "espn_schedules/": (82, 558_677),
    "espn_box_scores/": (273, 3_785_055),
    "espn_play_by_play/": (85, 6_360_841),
    "espn_team_stats/": (273, 514_558),
    "tables/": (1, 24_326),
    "sync_listings/": (2, 23_146),
    "": (716, 11_266_603),
}
"""Objects and bytes by prefix, from the lake's README."""


@pytest.fixture
def lake() -> Iterator[dict[str, bytes]]:
    if not LAKE.is_dir():
        pytest.skip(f"the real lake is not at {LAKE}")
    aside = ("README.md", "COUNTS.sh", "LICENSES/")
    paths = {path.relative_to(LAKE).as_posix(): path for path in LAKE.rglob("*") if path.is_file()}
    yield {key: path.read_bytes() for key, path in paths.items() if not key.startswith(aside)}


def test_the_real_lake(store: Store, lake: dict[str, bytes]) -> None:
    store.fill("lake", lake)
    metrics = {}
    for number, prefix in enumerate(TRUE_COUNTS):
        metrics[f"n{number}"] = metric("count", prefix)
        metrics[f"b{number}"] = metric("bytes", prefix)
    metrics |= {"small": metric(smaller_than="1KiB"), "under_2k": metric(smaller_than="2KiB")}
    scanned = scan(source(store.url), **metrics)
    results = values(scanned)
    assert {p: (results[f"n{i}"], results[f"b{i}"]) for i, p in enumerate(TRUE_COUNTS)} == TRUE_COUNTS
    assert (results["small"], results["under_2k"]) == (0, 297)
    assert scanned.api_calls == len(store.lists) == 1
