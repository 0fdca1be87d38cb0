"""Compare sets of game ids: which games of the games table have data, by season and type. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from typing import Any

from dims_worker.probes.ids import id_sort_key
from dims_worker.workflows.games_table import NAMES, TableGame

TYPES = ("preseason", "regular", "cup", "play-in", "playoffs", "all-star")
"""The order of the types of games in a season. Others follow by name."""


def share(part: int, whole: int) -> float | None:
    """Return a part in % of the whole, or None if that is 0."""
    return 100 * part / whole if whole else None


def coverage(games: Sequence[TableGame], ids: Collection[str]) -> dict[str, Any]:
    """Compare games with the normalized `ids` that have data.

    Return the `expected` games, those of them with data (`games`), the `missing` ones, how many of these were
    `not_played`, `completeness_pct` of all expected games, and `missing_ids` (the first 20).
    """
    missing = [game for game in games if game.key not in ids]
    present = len(games) - len(missing)
    return {
        "expected": len(games),
        "games": present,
        "missing": len(missing),
        "not_played": sum(not game.played for game in missing),
        "completeness_pct": share(present, len(games)),
        "missing_ids": sorted((game.id for game in missing), key=id_sort_key)[:NAMES],
    }


def by_season(games: Iterable[TableGame]) -> dict[str, list[TableGame]]:
    """Return the games by season, in order."""
    groups: defaultdict[str, list[TableGame]] = defaultdict(list)
    for game in games:
        groups[game.season].append(game)
    return {season: groups[season] for season in sorted(groups)}


def by_type(games: Iterable[TableGame]) -> dict[str, list[TableGame]]:
    """Return the games by type, in the order of a season."""
    groups: defaultdict[str, list[TableGame]] = defaultdict(list)
    for game in games:
        groups[game.type].append(game)
    return {name: groups[name] for name in sorted(groups, key=type_order)}


def type_order(name: str) -> tuple[int, str]:
    """Return the sort key of a type of games."""
    return (TYPES.index(name) if name in TYPES else len(TYPES), name)


def type_coverage(games: Iterable[TableGame], ids: Collection[str]) -> list[dict[str, Any]]:
    """Return the coverage of each type of games of a season."""
    return [{"type": name, **coverage(own, ids)} for name, own in by_type(games).items()]
