"""The games of the warehouse: seasons, what each game lacks, gaps between their days. Pure."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from operator import attrgetter
from typing import Any

from dims_worker.probes.s3.completeness import normalize_id
from dims_worker.workflows.seasons import UNKNOWN, season_named, season_of

_DAY = re.compile(r"(\d{4})-?(\d\d)-?(\d\d)")
_TRUE = frozenset({"true", "t", "yes", "y", "1"})


@dataclass(frozen=True, slots=True)
class Game:
    """One game: its `id` as in the warehouse, and which data exist."""

    id: str
    day: date | None
    season: str
    played: bool
    box_score: bool
    play_by_play: bool

    @property
    def lacks(self) -> tuple[str, ...]:
        """The names of the missing data."""
        parts = (("box score content", self.box_score), ("play-by-play", self.play_by_play))
        return tuple(name for name, exists in parts if not exists)


def day_of(value: Any) -> date | None:
    """Return the day of a date, a time, or a text that starts with YYYY-MM-DD or YYYYMMDD. None for other values."""
    if isinstance(value, datetime):
        return value.date()
    if isinstance(value, date):
        return value
    match = _DAY.match(str(value)) if value is not None else None
    try:
        return date(int(match[1]), int(match[2]), int(match[3])) if match else None
    except ValueError:
        return None


def parse_games(
    rows: Iterable[Mapping[str, Any]], box_scores: Iterable[Any], play_by_play: Iterable[Any], today: date
) -> list[Game]:
    """Return the games of the rows of a query, each id once, sorted by season, day and id.

    The first column of a row is the id, the second the day. The columns `season` and `played` are optional.
    Without `played`, a game counts as played once its day is over.
    """
    with_box_score, with_play_by_play = set(map(normalize_id, box_scores)), set(map(normalize_id, play_by_play))
    games: dict[str, Game] = {}
    for row in rows:
        name, value, *_ = [*row.values(), None]
        key, day = normalize_id(name), day_of(value)
        if name is not None and key not in games:
            season = season_named(str(row.get("season") or "")) or season_of(day)
            played = _truth(row["played"]) if row.get("played") is not None else day is None or day < today
            has_box_score, has_play_by_play = key in with_box_score, key in with_play_by_play
            games[key] = Game(str(name).strip(), day, season, played, has_box_score, has_play_by_play)
    return sorted(games.values(), key=lambda game: (game.season, game.day or date.max, game.id))


def _truth(value: Any) -> bool:
    return value.strip().lower() in _TRUE if isinstance(value, str) else bool(value)


def share(part: int, whole: int) -> float | None:
    """Return a part in % of the whole, or None if that is 0."""
    return 100 * part / whole if whole else None


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


@dataclass(frozen=True, slots=True)
class GapRule:
    """When days without a game are a gap: more than `days`, or more than `in_season` in the `months` of the season."""

    days: int
    in_season: int
    months: frozenset[int]


def date_gaps(days: Iterable[date], rule: GapRule) -> list[dict[str, Any]]:
    """Return the gaps between days: first and last missing day, their number, and when the gap is.

    A gap is `in season` if all its months are months of the season.
    """
    known = sorted(set(days))
    gaps = []
    for before, after in itertools.pairwise(known):
        missing = (after - before).days - 1
        first, last = before + timedelta(days=1), after - timedelta(days=1)
        inside = missing > 0 and _months(first, last) <= rule.months
        if missing > (rule.in_season if inside else rule.days):
            between = season_of(before) != season_of(after)
            when = "in season" if inside else "between seasons" if between else "out of season"
            gaps.append({"first": first.isoformat(), "last": last.isoformat(), "days": missing, "when": when})
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
