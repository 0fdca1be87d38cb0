"""Completeness: the percentage of the expected ids that have an object with content."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from dims_worker.config import S3Metric, SqlSource
from dims_worker.config.metrics import ExpectedObjects, ExpectedQuery
from dims_worker.errors import MeasureError
from dims_worker.probes.base import (
    Deadline,
    Reading,
    ScanContext,
    exact_reading,
    printable_path,
    result_of,
    result_or_error,
)
from dims_worker.probes.ids import IdValues, id_sort_key, normalize_id
from dims_worker.probes.json_path import resolve_pointer
from dims_worker.probes.s3.listing import Entry, Keys

MAX_OBJECTS = 20_000
"""The most objects that are read for expected ids."""
MAX_BYTES = 32 * 2**20
"""The most bytes of an object that is read for expected ids."""
_READERS = 8

_NAMED_VALUES = 20
"""How many different values that are no id the details name."""

_PLAIN = frozenset("123456789")
"""The first digits of numbers without leading zeros. Most ids are such, and `normalize_id` keeps them."""

Get = Callable[[str], bytes]
"""Returns the content of an object in the bucket. Raises MeasureError."""


@dataclass(slots=True)
class Ids:
    """The ids in the last part of the keys of objects with content, as group 1 of a pattern matches them.

    Memory grows with the number of ids.
    """

    pattern: str
    min_size: int
    found: set[str] = field(default_factory=set)

    def add(self, entries: list[Entry]) -> None:
        pattern = re.compile(self.pattern)
        for entry in entries:
            if entry["Size"] >= self.min_size:
                text = _id_text(pattern, entry["Key"].rpartition("/")[2])
                if not text:
                    continue
                name = text if text[0] in _PLAIN and text.isdecimal() and text.isascii() else normalize_id(text)
                if name is not None:
                    self.found.add(name)

    def merge(self, other: Ids) -> None:
        self.found |= other.found


def _id_text(pattern: re.Pattern[str], name: str) -> str | None:
    """Return the first non-empty group of the pattern. A day is an id only if the pattern matches nothing after it."""
    match = pattern.search(name)
    if match is None:
        return None
    text = match[1] or next((group for group in match.groups() if group), None)
    if text and len(text) == len("20130316") and text.startswith(("19", "20")):
        later = (group for other in pattern.finditer(name, match.end()) for group in other.groups() if group)
        return next(later, text)
    return text


@dataclass(frozen=True, slots=True)
class Expected:
    """The expected ids, from their normalized form to the text for people, the number of objects that were read for
    them, and the number of those `without` ids. `no_ids` are the values that are no id, with their numbers."""

    ids: dict[str, str]
    no_ids: Counter[str] = field(default_factory=Counter)
    objects: int = 0
    without: int = 0


class Expectations:
    """Reads what metrics expect. What several metrics expect is read once."""

    def __init__(self, get: Get, context: ScanContext, deadline: Deadline) -> None:
        self._get, self._context, self._deadline = get, context, deadline
        self._known: dict[ExpectedQuery | ExpectedObjects, Expected | MeasureError] = {}

    def of(self, wanted: ExpectedQuery | ExpectedObjects, keys: Keys | None) -> Expected:
        """Return what is expected. `keys` are the listed objects that contain the ids. Raises MeasureError."""
        if wanted not in self._known:
            self._known[wanted] = result_or_error(self._fetch, wanted, keys)
        return result_of(self._known[wanted])

    def _fetch(self, wanted: ExpectedQuery | ExpectedObjects, keys: Keys | None) -> Expected:
        return self._queried(wanted) if isinstance(wanted, ExpectedQuery) else self._read(wanted, keys)

    def _queried(self, wanted: ExpectedQuery) -> Expected:
        source = self._context.sources.get(wanted.source)
        if not isinstance(source, SqlSource):
            raise MeasureError(f"`expected`: {wanted.source} is not a source of type sql")
        from dims_worker.probes.sql import snapshot

        rows = snapshot.query_rows(source, wanted.query, self._context, self._deadline).rows
        read = IdValues.of(row[0] for row in rows)
        return Expected(read.ids, read.without)

    def _read(self, wanted: ExpectedObjects, keys: Keys | None) -> Expected:
        sizes = keys.sizes if keys else {}
        if keys and keys.count > keys.limit:
            raise MeasureError(f"{keys.count} JSON objects are under {wanted.prefix}: DIMS reads at most {keys.limit}")
        if large := next((key for key, size in sizes.items() if size > MAX_BYTES), None):
            raise MeasureError(f"{printable_path(large)} has {sizes[large]} bytes: DIMS reads at most {MAX_BYTES}")
        ids: dict[str, str] = {}
        no_ids: Counter[str] = Counter()
        without = 0
        with ThreadPoolExecutor(_READERS, "expected ids") as pool:
            try:
                for ids_in in pool.map(lambda key: self._ids_in(key, wanted.pointer), sorted(sizes)):
                    ids |= ids_in.ids
                    no_ids += ids_in.without
                    without += not ids_in.ids
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
        return Expected(ids, no_ids, len(sizes), without)

    def _ids_in(self, key: str, pointer: str) -> IdValues:
        self._deadline.check()
        try:
            content = json.loads(self._get(key))
        except (ValueError, RecursionError) as error:
            raise MeasureError(f"{printable_path(key)} is not JSON: {error}") from None
        # One odd schedule among thousands must not fail the metric
        return IdValues.of(resolve_pointer(content, pointer, skip_missing=True))


def completeness_reading(
    name: str, metric: S3Metric, ids: Ids, keys: Keys | None, expectations: Expectations
) -> Reading:
    """Return the reading of `completeness`. It is failed if nothing is expected, or if that is unknown."""
    assert metric.expected is not None
    try:
        expected = expectations.of(metric.expected, keys)
    except MeasureError as error:
        return Reading.failed(name, metric.shown_unit, str(error))
    if not expected.ids:
        without = f" ({_without(expected)})" if expected.no_ids else ""
        reason = f"no id is expected: {_origin(metric.expected)} returned none{without}"
        return Reading.failed(name, metric.shown_unit, reason)
    present = expected.ids.keys() & ids.found
    missing = sorted(expected.ids.keys() - present, key=id_sort_key)
    details: dict[str, Any] = {
        "expected": len(expected.ids),
        "found": len(present),
        "missing": len(missing),
        "missing_ids": [expected.ids[each] for each in missing[: metric.names]],
        "unexpected": len(ids.found) - len(present),
    }
    if expected.no_ids:
        details["values_without_id"] = dict(sorted(expected.no_ids.items())[:_NAMED_VALUES])
    if isinstance(metric.expected, ExpectedObjects):
        details |= {"objects_read": expected.objects, "objects_without_ids": expected.without}
    return exact_reading(name, metric, 100 * len(present) / len(expected.ids), details)


def _without(expected: Expected) -> str:
    values = ", ".join(f"{value} {count:,} times" for value, count in sorted(expected.no_ids.items())[:5])
    return f"values without an id: {values}"


def _origin(wanted: ExpectedQuery | ExpectedObjects) -> str:
    if isinstance(wanted, ExpectedQuery):
        return f"the query of source {wanted.source}"
    return f"{wanted.pointer} in the JSON objects under {wanted.prefix}"
