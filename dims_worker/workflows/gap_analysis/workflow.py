"""gap-analysis: the games that are missing in the warehouse and in the lake, by name, and what to do first."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

from dims_worker.config import GapAnalysisConfig, SqlSource
from dims_worker.probes.ids import IdValues, normalize_id
from dims_worker.probes.sql.snapshot import SnapshotQuery, open_snapshot
from dims_worker.workflows.base import Workflow, WorkflowContext, write_changed
from dims_worker.workflows.coverage import by_season as games_by_season
from dims_worker.workflows.coverage import coverage, type_coverage
from dims_worker.workflows.games_table import GamesTable, table_attention, table_document
from dims_worker.workflows.gap_analysis import report
from dims_worker.workflows.gap_analysis.games import (
    Game,
    GapRule,
    by_season,
    date_gaps,
    download_plan,
    season_types,
    totals,
    with_data,
)
from dims_worker.workflows.gap_analysis.lake import BY_DAY, FeedHolding, FeedHoldings, compare
from dims_worker.workflows.markdown import escape_invisible
from dims_worker.workflows.measure_metrics import measure_metrics
from dims_worker.workflows.seasons import SeasonCalendar
from dims_worker.workflows.warehouse_games import GamesSource, games_of_gap_analysis, query_rows

AHEAD = timedelta(days=366)
"""A schedule may name days up to a year ahead. A later day in a name is a mistake."""


@dataclass(frozen=True, slots=True)
class WarehouseGames:
    """The games of one snapshot of the warehouse, and the ids that each query returned."""

    table: GamesTable
    games: list[Game]
    box_scores: IdValues
    play_by_play: IdValues
    of_feed: Mapping[str, IdValues]

    @property
    def days(self) -> frozenset[date]:
        """Return the days with a game that was played."""
        return frozenset(game.day for game in self.games if game.day is not None and game.played)


def run(context: WorkflowContext) -> dict[str, Any]:
    """Return `games`, `games_table` and `lake` (None: not configured or not reached), `date_gaps`, `feed_games`,
    `lake_and_database`, `targets`, `plan` and `missing_ids`."""
    declared = context.config.workflows.gap_analysis
    assert declared is not None
    source = games_of_gap_analysis(declared)
    warehouse = _warehouse(context, declared, source)
    lake = _lake(context, declared, warehouse.table if warehouse else GamesTable([], source.calendar, IdValues()))
    measure_metrics(context, declared.metrics)
    games = warehouse.games if warehouse else []
    parts: dict[str, Any] = {
        "games": _to_json(games) if warehouse else None,
        "games_table": table_document(warehouse.table) if warehouse else None,
        "lake": lake.to_json() if lake else None,
        "date_gaps": _date_gaps(declared, warehouse, lake, source.calendar),
        "feed_games": _feed_games(warehouse.table, lake) if warehouse and lake else [],
        "lake_and_database": _lake_and_database(warehouse, lake) if warehouse and lake else [],
        "targets": _targets(declared, games) if warehouse else None,
        "plan": _plan(games, lake) if warehouse else None,
        "missing_ids": _write_ids(context, declared, games) if warehouse else None,
        "timezone": declared.timezone,
    }
    return {**parts, "summary": report.summary(parts), "attention": _attention(parts)}


WORKFLOW = Workflow(run, report.markdown)


def _warehouse(
    context: WorkflowContext, declared: GapAnalysisConfig, games_source: GamesSource
) -> WarehouseGames | None:
    """Read the warehouse in one snapshot. Return None if it is not configured or not reached."""
    if declared.warehouse is None:
        return None
    source = context.config.sources[declared.warehouse]
    assert isinstance(source, SqlSource)
    context.progress(f"reading the games of {declared.warehouse}")

    def read() -> WarehouseGames:
        with open_snapshot(source, context.scan_context, context.deadline) as snapshot:
            table = games_source.read(snapshot, context)
            box_scores = _ids(snapshot, "boxscores", declared.boxscores)
            play_by_play = _ids(snapshot, "play_by_play", declared.play_by_play)
            of_feed = {
                name: _ids(snapshot, f"feeds.{name}.pbp_query", feed.pbp_query)
                for name, feed in declared.feeds.items()
                if feed.pbp_query is not None
            }
        games = with_data(table.games, box_scores.ids.keys(), play_by_play.ids.keys())
        return WarehouseGames(table, games, box_scores, play_by_play, of_feed)

    return context.reach(declared.warehouse, read)


def _ids(snapshot: SnapshotQuery, key: str, query: str) -> IdValues:
    return IdValues.of(next(iter(row.values())) for row in query_rows(snapshot, key, query))


def _lake(context: WorkflowContext, declared: GapAnalysisConfig, table: GamesTable) -> FeedHoldings | None:
    """List the feeds once. Return None if none is configured or the lake was not reached."""
    if declared.lake is None or not declared.feeds:
        return None
    lake = declared.lake
    seasons = table.season_of_id()
    latest = context.now.date() + AHEAD
    context.progress(f"listing {lake}")

    def read() -> FeedHoldings:
        prefixes = [prefix for feed in declared.feeds.values() for prefix in feed.prefixes.values()]
        return context.list_bucket(
            lake, prefixes, lambda: FeedHoldings(declared.feeds, seasons, table.calendar, latest)
        )

    return context.reach(lake, read)


def _to_json(games: list[Game]) -> dict[str, Any]:
    """Return the JSON form of games: counts in total and by season, and each game that lacks data."""
    missing = [
        {
            "id": game.id,
            "date": game.day.isoformat() if game.day else None,
            "season": game.season,
            "lacks": list(game.lacks),
            "played": game.played,
        }
        for game in games
        if game.lacks
    ]
    undated = [game.id for game in games if game.day is None]
    return {
        "all": totals(games),
        "seasons": by_season(games),
        "types": season_types(games),
        "missing": missing,
        "undated": undated,
    }


def _date_gaps(
    declared: GapAnalysisConfig,
    warehouse: WarehouseGames | None,
    lake: FeedHoldings | None,
    calendar: SeasonCalendar,
) -> list[dict[str, Any]]:
    """Return the gaps between the days of the games, and of each feed. If the games are known, a feed only has a gap
    where games were played."""
    rule = GapRule(declared.gap_days, declared.season_gap_days, frozenset(declared.season_months))
    gaps = []
    if warehouse:
        calendar = warehouse.table.calendar
        days = [game.day for game in warehouse.games if game.day]
        gaps += [{"of": "games", **gap} for gap in date_gaps(days, rule, calendar)]
    for holding in lake.all if lake else ():
        played = warehouse.days if warehouse else None
        gaps += [{"of": holding.name, **gap} for gap in date_gaps(holding.days, rule, calendar, played)]
    return gaps


def _feed_games(table: GamesTable, lake: FeedHoldings) -> list[dict[str, Any]]:
    """Return, for each holding and season, the games of the table and those that have an object with content."""
    known = table.season_of_id().keys()
    return [
        {"feed": holding.feed, "kind": holding.kind, "season": season, **counts, "types": type_coverage(games, ids)}
        for holding in lake.all
        if (ids := holding.ids.keys()) & known
        for season, games in games_by_season(table.games).items()
        for counts in [coverage(games, ids)]
    ]


def _lake_and_database(warehouse: WarehouseGames, lake: FeedHoldings) -> list[dict[str, Any]]:
    """Compare each holding with the query for the same data. A holding that shares no id with the games uses other
    ids, and is not compared."""
    original_ids = {game.key: game.id for game in warehouse.table.games}
    pairs = []
    for holding in lake.all:
        if holding.kind == BY_DAY:
            continue  # its keys contain days, not games
        database, against = _counterpart(holding, warehouse)
        compared = compare(holding, database, against, original_ids)
        own_ids = bool(holding.ids) and not compared["both"] and not holding.ids.keys() & original_ids.keys()
        unread = not holding.ids and holding.objects > holding.empty
        if own_ids or unread:
            compared |= {"only_lake": [], "only_database": []}
        pairs.append({**compared, "comparable": not own_ids and not unread})
    return pairs


def _counterpart(holding: FeedHolding, warehouse: WarehouseGames) -> tuple[Mapping[str, str], str]:
    """Return the ids of the database to compare a holding with, and what they are."""
    if holding.kind == "pbp":
        own = warehouse.of_feed.get(holding.feed)
        if own is not None:
            return own.ids, f"play-by-play of {holding.feed}"
        return warehouse.play_by_play.ids, "play-by-play"
    if holding.kind == "boxscore":
        return warehouse.box_scores.ids, "box scores"
    return {game.key: game.id for game in warehouse.table.games}, "games"


def _targets(declared: GapAnalysisConfig, games: list[Game]) -> list[dict[str, Any]]:
    """Return the targets and their values in % of all games. `met` is None if there are no games."""
    counts = totals(games)
    covered, missing = counts["coverage_pct"], counts["missing_pct"]
    least, most = declared.target_coverage_pct, declared.target_missing_pct
    return [
        {
            "target": "play-by-play coverage",
            "is": "over",
            "aim_pct": least,
            "value_pct": covered,
            "met": None if covered is None else covered > least,
        },
        {
            "target": "games without box score",
            "is": "under",
            "aim_pct": most,
            "value_pct": missing,
            "met": None if missing is None else missing < most,
        },
    ]


def _plan(games: list[Game], lake: FeedHoldings | None) -> list[dict[str, Any]]:
    play_by_play = lake.ids("pbp") if lake else frozenset()
    box_scores = lake.ids("boxscore") if lake else frozenset()

    def in_lake(game: Game) -> bool:
        key = normalize_id(game.id)
        return key is not None and (
            (not game.play_by_play and key in play_by_play) or (not game.box_score and key in box_scores)
        )

    return download_plan(games, in_lake)


def _write_ids(context: WorkflowContext, declared: GapAnalysisConfig, games: list[Game]) -> dict[str, Any] | None:
    """Write the sorted ids of games that lack data, one a line. An unchanged file is not rewritten."""
    if declared.missing_ids is None:
        return None
    ids = sorted(escape_invisible(game.id) for game in games if game.lacks)
    written: dict[str, Any] = {"path": declared.missing_ids, "ids": len(ids), "error": None}
    try:
        write_changed(context.config.path_of(declared.missing_ids), "".join(f"{name}\n" for name in ids))
    except OSError as error:
        written["error"] = error.strerror or type(error).__name__
    return written


def _attention(parts: Mapping[str, Any]) -> list[str]:
    """Return what needs attention, a sentence each."""
    sentences = []
    if parts["games"]:
        counts = parts["games"]["all"]
        for key, name in (("without_box_score", "box score content"), ("without_play_by_play", "play-by-play")):
            if counts[key]:
                sentences.append(f"{counts[key]:,} of {counts['games']:,} games have no {name}")
    sentences += [
        f"{target['target']} is {report.target_value(target)}, the target is {target['is']} {target['aim_pct']:g} %"
        for target in parts["targets"] or ()
        if target["met"] is False
    ]
    if parts["games"] and not parts["games"]["all"]["games"]:
        sentences.append("the warehouse has no games")
    sentences += table_attention(parts["games_table"]) if parts["games_table"] else []
    inside = [gap for gap in parts["date_gaps"] if gap["when"] == "in season"]
    sentences += [f"{len(inside):,} gap{'s' if len(inside) > 1 else ''} between dates in season"] if inside else []
    unreadable = sum(holding["unreadable"] for holding in parts["lake"] or ())
    sentences += [f"{unreadable:,} keys have no id or date that DIMS recognizes"] if unreadable else []
    for pair in parts["lake_and_database"]:
        if pair["only_lake"] or pair["only_database"]:
            sentences.append(
                f"{pair['lake']} and {pair['database']}: {len(pair['only_lake']):,} only in the lake, "
                f"{len(pair['only_database']):,} only in the database"
            )
    if parts["missing_ids"] and parts["missing_ids"]["error"]:
        sentences.append(f"{parts['missing_ids']['path']} could not be written: {parts['missing_ids']['error']}")
    return sentences
