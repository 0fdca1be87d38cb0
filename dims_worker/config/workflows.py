"""What each workflow looks at. A workflow that is not configured cannot be run."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Literal, Self

from pydantic import Field, model_validator

from dims_worker.config.base import Model, Regex, Texts
from dims_worker.config.units import Duration, Size

WorkflowName = Literal["file-inventory", "local-inventory", "gap-analysis", "aws-inventory", "sync-status", "audit"]
WORKFLOW_NAMES: tuple[WorkflowName, ...] = (
    *("file-inventory", "local-inventory", "gap-analysis", "aws-inventory", "sync-status", "audit"),
)
"""All of them; `audit` is every other one that is configured."""


class WorkflowConfig(Model):
    """What every workflow may say."""

    metrics: Texts = Field((), description="Metrics that are looked at with it and recorded in its run.")
    report: str | None = Field(None, description="Where its Markdown goes, from the project's folder.")
    timeout: Duration = Field(timedelta(minutes=5), description="A run that takes longer is stopped.")


class FileInventoryConfig(WorkflowConfig):
    """The files of a tree: kind, lines, size, last change, purpose, functions and classes, imports."""

    source: str = Field(description="A source of type files.")
    exclude: Texts = Field(("**/backup/**", "**/backups/**", "**/cache/**", "data/**"), description="Left out.")
    stale_after: Duration = timedelta(days=7)


class LocalFolder(Model):
    """A folder of data: which season a file belongs to is in its path."""

    path: str
    prefix: str | None = Field(None, description="The same data in the lake.")
    query: str | None = Field(None, description="The same data in the database: a query of one count.")
    date: Regex = Field(r"(?<!\d)(\d{8})(?!\d)", description="YYYYMMDD in a name.")
    season: Regex | None = Field(
        None, description="A season in the path, such as `2019-20` or its first year, in a group. Without: by the date."
    )
    id: Regex | None = Field(
        r"^0*(\d{5,}|\d{9}[A-Z]{3})(?![0-9A-Za-z])",
        description="A game's id in a file's name, in a group; a date is none. null: a file is no game.",
    )

    @model_validator(mode="after")
    def _groups(self) -> Self:
        if any(re.compile(pattern).groups < 1 for pattern in (self.id, self.date, self.season) if pattern is not None):
            raise ValueError("id, date and season need a group: (…)")
        return self


class LocalInventoryConfig(WorkflowConfig):
    """Local data folders beside lake and database."""

    folders: dict[str, LocalFolder] = Field(default_factory=dict)
    lake: str | None = Field(None, description="A source of type s3.")
    warehouse: str | None = Field(None, description="A source of type sql.")
    large: Size = Field(100_000_000, description="Files over this are named.")
    expected_games: dict[str, int] = Field(
        {"default": 1230, "2019-20": 1059, "2020-21": 1080}, description="Games of a season, by season."
    )
    few_games: int = Field(100, description="A season with fewer games is warned of.")


class Feed(Model):
    """One feed of the lake: its prefixes by kind."""

    prefixes: dict[str, str] = Field(description="pbp, boxscore, schedule, team_stats: a prefix each.")
    id: Regex = Field(r"^0*(\d+)", description="The game's id in a key's last part.")
    date: Regex = Field(r"(?<!\d)(\d{8})(?!\d)", description="YYYYMMDD in a key's last part.")
    season: Regex | None = Field(None, description="A season in the key, such as `2012-13`, in a group.")
    pbp_query: str | None = Field(None, description="Ids of games with play-by-play in the database.")

    @model_validator(mode="after")
    def _groups(self) -> Self:
        if any(re.compile(pattern).groups < 1 for pattern in (self.id, self.date, self.season) if pattern is not None):
            raise ValueError("id, date and season need a group: (…)")
        return self


class GapAnalysisConfig(WorkflowConfig):
    """Which games are missing, by name."""

    warehouse: str | None = Field(None, description="A source of type sql.")
    lake: str | None = Field(None, description="A source of type s3.")
    games: str = Field(
        "SELECT game_id, game_date FROM games",
        description="Id, date and, where there are such columns, `season` and `played`.",
    )
    boxscores: str = Field(
        "SELECT DISTINCT game_id FROM box_score_players", description="Ids of games with a box score's content."
    )
    play_by_play: str = Field("SELECT DISTINCT game_id FROM hoopr_play_by_play", description="Ids with play-by-play.")
    feeds: dict[str, Feed] = Field(default_factory=dict)
    gap_days: int = Field(7, description="Gaps between dates longer than this are named.")
    season_gap_days: int = Field(5, description="The same within a season.")
    season_months: tuple[int, ...] = Field((10, 11, 12, 1, 2, 3, 4), description="Months within a season.")
    target_coverage_pct: float = 95
    target_missing_pct: float = 5
    missing_ids: str | None = Field("missing_game_ids.txt", description="Where the missing ids go, one a line.")


class AwsInventoryConfig(WorkflowConfig):
    """What AWS holds and costs."""

    lake: str = Field(description="A source of type s3.")
    aws: str = Field(description="A source of type aws.")
    instance: str | None = Field(None, description="The RDS instance.")
    warehouse: str | None = Field(None, description="A source of type sql; without credentials it is left out.")
    depth: int = Field(1, ge=1, le=4, description="Prefixes are told apart by so many parts of the key.")
    newest: int = Field(10, ge=0, description="So many of the newest uploads of a prefix are named.")


class SyncStatusConfig(WorkflowConfig):
    """Local folders against the lake, every difference named."""

    metric: str = Field(description="The metric of measure sync_status whose pairs are compared.")


class AuditConfig(WorkflowConfig):
    """All of the others in one report; each keeps its own timeout too."""

    timeout: Duration = Field(timedelta(minutes=30), description="A run that takes longer is stopped.")


class WorkflowsSection(Model):
    """The workflows section; keys as the commands are called, with `_` for `-`."""

    file_inventory: FileInventoryConfig | None = None
    local_inventory: LocalInventoryConfig | None = None
    gap_analysis: GapAnalysisConfig | None = None
    aws_inventory: AwsInventoryConfig | None = None
    sync_status: SyncStatusConfig | None = None
    audit: AuditConfig = AuditConfig()

    def named(self, name: WorkflowName) -> WorkflowConfig | None:
        """The configuration of a workflow; None where it is not configured."""
        found: WorkflowConfig | None = getattr(self, name.replace("-", "_"))
        return found
