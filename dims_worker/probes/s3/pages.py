"""Listing a bucket with as few API calls as its keys allow.

S3 lists in the order of the keys' UTF-8 bytes, which is that of Python's `str`. So a listing can leap: once
a page has passed all that is wanted, the next call starts just before the next prefix that is. Each
call starts where, or after, the same call of a plain listing would: a leaping listing never makes
more API calls than a listing of the prefix that all share, and of few prefixes far fewer.
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
"""Keys per API call: the most that S3 gives."""

_PRINTABLE = 0x21


class OutOfOrder(MeasureError):
    """The store does not list keys in their order."""


@dataclass(frozen=True, slots=True)
class KeySpan:
    """The keys after one and up to another, `until` itself among them; None is an open end."""

    after: str | None = None
    until: str | None = None

    def holds(self, key: str) -> bool:
        return (self.after is None or key > self.after) and (self.until is None or key <= self.until)

    def reaches(self, prefix: str) -> bool:
        """Whether a key with this prefix could lie in the span."""
        if self.until is not None and prefix > self.until:
            return False
        return self.after is None or prefix > self.after or self.after.startswith(prefix)


WHOLE = KeySpan()


def key_spans(shards: Iterable[str]) -> tuple[KeySpan, ...]:
    """The whole cut at the shards' prefixes: one span more than shards, so that a listing of each makes at
    most one API call more a shard, and no key between two shards is lost."""
    cuts = sorted({shard for shard in shards if shard})
    return tuple(map(KeySpan, (None, *cuts), (*cuts, None)))


def disjoint(prefixes: Iterable[str]) -> tuple[str, ...]:
    """The prefixes that lie in no other, in order."""
    found: list[str] = []
    for prefix in sorted(set(prefixes)):
        if not found or not prefix.startswith(found[-1]):
            found.append(prefix)
    return tuple(found)


def common(prefixes: Iterable[str]) -> str:
    """The longest prefix that all share."""
    return os.path.commonprefix(list(prefixes))  # noqa: RUF071 - a prefix is text: it may end within a name


def list_pages(
    client: Any,
    source: S3Source,
    prefixes: tuple[str, ...],
    span: KeySpan = WHOLE,
    sent: Callable[[], object] = lambda: None,
) -> Iterator[list[Entry]]:
    """One page per API call, each when it is asked for, after a call of `sent`: every object of the span below
    the prefixes (disjoint, in order), and some that lie between. Raises MeasureError; OutOfOrder where leaps
    or the span need the order of keys and the store does not keep it."""
    waiting = [prefix for prefix in prefixes if span.reaches(prefix)]
    ordered = span != WHOLE or len(waiting) > 1
    request = _Request(client, source, span.after or "")
    while waiting:
        page = request.send(common(waiting), _before(waiting[0]))
        sent()
        if ordered and page:
            page, request.seen = _in_span(page, request.seen, span)
        yield page
        if not request.more or (span.until is not None and request.seen >= span.until):
            return
        if ordered:
            waiting = [each for each in waiting if each >= request.seen or request.seen.startswith(each)]


class _Request:
    """The API calls of one listing: they go on by a token, or from a key. `seen`: all keys up to it are done
    with, as far as the order of keys is relied on."""

    def __init__(self, client: Any, source: S3Source, seen: str) -> None:
        self._client, self._source = client, source
        self._token: str | None = None
        self._prefix: str | None = None
        self.seen = seen
        self.more = True

    def send(self, prefix: str, leap: str) -> list[Entry]:
        """The next page of a prefix, with the keys after `leap` if that is further on."""
        query: dict[str, str] = {}
        if leap >= prefix and leap > self.seen:
            query["StartAfter"] = self.seen = leap
        elif prefix == self._prefix and self._token:
            query["ContinuationToken"] = self._token
        elif self.seen and self.seen >= prefix:
            query["StartAfter"] = self.seen
        elif prefix == self._prefix:
            raise self._broke_off()
        with translate_s3_errors(self._source):
            answer = self._client.list_objects_v2(Bucket=self._source.bucket, Prefix=prefix, MaxKeys=_PAGE, **query)
        self.more, self._prefix = bool(answer.get("IsTruncated")), prefix
        self._token = answer.get("NextContinuationToken")
        if self.more and self._token and self._token == query.get("ContinuationToken"):
            raise self._broke_off()
        page: list[Entry] = answer.get("Contents", [])
        return page

    def _broke_off(self) -> MeasureError:
        # Asked again it would answer the same for ever, or begin anew
        return MeasureError(
            f"the listing of {self._source.bucket} broke off: there is more, but the store does not say where"
        )


def _in_span(page: list[Entry], after: str, span: KeySpan) -> tuple[list[Entry], str]:
    """The entries of a page that lie in the span, and the page's last key. Raises OutOfOrder, also where a
    store knows no StartAfter and begins anew."""
    keys = [entry["Key"] for entry in page]
    if keys[0] <= after or keys != sorted(keys):
        raise OutOfOrder
    if span.until is not None and keys[-1] > span.until:
        page = page[: bisect_right(keys, span.until)]
    return page, keys[-1]


def _before(prefix: str) -> str:
    """A text before all keys with this prefix, with hardly a key between: `a/` gives `a.~`."""
    if not prefix:
        return ""
    last = ord(prefix[-1])
    if last <= _PRINTABLE or not prefix[-1].isascii():
        return prefix[:-1]
    return f"{prefix[:-1]}{chr(last - 1)}~"
