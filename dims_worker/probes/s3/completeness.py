"""Completeness: how many of the expected ids have an object with content."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from dims_worker.config import S3Metric, SqlSource
from dims_worker.config.metrics import ExpectedObjects, ExpectedQuery
from dims_worker.errors import MeasureError
from dims_worker.probes.base import Deadline, Reading, ScanContext, exact_reading, printable_path
from dims_worker.probes.s3.listing import Entry, Keys

MOST_OBJECTS = 20_000
"""More objects than this are not read for the ids they hold."""
MOST_BYTES = 32 * 2**20
"""A larger object is no schedule."""
_READERS = 8

_PLAIN = frozenset("123456789")
"""What a number without leading zeros begins with: most ids, and `normal` leaves them as they are."""

Get = Callable[[str], bytes]
"""The content of an object of the bucket. Raises MeasureError."""


@dataclass(frozen=True, slots=True)
class IdsOf:
    """Makes the collector of a metric's ids."""

    pattern: str
    min_size: int

    @classmethod
    def of(cls, metric: S3Metric) -> IdsOf:
        return cls(metric.id, metric.min_size)

    def __call__(self) -> Ids:
        return Ids(re.compile(self.pattern), self.min_size)


@dataclass(slots=True)
class Ids:
    """The ids that group 1 of a pattern finds in the last part of the keys of objects with content. Grows
    with the number of ids."""

    pattern: re.Pattern[str]
    min_size: int
    found: set[str] = field(default_factory=set)

    def add(self, entries: list[Entry]) -> None:
        search, least = self.pattern.search, self.min_size
        for entry in entries:
            if entry["Size"] >= least:
                match = search(entry["Key"].rpartition("/")[2])
                if match and match[1]:
                    text = match[1]
                    self.found.add(text if text[0] in _PLAIN and text.isdecimal() else normalize_id(text))

    def merge(self, other: Ids) -> None:
        self.found |= other.found


def normalize_id(given: Any) -> str:
    """An id as text, one of digits alone without leading zeros: `0041200101`, 41200101 and 41200101.0 are
    one game."""
    if isinstance(given, float) and given.is_integer():
        given = int(given)
    text = str(given).strip()
    return text.lstrip("0") or "0" if text.isdecimal() else text


# --- what is expected --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Expected:
    """The ids that should be there, each as it is compared and as it was given, how many objects were read to
    know them, and how many of those held none."""

    ids: dict[str, str]
    objects: int = 0
    without: int = 0


class Expectations:
    """Finds out what metrics expect; what several of them expect is asked for once."""

    def __init__(self, get: Get, around: ScanContext, deadline: Deadline) -> None:
        self._get, self._around, self._deadline = get, around, deadline
        self._known: dict[ExpectedQuery | ExpectedObjects, Expected | MeasureError] = {}

    def of(self, asked: ExpectedQuery | ExpectedObjects, keys: Keys | None) -> Expected:
        """What is expected; `keys` are the listed objects that say so. Raises MeasureError."""
        if asked not in self._known:
            try:
                found = self._queried(asked) if isinstance(asked, ExpectedQuery) else self._read(asked, keys)
                self._known[asked] = found
            except MeasureError as error:
                self._known[asked] = error
        known = self._known[asked]
        if isinstance(known, MeasureError):
            raise known
        return known

    def _queried(self, asked: ExpectedQuery) -> Expected:
        source = self._around.sources.get(asked.source)
        if not isinstance(source, SqlSource):
            raise MeasureError(f"expected: {asked.source} is no source of type sql")
        from dims_worker.probes.sql import probe as sql

        return _of(sql.first_column(source, asked.query, self._around, self._deadline))

    def _read(self, asked: ExpectedObjects, keys: Keys | None) -> Expected:
        sizes = keys.sizes if keys else {}
        if keys and keys.count > keys.limit:
            raise MeasureError(f"{keys.count} JSON objects lie under {asked.prefix}: {keys.limit} are read at most")
        if large := next((key for key, size in sizes.items() if size > MOST_BYTES), None):
            raise MeasureError(f"{printable_path(large)} has {sizes[large]} bytes: {MOST_BYTES} are read at most")
        ids: dict[str, str] = {}
        without = 0
        with ThreadPoolExecutor(_READERS, "expected ids") as pool:
            try:
                for found in pool.map(lambda key: self._ids_in(key, asked.pointer), sorted(sizes)):
                    ids |= found
                    without += not found
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
        return Expected(ids, len(sizes), without)

    def _ids_in(self, key: str, way: str) -> dict[str, str]:
        self._deadline.check()
        try:
            content = json.loads(self._get(key))
        except (ValueError, RecursionError) as error:
            raise MeasureError(f"{printable_path(key)} holds no JSON: {error}") from None
        return _of(values_at_pointer(content, way.split("."))).ids


def values_at_pointer(value: Any, way: list[str]) -> Iterator[Any]:
    """What lies at the end of a way, as `pointer.found` knows ways; but where one leads nowhere it gives
    nothing, and the rest counts: one odd schedule among thousands spoils nothing."""
    if not way:
        yield value
        return
    step, rest = way[0], way[1:]
    chosen: Iterable[Any] = ()
    if step == "*" and isinstance(value, list | dict):
        chosen = value if isinstance(value, list) else value.values()
    elif isinstance(value, dict) and step in value:
        chosen = (value[step],)
    elif isinstance(value, list) and step.isdecimal():
        chosen = value[int(step) : int(step) + 1]
    for each in chosen:
        yield from values_at_pointer(each, rest)


def _of(values: Iterable[Any]) -> Expected:
    """The values that are ids: neither null nor true, no empty text, nothing that holds others."""
    ids = (value for value in values if not isinstance(value, bool | list | dict | type(None)) and value != "")
    return Expected({normalize_id(value): str(value).strip() for value in ids})


# --- the reading -------------------------------------------------------------------------------------


def completeness_reading(
    name: str, metric: S3Metric, found: Ids, keys: Keys | None, expectations: Expectations
) -> Reading:
    """The reading of `completeness`: failed where nothing is expected, or nobody can say what is."""
    assert metric.expected is not None
    try:
        expected = expectations.of(metric.expected, keys)
    except MeasureError as error:
        return Reading.failed(name, metric.shown_unit, str(error))
    if not expected.ids:
        return Reading.failed(name, metric.shown_unit, f"no id is expected: {_origin(metric.expected)} gives none")
    there = expected.ids.keys() & found.found
    lacking = sorted(expected.ids.keys() - there, key=_in_order)
    details: dict[str, Any] = {
        "expected": len(expected.ids),
        "found": len(there),
        "missing": len(lacking),
        "missing_ids": [expected.ids[each] for each in lacking[: metric.names]],
        "unexpected": len(found.found) - len(there),
    }
    if isinstance(metric.expected, ExpectedObjects):
        details |= {"objects_read": expected.objects, "objects_without_ids": expected.without}
    return exact_reading(name, metric, 100 * len(there) / len(expected.ids), details)


def _in_order(text: str) -> tuple[bool, int, str]:
    """Numbers by their size, before texts."""
    return (False, int(text), text) if text.isdecimal() else (True, 0, text)


def _origin(asked: ExpectedQuery | ExpectedObjects) -> str:
    if isinstance(asked, ExpectedQuery):
        return f"the query at {asked.source}"
    return f"{asked.pointer} in the JSON objects under {asked.prefix}"
