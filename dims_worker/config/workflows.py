"""The `workflows` section. A workflow runs only if it is configured."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Literal, Self, get_args

from pydantic import Field, model_validator

from dims_worker.config.base import Model, Patterns, Regex
from dims_worker.config.units import Duration, Size

WorkflowName = Literal["file-inventory", "local-inventory", "gap-analysis", "aws-inventory", "sync-status", "audit"]
WORKFLOW_NAMES: tuple[WorkflowName, ...] = get_args(WorkflowName)
AUDIT: WorkflowName = "audit"
"""The workflow that runs every other one that is configured."""
SYNC_STATUS: WorkflowName = "sync-status"


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


class LocalFolder(Model):
    """A folder of data. The path or the name of a file gives its season."""

    path: str = Field(description="A folder, relative to the project.")
    prefix: str | None = Field(None, description="The prefix of the same data in the lake.")
    query: str | None = Field(None, description="A query that counts the same data in the database.")
    date: Regex = Field(r"(?<!\d)(\d{8})(?!\d)", description="Group 1 is the date in a file name.")
    season: Regex | None = Field(
        None, description="Group 1 is the season in the path, such as `2019-20` or `2019`. Without it: by the date."
    )
    id: Regex | None = Field(
        r"^0{0,20}(\d{5,20}|\d{9}[A-Z]{3})(?![0-9A-Za-z])",
        description="Group 1 is the id of a game in a file name. `null`: files are not games.",
    )

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
    expected_games: dict[str, int] = Field(
        {"default": 1230, "2019-20": 1059, "2020-21": 1080}, description="How many games a season has."
    )
    few_games: int = Field(100, description="The report warns of a season with fewer games.")


class Feed(Model):
    """A feed of the lake: its prefixes by kind of file."""

    prefixes: dict[str, str] = Field(description="A prefix for `pbp`, `boxscore`, `schedule` and `team_stats`.")
    id: Regex = Field(r"^0*(\d+)", description="Group 1 is the id of the game in the last part of the key.")
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
        "SELECT game_id, game_date FROM games",
        description="A query for id and date of every game. It may also return `season` and `played`.",
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
