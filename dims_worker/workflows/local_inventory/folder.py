"""What one folder of data holds: regular files, bytes, dates, seasons and games, out of one walk.

A season's games are the distinct ids in its files' names, so that two files of a game are one game. Files whose
names hold no id, or only a day's date, are no games, and their season is not judged.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import date
from functools import lru_cache
from typing import Any

from dims_worker.config.workflows import LocalFolder, LocalInventoryConfig
from dims_worker.probes.base import Deadline, printable_path
from dims_worker.workflows.file_inventory.tree import paths_below
from dims_worker.workflows.seasons import completeness, date_in, expected_of, group_of, season_named, season_of

_OFTEN = 1024


@dataclass(slots=True)
class FileTotals:
    """Files, bytes, days and games of some files; `games` are ids."""

    files: int = 0
    bytes: int = 0
    first: date | None = None
    last: date | None = None
    games: set[str] = field(default_factory=set)

    def add(self, size: int, day: date | None, game: str | None) -> None:
        self.files += 1
        self.bytes += size
        if day is not None:
            self.first = day if self.first is None else min(self.first, day)
            self.last = day if self.last is None else max(self.last, day)
        if game is not None:
            self.games.add(game)

    def told(self) -> dict[str, Any]:
        """As JSON; `games` is their number, None where no name holds an id: the files are no games then."""
        return {
            "files": self.files,
            "bytes": self.bytes,
            "first": self.first.isoformat() if self.first else None,
            "last": self.last.isoformat() if self.last else None,
            "games": len(self.games) or None,
        }


class NamePatterns:
    """What a folder's names tell, as it is configured."""

    def __init__(self, folder: LocalFolder) -> None:
        self._date = re.compile(folder.date)
        self._season = re.compile(folder.season) if folder.season else None
        self._id = re.compile(folder.id) if folder.id else None
        self._above = group_of(self._season, folder.path) if self._season else None
        self.day = lru_cache(1 << 16)(self._day)

    def _day(self, name: str) -> date | None:
        return date_in(self._date, name)

    def game(self, name: str, day: date | None) -> str | None:
        """The game's id. A day's own digits are none: such a file holds whatever was played on it."""
        found = group_of(self._id, name) if self._id else None
        return None if found is None or (day is not None and found == day.isoformat().replace("-", "")) else found

    def season(self, path: str, day: date | None) -> str | None:
        """By the path where a season is configured to be in it, be it the folder's own; else by the date."""
        if self._season is not None:
            found = group_of(self._season, path) or self._above
            return season_named(found) if found else None
        return season_of(day) if day else None


@dataclass(slots=True)
class FolderHolding:
    """What a walk over a folder found."""

    whole: FileTotals = field(default_factory=FileTotals)
    seasons: dict[str, FileTotals] = field(default_factory=dict)
    large: list[tuple[str, int]] = field(default_factory=list)
    undated: int = 0
    """Files without a date in their name."""
    vanished: int = 0
    troubles: list[str] = field(default_factory=list)


def walk(root: str, home: str, folder: LocalFolder, large: int, deadline: Deadline) -> FolderHolding:
    """One walk over a folder. Raises MeasureError where it is missing, or takes longer than the deadline."""
    tree = paths_below(root, home, (), deadline)
    names = NamePatterns(folder)
    held = FolderHolding(troubles=tree.troubles)
    for number, path in enumerate(tree.paths):
        if number % _OFTEN == 0:
            deadline.check()
        try:
            status = os.lstat(f"{root}/{path}")
        except FileNotFoundError:
            held.vanished += 1
            continue
        except OSError as error:
            held.troubles.append(f"{path}: {error.strerror or error}")
            continue
        if not stat.S_ISREG(status.st_mode):
            continue
        _take(held, names, path, status.st_size)
        if status.st_size > large:
            held.large.append((path, status.st_size))
    return held


def _take(held: FolderHolding, names: NamePatterns, path: str, size: int) -> None:
    name = path.rpartition("/")[2]
    day = names.day(name)
    game = names.game(name, day)
    held.whole.add(size, day, game)
    held.undated += day is None
    season = names.season(path, day)
    if season is not None:
        held.seasons.setdefault(season, FileTotals()).add(size, day, game)


def folder_document(name: str, root: str, held: FolderHolding, declared: LocalInventoryConfig) -> dict[str, Any]:
    """A folder's holding as JSON, in a stable order."""
    return {
        "name": name,
        "path": printable_path(root),
        **held.whole.told(),
        "undated": held.undated,
        "vanished": held.vanished,
        "not_looked_into": sorted(map(printable_path, held.troubles)),
        "seasons": [_season(season, held.seasons[season], declared) for season in sorted(held.seasons)],
        "large": [{"path": path, "bytes": size} for path, size in _shown(held.large)],
    }


def _shown(large: Iterable[tuple[str, int]]) -> list[tuple[str, int]]:
    return sorted((printable_path(path), size) for path, size in large)


def _season(season: str, tally: FileTotals, declared: LocalInventoryConfig) -> dict[str, Any]:
    """A season; what it lacks is judged only where its files are games."""
    games = len(tally.games)
    expected = expected_of(season, declared.expected_games)
    return {
        "season": printable_path(season),
        **tally.told(),
        "expected": expected,
        "missing": max(expected - games, 0) if games and expected is not None else None,
        "completeness_pct": completeness(games, expected) if games else None,
        "few": 0 < games < declared.few_games,
    }
