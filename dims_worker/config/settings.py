"""The `settings` section: how the workers work."""

from __future__ import annotations

from datetime import timedelta

from pydantic import Field

from dims_worker.config.base import Model
from dims_worker.config.units import Duration


class Settings(Model):
    """How the workers work."""

    lease: Duration = Field(timedelta(minutes=1), gt=timedelta(0), description="How long a claim is valid.")
    sweep: Duration = Field(timedelta(seconds=5), gt=timedelta(0), description="The time between two sweeps.")
    orphan: Duration = Field(
        timedelta(seconds=30), gt=timedelta(0), description="When another worker takes over unstored events."
    )
    history_days: int = Field(365, ge=7, le=36_500, description="How many days readings, runs and events are kept.")
    snapshot_days: int = Field(90, ge=1, le=36_500, description="How many days a daily snapshot is kept.")
