"""The `workflows` section. A workflow runs only if it is configured."""

from __future__ import annotations

import re
from datetime import date, timedelta
from typing import Annotated, Literal, Self, get_args

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema, model_validator

from dims_worker.config.base import KEY_ID, Model, Patterns, Regex, TimeZone
from dims_worker.config.units import Duration, Size

WorkflowName = Literal["file-inventory", "local-inventory", "gap-analysis", "aws-inventory", "sync-status", "audit"]
WORKFLOW_NAMES: tuple[WorkflowName, ...] = get_args(WorkflowName)
AUDIT: WorkflowName = "audit"
"""The workflow that runs every other one that is configured."""
SYNC_STATUS: WorkflowName = "sync-status"
WITH_COSTS = "with-costs"
"""The option of a run that reads the actual cost from Cost Explorer, which charges for each call."""
WORKFLOW_OPTIONS = (WITH_COSTS,)
"""The options that a request of a run may name."""


class WorkflowConfig(Model):
    """The keys of every workflow."""

    metrics: Patterns = Field(
        (), description="Metrics that are due with the workflow. A run by hand measures them itself."
    )
    report: str | None = Field(
        None, description="The report file, relative to the project. `.json`: JSON, else Markdown."
    )
    timeout: Duration = Field(timedelta(minutes=5), description="DIMS stops a run that takes longer.")


class FileInventoryConfig(WorkflowConfig):
    """List the files of a tree: type, lines, size, last change, purpose, functions, classes and imports."""

    source: str = Field(description="A source of type `files`.")
    exclude: Patterns = Field((), description="Paths to leave out. The report names and counts them.")
    stale_after: Duration = Field(timedelta(days=7), description="When the report calls itself stale.")


def _check_groups(*patterns: str | None) -> None:
    if any(re.compile(pattern).groups < 1 for pattern in patterns if pattern is not None):
        raise ValueError(r"id, date and season need a group in parentheses, such as (\d+)")


_SEASON = re.compile(r"(\d{4})-(\d\d)", re.ASCII)
_MONTH_DAY = re.compile(r"(\d\d)-(\d\d)", re.ASCII)
_DAY = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)


def _check_start(value: str) -> str:
    whole = f"2001-{value}" if _MONTH_DAY.fullmatch(value) else value  # 2001 has no 29 February
    try:
        if not _DAY.fullmatch(whole):
            raise ValueError
        date.fromisoformat(whole)
    except ValueError:
        raise ValueError(f"{value!r} is not a day: write 2020-12-22, or 07-01 for `default`") from None
    return value


SeasonStart = Annotated[
    str,
    BeforeValidator(lambda value: value.isoformat() if type(value) is date else value),
    AfterValidator(_check_start),
    WithJsonSchema({"type": "string", "pattern": r"^(\d{4}-)?\d\d-\d\d$"}),
]
"""The day on which a season begins."""

DEFAULT_GAMES = "SELECT game_id, game_date FROM games ORDER BY 1, 2"
DEFAULT_STARTS = {"default": "07-01", "2020-21": "2020-12-01", "2021-22": "2021-08-01"}
"""The NBA's seasons: the season 2019-20 ended in October 2020, and the season 2020-21 in July 2021."""


def _check_starts(starts: dict[str, str]) -> dict[str, str]:
    """Check that each start belongs to its season, and that seasons begin in their order."""
    default = starts.get("default", DEFAULT_STARTS["default"])
    if not _MONTH_DAY.fullmatch(default):
        raise ValueError(f"`default` is {default!r}: write a month and a day, such as 07-01")
    begins: dict[int, str] = {}
    for season, start in starts.items():
        years = _SEASON.fullmatch(season)
        if season == "default":
            continue
        if years is None or int(years[2]) != (int(years[1]) + 1) % 100:
            raise ValueError(f"{season!r} is not a season: write it as 2020-21")
        if not _DAY.fullmatch(start) or int(start[:4]) not in (int(years[1]), int(years[1]) + 1):
            raise ValueError(f"{season} begins on {start!r}: write a day in {years[1]} or in the year after it")
        begins[int(years[1])] = start
    for year, start in begins.items():
        before = begins.get(year - 1, f"{year - 1}-{default}")
        after = begins.get(year + 1, f"{year + 1}-{default}")
        if not before < start < after:
            raise ValueError(f"the season that begins on {start} is not between those of {before} and {after}")
    return starts


SeasonStarts = Annotated[dict[str, SeasonStart], AfterValidator(_check_starts)]


class LocalFolder(Model):
    """A folder of data. The path or the name of a file gives its season."""

    path: str = Field(description="A folder, relative to the project.")
    prefix: str | None = Field(None, description="The prefix of the same data in the lake.")
    query: str | None = Field(None, description="A query that counts the same data in the database.")
    date: Regex = Field(r"(?<!\d)(\d{8})(?!\d)", description="Group 1 is the date in a file name.")
    season: Regex | None = Field(
        None,
        description="Group 1 is the season in the path, such as `2019-20` or `2019`. For files of no known game.",
    )
    id: Regex | None = Field(
        r"^0{0,20}(\d{5,20}|\d{9}[A-Za-z]{3})(?![0-9A-Za-z])|(?:_|-)(00\d{8}|\d{9})(?![0-9A-Za-z])",
        description="The first group that matches is the id of a game in a file name. `null`: files are not games.",
    )
    min_size: Size = Field(1, description="A smaller file has no content, so it is not the data of a game.")

    @model_validator(mode="after")
    def _groups(self) -> Self:
        _check_groups(self.id, self.date, self.season)
        return self


class LocalInventoryConfig(WorkflowConfig):
    """Compare local data folders with the lake and the database."""

    folders: dict[str, LocalFolder] = Field({}, description="The folders, by name.")
    lake: str | None = Field(None, description="A source of type `s3`.")
    warehouse: str | None = Field(None, description="A source of type `sql`.")
    large: Size = Field(100_000_000, description="The report names larger files.")
    games: str | None = Field(
        None,
        description="A query of the warehouse for id and date of every game, as in gap_analysis. "
        "Without it: that of gap_analysis, or else the table `games` of the warehouse, if there is one.",
    )
    timezone: TimeZone | None = Field(
        None, description="The time zone of game days, such as `America/New_York`. Without it: that of gap_analysis."
    )
    season_starts: SeasonStarts | None = Field(
        None, description="When seasons begin. Without it: `season_starts` of gap_analysis."
    )
    expected_games: dict[str, int] = Field(
        {},
        description="How many regular-season games a season has, by season, or for `default`. The report says when "
        "the games table has another number.",
    )
    few_games: int = Field(100, description="The report warns of a season with fewer games.")

    @model_validator(mode="after")
    def _has_warehouse(self) -> Self:
        if self.games is not None and self.warehouse is None:
            raise ValueError("`games` is a query of the warehouse: set `warehouse`, too")
        return self


class Feed(Model):
    """A feed of the lake: its prefixes by kind of file."""

    prefixes: dict[str, str] = Field(description="A prefix for `pbp`, `boxscore`, `schedule` and `team_stats`.")
    id: Regex = Field(
        KEY_ID,
        description="The first group that matches is the id of the game in the last part of the key.",
    )
    min_size: Size = Field(1, description="A smaller object has no content, so it is not the data of a game.")
    date: Regex = Field(r"(?<!\d)(\d{8})(?!\d)", description="Group 1 is the date in the last part of the key.")
    season: Regex | None = Field(None, description="Group 1 is the season in the key, such as `2012-13`.")
    pbp_query: str | None = Field(None, description="A query for the ids of its games with play-by-play.")

    @model_validator(mode="after")
    def _groups(self) -> Self:
        _check_groups(self.id, self.date, self.season)
        return self


class GapAnalysisConfig(WorkflowConfig):
    """Name the missing games."""

    warehouse: str | None = Field(None, description="A source of type `sql`.")
    lake: str | None = Field(None, description="A source of type `s3`.")
    games: str = Field(
        DEFAULT_GAMES,
        description="A query for id and date of every game. It may also return `season`, `type` and `played`.",
    )
    timezone: TimeZone = Field(
        "UTC", description="The time zone of game days, such as `America/New_York`, for times with a time zone."
    )
    season_starts: SeasonStarts = Field(
        DEFAULT_STARTS,
        description="When seasons begin: month and day for `default`, a day for a season such as `2020-21`. "
        "For games and files without a season of their own.",
    )
    boxscores: str = Field(
        "SELECT DISTINCT game_id FROM box_score_players", description="A query for the ids of games with a box score."
    )
    play_by_play: str = Field(
        "SELECT DISTINCT game_id FROM hoopr_play_by_play", description="A query for the ids with play-by-play."
    )
    feeds: dict[str, Feed] = Field({}, description="The feeds of the lake, by name.")
    gap_days: int = Field(7, description="The report names gaps between dates that have more days than this.")
    season_gap_days: int = Field(5, description="Within a season, the report names gaps with more days than this.")
    season_months: tuple[int, ...] = Field((10, 11, 12, 1, 2, 3, 4), description="The months of a season.")
    target_coverage_pct: float = Field(95, description="The share of games that should have play-by-play.")
    target_missing_pct: float = Field(5, description="The share of games that may lack a box score.")
    missing_ids: str | None = Field("missing_game_ids.txt", description="The file for missing ids. `null`: none.")


class AwsInventoryConfig(WorkflowConfig):
    """Show what AWS stores and costs."""

    lake: str = Field(description="A source of type `s3`.")
    aws: str = Field(description="A source of type `aws`.")
    instance: str | None = Field(None, description="The RDS instance. Without it, the report leaves RDS out.")
    warehouse: str | None = Field(None, description="A source of type `sql`, for the sizes of its tables.")
    count_timeout: Duration = Field(
        timedelta(seconds=30), description="How long to count rows. Larger tables get the estimate of the database."
    )
    depth: int = Field(1, ge=1, le=4, description="How many parts of the key make a prefix.")
    newest: int = Field(10, ge=0, description="How many of the newest uploads of each prefix to name.")


class SyncStatusConfig(WorkflowConfig):
    """Compare local folders with the lake and name every difference."""

    metric: str = Field(description="The `sync_status` metric whose pairs to compare.")


class AuditConfig(WorkflowConfig):
    """Run all other workflows and write one report. Each also keeps its own timeout."""

    timeout: Duration = Field(timedelta(minutes=30), description="DIMS stops a run that takes longer.")


class WorkflowsSection(Model):
    """The workflows section. A key is the name of the workflow with `_` for `-`."""

    file_inventory: FileInventoryConfig | None = Field(None, description="Lists the files of a tree.")
    local_inventory: LocalInventoryConfig | None = Field(None, description="Compares local folders and lake.")
    gap_analysis: GapAnalysisConfig | None = Field(None, description="Names missing games.")
    aws_inventory: AwsInventoryConfig | None = Field(None, description="Shows what AWS holds and costs.")
    sync_status: SyncStatusConfig | None = Field(None, description="Compares a local copy with the lake.")
    audit: AuditConfig = Field(AuditConfig(), description="Runs every other workflow that is configured.")

    def find(self, name: WorkflowName) -> WorkflowConfig | None:
        """Return the configuration of a workflow, or None if it is not configured."""
        workflow: WorkflowConfig | None = getattr(self, name.replace("-", "_"))
        return workflow
