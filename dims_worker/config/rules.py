"""Which events concern what; how the workers work; a file as a whole."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError
from pydantic import Field, field_validator, model_validator

from dims_worker.config.base import Model, Texts
from dims_worker.config.metrics import AnyMetric
from dims_worker.config.notify import Notify
from dims_worker.config.policy import PolicySection
from dims_worker.config.quantities import Duration
from dims_worker.config.sources import AnySource
from dims_worker.config.web import Web
from dims_worker.config.workflows import WorkflowName, Workflows


def _check_cron(schedule: str) -> None:
    """Five fields of cron. Raises ValueError."""
    if len(schedule.split()) != 5:
        raise ValueError("schedule has five fields: minute, hour, day of month, month, day of week")
    try:
        CronSim(schedule, datetime(2026, 1, 1, tzinfo=UTC))
    except CronSimError as error:
        raise ValueError(f"schedule: {schedule!r} is not cron: {str(error).lower()}") from None


class Rule(Model):
    """Which events may concern which metrics; what one concerns in fact is what it can have changed."""

    description: str = ""
    on: Texts = Field((), description="Event types; `*` stands for anything.")
    schedule: str | None = Field(None, description="Five fields of cron: `0 9 * * *`.")
    timezone: str = Field("UTC", description="The schedule's time zone: `America/New_York`. DST as cron keeps it.")
    catch_up: bool = Field(True, description="The latest tick that was missed while all was down is made up for.")
    metrics: Texts = Field((), description="Patterns of metrics. None: whatever reads what changed.")
    workflows: tuple[WorkflowName, ...] = Field((), description="Workflows that are run.")

    @model_validator(mode="after")
    def _has_trigger(self) -> Self:
        if not self.on and self.schedule is None:
            raise ValueError("needs `on`, the event types it waits for, or `schedule`")
        if self.schedule is not None:
            _check_cron(self.schedule)
        return self

    @field_validator("timezone")
    @classmethod
    def _is_zone(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise ValueError(f"{value!r} is no time zone, such as UTC or Europe/Berlin") from None
        return value


class Settings(Model):
    """How the workers work."""

    lease: Duration = Field(
        timedelta(seconds=60), gt=timedelta(0), description="A claim not renewed for this long is lost."
    )
    sweep: Duration = Field(
        timedelta(seconds=5), gt=timedelta(0), description="How often what still waits is rung for again."
    )
    orphan: Duration = Field(
        timedelta(seconds=30),
        gt=timedelta(0),
        description="Events that a worker took and did not store for this long are another's.",
    )
    history_days: int = Field(365, ge=7, le=36_500, description="Readings, runs and events are kept for so many days.")
    snapshot_days: int = Field(90, ge=1, le=36_500, description="The snapshot of each day is kept for so many days.")


Prices = dict[str, float | dict[str, float]]
"""USD by name, and by name within a name: `s3_gib_month: 0.023`, `rds_class: {db.t3.micro: 14.60}`."""


class PriceTable(Model):
    """The prices section."""

    prices: Prices = Field(default_factory=dict)


class ConfigFile(Model):
    """A configuration file as a whole; only its JSON Schema is used (`dims config schema`)."""

    include: Texts = ()
    settings: Settings = Settings()
    policy: PolicySection = PolicySection()
    sources: dict[str, AnySource] = Field(default_factory=dict)
    metrics: dict[str, dict[str, AnyMetric]] = Field(default_factory=dict)
    rules: dict[str, Rule] = Field(default_factory=dict)
    watch: Texts = ()
    prices: Prices = Field(default_factory=dict)
    workflows: Workflows = Workflows()
    notify: Notify = Notify()
    web: Web = Web()
