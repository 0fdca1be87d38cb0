"""List a bucket with as few API calls as its keys allow.

S3 lists keys in the order of their UTF-8 bytes, which is the order of Python's `str`. So a listing can skip
keys: after the last key of one prefix, the next call starts just before the next prefix. Each call starts at or
after the key at which the same call of a plain listing starts. So this never makes more calls than a listing of
the common prefix of all prefixes. For few prefixes it makes far fewer.
"""

from __future__ import annotations

import contextlib
import os
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from dims_worker.config import S3Source
from dims_worker.probes.s3.errors import PagePlace, error_code, translate_s3_errors
from dims_worker.probes.s3.listing import Entry
from dims_worker.probes.s3.page_body import BrokenPage
from dims_worker.probes.s3.page_checks import KeySample, OutOfOrder, PageQuery, checked_page, disorder

PAGE = 1000
"""Keys a call: the most that S3 returns."""
_DIRECTORY_BUCKETS = ("--x-s3", "--xa-s3")
"""How the names of directory buckets and of their access points end. They list in no order."""
_NOT_SUPPORTED = frozenset({"NotImplemented", "InvalidRequest", "InvalidArgument"})
"""How a store refuses StartAfter, or a prefix that is not a folder."""

_PRINTABLE = 0x21

T = TypeVar("T")


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


def list_in_order_or_not(source: S3Source, in_order: Callable[[], T], without_order: Callable[[], T]) -> T:
    """Return the result of `in_order` if the store lists keys in order, and otherwise that of `without_order`.

    `in_order` raises OutOfOrder if the store says that it does not. Directory buckets never do.
    """
    if source.ordered and not source.bucket.endswith(_DIRECTORY_BUCKETS):
        with contextlib.suppress(OutOfOrder):
            return in_order()
    return without_order()


def list_pages(
    client: Any,
    source: S3Source,
    prefixes: tuple[str, ...],
    span: KeySpan = WHOLE,
    on_api_call: Callable[[], object] = lambda: None,
) -> Iterator[list[Entry]]:
    """Yield the pages, one an API call, and call `on_api_call` after each call.

    The pages contain every object of the span below the prefixes (disjoint, in order), and some between them.
    Raises MeasureError, also if a page is not what S3 promises, and OutOfOrder if the store says that it does not
    list keys in order.
    """
    waiting = [prefix for prefix in prefixes if span.reaches(prefix)]
    begin = span.after or ""
    request = _Request(client, source, on_api_call, begin, place=PagePlace(0, "", begin))
    while waiting:
        page = request.send(common(waiting), _before(waiting[0]))
        request.check_order(page)
        yield _in_span(page, span)
        if not request.more or (span.until is not None and request.seen >= span.until):
            return
        waiting = [each for each in waiting if each >= request.seen or request.seen.startswith(each)]


def list_pages_without_order(
    client: Any, source: S3Source, prefixes: Iterable[str], on_api_call: Callable[[], object] = lambda: None
) -> Iterator[list[Entry]]:
    """Yield the pages as `list_pages` does, from a store that lists keys in any order.

    One stream lists the folder that contains all prefixes, because a directory bucket accepts only a prefix that
    ends in `/`. Raises MeasureError, also if a key comes twice.
    """
    request = _Request(client, source, on_api_call)
    folder = common(prefixes)
    folder = folder[: folder.rfind("/") + 1]
    sample = KeySample()
    while request.more:
        page = request.send(folder)
        with translate_s3_errors(source, page=request.place):
            sample.add(page)
        yield page


def list_one_key(client: Any, source: S3Source, prefix: str) -> str:
    """Check that the bucket can be listed, and return the bucket's name in the answer. Raises MeasureError."""
    request = _Request(client, source, lambda: None, keys=1)
    list_in_order_or_not(source, lambda: request.send(prefix), lambda: request.send(prefix[: prefix.rfind("/") + 1]))
    return request.bucket or source.bucket


@dataclass(slots=True)
class _Request:
    """The API calls of one listing, which continue with a token or from a key. All keys up to `seen` are done, if
    the store keeps the order of keys."""

    client: Any
    source: S3Source
    on_api_call: Callable[[], object]
    seen: str = ""
    keys: int = PAGE
    more: bool = True
    bucket: str | None = None
    place: PagePlace = field(default_factory=lambda: PagePlace(0, ""))
    _token: str | None = None
    _tokens: set[int] = field(default_factory=set)

    def send(self, prefix: str, leap: str = "") -> list[Entry]:
        """Return the next page of a prefix, starting after the key `leap` if that comes later."""
        query: dict[str, str] = {}
        if leap >= prefix and leap > self.seen:
            query["StartAfter"] = self.seen = leap
        elif prefix == self.place.prefix and self._token:
            query["ContinuationToken"] = self._token
        elif self.seen and self.seen >= prefix:
            query["StartAfter"] = self.seen
        self.place = PagePlace(self.place.number + 1, prefix, self.place.after)
        with translate_s3_errors(self.source, page=self.place):
            answer = self._answer(prefix, self.keys, query)
            self.on_api_call()
            page = checked_page(answer, PageQuery(prefix, self.keys, self.bucket))
            self._continue_from(answer, query.get("ContinuationToken"))
        return page

    def check_order(self, page: list[Entry]) -> None:
        """Check that a page continues the keys seen before it. If not, one more call lets a store that lists
        without order say so: it raises OutOfOrder."""
        fault = disorder(page, self.seen)
        if fault is not None:
            with translate_s3_errors(self.source, page=self.place):
                self._answer(self.place.prefix, 1, {"StartAfter": page[0]["Key"]})
                raise BrokenPage(f"{fault}. If this store does not list keys in order, set `ordered: false`")
        if page:
            self.seen = page[-1]["Key"]

    def _answer(self, prefix: str, keys: int, query: dict[str, str]) -> dict[str, Any]:
        try:
            answer: dict[str, Any] = self.client.list_objects_v2(
                Bucket=self.source.bucket, Prefix=prefix, MaxKeys=keys, **query
            )
        except Exception as error:
            special = "StartAfter" in query or (prefix and not prefix.endswith("/"))
            if special and error_code(error) in _NOT_SUPPORTED:
                raise OutOfOrder from None
            raise
        return answer

    def _continue_from(self, answer: Mapping[str, Any], sent: str | None) -> None:
        self.more, self.bucket = answer["IsTruncated"], answer.get("Name", self.bucket)
        self._token = answer.get("NextContinuationToken")
        if sent is None:
            self._tokens.clear()
        if self._token is not None:
            if self._token == sent or hash(self._token) in self._tokens:
                raise BrokenPage("says that there are more keys, but not how to continue: its token came before")
            self._tokens.add(hash(self._token))


def _in_span(page: list[Entry], span: KeySpan) -> list[Entry]:
    """Return the objects of a page in order that are not after the span."""
    if span.until is None or not page or page[-1]["Key"] <= span.until:
        return page
    return page[: bisect_right(page, span.until, key=lambda entry: entry["Key"])]


def _before(prefix: str) -> str:
    """Return a text just before all keys with this prefix: `a/` gives `a.~`."""
    if not prefix:
        return ""
    last = ord(prefix[-1])
    if last <= _PRINTABLE or not prefix[-1].isascii():
        return prefix[:-1]
    return f"{prefix[:-1]}{chr(last - 1)}~"
