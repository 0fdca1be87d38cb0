"""The games of the warehouse: seasons, what each game lacks, gaps between their days. Pure."""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from operator import attrgetter
from typing import Any

from dims_worker.workflows.coverage import share, type_order
from dims_worker.workflows.games_table import TableGame
from dims_worker.workflows.seasons import PLAIN_CALENDAR, UNKNOWN, SeasonCalendar


@dataclass(frozen=True, slots=True)
class Game:
    """One game: its `id` as in the warehouse, and which data exist."""

    id: str
    day: date | None
    season: str
    played: bool
    box_score: bool
    play_by_play: bool
    type: str = UNKNOWN

    @property
    def lacks(self) -> tuple[str, ...]:
        """The names of the missing data."""
        parts = (("box score content", self.box_score), ("play-by-play", self.play_by_play))
        return tuple(name for name, exists in parts if not exists)


def with_data(games: Iterable[TableGame], box_scores: Collection[str], play_by_play: Collection[str]) -> list[Game]:
    """Return the games of the games table, in its order, with what the normalized ids say that each has."""
    return [
        Game(game.id, game.day, game.season, game.played, game.key in box_scores, game.key in play_by_play, game.type)
        for game in games
    ]


def totals(games: Sequence[Game]) -> dict[str, Any]:
    """Count games, games without some data, and the shares in %."""
    without_box_score = sum(not game.box_score for game in games)
    with_play_by_play = sum(game.play_by_play for game in games)
    days = sorted(game.day for game in games if game.day)
    return {
        "games": len(games),
        "not_played": sum(not game.played for game in games),
        "without_box_score": without_box_score,
        "without_play_by_play": len(games) - with_play_by_play,
        "missing_pct": share(without_box_score, len(games)),
        "coverage_pct": share(with_play_by_play, len(games)),
        "first": days[0].isoformat() if days else None,
        "last": days[-1].isoformat() if days else None,
    }


def by_season(games: Iterable[Game]) -> list[dict[str, Any]]:
    """Return the same counts for each season, in order."""
    season_of_game = attrgetter("season")
    groups = itertools.groupby(sorted(games, key=season_of_game), season_of_game)
    return [{"season": season, **totals([*group])} for season, group in groups]


def season_types(games: Iterable[Game]) -> list[dict[str, Any]]:
    """Return the same counts for each season and type of games, in order."""
    groups: defaultdict[tuple[str, str], list[Game]] = defaultdict(list)
    for game in games:
        groups[game.season, game.type].append(game)
    pairs = sorted(groups, key=lambda pair: (pair[0], type_order(pair[1])))
    return [{"season": season, "type": kind, **totals(groups[season, kind])} for season, kind in pairs]


@dataclass(frozen=True, slots=True)
class GapRule:
    """When days without a game are a gap: more than `days`, or more than `in_season` in the `months` of the season."""

    days: int
    in_season: int
    months: frozenset[int]


def date_gaps(
    days: Iterable[date],
    rule: GapRule,
    calendar: SeasonCalendar = PLAIN_CALENDAR,
    game_days: Collection[date] | None = None,
) -> list[dict[str, Any]]:
    """Return the gaps between days: first and last missing day, their number, and when the gap is.

    A gap is `in season` if all its months are months of the season, and it begins and ends in the same season. With
    `game_days` from the games table, a span without any of them is no gap: there was nothing to miss. `game_days` of a
    gap is how many it has.
    """
    known = sorted(set(days))
    gaps = []
    for before, after in itertools.pairwise(known):
        missing = (after - before).days - 1
        first, last = before + timedelta(days=1), after - timedelta(days=1)
        between = calendar.season_of(before) != calendar.season_of(after)
        inside = missing > 0 and not between and _months(first, last) <= rule.months
        if missing <= (rule.in_season if inside else rule.days):
            continue
        when = "in season" if inside else "between seasons" if between else "out of season"
        gap = {"first": first.isoformat(), "last": last.isoformat(), "days": missing, "when": when}
        if game_days is not None:
            lost = sum(first <= day <= last for day in game_days)
            if not lost:
                continue
            gap["game_days"] = lost
        gaps.append(gap)
    return gaps


def _months(first: date, last: date) -> frozenset[int]:
    span = (last.year - first.year) * 12 + last.month - first.month
    return frozenset((first.month - 1 + step) % 12 + 1 for step in range(min(span, 11) + 1))


PRIORITIES = (
    ("Load what the lake has", "The lake has an object with the missing data. You do not need to download anything."),
    ("Fetch the newest season", "Played games of the newest season that are not in the lake."),
    ("Fetch earlier seasons", "Played games of earlier seasons that are not in the lake, newest season first."),
    ("Check the games that were not played", "They are cancelled, unnecessary or in the future. Mark them, or wait."),
)
"""The four priorities of a plan: title and reason. A game gets the first that applies of 4, 1, 2, 3."""


def download_plan(games: Iterable[Game], in_lake: Callable[[Game], bool]) -> list[dict[str, Any]]:
    """Return the missing games by priority. Earlier seasons are sorted newest first."""
    games = list(games)
    newest = max((game.season for game in games if game.played and game.season != UNKNOWN), default=None)
    by_priority: dict[int, list[Game]] = {1: [], 2: [], 3: [], 4: []}
    for game in games:
        if game.lacks:
            priority = 4 if not game.played else 1 if in_lake(game) else 2 if game.season == newest else 3
            by_priority[priority].append(game)
    by_priority[3].sort(key=lambda game: _season_key(game.season), reverse=True)  # stable: by day within a season
    return [
        {
            "priority": number,
            "title": title,
            "reason": reason,
            "seasons": [
                {"season": season, "games": count}
                for season, count in _newest_first(Counter(game.season for game in by_priority[number]))
            ],
            "games": [game.id for game in by_priority[number]],
        }
        for number, (title, reason) in enumerate(PRIORITIES, start=1)
    ]


def _newest_first(counts: Counter[str]) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda item: _season_key(item[0]), reverse=True)


def _season_key(season: str) -> tuple[bool, str]:
    """Sort in reverse for the newest season first and the unknown one last."""
    return season != UNKNOWN, season
