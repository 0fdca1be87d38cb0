"""The `settings` section: how workers behave."""

from __future__ import annotations

from datetime import timedelta

from pydantic import Field

from dims_worker.config.base import Model
from dims_worker.config.units import Duration


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
