"""The objects, ids and days of the feeds in a lake by feed, kind and season, from one listing."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import Any

from dims_worker.config import Feed
from dims_worker.probes.base import printable_path
from dims_worker.probes.s3.listing import Entry
from dims_worker.workflows.seasons import (
    PLAIN_CALENDAR,
    UNKNOWN,
    NameId,
    SeasonCalendar,
    date_in,
    group_of,
    id_in,
    season_name,
    season_named,
)

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
    """The number of objects without content."""
    ids: dict[str, str] = field(default_factory=dict)
    objects_of: Counter[str] = field(default_factory=Counter)
    with_id: int = 0
    """The number of objects with an id in their names, and `with_both` those that also have a day."""
    with_both: int = 0
    days_of_ids: set[date] = field(default_factory=set)
    only_day: Counter[tuple[date, str | None]] = field(default_factory=Counter)
    """The days in names without an id, with the season in the key, and the number of objects of each."""
    only_day_names: list[str] = field(default_factory=list)
    no_day_names: list[str] = field(default_factory=list)
    no_id_and_day: int = 0

    @property
    def name(self) -> str:
        return f"{self.feed} {self.kind}"

    @property
    def by_id(self) -> bool:
        """Return whether most names have ids. A name with a day only is then misnamed."""
        return self.kind != BY_DAY and self.with_id > self.only_day.total()

    @property
    def days(self) -> set[date]:
        """Return the days in the names, if the names have days: one with a day among many without shows no gap."""
        if not self.by_id:
            return {day for day, _ in self.only_day} | self.days_of_ids
        return self.days_of_ids if 2 * self.with_both >= self.with_id else set()

    @property
    def unreadable(self) -> int:
        """Return the number of objects whose names have neither an id nor a day, or no id where names have ids."""
        return self.no_id_and_day + (self.only_day.total() if self.by_id else 0)

    @property
    def unreadable_names(self) -> list[str]:
        names = self.no_day_names + (self.only_day_names if self.by_id else [])
        return sorted(names)[:NAMES]

    def to_json(self, season_of: Callable[[date], str]) -> dict[str, Any]:
        """Return the JSON form, with sorted seasons."""
        games = Counter(self.ids.values())
        objects = Counter(self.objects_of)
        for (day, season), count in self.only_day.items():
            objects[UNKNOWN if self.by_id else season or season_of(day)] += count
        days = self.days
        return {
            "feed": self.feed,
            "kind": self.kind,
            "prefix": self.prefix,
            "objects": self.objects,
            "bytes": self.bytes,
            "empty": self.empty,
            "games": len(self.ids),
            "days": len(days),
            "first": min(days).isoformat() if days else None,
            "last": max(days).isoformat() if days else None,
            "unreadable": self.unreadable,
            "unreadable_names": self.unreadable_names,
            "seasons": [
                {"season": season, "objects": objects[season], "games": games[season]} for season in sorted(objects)
            ],
        }


class FeedHoldings:
    """Collects the holdings of all feeds from a listing. `season_of_game` is by normalized id.

    A day after `latest` is a mistake in a name, and not a day.
    """

    def __init__(
        self,
        feeds: Mapping[str, Feed],
        season_of_game: Mapping[str, str],
        calendar: SeasonCalendar = PLAIN_CALENDAR,
        latest: date = date.max,
    ) -> None:
        self._seasons = season_of_game
        self._calendar, self._latest = calendar, latest
        self._readers = {name: _KeyReader(feed, season_of_game) for name, feed in feeds.items()}
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
        reader = self._readers[holding.feed]
        has_content = size >= reader.min_size
        holding.objects += 1
        holding.bytes += size
        holding.empty += not has_content
        day = reader.day(key)
        if day is not None and day > self._latest:
            day = None
        game = None if holding.kind == BY_DAY else reader.game(key, day)
        if game is not None:
            season = reader.season(key) or self._season_of_game(game, day)
            holding.objects_of[season] += 1
            holding.with_id += 1
            if day is not None:
                holding.with_both += 1
                holding.days_of_ids.add(day)
            if has_content:
                holding.ids[game.id] = season
        elif day is not None:
            holding.only_day[day, reader.season(key)] += 1  # a season only if no name of the holding has an id
            _keep(holding.only_day_names, key)
        else:
            holding.no_id_and_day += 1
            holding.objects_of[UNKNOWN] += 1
            _keep(holding.no_day_names, key)

    def _season_of_game(self, game: NameId, day: date | None) -> str:
        if known := self._seasons.get(game.id):
            return known
        return season_name(game.nba.year) if game.nba else self._calendar.season_of(day)

    def to_json(self) -> list[dict[str, Any]]:
        return [holding.to_json(self._calendar.season_of) for holding in self.all]

    def ids(self, kind: str) -> frozenset[str]:
        """Return the ids of games for which a feed has an object of this kind with content."""
        return frozenset(name for holding in self.all if holding.kind == kind for name in holding.ids)


def _keep(names: list[str], key: str) -> None:
    if len(names) < NAMES:
        names.append(printable_path(key))


class _KeyReader:
    """Reads ids, days and seasons from the keys of a feed."""

    def __init__(self, feed: Feed, known: Container[str]) -> None:
        self._id, self._date = re.compile(feed.id), re.compile(feed.date)
        self._season = re.compile(feed.season) if feed.season else None
        self._known = known
        self.min_size = feed.min_size

    def game(self, key: str, day: date | None) -> NameId | None:
        return id_in(self._id, key.rpartition("/")[2], day, self._known)

    def day(self, key: str) -> date | None:
        return date_in(self._date, key.rpartition("/")[2])

    def season(self, key: str) -> str | None:
        season = group_of(self._season, key) if self._season else None
        return season_named(season) if season else None


def compare(
    holding: FeedHolding, known: Mapping[str, str], against: str, original_ids: Mapping[str, str]
) -> dict[str, Any]:
    """Compare the ids of a holding and a query (normalized, with the text for people): the number in both, and the
    ids that only one has."""

    def names(ids: Iterable[str]) -> list[str]:
        return sorted(original_ids.get(name) or known.get(name) or name for name in ids)

    return {
        "lake": holding.name,
        "database": against,
        "both": len(known.keys() & holding.ids.keys()),
        "only_lake": names(holding.ids.keys() - known.keys()),
        "only_database": names(known.keys() - holding.ids.keys()),
    }
