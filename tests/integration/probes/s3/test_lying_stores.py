"""A store that answers HTTP 200 with a page that is wrong: every reading fails, and names the bucket and the page."""

from __future__ import annotations

import gzip
import http.server
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlsplit

import pytest
from botocore.exceptions import ClientError

from dims_worker.checks.sources import source_checks
from dims_worker.config import S3Metric, S3Source
from dims_worker.errors import MeasureError
from dims_worker.probes.base import Deadline, ScanContext, ScanResult, readings_by_name
from dims_worker.probes.s3.probe import S3Probe, s3_client
from dims_worker.workflows.aws_inventory.lake import PrefixCollector
from dims_worker.workflows.base import WorkflowContext
from dims_worker.workflows.sync_status import workflow as sync_status
from tests.conftest import Project

KEYS = [f"raw/{number:02}.csv" for number in range(12)]
PAGE = 4
"""Keys a page, so that a whole listing has three pages."""


@dataclass
class Page:
    """A page as the store would send it honestly. A lie changes it, and `raw` replaces it."""

    number: int
    fields: list[tuple[str, str]]
    entries: list[list[tuple[str, str]]]
    root: str = "ListBucketResult"
    namespace: str = ' xmlns="http://s3.amazonaws.com/doc/2006-03-01/"'
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    raw: bytes | None = None
    cut: int | None = None

    def set(self, name: str, *values: str) -> None:
        """Replace a field by these values. None removes it."""
        self.fields = [(n, v) for n, v in self.fields if n != name] + [(name, value) for value in values]

    def get(self, name: str) -> str:
        return dict(self.fields)[name]

    def set_of(self, number: int, name: str, *values: str) -> None:
        """Replace a field of an object."""
        self.entries[number] = [(n, v) for n, v in self.entries[number] if n != name] + [(name, v) for v in values]

    def keys(self, keys: list[str]) -> None:
        """Replace the keys, with an honest KeyCount."""
        self.entries = [entry(key) for key in keys]
        self.set("KeyCount", str(len(keys)))

    def body(self) -> bytes:
        if self.raw is not None:
            return self.raw
        inner = "".join(f"<{name}>{value}</{name}>" for name, value in self.fields)
        inner += "".join(
            f"<Contents>{''.join(f'<{name}>{value}</{name}>' for name, value in each)}</Contents>"
            for each in self.entries
        )
        text = f'<?xml version="1.0" encoding="UTF-8"?><{self.root}{self.namespace}>{inner}</{self.root}>'
        return text.encode()


def entry(key: str) -> list[tuple[str, str]]:
    return [("Key", quote(key)), ("LastModified", "2026-11-29T00:00:00.000Z"), ("ETag", '"d41d"'), ("Size", "100")]


def page_of(bucket: str, query: dict[str, str]) -> Page:
    keys = [key for key in KEYS if key.startswith(query.get("prefix", "")) and key > query.get("start-after", "")]
    at = int(query.get("continuation-token", "0"))
    size = min(PAGE, int(query.get("max-keys", "1000")))
    some, more = keys[at : at + size], len(keys) > at + size
    fields = [
        ("Name", bucket),
        ("Prefix", quote(query.get("prefix", ""))),
        ("KeyCount", str(len(some))),
        ("EncodingType", "url"),
        ("IsTruncated", str(more).lower()),
        *([("NextContinuationToken", str(at + size))] if more else []),
    ]
    return Page(at // PAGE + 1, fields, [entry(key) for key in some])


Lie = Callable[[Page], object]
LIES: dict[str, Lie] = {}
HONEST: dict[str, Lie] = {"honest": lambda page: None}


def raw(body: bytes, **headers: str) -> Lie:
    def lie(page: Page) -> None:
        page.raw, page.headers = body, {name.replace("_", "-"): value for name, value in headers.items()}

    return lie


LOGIN = b"<html><body>Please log in</body></html>"
LIES |= {
    "html": raw(LOGIN, Content_Type="text/html"),
    "html-with-doctype": raw(b"<!DOCTYPE html><html><br><p>Please log in", Content_Type="text/html"),
    "json": raw(b'{"Contents": [], "IsTruncated": false}', Content_Type="application/json"),
    "text": raw(b"OK\n"),
    "empty-body": raw(b""),
    "blank-body": raw(b" \n"),
    "nul-bytes": raw(b"\0" * 300),
    "gzip-without-header": raw(gzip.compress(b"<ListBucketResult/>")),
    "gzip-header-without-gzip": raw(b"<ListBucketResult/>", Content_Encoding="gzip"),
    "only-a-declaration": raw(b'<?xml version="1.0" encoding="UTF-8"?>'),
    "unknown-encoding": raw(b'<?xml version="1.0" encoding="klingon"?><ListBucketResult/>'),
    "empty-root": raw(b"<ListBucketResult/>"),
    "list-of-buckets": raw(b"<ListAllMyBucketsResult><Owner/><Buckets/></ListAllMyBucketsResult>"),
    "versions": lambda page: setattr(page, "root", "ListVersionsResult"),
    "lower-case-root": lambda page: setattr(page, "root", "listbucketresult"),
    "error-document": raw(b"<Error><Code>InternalError</Code><Message>x</Message></Error>"),
    "error-with-namespace": raw(b'<Error xmlns="x"><Code>NoSuchBucket</Code><Message>x</Message></Error>'),
    "nested-listing": lambda page: setattr(page, "raw", b"<Answer>" + page.body()[38:] + b"</Answer>"),
    "two-documents": lambda page: setattr(page, "raw", page.body() + b"<ListBucketResult/>"),
    "status-204": lambda page: (setattr(page, "status", 204), setattr(page, "raw", b"")),
    "cut-without-length": lambda page: setattr(page, "raw", page.body()[:-40]),
    "cut-with-length": lambda page: setattr(page, "cut", 100),
}
LIES |= {f"no-{name}": (lambda page, name=name: page.set(name)) for name in ("IsTruncated", "KeyCount")}
LIES |= {
    f"IsTruncated-{value or 'empty'}": (lambda page, value=value: page.set("IsTruncated", value))
    for value in ("maybe", "", "no", "0", "False", "false true")
}
LIES |= {
    f"KeyCount-{value or 'empty'}": (lambda page, value=value: page.set("KeyCount", value))
    for value in ("3", "5", "0", "", "-4", "four", "4.0", "1e3", "9" * 30)
}
LIES |= {
    f"Size-{value or 'empty'}": (lambda page, value=value: page.set_of(1, "Size", value))
    for value in ("-5", "abc", "", "1.5", "1_000", "+5", "\u0661\u0662", "1 2", "0x10", "nan", "9" * 19)
}
LIES |= {
    f"LastModified-{value or 'empty'}": (lambda page, value=value: page.set_of(2, "LastModified", value))
    for value in (
        "yesterday",
        "",
        "0",
        "1764374400",
        "2026-11-29",
        "2026-11-29T00:00:00",
        "2026-13-29T00:00:00.000Z",
        "2026-02-30T00:00:00.000Z",
        "0001-01-01T00:00:00Z",
        "Sun, 29 Nov 2026 00:00:00 GMT",
        "9999-12-31T23:59:59-01:00",
    )
}
LIES |= {f"no-{name}-of-an-object": (lambda page, name=name: page.set_of(3, name)) for name in ("Key", "Size")}
LIES |= {
    "no-LastModified-of-an-object": lambda page: page.set_of(0, "LastModified"),
    "empty-key": lambda page: page.set_of(0, "Key", ""),
    "two-keys-of-an-object": lambda page: page.set_of(3, "Key", "raw/97", "raw/98"),
    "two-sizes-of-an-object": lambda page: page.set_of(3, "Size", "1", "2"),
    "key-that-is-not-utf8": lambda page: page.set_of(3, "Key", "raw/%ff"),
    "IsTruncated-twice": lambda page: page.set("IsTruncated", "false", "true"),
    "more-keys-than-requested": lambda page: page.keys([f"raw/{page.number}{number:04}" for number in range(1001)]),
    "MaxKeys-smaller-than-KeyCount": lambda page: page.set("MaxKeys", "3"),
    "MaxKeys-negative": lambda page: page.set("MaxKeys", "-1"),
    "another-prefix": lambda page: page.set("Prefix", "other/"),
    "no-prefix-in-answer": lambda page: page.set("Prefix", ""),
    "keys-of-another-prefix": lambda page: page.keys([f"zzz/{number}" for number in range(4)]),
    "one-key-of-another-prefix": lambda page: page.set_of(3, "Key", "rax/3"),
    "key-with-an-encoded-slash": lambda page: page.set_of(3, "Key", "raw%252F99"),
    "key-twice": lambda page: page.set_of(1, "Key", dict(page.entries[0])["Key"]),
    "keys-reversed": lambda page: page.entries.reverse(),
    "two-keys-exchanged": lambda page: page.entries.insert(1, page.entries.pop(2)),
    "common-prefixes": lambda page: page.fields.append(("CommonPrefixes", "<Prefix>raw/deep/</Prefix>")),
    "counted-common-prefixes": lambda page: (
        page.fields.append(("CommonPrefixes", "<Prefix>raw/deep/</Prefix>")),
        page.set("KeyCount", str(len(page.entries) + 1)),
    ),
}
ON_LATER_PAGES: dict[str, Lie] = {
    "first-page-again": lambda page: page.keys(KEYS[:4]),
    "page-before-again": lambda page: page.keys(KEYS[4 * page.number - 8 : 4 * page.number - 4]),
    "one-key-again": lambda page: page.keys([KEYS[4 * page.number - 5], *KEYS[4 * page.number - 4 :][:4]]),
    "another-bucket": lambda page: page.set("Name", "other"),
}
ON_TRUNCATED_PAGES: dict[str, Lie] = {
    "no-token": lambda page: page.set("NextContinuationToken"),
    "empty-token": lambda page: page.set("NextContinuationToken", ""),
    "last-page-with-token": lambda page: page.set("IsTruncated", "false"),
    "same-token": lambda page: page.set("NextContinuationToken", str(4 * page.number - 4)),
}
REFUSALS = {
    "redirect": (307, b"", "redirects to https://elsewhere.example/raw. Correct `endpoint_url` or `region`"),
    "login": (302, LOGIN, "redirects to https://elsewhere.example/raw. Correct `endpoint_url` or `region`"),
    "another-region": (301, b"", "the bucket is in another region. Set `region`"),
    "bad-gateway": (502, b"<html>bad</html>", "Bad Gateway, and the answer is not one of S3: it has 16 bytes"),
    "forbidden-by-proxy": (403, LOGIN, "HTTP 403, and the answer is not one of S3: it has 39 bytes"),
    "unavailable": (503, b"", "refused: Service Unavailable"),
    "denied": (403, b"<Error><Code>AccessDenied</Code></Error>", "set `request_payer: requester`"),
    "expired": (400, b"<Error><Code>ExpiredToken</Code></Error>", "the credentials have expired. Log in again"),
}
FUTURE = "2031-01-01T00:00:00.000Z"
HONEST |= {
    "no-namespace": lambda page: setattr(page, "namespace", ""),
    "namespace-of-another-store": lambda page: setattr(page, "namespace", ' xmlns="http://doc.s3.amazonaws.com/x"'),
    "no-ETag": lambda page: page.set_of(0, "ETag"),
    "no-StorageClass": lambda page: page.set_of(0, "StorageClass"),
    "no-EncodingType": lambda page: page.set("EncodingType"),
    "no-Prefix": lambda page: page.set("Prefix"),
    "no-Name": lambda page: page.set("Name"),
    "alias": lambda page: page.set("Name", "the-name-behind-the-alias"),
    "empty-token-on-last-page": lambda page: (
        "NextContinuationToken" in dict(page.fields) or page.set("NextContinuationToken", "")
    ),
    "time-with-offset": lambda page: page.set_of(0, "LastModified", "2026-11-29T01:00:00+01:00"),
    "more-fields": lambda page: page.entries[0].extend([("Owner", "<ID>1</ID>"), ("ChecksumAlgorithm", "CRC32")] * 2),
    "future": lambda page: page.set_of(0, "LastModified", FUTURE),
}


def refuse(name: str) -> Lie:
    status, body, _ = REFUSALS[name]

    def lie(page: Page) -> None:
        page.status, page.raw = status, body

    return lie


ALL: dict[str, Lie] = {**LIES, **ON_LATER_PAGES, **ON_TRUNCATED_PAGES, **HONEST, **{n: refuse(n) for n in REFUSALS}}
NAMES = list(ALL)


class _Handler(http.server.BaseHTTPRequestHandler):
    """The bucket `<lie>--<number>` lies on that page, in path style."""

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        bucket = unquote(parts.path.strip("/"))
        page = page_of(bucket, dict(parse_qsl(parts.query, keep_blank_values=True)))
        number, _, lie = bucket.partition("-")
        if page.number == int(number) or number == "0":
            ALL[NAMES[int(lie)]](page)
        body = page.body()
        self.send_response(page.status)
        self.send_header("Content-Length", str(len(body)))
        if page.status in (302, 307):
            self.send_header("Location", "https://me:secret@elsewhere.example/raw?token=secret")
        for name, value in page.headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body[: page.cut])
        self.close_connection = page.cut is not None

    def log_message(self, *_: Any) -> None:
        """Keep the output of tests clean."""


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(scope="module")
def client(url: str) -> Iterator[Any]:
    """One client for all tests, because boto3 needs long to create one."""
    with pytest.MonkeyPatch.context() as patch:
        set_access(patch)
        source = S3Source(type="s3", bucket="any", endpoint_url=url)
        yield s3_client(source, Deadline.after(timedelta(minutes=30)))


def set_access(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_EC2_METADATA_DISABLED"):
        monkeypatch.setenv(name, "true")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/dev/null")
    monkeypatch.setattr("time.sleep", lambda _seconds: None)  # botocore waits between its tries


def scan(client: Any, url: str, name: str, page: int) -> ScanResult:
    """Measure a bucket that lies on this page. 0: on all pages."""
    source = S3Source(type="s3", bucket=f"{page}-{NAMES.index(name)}", endpoint_url=url)
    metrics = {m: S3Metric(source="lake", measure=m, prefix="raw/") for m in ("count", "bytes", "newest_age")}
    context = ScanContext(Path("/project"), Path("/project/.dims"))
    return S3Probe(lambda _source, _deadline: client).scan(
        source, metrics, context, Deadline.after(timedelta(seconds=60))
    )


CASES = [
    *((name, page) for name in LIES for page in ((1, 3) if name.startswith(("html", "empty", "no-")) else (2,))),
    *((name, page) for name in ON_LATER_PAGES for page in (2, 3)),
    *((name, page) for name in ON_TRUNCATED_PAGES for page in ((2,) if name == "same-token" else (1, 2))),
]


@pytest.mark.parametrize(("name", "page"), CASES)
def test_a_page_that_is_not_what_s3_promises_fails_the_reading(client: Any, url: str, name: str, page: int) -> None:
    with pytest.raises(MeasureError) as caught:
        scan(client, url, name, page)
    text = str(caught.value)
    place = f"S3 bucket {page}-{NAMES.index(name)} at {url}: page {page} of prefix raw/"
    assert text.startswith(place), text
    assert len(text) < 500


@pytest.mark.parametrize("page", [1, 2])
@pytest.mark.parametrize("name", REFUSALS)
def test_a_refusal_names_its_reason(client: Any, url: str, name: str, page: int) -> None:
    with pytest.raises(MeasureError) as caught:
        scan(client, url, name, page)
    text = str(caught.value)
    assert REFUSALS[name][2] in text and "secret" not in text
    assert (f": page {page} of prefix raw/: " in text) or page == 1


@pytest.mark.parametrize("name", HONEST)
def test_what_stores_may_leave_out(client: Any, url: str, name: str) -> None:
    results = readings_by_name(scan(client, url, name, 0).readings)
    assert (results["count"].value, results["bytes"].value) == (12, 1200)
    time = datetime.fromisoformat(FUTURE if name == "future" else "2026-11-29T00:00:00Z")
    assert results["newest_age"].value == time.astimezone(UTC).isoformat()


def test_workflows_and_the_doctor_check_pages_too(project: Project, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    set_access(monkeypatch)
    later, first, alias = (NAMES.index(name) for name in ("KeyCount-3", "html", "alias"))
    project.write(
        {
            "dims.yaml": f"""
sources:
  later: {{type: s3, bucket: 2-{later}, endpoint_url: "{url}"}}
  first: {{type: s3, bucket: 1-{first}, endpoint_url: "{url}"}}
  alias: {{type: s3, bucket: 0-{alias}, endpoint_url: "{url}"}}
rules: {{}}
"""
        }
    )
    context = WorkflowContext(project.config, datetime.now(UTC), Deadline.after(timedelta(seconds=60)))
    with pytest.raises(MeasureError, match="page 2 of the whole bucket has 4 keys, and its KeyCount is 3"):
        context.list_bucket("later", [""], lambda: PrefixCollector(1, 0))
    assert context.list_bucket("alias", [""], lambda: PrefixCollector(1, 0)).to_json()["objects"] == 12
    found = {name: check() for name, check in source_checks(project.config).items()}
    assert {name: check.state for name, check in found.items()} == {"later": "ok", "first": "problem", "alias": "ok"}
    assert "page 1 of the whole bucket is not a listing" in found["first"].summary
    assert "which calls itself the-name-behind-the-alias" in found["alias"].summary


def test_sync_status_of_a_store_without_order(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    class Unordered:
        """Refuses StartAfter, as directory buckets do."""

        def list_objects_v2(self, **query: Any) -> dict[str, Any]:
            if "StartAfter" in query:
                answer: Any = {"Error": {"Code": "NotImplemented"}}
                raise ClientError(answer, "ListObjectsV2")
            time = datetime(2026, 11, 29, tzinfo=UTC)
            page = [{"Key": key, "Size": 1, "LastModified": time} for key in ("raw/c", "raw/a", "raw/b")]
            return {"Contents": page, "KeyCount": 3, "IsTruncated": False}

        def close(self) -> None: ...

    monkeypatch.setattr("dims_worker.workflows.base.s3_client", lambda _source, _deadline: Unordered())
    project.write(
        {
            "copy/a": "1",
            "copy/d": "1",
            "dims.yaml": """
sources:
  lake: {type: s3, bucket: lake}
metrics:
  m:
    s: {source: lake, measure: sync_status, local: copy, pairs: [{folder: ., prefix: raw/}]}
workflows:
  sync_status: {metric: m.s}
rules: {}
""",
        }
    )
    context = WorkflowContext(project.config, datetime.now(UTC), Deadline.after(timedelta(seconds=60)))
    result = sync_status.run(context)
    assert [each["key"] for kind in ("only_local", "only_s3", "different") for each in result[kind]] == [
        "raw/d",
        "raw/b",
        "raw/c",
    ]
    assert result["same"] == 1
