"""How readings are judged: thresholds, approval, limits; for all metrics, a category, one metric."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from dims_worker.config.base import Model, Texts
from dims_worker.config.units import Duration


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
    """How a reading is judged. A metric's own keys stand before its category's, these before the general ones."""

    thresholds: Thresholds = Thresholds()
    require_approval_pct: float = Field(15, gt=0, description="Critical drift that waits for a person, in %.")
    tolerance_pct: float = Field(2, ge=0, description="A request's band: % of the value first proposed.")
    direction: Literal["up", "down", "both"] = "both"
    min_abs: float = Field(0, ge=0, description="Changes smaller than this, in the metric's unit, are noise.")
    volatility: Literal["volatile", "stable"] = "volatile"
    critical: bool = False
    approvers: Texts = Field((), description="Who may approve, by name; `*` stands for anything. None: anybody.")
    expire_after: Duration | None = Field(None, gt=timedelta(0), description="A request nobody decided on ends.")
    stale_after: Duration | None = Field(timedelta(days=7), description="Unmeasured for longer is stale.")
    min: float | None = None
    max: float | None = None
    max_age: Duration | None = Field(None, description="Of ages; an older one is of high severity.")

    def under(self, layer: Model | None) -> Policy:
        """This policy with what `layer`, a category's policy or a metric, says itself."""
        return self.model_copy(update=explicit_keys(layer)) if layer else self


NULLS = frozenset({"expire_after", "stale_after", "min", "max", "max_age"})
"""Keys whose null says something: never, no limit."""

Origin = Literal["metric", "category", "general", "default"]


def explicit_keys(layer: Model | None) -> dict[str, Any]:
    """The keys of policy that a layer (the general section, a category's, a metric) says itself."""
    keys = Policy.model_fields.keys() & (layer.model_fields_set if layer else set())
    return {key: value for key in keys if (value := getattr(layer, key)) is not None or key in NULLS}


class PolicySection(Policy):
    """The policy section: for all metrics, and by category."""

    categories: dict[str, Policy] = Field(
        default_factory=dict, description="The same keys, for one category's metrics."
    )
