"""List a bucket with as few API calls as its keys allow.

S3 lists keys in the order of their UTF-8 bytes, which is the order of Python's `str`. So a listing can skip
keys: after the last key of one prefix, the next call starts just before the next prefix. Each call starts at or
after the key at which the same call of a plain listing starts. So this never makes more calls than a listing of
the common prefix of all prefixes. For few prefixes it makes far fewer.
"""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from dims_worker.config import S3Source
from dims_worker.errors import MeasureError
from dims_worker.probes.s3.errors import translate_s3_errors
from dims_worker.probes.s3.listing import Entry

_PAGE = 1000
"""Keys a call: the most that S3 returns."""

_PRINTABLE = 0x21


class OutOfOrder(MeasureError):
    """The store does not list keys in order."""


@dataclass(frozen=True, slots=True)
class KeySpan:
    """The keys after `after` up to and including `until`. None is an open end."""

    after: str | None = None
    until: str | None = None

    def holds(self, key: str) -> bool:
        return (self.after is None or key > self.after) and (self.until is None or key <= self.until)

    def reaches(self, prefix: str) -> bool:
        """Return whether a key with this prefix can be in the span."""
        if self.until is not None and prefix > self.until:
            return False
        return self.after is None or prefix > self.after or self.after.startswith(prefix)


WHOLE = KeySpan()


def key_spans(shards: Iterable[str]) -> tuple[KeySpan, ...]:
    """Split all keys at the prefixes of the shards. There is one span more than shards, so no key between two
    shards is lost. Listing all spans makes at most one more call a shard."""
    cuts = sorted({shard for shard in shards if shard})
    return tuple(map(KeySpan, (None, *cuts), (*cuts, None)))


def disjoint(prefixes: Iterable[str]) -> tuple[str, ...]:
    """Return the prefixes that no other one contains, in order."""
    outer: list[str] = []
    for prefix in sorted(set(prefixes)):
        if not outer or not prefix.startswith(outer[-1]):
            outer.append(prefix)
    return tuple(outer)


def common(prefixes: Iterable[str]) -> str:
    """Return the longest common prefix."""
    return os.path.commonprefix(list(prefixes))  # noqa: RUF071 - a prefix is text: it may end within a name


def list_pages(
    client: Any,
    source: S3Source,
    prefixes: tuple[str, ...],
    span: KeySpan = WHOLE,
    on_api_call: Callable[[], object] = lambda: None,
) -> Iterator[list[Entry]]:
    """Yield the pages, one an API call, and call `on_api_call` after each call.

    The pages contain every object of the span below the prefixes (disjoint, in order), and some between them.
    Raises MeasureError, and OutOfOrder if the order of keys is needed and the store does not keep it.
    """
    waiting = [prefix for prefix in prefixes if span.reaches(prefix)]
    ordered = span != WHOLE or len(waiting) > 1
    request = _Request(client, source, span.after or "")
    while waiting:
        page = request.send(common(waiting), _before(waiting[0]))
        on_api_call()
        if ordered and page:
            page, request.seen = _in_span(page, request.seen, span)
        yield page
        if not request.more or (span.until is not None and request.seen >= span.until):
            return
        if ordered:
            waiting = [each for each in waiting if each >= request.seen or request.seen.startswith(each)]


class _Request:
    """The API calls of one listing, which continue with a token or from a key. All keys up to `seen` are done, if
    the store keeps the order of keys."""

    def __init__(self, client: Any, source: S3Source, seen: str) -> None:
        self._client, self._source = client, source
        self._token: str | None = None
        self._prefix: str | None = None
        self.seen = seen
        self.more = True

    def send(self, prefix: str, leap: str) -> list[Entry]:
        """Return the next page of a prefix, starting after the key `leap` if that comes later."""
        query: dict[str, str] = {}
        if leap >= prefix and leap > self.seen:
            query["StartAfter"] = self.seen = leap
        elif prefix == self._prefix and self._token:
            query["ContinuationToken"] = self._token
        elif self.seen and self.seen >= prefix:
            query["StartAfter"] = self.seen
        elif prefix == self._prefix:
            raise self._interrupted()
        with translate_s3_errors(self._source):
            answer = self._client.list_objects_v2(Bucket=self._source.bucket, Prefix=prefix, MaxKeys=_PAGE, **query)
        self.more, self._prefix = bool(answer.get("IsTruncated")), prefix
        self._token = answer.get("NextContinuationToken")
        if self.more and self._token and self._token == query.get("ContinuationToken"):
            raise self._interrupted()
        page: list[Entry] = answer.get("Contents", [])
        return page

    def _interrupted(self) -> MeasureError:
        # The next call would return the same page for ever, or start again
        return MeasureError(
            f"S3 bucket {self._source.bucket}: the store says that there are more keys, but not how to continue"
        )


def _in_span(page: list[Entry], after: str, span: KeySpan) -> tuple[list[Entry], str]:
    """Return the entries of a page that are in the span, and the last key of the page. Raises OutOfOrder, also if
    the store ignores StartAfter and starts again."""
    keys = [entry["Key"] for entry in page]
    if keys[0] <= after or keys != sorted(keys):
        raise OutOfOrder
    if span.until is not None and keys[-1] > span.until:
        page = page[: bisect_right(keys, span.until)]
    return page, keys[-1]


def _before(prefix: str) -> str:
    """Return a text just before all keys with this prefix: `a/` gives `a.~`."""
    if not prefix:
        return ""
    last = ord(prefix[-1])
    if last <= _PRINTABLE or not prefix[-1].isascii():
        return prefix[:-1]
    return f"{prefix[:-1]}{chr(last - 1)}~"
