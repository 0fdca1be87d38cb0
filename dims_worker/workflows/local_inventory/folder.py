"""Measure a folder of data in one walk: regular files, bytes, dates, seasons and games.

The games of a season are the distinct ids in the names of its files, so two files of a game count once. Files
without an id, or with only a date, are not games, and the completeness of their season is unknown.
"""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass, field
from datetime import date
from functools import lru_cache
from typing import Any

from dims_worker.config.workflows import LocalFolder, LocalInventoryConfig
from dims_worker.probes.base import Deadline, printable_path
from dims_worker.workflows.file_inventory.tree import paths_below
from dims_worker.workflows.seasons import completeness, date_in, expected_of, group_of, season_named, season_of

_CHECK_EVERY = 1024


@dataclass(slots=True)
class FileTotals:
    """The totals of some files. `games` are ids."""

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

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form. `games` is their number, or None if no name has an id."""
        return {
            "files": self.files,
            "bytes": self.bytes,
            "first": self.first.isoformat() if self.first else None,
            "last": self.last.isoformat() if self.last else None,
            "games": len(self.games) or None,
        }


class NamePatterns:
    """Reads days, games and seasons from names, as configured for a folder."""

    def __init__(self, folder: LocalFolder) -> None:
        self._date = re.compile(folder.date)
        self._season = re.compile(folder.season) if folder.season else None
        self._id = re.compile(folder.id) if folder.id else None
        self._folder_season = group_of(self._season, folder.path) if self._season else None
        self.day = lru_cache(1 << 16)(self._day)

    def _day(self, name: str) -> date | None:
        return date_in(self._date, name)

    def game(self, name: str, day: date | None) -> str | None:
        """Return the id of the game. The digits of a day are not an id: such a file has all games of the day."""
        game = group_of(self._id, name) if self._id else None
        return None if day is not None and game == day.isoformat().replace("-", "") else game

    def season(self, path: str, day: date | None) -> str | None:
        """Return the season from the path, if the folder configures a `season` pattern, otherwise from the day."""
        if self._season is not None:
            season = group_of(self._season, path) or self._folder_season
            return season_named(season) if season else None
        return season_of(day) if day else None


@dataclass(slots=True)
class FolderHolding:
    """The totals of a folder."""

    whole: FileTotals = field(default_factory=FileTotals)
    seasons: dict[str, FileTotals] = field(default_factory=dict)
    large: list[tuple[str, int]] = field(default_factory=list)
    undated: int = 0
    """The number of files without a date in their name."""
    vanished: int = 0
    problems: list[str] = field(default_factory=list)


def walk(root: str, home: str, folder: LocalFolder, large: int, deadline: Deadline) -> FolderHolding:
    """Walk a folder. Raises MeasureError if it is missing, or the walk takes longer than the deadline."""
    tree = paths_below(root, home, (), deadline)
    names = NamePatterns(folder)
    holding = FolderHolding(problems=tree.problems)
    for number, path in enumerate(tree.paths):
        if number % _CHECK_EVERY == 0:
            deadline.check()
        try:
            status = os.lstat(f"{root}/{path}")
        except FileNotFoundError:
            holding.vanished += 1
            continue
        except OSError as error:
            holding.problems.append(f"{path}: {error.strerror or error}")
            continue
        if not stat.S_ISREG(status.st_mode):
            continue
        _add_file(holding, names, path, status.st_size)
        if status.st_size > large:
            holding.large.append((path, status.st_size))
    return holding


def _add_file(holding: FolderHolding, names: NamePatterns, path: str, size: int) -> None:
    name = path.rpartition("/")[2]
    day = names.day(name)
    game = names.game(name, day)
    holding.whole.add(size, day, game)
    holding.undated += day is None
    season = names.season(path, day)
    if season is not None:
        holding.seasons.setdefault(season, FileTotals()).add(size, day, game)


def folder_document(name: str, root: str, holding: FolderHolding, declared: LocalInventoryConfig) -> dict[str, Any]:
    """Return the JSON form of a folder, in a stable order."""
    large = sorted((printable_path(path), size) for path, size in holding.large)
    return {
        "name": name,
        "path": printable_path(root),
        **holding.whole.to_json(),
        "undated": holding.undated,
        "vanished": holding.vanished,
        "not_looked_into": sorted(map(printable_path, holding.problems)),
        "seasons": [_season(season, holding.seasons[season], declared) for season in sorted(holding.seasons)],
        "large": [{"path": path, "bytes": size} for path, size in large],
    }


def _season(season: str, totals: FileTotals, declared: LocalInventoryConfig) -> dict[str, Any]:
    """Return the JSON form of a season. Its completeness is None if its files are not games."""
    games = len(totals.games)
    expected = expected_of(season, declared.expected_games)
    return {
        "season": printable_path(season),
        **totals.to_json(),
        "expected": expected,
        "missing": max(expected - games, 0) if games and expected is not None else None,
        "completeness_pct": completeness(games, expected) if games else None,
        "few": 0 < games < declared.few_games,
    }
