"""Measure a folder of data in one walk: regular files, bytes, dates, seasons and games.

The games of a folder are the distinct ids in the names of its files that have content, so two files of a game count
once. If a games table is known, these ids are compared with its ids, by season and type of game.
"""

from __future__ import annotations

import os
import re
import stat
from collections import defaultdict
from dataclasses import dataclass, field
from datetime import date, timedelta
from functools import lru_cache
from typing import Any

from dims_worker.config.workflows import LocalFolder, LocalInventoryConfig
from dims_worker.probes.base import Deadline, printable_path
from dims_worker.probes.ids import id_sort_key
from dims_worker.workflows.coverage import by_season, coverage, type_coverage
from dims_worker.workflows.file_inventory.tree import paths_below
from dims_worker.workflows.games_table import NAMES, GamesTable, TableGame
from dims_worker.workflows.local_inventory.content import content_problem
from dims_worker.workflows.seasons import (
    NameId,
    SeasonCalendar,
    date_in,
    group_of,
    id_in,
    season_name,
    season_named,
)

_CHECK_EVERY = 1024
_AHEAD = timedelta(days=366)
"""A schedule may name days up to a year ahead. A later day in a name is a mistake."""


@dataclass(frozen=True, slots=True)
class KnownGames:
    """What is known about games: the games of the games table by id, or None with the reason, and the calendar."""

    games: dict[str, TableGame] | None
    unknown_because: str | None
    calendar: SeasonCalendar
    today: date

    @classmethod
    def of(cls, table: GamesTable, today: date) -> KnownGames:
        return cls({game.key: game for game in table.games}, None, table.calendar, today)


@dataclass(slots=True)
class FileTotals:
    """The totals of some files. `games` are the normalized ids of files with content."""

    files: int = 0
    bytes: int = 0
    empty: int = 0
    """The number of files with the id of a game and without content."""
    first: date | None = None
    last: date | None = None
    games: set[str] = field(default_factory=set)
    types: defaultdict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    """The ids by the type that an id of the NBA says."""

    def add(self, size: int, day: date | None, game: NameId | None = None, *, has_content: bool = True) -> None:
        self.files += 1
        self.bytes += size
        self.add_day(day)
        if game is not None and has_content:
            self.games.add(game.id)
            if game.nba is not None:
                self.types[game.nba.type].add(game.id)
        self.empty += game is not None and not has_content

    def add_day(self, day: date | None) -> None:
        if day is not None:
            self.first = day if self.first is None else min(self.first, day)
            self.last = day if self.last is None else max(self.last, day)

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form. `games` is None if no name has an id."""
        return {
            "files": self.files,
            "bytes": self.bytes,
            "first": self.first.isoformat() if self.first else None,
            "last": self.last.isoformat() if self.last else None,
            "games": len(self.games) if self.games or self.empty else None,
            "empty": self.empty,
        }


class NamePatterns:
    """Reads days, games and seasons from names, as configured for a folder."""

    def __init__(self, folder: LocalFolder, known: KnownGames) -> None:
        self._date = re.compile(folder.date)
        self._season = re.compile(folder.season) if folder.season else None
        self._id = re.compile(folder.id) if folder.id else None
        self._known = known
        folder_season = group_of(self._season, folder.path) if self._season else None
        self.folder_season = season_named(folder_season) if folder_season else None
        self.day = lru_cache(1 << 16)(self._day)

    def _day(self, name: str) -> date | None:
        day = date_in(self._date, name)
        return day if day is not None and day <= self._known.today + _AHEAD else None

    def game(self, name: str, day: date | None) -> NameId | None:
        """Return the id of the game. The digits of a day are not an id: such a file has all games of the day."""
        return id_in(self._id, name, day, self._known.games or ()) if self._id else None

    def season(self, path: str, day: date | None, game: NameId | None) -> str | None:
        """Return the season of the game in the games table, or else in the path, in an id of the NBA, or of the day."""
        if game is not None and self._known.games is not None and game.id in self._known.games:
            return self._known.games[game.id].season
        if self._season is not None:
            season = group_of(self._season, path)
            return season_named(season) if season else self.folder_season
        if game is not None and game.nba is not None:
            return season_name(game.nba.year)
        return self._known.calendar.season_of(day) if day else None


@dataclass(frozen=True, slots=True)
class DayFile:
    """A file with a date and no id in its name."""

    path: str
    size: int
    day: date
    season: str | None


@dataclass(slots=True)
class FolderHolding:
    """The totals of a folder."""

    whole: FileTotals = field(default_factory=FileTotals)
    seasons: dict[str, FileTotals] = field(default_factory=dict)
    large: list[tuple[str, int]] = field(default_factory=list)
    without_content: list[tuple[str, str]] = field(default_factory=list)
    """Files with the id of a game and without content, with the reason."""
    unrecognized: list[str] = field(default_factory=list)
    """Files whose names have neither an id nor a date. They belong to no season."""
    day_files: list[DayFile] = field(default_factory=list)
    """Files with a date and no id in their names."""
    undated: int = 0
    """The number of files without a date in their name."""
    vanished: int = 0
    with_id: int = 0
    """The number of files with an id in their names."""
    folder_season: str | None = None
    problems: list[str] = field(default_factory=list)

    @property
    def by_id(self) -> bool:
        """Return whether the files are named by the ids of games, and not by days."""
        return self.with_id > len(self.day_files)


def walk(root: str, home: str, folder: LocalFolder, large: int, deadline: Deadline, known: KnownGames) -> FolderHolding:
    """Walk a folder. Raises MeasureError if it is missing, or the walk takes longer than the deadline."""
    tree = paths_below(root, home, (), deadline)
    names = NamePatterns(folder, known)
    holding = FolderHolding(problems=tree.problems, folder_season=names.folder_season)
    for number, path in enumerate(tree.paths):
        if number % _CHECK_EVERY == 0:
            deadline.check()
        try:
            status = os.lstat(f"{root}/{path}")
            if not stat.S_ISREG(status.st_mode):
                continue
            _add_file(holding, names, root, path, status.st_size, folder.min_size)
        except FileNotFoundError:
            holding.vanished += 1
            continue
        except OSError as error:
            holding.problems.append(f"{path}: {error.strerror or error}")
            continue
        if status.st_size > large:
            holding.large.append((path, status.st_size))
    _add_day_files(holding)
    return holding


def _add_file(holding: FolderHolding, names: NamePatterns, root: str, path: str, size: int, least: int) -> None:
    """Add a file. Raises OSError if its content cannot be read."""
    name = path.rpartition("/")[2]
    day = names.day(name)
    game = names.game(name, day)
    problem = content_problem(f"{root}/{path}", size, least) if game is not None else None
    holding.undated += day is None
    if problem is not None:
        holding.without_content.append((path, problem))
    if game is None:
        holding.whole.add(size, None)
        if day is None:
            holding.unrecognized.append(path)
        else:
            holding.day_files.append(DayFile(path, size, day, names.season(path, day, None)))
        return
    holding.with_id += 1
    holding.whole.add(size, day, game, has_content=problem is None)
    season = names.season(path, day, game)
    if season is not None:
        holding.seasons.setdefault(season, FileTotals()).add(size, day, game, has_content=problem is None)


def _add_day_files(holding: FolderHolding) -> None:
    """Add the files with a date and no id to their seasons. Where most names have ids, such a file may be misnamed: it
    belongs to a season only if that has games."""
    with_games = frozenset(holding.seasons)
    for file in holding.day_files:
        if holding.by_id and file.season not in with_games:
            holding.unrecognized.append(file.path)
            continue
        holding.whole.add_day(file.day)
        if file.season is not None:
            holding.seasons.setdefault(file.season, FileTotals()).add(file.size, file.day)


def folder_document(
    name: str, root: str, holding: FolderHolding, declared: LocalInventoryConfig, known: KnownGames
) -> dict[str, Any]:
    """Return the JSON form of a folder, in a stable order."""
    large = sorted((printable_path(path), size) for path, size in holding.large)
    compared = _compared(holding, known)
    reason = None if compared is not None else _why_not_compared(holding, known)
    foreign = sorted(holding.whole.games - compared.keys(), key=id_sort_key) if compared is not None else []
    reads_games = declared.folders[name].id is not None
    return {
        "name": name,
        "path": printable_path(root),
        **holding.whole.to_json(),
        "undated": holding.undated,
        "unrecognized": len(holding.unrecognized) if reads_games else 0,
        "unrecognized_names": sorted(map(printable_path, holding.unrecognized))[:NAMES] if reads_games else [],
        "without_content": [
            {"path": printable_path(path), "reason": problem}
            for path, problem in sorted(holding.without_content)[:NAMES]
        ],
        "foreign": len(foreign) if compared is not None else None,
        "foreign_ids": foreign[:NAMES],
        "not_compared": reason,
        "vanished": holding.vanished,
        "not_looked_into": sorted(map(printable_path, holding.problems)),
        "seasons": _seasons(holding, declared, compared),
        "large": [{"path": path, "bytes": size} for path, size in large],
    }


def _compared(holding: FolderHolding, known: KnownGames) -> dict[str, TableGame] | None:
    """Return the games to compare with: those of the table, or of the season of the folder. None without a table, or
    if the folder uses no id of the table."""
    if known.games is None or _why_not_compared(holding, known) is not None:
        return None
    if holding.folder_season is None:
        return known.games
    return {key: game for key, game in known.games.items() if game.season == holding.folder_season}


def _why_not_compared(holding: FolderHolding, known: KnownGames) -> str | None:
    """Return why the games of a folder are not compared with the games table."""
    whole = holding.whole
    if not whole.games and not whole.empty:
        return "no file has the id of a game in its name"
    if not holding.by_id:
        return "most names have a day and no id"
    if known.games is None:
        return known.unknown_because
    if not known.games:
        return "the games table has no games"
    if whole.games and not whole.games & known.games.keys():
        return "no id in the names is in the games table: they are other ids, or files of other games"
    return None


def _seasons(
    holding: FolderHolding, declared: LocalInventoryConfig, compared: dict[str, TableGame] | None
) -> list[dict[str, Any]]:
    of_table = by_season(compared.values()) if compared is not None else {}
    return [
        _season(
            season,
            holding.seasons.get(season, FileTotals()),
            None if compared is None else of_table.get(season, []),
            holding.whole.games,
            declared,
        )
        for season in sorted(holding.seasons.keys() | of_table.keys())
    ]


def _season(
    season: str, totals: FileTotals, games: list[TableGame] | None, ids: set[str], declared: LocalInventoryConfig
) -> dict[str, Any]:
    """Return the JSON form of a season. Without a games table, the number of games that it should have is unknown."""
    document = {"season": printable_path(season), **totals.to_json()}
    if games is None:
        document |= {
            "expected": None,
            "missing": None,
            "not_played": None,
            "completeness_pct": None,
            "missing_ids": [],
            "foreign": None,
            "types": [{"type": name, "games": len(own)} for name, own in sorted(totals.types.items())],
        }
        regular = len(totals.types["regular"]) if totals.types else None
    else:
        document |= {
            **coverage(games, ids),
            "foreign": len(totals.games - {game.key for game in games}),
            "types": type_coverage(games, ids),
        }
        regular = sum(game.type == "regular" for game in games) or None
    return {
        **document,
        "regular_games": regular,
        "declared_games": declared.expected_games.get(season, declared.expected_games.get("default")),
        "few": 0 < (document["games"] or 0) < declared.few_games,
    }
