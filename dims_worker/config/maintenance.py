"""The `maintenance` section: when DIMS sends no messages about what."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import islice, pairwise, takewhile
from typing import Self
from zoneinfo import ZoneInfo

from cronsim import CronSim
from pydantic import Field, model_validator

from dims_worker.config.base import Model, Patterns, Texts, TimeZone
from dims_worker.config.rules import check_cron
from dims_worker.config.units import Duration

_CHECKED_TICKS = 50_000
"""The most begins of a window that the check of its length compares: each minute of a month."""


class MaintenanceWindow(Model):
    """A time that repeats, in which DIMS measures, judges and holds as usual and sends no messages."""

    description: str = Field("", description="A note for people. It is the reason that lists of mutes show.")
    cron: str = Field(description="When the window begins: a cron schedule of five fields, such as `0 2 * * *`.")
    length: Duration = Field(gt=timedelta(0), description="How long the window lasts.")
    timezone: TimeZone = Field("UTC", description="The time zone of the schedule, such as `Europe/Berlin`.")
    metrics: Patterns = Field((), description="Patterns of metrics and workflows that it covers.")
    categories: Texts = Field((), description="Categories whose metrics it covers.")
    sources: Texts = Field((), description="Sources whose metrics it covers, with what is derived from them.")

    @property
    def covers_everything(self) -> bool:
        """Whether the window names nothing, and so covers all metrics."""
        return not (self.metrics or self.categories or self.sources)

    @model_validator(mode="after")
    def _ends(self) -> Self:
        check_cron(self.cron, "cron")
        begins = CronSim(self.cron, datetime(2026, 1, 2, tzinfo=UTC).astimezone(ZoneInfo(self.timezone)))
        times = (time.astimezone(UTC) for time in islice(begins, _CHECKED_TICKS))
        following_pairs = takewhile(lambda pair: pair[0].year < 2036, pairwise(times))  # 29 February comes, too
        if not any(following - begin > self.length for begin, following in following_pairs):
            raise ValueError("the window never ends, because the next one begins before; write a shorter length")
        return self
