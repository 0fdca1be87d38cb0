"""What a bucket holds: objects, bytes, ages. One listing serves all metrics of the bucket."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC
from typing import Any

from dims_worker.config import S3Metric, S3Source
from dims_worker.errors import MeasureError
from dims_worker.probes.base import (
    Change,
    Deadline,
    KeysChanged,
    Probe,
    Reading,
    Scanned,
    Surroundings,
    exact,
    instant,
    missing,
    shown,
    sized,
)
from dims_worker.probes.listing import Entry, Filter, Listing, key_test, prefixes_to_list

_PAGE = 1000
"""Keys a request: the most that S3 gives."""

_CONNECT = 5.0
_READ = 30.0
"""Seconds without a byte after which a request is tried again."""

Connect = Callable[[S3Source, Deadline], Any]
"""Makes a client with `list_objects_v2` and `close`, such as boto3's."""


def connect(source: S3Source, deadline: Deadline) -> Any:
    """A boto3 client whose requests do not start after the deadline. Raises MeasureError without boto3."""
    try:
        import boto3
        from botocore.config import Config
    except ImportError:
        raise MeasureError("boto3 is not installed: install the extra `s3` (see README.md)") from None
    client = boto3.session.Session().client(
        "s3",
        endpoint_url=source.endpoint_url,
        region_name=source.region,
        config=Config(
            connect_timeout=min(_CONNECT, deadline.left),
            read_timeout=min(_READ, deadline.left),
            retries={"mode": "standard", "max_attempts": 4},
        ),
    )
    # Asked before every attempt: retries end with the deadline too
    client.meta.events.register("before-send.s3", lambda **_: deadline.check())
    return client


class S3Probe(Probe[S3Source, S3Metric]):
    """Measures buckets. S3 has no folders: a prefix below which nothing lies is a true 0 in an existing
    bucket, unless the metric says what `absent:` means."""

    judges = KeysChanged

    def __init__(self, connect: Connect = connect) -> None:
        self._connect = connect

    def scan(
        self, source: S3Source, metrics: Mapping[str, S3Metric], around: Surroundings, deadline: Deadline
    ) -> Scanned:
        """See `Probe.scan`; ceil(N / 1000) requests for N keys. Raises MeasureError where the bucket cannot
        be listed: missing, refused, out of reach, no credentials, no boto3."""
        deadline.check()
        listing = Listing(metrics)
        requests = 0
        with _in_plain_words(source):
            client = self._connect(source, deadline)
        with contextlib.closing(client):
            for prefix in prefixes_to_list(metrics.values()):
                for page in _pages(client, source, prefix):
                    requests += 1
                    listing.add(page)
                    deadline.check()
        return Scanned(tuple(_reading(name, metric, listing) for name, metric in metrics.items()), requests)

    def touched(self, source: S3Source, metric: S3Metric, change: Change, around: Surroundings) -> str | None:
        """See `Probe.touched`; by the keys alone, for they do not tell an object's size."""
        if not isinstance(change, KeysChanged) or change.bucket != source.bucket:
            return None
        if not change.keys:
            return "unknown keys changed"
        for key in change.keys:
            bases = tuple(prefix for prefix in metric.prefix if key.startswith(prefix))
            if bases and _wants(metric, key, bases):
                return f"key {shown(key)} is under {bases[0]}" if bases[0] else f"key {shown(key)} changed"
        return None


def _wants(metric: S3Metric, key: str, bases: tuple[str, ...]) -> bool:
    if metric.suffix and not key.endswith(metric.suffix):
        return False
    return not metric.match or key_test(metric.match, Filter.of(metric, bases).bases)(key)


def _pages(client: Any, source: S3Source, prefix: str) -> Iterator[list[Entry]]:
    """The pages of a listing, each when it is asked for."""
    token: str | None = None
    while True:
        more = {"ContinuationToken": token} if token else {}
        with _in_plain_words(source):
            answer = client.list_objects_v2(Bucket=source.bucket, Prefix=prefix, MaxKeys=_PAGE, **more)
        yield answer.get("Contents", [])
        if not answer.get("IsTruncated"):
            return
        previous, token = token, answer.get("NextContinuationToken")
        if not token or token == previous:  # asked again it would answer the same for ever, or begin anew
            raise MeasureError(
                f"the listing of {source.bucket} broke off: there is more, but the store does not say where"
            )


def _reading(name: str, metric: S3Metric, listing: Listing) -> Reading:
    found = listing.total(name)
    where = " or ".join(prefix or "the bucket" for prefix in metric.prefix)
    if metric.says_absent and not listing.seen(name):
        return missing(name, metric, f"nothing lies under {where}")
    if not found.count and metric.measure not in ("count", "bytes"):
        return missing(name, metric, f"no object matches under {where}")
    match metric.measure:
        case "count":
            return exact(name, metric, found.count)
        case "bytes":
            return exact(name, metric, sized(metric, found.bytes))
        case "mean_size":
            return exact(name, metric, float(sized(metric, found.bytes)) / found.count)
        case "newest_age" | "oldest_age":
            time = found.newest if metric.measure == "newest_age" else found.oldest
            assert time is not None
            return exact(name, metric, instant(time.astimezone(UTC)))


# --- errors ------------------------------------------------------------------------------------------

_CREDENTIALS = "set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or give the machine a role"
_REFUSALS = {
    "NoSuchBucket": "bucket {bucket} does not exist at {place}; check `bucket`, `region` and `endpoint_url`",
    "AccessDenied": "bucket {bucket} at {place} may not be listed: the credentials need s3:ListBucket on it",
    "InvalidAccessKeyId": "{place} does not know the access key for bucket {bucket}: " + _CREDENTIALS,
    "SignatureDoesNotMatch": "{place} refuses the secret key for bucket {bucket}: " + _CREDENTIALS,
    "ExpiredToken": "the credentials for bucket {bucket} have expired: log in again",
    "PermanentRedirect": "bucket {bucket} is in another region: set `region`",
    "AuthorizationHeaderMalformed": "bucket {bucket} is in another region: set `region`",
}
_ALIASES = {
    **{"404": "NoSuchBucket", "403": "AccessDenied", "AllAccessDisabled": "AccessDenied"},
    **{"InvalidToken": "ExpiredToken", "ExpiredTokenException": "ExpiredToken", "301": "PermanentRedirect"},
}
_NO_CREDENTIALS = re.compile(r"Credential|Token|SSO|ProfileNotFound|Unauthorized|LoginRefresh")
_UNREACHABLE = re.compile(r"Connect|Timeout|HTTPClient|SSL|Proxy|ResponseStreaming")
_USER = re.compile(r"//[^/@\s]*@")


@contextlib.contextmanager
def _in_plain_words(source: S3Source) -> Iterator[None]:
    """What boto3 raises, as MeasureError."""
    try:
        yield
    except MeasureError:
        raise
    except Exception as error:  # noqa: BLE001 - botocore's errors could not be named without importing it
        raise _translated(error, source) from None


def _translated(error: Exception, source: S3Source) -> MeasureError:
    """An error of boto3 in plain words, with the remedy; never with anything secret."""
    place = _USER.sub("//", source.endpoint_url) if source.endpoint_url else "AWS"
    kind = next((c.__name__ for c in type(error).__mro__ if c.__name__ in _KINDS), type(error).__name__)
    said = _USER.sub("//", str(error))
    if kind == "ClientError":
        answer = getattr(error, "response", {}).get("Error", {})
        code = str(answer.get("Code", ""))
        text = _REFUSALS.get(_ALIASES.get(code, code), "{place} refused to list bucket {bucket}: {said}")
        return MeasureError(text.format(bucket=source.bucket, place=place, said=answer.get("Message") or code))
    if kind == "NoRegionError":
        return MeasureError(f"no region for bucket {source.bucket}: set `region`")
    if _NO_CREDENTIALS.search(kind):
        return MeasureError(f"no usable credentials for bucket {source.bucket} at {place}: {_CREDENTIALS}")
    if _UNREACHABLE.search(kind):
        return MeasureError(
            f"{place} cannot be reached for bucket {source.bucket} ({kind}): check `endpoint_url` and the network"
        )
    return MeasureError(f"bucket {source.bucket} at {place} cannot be listed: {said}")


_KINDS = frozenset({"ClientError"})
"""Errors whose subclasses are made at run time."""
