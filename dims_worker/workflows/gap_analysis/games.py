"""Games as the warehouse knows them: seasons, what each lacks, gaps between their days. Pure."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any

from dims_worker.workflows import seasons

UNKNOWN = "unknown"
"""The season of what has neither a season nor a date."""
_DAY = re.compile(r"(\d{4})-?(\d\d)-?(\d\d)")
_TRUE = frozenset({"true", "t", "yes", "y", "1"})


@dataclass(frozen=True, slots=True)
class Game:
    """One game: `id` as the warehouse spells it, and what of it is there."""

    id: str
    day: date | None
    season: str
    played: bool
    box_score: bool
    play_by_play: bool

    @property
    def lacks(self) -> tuple[str, ...]:
        """What is missing, in words."""
        parts = (("box score content", self.box_score), ("play-by-play", self.play_by_play))
        return tuple(what for what, there in parts if not there)

    @property
    def place(self) -> tuple[str, date, str]:
        """Where it stands in a list: by season, day and id."""
        return self.season, self.day or date.max, self.id


def comparable_id(name: Any) -> str:
    """An id as it can be compared: `0021201048` in a file's name is 21201048 in a column of integers."""
    if isinstance(name, float) and name.is_integer():
        name = int(name)
    spelled = str(name).strip()
    return (spelled.lstrip("0") or "0") if spelled.isdecimal() else spelled


def season_of(day: date | None) -> str:
    """`2012-13` for the days from 2012-07-01 to 2013-06-30."""
    return UNKNOWN if day is None else seasons.season_of(day)


def day_of(value: Any) -> date | None:
    """A day out of a date, a time, or a text that begins YYYY-MM-DD or YYYYMMDD; None for anything else."""
    if isinstance(value, datetime):
        return value.date()
    if isinstance(value, date):
        return value
    match = _DAY.match(str(value)) if value is not None else None
    try:
        return date(int(match[1]), int(match[2]), int(match[3])) if match else None
    except ValueError:
        return None


def games_of(
    rows: Iterable[Mapping[str, Any]], box_scores: Iterable[Any], play_by_play: Iterable[Any], today: date
) -> list[Game]:
    """The games of a query's rows, each id once, in the order of their places.

    A row's first column is the id, its second the day; `season` and `played` count where there are
    such columns. Without `played` a game counts as played once its day is over.
    """
    boxed, told = {comparable_id(one) for one in box_scores}, {comparable_id(one) for one in play_by_play}
    found: dict[str, Game] = {}
    for row in rows:
        name, value, *_ = [*row.values(), None]
        key, day = comparable_id(name), day_of(value)
        if name is not None and key not in found:
            season = seasons.season_named(str(row.get("season") or "")) or season_of(day)
            played = _truth(row["played"]) if row.get("played") is not None else day is None or day < today
            found[key] = Game(str(name).strip(), day, season, played, key in boxed, key in told)
    return sorted(found.values(), key=lambda game: game.place)


def _truth(value: Any) -> bool:
    return value.strip().lower() in _TRUE if isinstance(value, str) else bool(value)


def share(part: int, whole: int) -> float | None:
    """A part in %; None of nothing."""
    return 100 * part / whole if whole else None


def summed(games: Sequence[Game]) -> dict[str, Any]:
    """Counts of some games: how many there are, how many lack what, and the shares in %."""
    lack_box = sum(not game.box_score for game in games)
    told = sum(game.play_by_play for game in games)
    days = sorted(game.day for game in games if game.day)
    return {
        "games": len(games),
        "not_played": sum(not game.played for game in games),
        "without_box_score": lack_box,
        "without_play_by_play": len(games) - told,
        "missing_pct": share(lack_box, len(games)),
        "coverage_pct": share(told, len(games)),
        "first": days[0].isoformat() if days else None,
        "last": days[-1].isoformat() if days else None,
    }


def by_season(games: Iterable[Game]) -> list[dict[str, Any]]:
    """The same by season, in their order."""
    found: dict[str, list[Game]] = {}
    for game in games:
        found.setdefault(game.season, []).append(game)
    return [{"season": season, **summed(found[season])} for season in sorted(found)]


def latest_season(games: Iterable[Game]) -> str | None:
    """The newest season in which a game was played."""
    return max((game.season for game in games if game.played and game.season != UNKNOWN), default=None)


@dataclass(frozen=True, slots=True)
class GapRule:
    """How many days without a game are a gap: more than `days`, in the season's `months` more than `in_season`."""

    days: int
    in_season: int
    months: frozenset[int]


def date_gaps(days: Iterable[date], rule: GapRule) -> list[dict[str, Any]]:
    """The gaps between days: first and last day that is missing, how many, and when it is.

    A gap lies `in season` where every month that it touches is one of the season's.
    """
    known = sorted(set(days))
    found = []
    for before, after in itertools.pairwise(known):
        missing = (after - before).days - 1
        first, last = before + timedelta(days=1), after - timedelta(days=1)
        inside = missing > 0 and _months(first, last) <= rule.months
        if missing > (rule.in_season if inside else rule.days):
            between = season_of(before) != season_of(after)
            when = "in season" if inside else "between seasons" if between else "out of season"
            found.append({"first": first.isoformat(), "last": last.isoformat(), "days": missing, "when": when})
    return found


def _months(first: date, last: date) -> frozenset[int]:
    span = (last.year - first.year) * 12 + last.month - first.month
    return frozenset((first.month - 1 + step) % 12 + 1 for step in range(min(span, 11) + 1))


# --- the plan ---------------------------------------------------------------------------------------

PRIORITIES = (
    ("Load what the lake has", "An object of the missing part lies in the lake; nothing needs to be fetched."),
    ("Fetch the newest season", "Played games of the newest season that nothing is known of in the lake."),
    ("Fetch earlier seasons", "Played games of the seasons before, the newest of them first."),
    ("Settle what was not played", "Cancelled, unnecessary or still to come: mark them, or wait."),
)
"""The four priorities of a plan: title and reason. A missing game is in the first of 4, 1, 2, 3 that it fits."""


def download_plan(games: Iterable[Game], in_lake: Callable[[Game], bool]) -> list[dict[str, Any]]:
    """The missing games by priority, each in one. Earlier seasons are ordered newest first."""
    games = list(games)
    newest = latest_season(games)
    sorted_out: dict[int, list[Game]] = {1: [], 2: [], 3: [], 4: []}
    for game in games:
        if game.lacks:
            priority = 4 if not game.played else 1 if in_lake(game) else 2 if game.season == newest else 3
            sorted_out[priority].append(game)
    sorted_out[3].sort(key=lambda game: _newest_first(game.season), reverse=True)  # stable: by day within a season
    return [
        {
            "priority": number,
            "title": title,
            "reason": reason,
            "seasons": [
                {"season": season, "games": count}
                for season, count in _by_newest(Counter(game.season for game in sorted_out[number]))
            ],
            "games": [game.id for game in sorted_out[number]],
        }
        for number, (title, reason) in enumerate(PRIORITIES, start=1)
    ]


def _by_newest(counts: Counter[str]) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda item: _newest_first(item[0]), reverse=True)


def _newest_first(season: str) -> tuple[bool, str]:
    """In reverse order: the newest season first, the unknown one last."""
    return season != UNKNOWN, season
