"""Write the expected band of a reading as sentences: its parts, what it was learned from, and why there is none."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import date
from typing import Any

from dims_worker.analysis.bands import LearnedBand
from dims_worker.config import Policy
from dims_worker.domain.decide import OUTSIDE_STEPS, Judge
from dims_worker.domain.expectation import MIN_VALUES, Expectation
from dims_worker.formatting import format_band, format_estimate, format_exact, pluralize
from dims_worker.numbers import Number
from dims_worker.store.incidents import Incident
from dims_worker.text.phrases import ExplanationView, Line

MOST_WIDTHS = 1000
"""A distance from here on, in band widths, has no exact number."""
MOST_NAMED = 3
"""The most incidents that a sentence names."""
WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")


def expectation_lines(view: ExplanationView, learned: LearnedBand, policy: Policy) -> Iterator[Line]:
    """Yield the band, its parts and what does not teach, or why there is no band."""
    band = learned.band
    if band is None:
        yield "expected", f"none: {_why_none(view, learned)}"
    else:
        unit = view.explanation.unit
        ends = f"{format_band(band.low, band.high)} {unit}".strip()
        yield "expected", f"{ends}, learned from {pluralize(band.values, 'accepted daily value')}"
        yield "", _stock_parts(learned, band) if band.kind == "stock" else _flow_parts(learned, band)
        if policy.min_abs:
            limit = view.key("min_abs", format_exact(policy.min_abs))
            yield "", f"a change of less than {limit} is inside"
    if learned.left_out:
        yield "", _left_out(learned.left_out)


def _why_none(view: ExplanationView, learned: LearnedBand) -> str:
    if learned.why_none == "age":
        return "it is an age"
    if learned.why_none == "drift":
        return f"{view.key('expect', 'drift')} makes the drift alone count"
    if learned.why_none == "no number":
        return "the value is no number"
    return f"{learned.values:,} of {MIN_VALUES} accepted daily values, so the drift alone counts"


def _stock_parts(learned: LearnedBand, band: Expectation) -> str:
    """Describe the band of a metric that keeps its value: the last value, the trend and the usual step."""
    assert learned.last is not None and learned.last_day is not None
    start = f"the last of them is {format_estimate(learned.last)}, of {learned.last_day}"
    trend = f"it usually changes by {_signed(band.trend)} a day" if band.trend else "it has no trend"
    return f"{start}; {trend}; {_usual_step(band)}"


def _flow_parts(learned: LearnedBand, band: Expectation) -> str:
    """Describe the band of a metric that starts again every day: its level, the weekday and the usual step."""
    weekday = WEEKDAYS[learned.day.weekday()]
    level = f"it usually is {format_estimate(band.level)}"
    if band.weekday is None:
        return f"{level} on any day of the week; {_usual_step(band)}"
    offset = f"{_signed(band.weekday)} for that day of the week"
    return f"{level} on a {weekday}: {format_estimate(band.level - band.weekday)} and {offset}; {_usual_step(band)}"


def _usual_step(band: Expectation) -> str:
    return (
        f"when it changes, half of its steps are {format_estimate(band.step)} or less"
        if band.step
        else "it never changed"
    )


def _left_out(incidents: Sequence[Incident]) -> str:
    named = [f"incident {each.id} ({each.resolution or each.state})" for each in incidents[:MOST_NAMED]]
    if len(incidents) > MOST_NAMED:
        named.append(f"{len(incidents) - MOST_NAMED:,} more")
    return f"values of {', '.join(named)} do not teach"


def severity_by_band(view: ExplanationView, judge: Judge, band: Expectation, value: Number) -> str:
    """Return why the band gives a value its severity: `0.8 band widths below the expected band`."""
    distance = band.distance(value)
    if distance == 0:
        return "inside the expected band"
    where = f"{format_widths(distance)} {'below' if value < band.low else 'above'} the expected band"
    if judge.severity_outside(band, value) == "none":
        return f"{where}, and only {judge.policy.direction} is watched (direction: {view.origin('direction')})"
    if judge.policy.volatility == "stable":
        return f"{where}, one step higher for a stable metric (volatility: {view.origin('volatility')})"
    return where


def format_widths(distance: float) -> str:
    """Return a distance in band widths, with as many decimals as it takes not to round it to 0 or to a limit."""
    if distance >= MOST_WIDTHS:
        return f"more than {MOST_WIDTHS:,} band widths"
    decimals = 1
    while decimals < 9 and not _is_faithful(round(distance, decimals), distance):
        decimals += 1
    return f"{distance:,.{decimals}f} band widths"


def _is_faithful(rounded: float, distance: float) -> bool:
    return rounded > 0 and all((rounded >= limit) == (distance >= limit) for limit in OUTSIDE_STEPS)


def _signed(number: float) -> str:
    return f"{'+' if number > 0 else '-'}{format_estimate(abs(number))}"


def expectation_document(learned: LearnedBand | None) -> dict[str, Any] | None:
    """Return the band with its parts as `--json` prints them. `low` to `step` are null if there is none."""
    if learned is None:
        return None
    parts = ("low", "high", "level", "trend", "weekday", "step", "kind")
    return {
        "day": _iso(learned.day),
        **{name: getattr(learned.band, name) if learned.band else None for name in parts},
        "why_none": learned.why_none,
        "values": learned.values,
        "needed": MIN_VALUES,
        "last": learned.last,
        "last_day": _iso(learned.last_day),
        "not_teaching": [each.id for each in learned.left_out],
    }


def _iso(day: date | None) -> str | None:
    return day.isoformat() if day else None
