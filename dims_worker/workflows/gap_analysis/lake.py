"""The objects, ids and days of the feeds in a lake by feed, kind and season, from one listing."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import Any

from dims_worker.config import Feed
from dims_worker.probes.base import printable_path
from dims_worker.probes.s3.completeness import normalize_id
from dims_worker.probes.s3.listing import Entry
from dims_worker.workflows.seasons import date_in, group_of, season_named, season_of

NAMES = 20
"""The number of unreadable keys that are kept by name."""
BY_DAY = "schedule"
"""The kind whose keys contain a day. Keys of other kinds contain the id of a game."""


@dataclass(slots=True)
class FeedHolding:
    """The objects below one prefix of a feed. `ids` maps normalized ids of objects with content to seasons."""

    feed: str
    kind: str
    prefix: str
    objects: int = 0
    bytes: int = 0
    empty: int = 0
    unreadable: int = 0
    unreadable_names: list[str] = field(default_factory=list)
    ids: dict[str, str] = field(default_factory=dict)
    days: set[date] = field(default_factory=set)
    objects_of: Counter[str] = field(default_factory=Counter)

    @property
    def name(self) -> str:
        return f"{self.feed} {self.kind}"

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form, with sorted seasons."""
        games = Counter(self.ids.values())
        return {
            "feed": self.feed,
            "kind": self.kind,
            "prefix": self.prefix,
            "objects": self.objects,
            "bytes": self.bytes,
            "empty": self.empty,
            "games": len(self.ids),
            "days": len(self.days),
            "first": min(self.days).isoformat() if self.days else None,
            "last": max(self.days).isoformat() if self.days else None,
            "unreadable": self.unreadable,
            "unreadable_names": self.unreadable_names,
            "seasons": [
                {"season": season, "objects": self.objects_of[season], "games": games[season]}
                for season in sorted(self.objects_of)
            ],
        }


class FeedHoldings:
    """Collects the holdings of all feeds from a listing. `season_of_game` is by normalized id."""

    def __init__(self, feeds: Mapping[str, Feed], season_of_game: Mapping[str, str]) -> None:
        self._seasons = season_of_game
        self._readers = {name: _KeyReader(feed) for name, feed in feeds.items()}
        self.all = [
            FeedHolding(name, kind, prefix) for name, feed in feeds.items() for kind, prefix in feed.prefixes.items()
        ]
        # Longest first: a key belongs to its longest prefix
        self._by_length = sorted(self.all, key=lambda holding: len(holding.prefix), reverse=True)

    def add(self, entries: Iterable[Entry]) -> None:
        """Add a page of the listing. Keys outside the feeds are skipped."""
        for entry in entries:
            key = entry["Key"]
            for holding in self._by_length:
                if key.startswith(holding.prefix):
                    self._add(holding, key, entry["Size"])
                    break

    def _add(self, holding: FeedHolding, key: str, size: int) -> None:
        if key.endswith("/") and not size:
            return  # the AWS console creates these to show empty folders
        holding.objects += 1
        holding.bytes += size
        holding.empty += not size
        reader = self._readers[holding.feed]
        day, name = reader.day(key), None if holding.kind == BY_DAY else reader.name(key)
        season = reader.season(key) or self._seasons.get(name or "") or season_of(day)
        holding.objects_of[season] += 1
        if day is not None:
            holding.days.add(day)
        if name is not None and size:
            holding.ids[name] = season
        if name is None and day is None:
            holding.unreadable += 1
            if len(holding.unreadable_names) < NAMES:
                holding.unreadable_names.append(printable_path(key))

    def ids(self, kind: str) -> frozenset[str]:
        """Return the ids of games for which a feed has an object of this kind with content."""
        return frozenset(name for holding in self.all if holding.kind == kind for name in holding.ids)


class _KeyReader:
    """Reads ids, days and seasons from the keys of a feed."""

    def __init__(self, feed: Feed) -> None:
        self._id, self._date = re.compile(feed.id), re.compile(feed.date)
        self._season = re.compile(feed.season) if feed.season else None

    def name(self, key: str) -> str | None:
        name = group_of(self._id, key.rpartition("/")[2])
        return normalize_id(name) if name else None

    def day(self, key: str) -> date | None:
        return date_in(self._date, key.rpartition("/")[2])

    def season(self, key: str) -> str | None:
        season = group_of(self._season, key) if self._season else None
        return season_named(season) if season else None


def compare(
    holding: FeedHolding, database: Iterable[Any], against: str, original_ids: Mapping[str, str]
) -> dict[str, Any]:
    """Compare the ids of a holding and a query: the number in both, and the ids that only one has."""
    known = {normalize_id(value): str(value).strip() for value in database if value is not None}

    def names(ids: Iterable[str]) -> list[str]:
        return sorted(original_ids.get(name) or known.get(name) or name for name in ids)

    return {
        "lake": holding.name,
        "database": against,
        "both": len(known.keys() & holding.ids.keys()),
        "only_lake": names(holding.ids.keys() - known.keys()),
        "only_database": names(known.keys() - holding.ids.keys()),
    }
