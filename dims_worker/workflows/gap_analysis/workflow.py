"""gap-analysis: which games are missing, by name, in the warehouse and in the lake, and what to do first."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import Any

from dims_worker.config import GapAnalysisConfig, SqlSource
from dims_worker.errors import MeasureError
from dims_worker.probes.sql.snapshot import SnapshotQuery, open_snapshot
from dims_worker.workflows.base import WorkflowContext, write_changed
from dims_worker.workflows.gap_analysis import report as gap_analysis_report
from dims_worker.workflows.gap_analysis.games import (
    Game,
    GapRule,
    by_season,
    comparable_id,
    date_gaps,
    download_plan,
    games_of,
    summed,
)
from dims_worker.workflows.gap_analysis.lake import BY_DAY, FeedHolding, FeedHoldings, compare
from dims_worker.workflows.markdown import escape_invisible
from dims_worker.workflows.measure_metrics import measure_metrics


@dataclass(frozen=True, slots=True)
class WarehouseGames:
    """What one snapshot of the warehouse said: the games, and the ids that each query named."""

    games: list[Game] = field(default_factory=list)
    box_scores: list[Any] = field(default_factory=list)
    play_by_play: list[Any] = field(default_factory=list)
    of_feed: Mapping[str, list[Any]] = field(default_factory=dict)


class GapAnalysisWorkflow:
    """See `dims_worker.workflows.base.Workflow`."""

    def examine(self, bench: WorkflowContext) -> dict[str, Any]:
        """The result: `games` (None: not reached, or not configured), `lake` likewise, `date_gaps`,
        `lake_and_database`, `targets`, `plan`, `missing_ids`."""
        declared = bench.config.workflows.gap_analysis
        assert declared is not None
        warehouse = _warehouse(bench, declared)
        seasons = {comparable_id(game.id): game.season for game in warehouse.games} if warehouse else {}
        lake = _lake(bench, declared, seasons)
        measure_metrics(bench, declared.metrics)
        games = warehouse.games if warehouse else []
        parts: dict[str, Any] = {
            "games": _told(games) if warehouse else None,
            "lake": [holding.told() for holding in lake.all] if lake else None,
            "date_gaps": _date_gaps(declared, games, lake),
            "lake_and_database": _both(declared, warehouse, lake) if warehouse and lake else [],
            "targets": _targets(declared, games) if warehouse else None,
            "plan": _plan(games, lake) if warehouse else None,
            "missing_ids": _write_ids(bench, declared, games) if warehouse else None,
        }
        return {**parts, "summary": gap_analysis_report.summary(parts), "attention": _attention(parts)}

    def markdown(self, result: Mapping[str, Any]) -> str:
        return gap_analysis_report.markdown(result)


WORKFLOW = GapAnalysisWorkflow()


def _warehouse(bench: WorkflowContext, declared: GapAnalysisConfig) -> WarehouseGames | None:
    """The warehouse's answers out of one snapshot; None where it is not configured or not reached."""
    if declared.warehouse is None:
        return None
    source = bench.config.sources[declared.warehouse]
    assert isinstance(source, SqlSource)
    bench.progress(f"asking {declared.warehouse} for its games")

    def ask() -> WarehouseGames:
        with open_snapshot(source, bench.around, bench.deadline) as asked:
            rows = _answer(asked, "games", declared.games)
            box_scores = _ids(asked, "boxscores", declared.boxscores)
            play_by_play = _ids(asked, "play_by_play", declared.play_by_play)
            of_feed = {
                name: _ids(asked, f"feeds.{name}.pbp_query", feed.pbp_query)
                for name, feed in declared.feeds.items()
                if feed.pbp_query is not None
            }
        games = games_of(rows, box_scores, play_by_play, bench.now.date())
        return WarehouseGames(games, box_scores, play_by_play, of_feed)

    return bench.reach(declared.warehouse, ask)


def _answer(asked: SnapshotQuery, key: str, query: str) -> list[dict[str, Any]]:
    """The rows of a configured query by column; where it fails the error names its key."""
    try:
        answer = asked(query)
    except MeasureError as error:
        raise MeasureError(f"`{key}`: {error}") from None
    return [dict(zip(answer.columns, row, strict=True)) for row in answer.rows]


def _ids(asked: SnapshotQuery, key: str, query: str) -> list[Any]:
    return [next(iter(row.values())) for row in _answer(asked, key, query)]


def _lake(bench: WorkflowContext, declared: GapAnalysisConfig, seasons: Mapping[str, str]) -> FeedHoldings | None:
    """What the feeds hold, out of one listing; None where there is none to list, or it was not reached."""
    if declared.lake is None or not declared.feeds:
        return None
    lake = declared.lake
    bench.progress(f"listing {lake}")

    def ask() -> FeedHoldings:
        prefixes = [prefix for feed in declared.feeds.values() for prefix in feed.prefixes.values()]
        return bench.listed(lake, prefixes, lambda: FeedHoldings(declared.feeds, seasons))

    return bench.reach(lake, ask)


def _told(games: list[Game]) -> dict[str, Any]:
    """The games as JSON: counts in all and by season, and each that lacks something by name."""
    missing = [
        {
            **{"id": game.id, "date": game.day.isoformat() if game.day else None, "season": game.season},
            **{"lacks": list(game.lacks), "played": game.played},
        }
        for game in games
        if game.lacks
    ]
    undated = [game.id for game in games if game.day is None]
    return {"all": summed(games), "seasons": by_season(games), "missing": missing, "undated": undated}


def _date_gaps(declared: GapAnalysisConfig, games: list[Game], lake: FeedHoldings | None) -> list[dict[str, Any]]:
    rule = GapRule(declared.gap_days, declared.season_gap_days, frozenset(declared.season_months))
    days: list[tuple[str, Iterable[date]]] = [("games", (game.day for game in games if game.day))]
    days += [(holding.name, holding.days) for holding in (lake.all if lake else ())]
    return [{"of": name, **gap} for name, known in days for gap in date_gaps(known, rule)]


def _both(declared: GapAnalysisConfig, warehouse: WarehouseGames, lake: FeedHoldings) -> list[dict[str, Any]]:
    """Each holding of ids beside the query that names the same. One whose ids are none of the games' has ids of
    its own: it is told so, and not compared."""
    spelled = {comparable_id(game.id): game.id for game in warehouse.games}
    found = []
    for holding in lake.all:
        if holding.kind == BY_DAY:
            continue  # its keys name days, not games
        database, against = _counterpart(holding, warehouse)
        compared = compare(holding, database, against, spelled)
        own_ids = bool(holding.ids) and not compared["both"] and not holding.ids.keys() & spelled.keys()
        unread = not holding.ids and holding.objects > holding.empty
        if own_ids or unread:
            compared |= {"only_lake": [], "only_database": []}
        found.append({**compared, "comparable": not own_ids and not unread})
    return found


def _counterpart(holding: FeedHolding, warehouse: WarehouseGames) -> tuple[list[Any], str]:
    if holding.kind == "pbp":
        own = warehouse.of_feed.get(holding.feed)
        return (warehouse.play_by_play, "play-by-play") if own is None else (own, f"play-by-play of {holding.feed}")
    if holding.kind == "boxscore":
        return warehouse.box_scores, "box scores"
    return [game.id for game in warehouse.games], "games"


def _targets(declared: GapAnalysisConfig, games: list[Game]) -> list[dict[str, Any]]:
    """What was aimed at and what there is, in %, of all games of the table; met is None where there is no game."""
    counts = summed(games)
    covered, missing = counts["coverage_pct"], counts["missing_pct"]
    least, most = declared.target_coverage_pct, declared.target_missing_pct
    return [
        {
            **{"target": "play-by-play coverage", "is": "over", "aim_pct": least, "value_pct": covered},
            "met": None if covered is None else covered > least,
        },
        {
            **{"target": "games without box score", "is": "under", "aim_pct": most, "value_pct": missing},
            "met": None if missing is None else missing < most,
        },
    ]


def _plan(games: list[Game], lake: FeedHoldings | None) -> list[dict[str, Any]]:
    told = lake.ids("pbp") if lake else frozenset()
    boxed = lake.ids("boxscore") if lake else frozenset()

    def in_lake(game: Game) -> bool:
        key = comparable_id(game.id)
        return (not game.play_by_play and key in told) or (not game.box_score and key in boxed)

    return download_plan(games, in_lake)


def _write_ids(bench: WorkflowContext, declared: GapAnalysisConfig, games: list[Game]) -> dict[str, Any] | None:
    """The ids of the games that lack anything, one a line, sorted. An unchanged file is left as it is."""
    if declared.missing_ids is None:
        return None
    ids = sorted(escape_invisible(game.id) for game in games if game.lacks)
    told: dict[str, Any] = {"path": declared.missing_ids, "ids": len(ids), "error": None}
    try:
        write_changed(bench.config.path_of(declared.missing_ids), "".join(f"{name}\n" for name in ids))
    except OSError as error:
        told["error"] = error.strerror or type(error).__name__
    return told


def _attention(parts: Mapping[str, Any]) -> list[str]:
    """What people should look at, a sentence each."""
    found = []
    if parts["games"]:
        counts = parts["games"]["all"]
        for key, what in (("without_box_score", "box score content"), ("without_play_by_play", "play-by-play")):
            if counts[key]:
                found.append(f"{counts[key]:,} of {counts['games']:,} games have no {what}")
    found += [
        f"{target['target']} is {gap_analysis_report.reached(target)}, "
        f"the target is {target['is']} {target['aim_pct']:g} %"
        for target in parts["targets"] or ()
        if target["met"] is False
    ]
    if parts["games"] and not parts["games"]["all"]["games"]:
        found.append("the warehouse holds no games at all")
    inside = [gap for gap in parts["date_gaps"] if gap["when"] == "in season"]
    found += [f"{len(inside):,} gap{'s' if len(inside) > 1 else ''} between dates in season"] if inside else []
    unreadable = sum(holding["unreadable"] for holding in parts["lake"] or ())
    found += [f"{unreadable:,} keys have neither an id nor a date"] if unreadable else []
    for pair in parts["lake_and_database"]:
        if pair["only_lake"] or pair["only_database"]:
            found.append(
                f"{pair['lake']} against {pair['database']}: {len(pair['only_lake']):,} only in the lake, "
                f"{len(pair['only_database']):,} only in the database"
            )
    if parts["missing_ids"] and parts["missing_ids"]["error"]:
        found.append(f"{parts['missing_ids']['path']} could not be written: {parts['missing_ids']['error']}")
    return found
