"""Days in the keys of objects: which days exist, and which calendar days are missing between them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date, timedelta
from heapq import nsmallest
from itertools import islice
from typing import Any

from dims_worker.config import S3Metric
from dims_worker.probes.base import Reading, exact_reading, missing_reading, printable_path
from dims_worker.probes.s3.day_folders import day_of_compact_folders, day_of_folders, day_of_partitions
from dims_worker.probes.s3.listing import Entry

_FORM = re.compile(r"[0-9]{8}|[0-9]{4}-[0-9]{2}-[0-9]{2}")
_DEFAULT_PATTERN = S3Metric.model_fields["date"].default
_FOLDER_MARKERS = ("/", "_$folder$")
"""How the keys of empty objects end that only show a folder."""


@dataclass(slots=True)
class KeyNames:
    """The number of some keys, and the first `limit` of them in their order."""

    limit: int
    count: int = 0
    first: list[str] = field(default_factory=list)

    def add(self, count: int, keys: list[str]) -> None:
        if count:
            self.count += count
            self.first = nsmallest(self.limit, self.first + keys)


@dataclass(slots=True)
class Days:
    """The days in keys, and the keys without a day.

    With the default pattern, a day comes from a partition folder such as `dt=2026-11-28/`, or else from the last
    part of the key, or else from a folder such as `2026-11-28/`. Group 1 of another pattern matches it in the last
    part of the key, or else in the folders below the prefix.
    """

    pattern: str
    names: int
    prefixes: tuple[str, ...] = ("",)
    found: set[date] = field(default_factory=set)
    compact: set[date] = field(default_factory=set)
    """The days of folders of 8 digits, which may also be ids. They count if no key has another day."""
    unreadable: KeyNames = field(init=False)
    only_compact: KeyNames = field(init=False)
    _folder: str | None = None
    _folder_day: date | None = None
    _read: dict[str | None, date | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.unreadable, self.only_compact = KeyNames(self.names), KeyNames(self.names)

    def add(self, entries: list[Entry]) -> None:
        search = re.compile(self.pattern).finditer
        default = self.pattern == _DEFAULT_PATTERN
        without_day: list[str] = []
        for entry in entries:
            key: str = entry["Key"]
            folder, _, name = key.rpartition("/")
            if key.endswith(_FOLDER_MARKERS) and not entry.get("Size"):
                without_day.append(key)
                continue
            if folder != self._folder:  # many keys have the same folder
                self._folder, self._folder_day = folder, self._partition_day(key, default)
            day = (self._folder_day if default else None) or self._matched(search(name))
            if day is None:
                day = self._folder_day or (day_of_folders(self._below_prefix(key)) if default else None)
            if day is None:
                without_day.append(key)
            else:
                self.found.add(day)
        if without_day:
            self._add_without_day(without_day, default)

    def merge(self, other: Days) -> None:
        self.found |= other.found
        self.compact |= other.compact
        self.unreadable.add(other.unreadable.count, other.unreadable.first)
        self.only_compact.add(other.only_compact.count, other.only_compact.first)

    def _below_prefix(self, key: str) -> str:
        """Return the folders of a key below the folder of its prefix: `dt=2026-11-28` for `a/dt=2026-11-28/b` and
        the prefix `a/dt=`."""
        start = max((p.rfind("/") + 1 for p in self.prefixes if key.startswith(p)), default=0)
        return key[start:].rpartition("/")[0]

    def _partition_day(self, key: str, default: bool) -> date | None:
        folders = self._below_prefix(key)
        if not folders:
            return None
        in_folders = None if default else self._matched(re.finditer(self.pattern, f"{folders}/"))
        return in_folders or day_of_partitions(folders)

    def _matched(self, matches: Iterator[re.Match[str]]) -> date | None:
        """Return the first match that is a day."""
        return next((day for match in matches if (day := self._day(match[1]))), None)

    def _add_without_day(self, keys: list[str], default: bool) -> None:
        compact, unreadable = [], []
        for key in keys:
            marker = key.endswith(_FOLDER_MARKERS)
            day = day_of_compact_folders(self._below_prefix(key)) if default and not marker else None
            if day is None:
                unreadable.append(key)
            else:
                compact.append(key)
                self.compact.add(day)
        self.only_compact.add(len(compact), compact)
        self.unreadable.add(len(unreadable), unreadable)

    def _day(self, text: str | None) -> date | None:
        # Many keys have the same day, and parsing a date is slow
        if text not in self._read:
            day = read_day(text)
            if day is None:
                return None
            self._read[text] = day
        return self._read[text]


def read_day(text: str | None) -> date | None:
    """Parse `YYYYMMDD` or `YYYY-MM-DD`. Return None for a day that does not exist, such as `20131332`."""
    if text is None or not _FORM.fullmatch(text):
        return None
    try:
        return date.fromisoformat(text)
    except ValueError:
        return None


def missing_between(days: set[date], names: int) -> tuple[int, list[str]]:
    """Count the missing days between the first and the last, and list the first `names` of them in ISO 8601."""
    first, last = min(days), max(days)
    span = (last - first).days + 1
    missing = (day for number in range(span) if (day := first + timedelta(days=number)) not in days)
    return span - len(days), [day.isoformat() for day in islice(missing, names)]


def missing_days_reading(name: str, metric: S3Metric, days: Days, place: str) -> Reading:
    """Return the reading of `missing_days`. Keys without a day are counted and listed, and are not an error."""
    found, unreadable = days.found, KeyNames(metric.names)
    unreadable.add(days.unreadable.count, days.unreadable.first)
    if found:
        unreadable.add(days.only_compact.count, days.only_compact.first)
    else:
        found = days.compact
    if not found:
        fix = ". Set `date` to a pattern of the day" if not metric.has_absent else ""
        without = f" ({unreadable.count} names have none){fix}" if unreadable.count else ""
        return missing_reading(name, metric, f"no object under {place} has a day in its name{without}")
    count, named = missing_between(found, metric.names)
    details: dict[str, Any] = {
        "first": min(found).isoformat(),
        "last": max(found).isoformat(),
        "days": len(found),
        "missing": named,
        "unreadable": unreadable.count,
        "unreadable_names": [printable_path(key) for key in unreadable.first],
    }
    return exact_reading(name, metric, count, details)
