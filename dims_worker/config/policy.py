"""How DIMS judges readings: thresholds, approval and limits, for all metrics, a category or one metric."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from dims_worker.config.base import Model, Patterns
from dims_worker.config.units import Duration


class Thresholds(Model):
    """The drifts, in percent, from which a reading is moderate, major and extreme."""

    moderate: float = Field(5, gt=0, description="A drift of this many % or more is `moderate`.")
    major: float = Field(15, gt=0, description="A drift of this many % or more is `major`.")
    extreme: float = Field(25, gt=0, description="A drift of this many % or more is `extreme`.")

    @model_validator(mode="after")
    def _rising(self) -> Self:
        if not self.moderate <= self.major <= self.extreme:
            raise ValueError("must rise: moderate <= major <= extreme")
        return self


class Policy(Model):
    """How DIMS judges a reading. A metric's own keys override its category's, and these override the general ones."""

    thresholds: Thresholds = Field(Thresholds(), description="The drifts, in %, at which the status changes.")
    require_approval_pct: float = Field(15, gt=0, description="The drift, in %, that holds a critical metric.")
    tolerance_pct: float = Field(2, ge=0, description="The band, in %, in which a new value updates a request.")
    direction: Literal["up", "down", "both"] = Field("both", description="Which way a drift counts.")
    min_abs: float = Field(0, ge=0, description="A change smaller than this, in the metric's unit, is noise.")
    volatility: Literal["volatile", "stable"] = Field("volatile", description="`stable` raises severity by one step.")
    critical: bool = Field(False, description="Hold a large drift for approval.")
    approvers: Patterns = Field((), description="Who may decide, by name; `*` matches anything. Empty: anyone.")
    expire_after: Duration | None = Field(None, gt=timedelta(0), description="An open request ends after this long.")
    stale_after: Duration | None = Field(timedelta(days=7), description="A reading older than this is stale.")
    min: float | None = Field(None, description="A smaller value breaks this limit.")
    max: float | None = Field(None, description="A larger value breaks this limit.")
    max_age: Duration | None = Field(None, description="An older age breaks this limit.")
    expect: Literal["history", "drift"] = Field(
        "history", description="`history`: judge by the expected band, from 14 daily values on. `drift`: never."
    )
    close_after: Duration | None = Field(
        None, gt=timedelta(0), description="Close an open drift incident after this long, as expected. `null`: never."
    )
    owner: str | None = Field(None, min_length=1, description="Who is responsible: a name, also that of a channel.")

    def overridden_by(self, layer: Model | None) -> Policy:
        """Return this policy with the keys that `layer` (a category's policy or a metric) sets."""
        return self.model_copy(update=explicit_keys(layer)) if layer else self


NULLABLE_KEYS = frozenset({"expire_after", "stale_after", "min", "max", "max_age", "close_after", "owner"})
"""Keys for which null is a value of its own: never, or no limit."""

Origin = Literal["metric", "category", "general", "default"]


def explicit_keys(layer: Model | None) -> dict[str, Any]:
    """Return the policy keys that a layer (the general section, a category or a metric) sets, with their values."""
    keys = Policy.model_fields.keys() & (layer.model_fields_set if layer else set())
    return {key: value for key in keys if (value := getattr(layer, key)) is not None or key in NULLABLE_KEYS}


class PolicySection(Policy):
    """The policy section: for all metrics, and by category."""

    categories: dict[str, Policy] = Field({}, description="The same keys, for the metrics of one category.")
