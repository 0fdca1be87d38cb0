"""Days in the names of objects: which days exist, and which calendar days are missing between them."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import date, timedelta
from heapq import nsmallest
from itertools import islice
from typing import Any

from dims_worker.config import S3Metric
from dims_worker.probes.base import Reading, exact_reading, missing_reading, printable_path
from dims_worker.probes.s3.listing import Entry

_FORM = re.compile(r"[0-9]{8}|[0-9]{4}-[0-9]{2}-[0-9]{2}")


@dataclass(slots=True)
class Days:
    """The days in the last part of keys, as group 1 of a pattern matches them, and the keys without a day."""

    pattern: str
    names: int
    found: set[date] = field(default_factory=set)
    unreadable: int = 0
    unreadable_names: list[str] = field(default_factory=list)
    """The first ones in the order of keys."""
    _read: dict[str | None, date | None] = field(default_factory=dict)

    def add(self, entries: list[Entry]) -> None:
        search = re.compile(self.pattern).search
        without_day = []
        for entry in entries:
            key = entry["Key"]
            match = search(key.rpartition("/")[2])
            day = self._day(match[1]) if match else None
            if day is None:
                without_day.append(key)
            else:
                self.found.add(day)
        if without_day:
            self._add_unreadable(len(without_day), without_day)

    def merge(self, other: Days) -> None:
        self.found |= other.found
        self._add_unreadable(other.unreadable, other.unreadable_names)

    def _add_unreadable(self, count: int, names: list[str]) -> None:
        self.unreadable += count
        self.unreadable_names = nsmallest(self.names, self.unreadable_names + names)

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
    """Return the reading of `missing_days`. Names without a day are counted and listed, and are not an error."""
    unreadable = f" ({days.unreadable} names have none)" if days.unreadable else ""
    if not days.found:
        return missing_reading(name, metric, f"no object under {place} has a day in its name{unreadable}")
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
