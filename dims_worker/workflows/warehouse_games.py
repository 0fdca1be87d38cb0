"""Read the games table that the configuration names, and the ids of other queries, from a snapshot of the warehouse."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import Any
from zoneinfo import ZoneInfo

from dims_worker.config import WorkflowsSection
from dims_worker.config.workflows import DEFAULT_GAMES, DEFAULT_STARTS, GapAnalysisConfig, LocalInventoryConfig
from dims_worker.errors import MeasureError
from dims_worker.probes.sql.snapshot import SnapshotQuery
from dims_worker.workflows.base import WorkflowContext
from dims_worker.workflows.games_table import GamesTable, read_games_table
from dims_worker.workflows.seasons import SeasonCalendar


@dataclass(frozen=True, slots=True)
class GamesSource:
    """Where the games table is, and how to read its days. `warehouse` and `query` are None if it is not configured."""

    warehouse: str | None
    query: str | None
    calendar: SeasonCalendar
    zone: ZoneInfo
    is_default: bool = False
    """Whether the query is the default one, and not of the configuration. The warehouse may have no such table."""

    def read(self, snapshot: SnapshotQuery, context: WorkflowContext) -> GamesTable:
        """Run the query. Raises MeasureError."""
        assert self.query is not None
        return read_games_table(query_rows(snapshot, "games", self.query), self.calendar, self.zone, context.now)


def calendar_of(starts: dict[str, str]) -> SeasonCalendar:
    """Return the calendar of `season_starts`."""
    month, day = starts.get("default", DEFAULT_STARTS["default"]).split("-")
    named = {int(season[:4]): date.fromisoformat(start) for season, start in starts.items() if season != "default"}
    return SeasonCalendar(int(month), int(day), named)


def games_of_gap_analysis(declared: GapAnalysisConfig) -> GamesSource:
    zone = ZoneInfo(declared.timezone)
    return GamesSource(declared.warehouse, declared.games, calendar_of(declared.season_starts), zone)


def games_of_local_inventory(declared: LocalInventoryConfig, workflows: WorkflowsSection) -> GamesSource:
    """Return the games table of local-inventory: its own, or else that of gap-analysis, so that both agree, or else the
    table `games` of its warehouse."""
    other = workflows.gap_analysis
    starts = declared.season_starts or (other.season_starts if other else DEFAULT_STARTS)
    zone = ZoneInfo(declared.timezone or (other.timezone if other else "UTC"))
    if declared.games is not None:
        return GamesSource(declared.warehouse, declared.games, calendar_of(starts), zone)
    if other is not None and other.warehouse is not None:
        return GamesSource(other.warehouse, other.games, calendar_of(starts), zone)
    if declared.warehouse is not None:
        return GamesSource(declared.warehouse, DEFAULT_GAMES, calendar_of(starts), zone, is_default=True)
    return GamesSource(None, None, calendar_of(starts), zone)


def query_rows(snapshot: SnapshotQuery, key: str, query: str) -> list[dict[str, Any]]:
    """Return the rows of a configured query by column. If it fails, the error names its key."""
    try:
        answer = snapshot(query)
    except MeasureError as error:
        raise MeasureError(f"`{key}`: {error}") from None
    return [dict(zip(answer.columns, row, strict=True)) for row in answer.rows]
