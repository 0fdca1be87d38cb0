"""Check that a page of a listing is complete, and that it continues the pages before it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from dims_worker.errors import MeasureError
from dims_worker.probes.base import printable_path
from dims_worker.probes.s3.listing import Entry
from dims_worker.probes.s3.page_body import BrokenPage

_SAMPLED_KEYS = 100_000


class OutOfOrder(MeasureError):
    """The store says itself that it does not list keys in order: it refuses to start a listing after a key, or to
    list a prefix that is not a folder."""


@dataclass(frozen=True, slots=True)
class PageQuery:
    """What a page answers: the requested prefix, the most keys, and the bucket that the pages before it name."""

    prefix: str
    keys: int
    bucket: str | None = None


def checked_page(answer: Mapping[str, Any], query: PageQuery) -> list[Entry]:
    """Return the objects of a page. Raises BrokenPage if a field is absent, or contradicts another or the query."""
    page: list[Entry] = answer.get("Contents", [])
    if not isinstance(answer.get("IsTruncated"), bool):
        raise BrokenPage("does not say whether more pages follow: it has no IsTruncated")
    _check_count(answer, page, query.keys)
    if query.prefix not in (answer.get("Prefix", query.prefix), answer.get("PrefixAsSent")):
        raise BrokenPage(f"is one of another prefix: {printable_path(str(answer['Prefix']))}")
    if query.bucket is not None and answer.get("Name", query.bucket) != query.bucket:
        raise BrokenPage(f"is one of another bucket: {answer['Name']}. The pages before it are of {query.bucket}")
    _check_keys([entry["Key"] for entry in page], query.prefix)
    _check_token(answer)
    return page


def _check_count(answer: Mapping[str, Any], page: list[Entry], most: int) -> None:
    count = answer.get("KeyCount")
    if count is None:
        raise BrokenPage("does not say how many keys it has: it has no KeyCount")
    if groups := answer.get("CommonPrefixes"):
        raise BrokenPage(f"leaves out the objects below {len(groups)} CommonPrefixes, which DIMS does not request")
    if count != len(page):
        raise BrokenPage(f"has {len(page)} keys, and its KeyCount is {count}")
    if count > min(most, answer.get("MaxKeys", most)):
        raise BrokenPage(f"has {count} keys, which is more than its MaxKeys or the {most} that DIMS requested")


def _check_keys(keys: list[str], prefix: str) -> None:
    """Check that all keys have the prefix, and that none comes twice."""
    if not keys:
        return
    if not (min(keys).startswith(prefix) and max(keys).startswith(prefix)):
        other = next(key for key in keys if not key.startswith(prefix))
        raise BrokenPage(f"has a key outside the prefix: {printable_path(other)}")
    if len(set(keys)) < len(keys):
        twice = Counter(keys).most_common(1)[0][0]
        raise BrokenPage(f"has a key twice: {printable_path(twice)}")


def _check_token(answer: Mapping[str, Any]) -> None:
    token = answer.get("NextContinuationToken")
    if answer["IsTruncated"] and not token:
        raise BrokenPage("says that there are more keys, but not how to continue: it has no NextContinuationToken")
    if token and not answer["IsTruncated"]:
        raise BrokenPage("says that it is the last page, and has a NextContinuationToken")


def disorder(page: list[Entry], after: str) -> str | None:
    """Return how the keys of a page do not increase, each and from the key `after` on, or None if they do."""
    keys: list[str] = [entry["Key"] for entry in page]
    if not keys or (keys[0] > after and keys == sorted(keys)):
        return None
    before, key = next(pair for pair in pairwise([after, *keys]) if pair[0] >= pair[1])
    return f"lists keys out of order: {printable_path(key)} after {printable_path(before)}"


@dataclass(slots=True)
class KeySample:
    """The keys of a listing without order, to notice pages that come twice.

    Up to 100,000 keys, it notices each repeated key. From then on it keeps every second key, then every fourth, and
    so on, so its memory is bounded. It still notices each repeated page of 1,000 keys, practically.
    """

    _known: set[int] = field(default_factory=set)
    _mask: int = 0

    def add(self, page: list[Entry]) -> None:
        """Add a page. Raises BrokenPage if one of its keys came before."""
        for entry in page:
            digest = hash(entry["Key"])
            if digest & self._mask:
                continue
            if digest in self._known:
                raise BrokenPage(f"repeats a key of a page before it: {printable_path(entry['Key'])}")
            self._known.add(digest)
        while len(self._known) > _SAMPLED_KEYS:
            self._mask = 2 * self._mask + 1
            self._known = {digest for digest in self._known if not digest & self._mask}
