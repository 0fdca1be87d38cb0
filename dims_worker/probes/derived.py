"""Derived metrics: arithmetic over the readings of other metrics."""

from __future__ import annotations

from collections.abc import Mapping

from dims_worker.config import DerivedMetric
from dims_worker.config.formula import parse_formula
from dims_worker.errors import MeasureError
from dims_worker.numbers import is_number, value_text
from dims_worker.probes.base import Reading, Value
from dims_worker.probes.reading_notes import ABSENT, inherited_doubts


def derive_reading(
    name: str, metric: DerivedMetric, inputs: Mapping[str, Reading], prices: Mapping[str, float] | None = None
) -> Reading:
    """Return the reading of a derived metric, computed from the unrounded readings of its inputs.

    `inputs` are by metric, `prices` by `prices.NAME`. The reading is failed, with all reasons, if an input has
    no reading, a failed one, or one that is not a number (null, a text, an age).
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
    details = inherited_doubts({used: inputs[used] for used in sorted(metric.inputs) if used in inputs})
    try:
        return Reading(name, parse_formula(metric.derive).value(values), metric.shown_unit, "derived", None, details)
    except (MeasureError, ValueError) as error:  # ValueError: floats that are too large give infinity
        return Reading.failed(name, metric.shown_unit, str(error))


def _value_of(used: str, inputs: Mapping[str, Reading], prices: Mapping[str, float]) -> tuple[Value, str | None]:
    """Return the value of a dotted name, and the reason why it cannot be used (None if it can)."""
    if used in prices:
        return prices[used], None
    category, metric, *detail = used.split(".")
    source = f"{category}.{metric}"
    reading = inputs.get(source)
    if reading is None or reading.method == "failed":
        return None, f"{source}: {reading.error if reading else 'has no reading'}"
    value = reading.details.get(detail[0]) if detail else reading.value
    if value is None:
        return None, f"{used} is null: {reading.details.get(ABSENT) or 'it has no value'}"
    if not is_number(value):
        return value, f"{used}: {value_text(value):.40} is not a number"
    return value, None
