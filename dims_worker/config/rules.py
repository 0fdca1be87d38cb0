"""The `rules` section: which events concern which metrics."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Self

from cronsim import CronSim, CronSimError
from pydantic import Field, model_validator

from dims_worker.config.base import Model, Patterns, Texts, TimeZone
from dims_worker.config.units import Duration
from dims_worker.config.workflows import WorkflowName


def check_cron(schedule: str, key: str = "schedule") -> None:
    """Raise ValueError unless the schedule, the value of `key`, is five valid cron fields."""
    if len(schedule.split()) != 5:
        raise ValueError(f"{key} must have five fields: minute, hour, day of month, month, day of week")
    try:
        CronSim(schedule, datetime(2026, 1, 1, tzinfo=UTC))
    except CronSimError as error:
        raise ValueError(f"{key} {schedule!r} is not valid cron: {str(error).lower()}") from None


class Rule(Model):
    """Which events may concern which metrics. Of these, DIMS measures the metrics that the event can have changed."""

    description: str = Field("", description="A note for people.")
    on: Patterns = Field((), description="Event types; `*` matches anything.")
    schedule: str | None = Field(None, description="A cron schedule of five fields, such as `0 9 * * *`.")
    timezone: TimeZone = Field("UTC", description="The time zone of the schedule, such as `Europe/Berlin`.")
    catch_up: bool = Field(True, description="Make up for the latest missed tick.")
    silent_after: Duration | None = Field(
        None, gt=timedelta(0), description="An event must match at least this often. Otherwise, an incident opens."
    )
    metrics: Patterns = Field(
        (), description="Patterns of metric names. By default all, or none if `sources` or `workflows` is set."
    )
    sources: Texts = Field((), description="Also the metrics that read these sources, such as a query's source.")
    workflows: tuple[WorkflowName, ...] = Field((), description="Workflows to run. Their `metrics` are due too.")

    @property
    def patterns(self) -> tuple[str, ...]:
        """The patterns of metric names: those of `metrics`, or `*` if the rule names nothing at all."""
        return self.metrics or (() if self.sources or self.workflows else ("*",))

    @model_validator(mode="after")
    def _has_trigger(self) -> Self:
        if not self.on and self.schedule is None:
            raise ValueError("needs `on` (event types) or `schedule` (cron)")
        if self.schedule is not None:
            check_cron(self.schedule)
        return self
