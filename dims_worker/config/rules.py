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

    description: str = Field("", description="A note for people.")
    on: Texts = Field((), description="Event types; `*` matches anything.")
    schedule: str | None = Field(None, description="A cron schedule of five fields, such as `0 9 * * *`.")
    timezone: str = Field("UTC", description="The time zone of the schedule, such as `Europe/Berlin`.")
    catch_up: bool = Field(True, description="Make up for the latest missed tick.")
    metrics: Texts = Field((), description="Patterns of metrics. Empty: all, or none if `workflows` is set.")
    workflows: tuple[WorkflowName, ...] = Field((), description="Workflows to run.")

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

    lease: Duration = Field(timedelta(minutes=1), gt=timedelta(0), description="How long a claim lasts unrenewed.")
    sweep: Duration = Field(
        timedelta(seconds=5), gt=timedelta(0), description="How often workers look for due metrics."
    )
    orphan: Duration = Field(
        timedelta(seconds=30), gt=timedelta(0), description="Another worker takes over events not stored in time."
    )
    history_days: int = Field(365, ge=7, le=36_500, description="How many days readings, runs and events are kept.")
    snapshot_days: int = Field(90, ge=1, le=36_500, description="How many days a daily snapshot is kept.")


Prices = dict[str, float | dict[str, float]]
"""USD by name, and by name within a name: `s3_gib_month: 0.023`, `rds_class: {db.t3.micro: 14.60}`."""


class PriceTable(Model):
    """The prices section."""

    prices: Prices = Field(default_factory=dict)


class ConfigFile(Model):
    """A configuration file as a whole; only its JSON Schema is used (`dims config schema`)."""

    include: Texts = Field((), description="Other files to read.")
    settings: Settings = Field(Settings(), description="How the workers work.")
    policy: PolicySection = Field(PolicySection(), description="How DIMS judges readings.")
    sources: dict[str, AnySource] = Field({}, description="What DIMS can scan, by name.")
    metrics: dict[str, dict[str, AnyMetric]] = Field({}, description="What DIMS measures, by category and name.")
    rules: dict[str, Rule] = Field({}, description="Which events concern which metrics, by name.")
    watch: Texts = Field((), description="The `files` sources whose folders `dims watch` watches.")
    prices: Prices = Field({}, description="Prices in USD, by name.")
    workflows: Workflows = Field(Workflows(), description="What each workflow reads and writes.")
    notify: Notify = Field(Notify(), description="Who is notified, and of what.")
    web: Web = Field(Web(), description="Who may use the dashboard and the HTTP API.")
