"""Derived metrics: arithmetic over the readings of others."""

from __future__ import annotations

from collections.abc import Mapping

from dims_worker.config import DerivedMetric
from dims_worker.config.formula import parse_formula
from dims_worker.errors import MeasureError
from dims_worker.probes.base import Reading, Value


def derive_reading(
    name: str, metric: DerivedMetric, inputs: Mapping[str, Reading], prices: Mapping[str, float] | None = None
) -> Reading:
    """The reading of a derived metric out of its inputs' unrounded ones, `inputs` by metric; `prices` by
    `prices.NAME`.

    Failed, with every reason, where an input is not there, failed, or is no number (null, a text, an age).
    """
    values: dict[str, Value] = {}
    reasons: list[str] = []
    for used in sorted(parse_formula(metric.derive).names):
        value, reason = _value_of(used, inputs, prices or {})
        values[used] = value
        if reason and reason not in reasons:
            reasons.append(reason)
    if reasons:
        return Reading.failed(name, metric.shown_unit, "; ".join(reasons))
    try:
        return Reading(name, parse_formula(metric.derive).value(values), metric.shown_unit, "derived")
    except (MeasureError, ValueError) as error:  # ValueError: infinity, from floats that are too large
        return Reading.failed(name, metric.shown_unit, str(error))


def _value_of(used: str, inputs: Mapping[str, Reading], prices: Mapping[str, float]) -> tuple[Value, str | None]:
    """The value of a dotted name, and why it cannot be reckoned with."""
    if used in prices:
        return prices[used], None
    category, metric, *detail = used.split(".")
    source = f"{category}.{metric}"
    reading = inputs.get(source)
    if reading is None or reading.method == "failed":
        return None, f"{source}: {reading.error if reading else 'has no reading'}"
    value = reading.details.get(detail[0]) if detail else reading.value
    if isinstance(value, bool) or not isinstance(value, int | float):
        return value, f"{used}: {value!r:.40} is no number"
    return value, None
