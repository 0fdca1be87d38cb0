"""How readings are judged: thresholds, approval, limits."""

from __future__ import annotations

from datetime import timedelta
from typing import Literal, Self

from pydantic import Field, model_validator

from dims_worker.config.base import Model
from dims_worker.config.quantities import Duration


class Thresholds(Model):
    """From which drift, in percent, a reading is moderate, major, extreme (DESIGN section 7)."""

    moderate: float = Field(5, gt=0)
    major: float = Field(15, gt=0)
    extreme: float = Field(25, gt=0)

    @model_validator(mode="after")
    def _rising(self) -> Self:
        if not self.moderate <= self.major <= self.extreme:
            raise ValueError("must rise: moderate <= major <= extreme")
        return self


class Policy(Model):
    """How a reading is judged. A metric's own keys stand before the `policy` section's."""

    thresholds: Thresholds = Thresholds()
    require_approval_pct: float = Field(15, gt=0, description="Critical drift that waits for a person, in %.")
    tolerance_pct: float = Field(2, ge=0, description="A request's band: % of the value first proposed.")
    direction: Literal["up", "down", "both"] = "both"
    min_abs: float = Field(0, ge=0, description="Changes smaller than this, in the metric's unit, are noise.")
    stale_after: Duration | None = Field(timedelta(days=7), description="Unmeasured for longer is stale.")


class Limits(Model):
    """Absolute limits beside drift; `max_age` is for ages alone."""

    min: float | None = None
    max: float | None = None
    max_age: Duration | None = None
