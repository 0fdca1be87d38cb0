"""Derived metrics: arithmetic over the readings of others."""

from __future__ import annotations

from collections.abc import Mapping

from dims_worker.config import DerivedMetric
from dims_worker.config.expression import expression
from dims_worker.errors import MeasureError
from dims_worker.probes.base import Reading


def derive(name: str, metric: DerivedMetric, inputs: Mapping[str, Reading]) -> Reading:
    """The reading of a derived metric out of its inputs' unrounded ones, `inputs` by metric.

    Failed, with every reason, where an input is not there, failed, or is no number (null, a text, an age).
    """
    used = {each: inputs.get(each) for each in sorted(metric.inputs)}
    reasons = [reason for each, reading in used.items() if (reason := _unfit(each, reading))]
    if reasons:
        return Reading.failed(name, metric.shown_unit, "; ".join(reasons))
    values = {each: reading.value for each, reading in used.items() if reading}
    try:
        value = expression(metric.derive).value(values)
        return Reading(name, value, metric.shown_unit, "derived")
    except (MeasureError, ValueError) as error:  # ValueError: infinity, from floats that are too large
        return Reading.failed(name, metric.shown_unit, str(error))


def _unfit(name: str, reading: Reading | None) -> str | None:
    """Why a reading cannot be reckoned with; None where it can."""
    if reading is None:
        return f"{name}: has no reading"
    if reading.method == "failed":
        return f"{name}: {reading.error}"
    if isinstance(reading.value, bool) or not isinstance(reading.value, int | float):
        return f"{name}: {reading.value!r:.40} is no number"
    return None
