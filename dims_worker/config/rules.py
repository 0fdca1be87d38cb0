"""Which events concern what; how the workers work; a file as a whole."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Self

from pydantic import Field, model_validator

from dims_worker.config.base import Model, Texts
from dims_worker.config.metrics import AnyMetric
from dims_worker.config.policy import Policy
from dims_worker.config.quantities import Duration
from dims_worker.config.sources import AnySource
from dims_worker.config.workflows import WorkflowName, Workflows

_CRON = {"minute": (0, 59), "hour": (0, 23), "day of month": (1, 31), "month": (1, 12), "day of week": (0, 6)}
_NAMES = re.compile(r"sun|mon|tue|wed|thu|fri|sat|jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec")


def _check_cron(schedule: str) -> None:
    """Five fields: `*`, numbers, names of days and months, ranges, lists and steps. Raises ValueError."""
    fields = schedule.split()
    if len(fields) != len(_CRON):
        raise ValueError(f"schedule has five fields: {', '.join(_CRON)}")
    for field, (name, (first, last)) in zip(fields, _CRON.items(), strict=True):
        for part in field.split(","):
            match = re.fullmatch(r"(?:\*|(\w+)(?:-(\w+))?)(?:/([1-9]\d*))?", part)
            ends = [end for end in match.groups()[:2] if end] if match else [""]
            if not all(_NAMES.fullmatch(end) or (end.isdecimal() and first <= int(end) <= last) for end in ends):
                raise ValueError(f"schedule: {part!r} is no {name}, which goes from {first} to {last}")


class Rule(Model):
    """Which events may concern which metrics; what one concerns in fact is what it can have changed."""

    description: str = ""
    on: Texts = Field((), description="Event types; `*` stands for anything.")
    schedule: str | None = Field(None, description="Five fields of cron, in UTC: `0 9 * * *`.")
    metrics: Texts = Field((), description="Patterns of metrics. None: whatever reads what changed.")
    workflows: tuple[WorkflowName, ...] = Field((), description="Workflows that are run.")

    @model_validator(mode="after")
    def _has_trigger(self) -> Self:
        if not self.on and self.schedule is None:
            raise ValueError("needs `on`, the event types it waits for, or `schedule`")
        if self.schedule is not None:
            _check_cron(self.schedule)
        return self


class Settings(Model):
    """How the workers work."""

    lease: Duration = Field(
        timedelta(seconds=60), gt=timedelta(0), description="A claim not renewed for this long is lost."
    )
    sweep: Duration = Field(
        timedelta(seconds=5), gt=timedelta(0), description="How often what still waits is rung for again."
    )


Prices = dict[str, float | dict[str, float]]
"""USD by name, and by name within a name: `s3_gib_month: 0.023`, `rds_class: {db.t3.micro: 14.60}`."""


class PriceTable(Model):
    """The prices section."""

    prices: Prices = Field(default_factory=dict)


class ConfigFile(Model):
    """A configuration file as a whole; only its JSON Schema is used (`dims config schema`)."""

    include: Texts = ()
    settings: Settings = Settings()
    policy: Policy = Policy()
    sources: dict[str, AnySource] = Field(default_factory=dict)
    metrics: dict[str, dict[str, AnyMetric]] = Field(default_factory=dict)
    rules: dict[str, Rule] = Field(default_factory=dict)
    watch: Texts = ()
    prices: Prices = Field(default_factory=dict)
    workflows: Workflows = Workflows()
