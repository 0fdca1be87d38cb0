"""Days in the names of objects: which ones are there, and which calendar days are missing between them."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import date, timedelta
from heapq import nsmallest
from typing import Any

from dims_worker.config import S3Metric
from dims_worker.probes.base import Reading, exact_reading, missing_reading, printable_path
from dims_worker.probes.s3.listing import Entry

_FORM = re.compile(r"[0-9]{8}|[0-9]{4}-[0-9]{2}-[0-9]{2}")


@dataclass(frozen=True, slots=True)
class DaysOf:
    """Makes the collector of a metric's days."""

    pattern: str
    names: int

    @classmethod
    def of(cls, metric: S3Metric) -> DaysOf:
        return cls(metric.date, metric.names)

    def __call__(self) -> Days:
        return Days(re.compile(self.pattern), self.names)


@dataclass(slots=True)
class Days:
    """The days that group 1 of a pattern finds in the last part of keys, and the keys where it finds none."""

    pattern: re.Pattern[str]
    names: int
    found: set[date] = field(default_factory=set)
    unreadable: int = 0
    unreadable_names: list[str] = field(default_factory=list)
    """The first in the order of keys, whatever order they came in."""
    _read: dict[str | None, date | None] = field(default_factory=dict)

    def add(self, entries: list[Entry]) -> None:
        search = self.pattern.search
        strange = []
        for entry in entries:
            key = entry["Key"]
            match = search(key.rpartition("/")[2])
            day = self._day(match[1]) if match else None
            if day is None:
                strange.append(key)
            else:
                self.found.add(day)
        if strange:
            self._take(len(strange), strange)

    def merge(self, other: Days) -> None:
        self.found |= other.found
        self._take(other.unreadable, other.unreadable_names)

    def _take(self, count: int, names: list[str]) -> None:
        self.unreadable += count
        self.unreadable_names = nsmallest(self.names, self.unreadable_names + names)

    def _day(self, text: str | None) -> date | None:
        # Many keys have the same day, and a date is slow to make
        if text not in self._read:
            day = read_day(text)
            if day is None:
                return None
            self._read[text] = day
        return self._read[text]


def read_day(text: str | None) -> date | None:
    """The day of `YYYYMMDD` or `YYYY-MM-DD`; None for what is no day of the calendar, such as `20131332`."""
    if text is None or not _FORM.fullmatch(text):
        return None
    try:
        return date.fromisoformat(text)
    except ValueError:
        return None


def missing_between(days: set[date], names: int) -> tuple[int, list[str]]:
    """How many days are missing between the first and the last one, and the first `names` in ISO 8601."""
    first, last = min(days), max(days)
    count = (last - first).days + 1 - len(days)
    named: list[str] = []
    day = first
    while len(named) < min(names, count):
        if day not in days:
            named.append(day.isoformat())
        day += timedelta(days=1)
    return count, named


def missing_days_reading(name: str, metric: S3Metric, days: Days, where: str) -> Reading:
    """The reading of `missing_days`. Names that hold no day are counted and named, and spoil nothing."""
    strange = f", {days.unreadable} names hold none" if days.unreadable else ""
    if not days.found:
        return missing_reading(name, metric, f"no object with a day in its name lies under {where}{strange}")
    count, named = missing_between(days.found, metric.names)
    first, last = min(days.found), max(days.found)
    details: dict[str, Any] = {
        "first": first.isoformat(),
        "last": last.isoformat(),
        "days": len(days.found),
        "missing": named,
        "unreadable": days.unreadable,
        "unreadable_names": [printable_path(key) for key in days.unreadable_names],
    }
    return exact_reading(name, metric, count, details)
