"""Draw the history of a metric: its accepted values, its baseline, and a marker for each notable reading."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, TypeGuard

from markupsafe import Markup
from sqlalchemy import Connection

from dims_worker.analysis.bands import OUTSIDE_SEVERITIES
from dims_worker.analysis.health import points_in_unit
from dims_worker.config import Config, Metric
from dims_worker.domain.decide import age_of
from dims_worker.formatting import format_number, format_value, is_number, pluralize
from dims_worker.numbers import Number
from dims_worker.reports.svg_charts import (
    ChartMarker,
    ChartSize,
    TrendData,
    baseline_steps,
    chart_marker,
    expected_days,
    is_drawn_outside,
    legend_html,
    trend_svg,
)
from dims_worker.store.history import TREND_OUTCOMES, UNMARKED_OUTCOMES, Point, readings_beyond_band, sampled_readings
from dims_worker.store.metric_states import MetricState
from dims_worker.store.point_in_time import notable_readings

SPANS = (7, 30, 90, 365)
"""The number of days that you can choose for a chart."""
MAX_VALUES = 180
"""Values of a chart. More would overlap."""
MAX_MARKERS = 100
"""Markers of a chart, for the newest notable readings."""
MAX_DOTS = 60
"""With more values than this, the line has no dots."""
LARGEST = 1e300
"""Larger values would overflow the axis."""
SIZES = (ChartSize(1000, 300, "wide"), ChartSize(360, 220, "narrow"))


def trend_charts(connection: Connection, config: Config, state: MetricState, now: datetime, days: int) -> Markup:
    """Return the chart of the last `days`, for a wide screen and for a phone, and its legend. Empty if there are no
    numbers."""
    span = timedelta(days=days)
    first = now - span
    points = sampled_readings(connection, state.metric, first, span / MAX_VALUES, TREND_OUTCOMES)
    notable = notable_readings(connection, [state.metric], first, MAX_MARKERS)[state.metric]
    notable += readings_beyond_band(connection, state.metric, first, MAX_MARKERS, OUTSIDE_SEVERITIES)
    trend = trend_data(config.metrics.get(state.metric), state, points, notable, (first, now))
    if not trend.line and all(marker.value is None for marker in trend.markers):
        return Markup()
    legend = legend_html(expected=bool(trend.band))
    return Markup().join([*(trend_svg(trend, size) for size in SIZES), legend])


def trend_data(
    metric: Metric | None,
    state: MetricState,
    points: Sequence[Point],
    notable: Sequence[Point],
    span: tuple[datetime, datetime],
) -> TrendData:
    """Return the data of the chart: only readings in the metric's current unit. Pure.

    `points` make the line. `notable` are the readings with a marker.
    """
    points, notable = (points_in_unit(listed, metric, state.unit) for listed in (points, notable))
    line = [(point.as_of, value) for point in points if (value := _number(metric, point.value, point)) is not None]
    baselines = [(point.as_of, point.baseline) for point in points]
    if state.baseline_as_of:
        baselines.append((max(state.baseline_as_of, span[0]), state.baseline))
    drawn = [] if metric is not None and metric.is_age else [step for step in baselines if _is_drawable(step[1])]
    steps = list(baseline_steps(drawn, span[1]))
    marked = [point for point in notable if point.outcome not in UNMARKED_OUTCOMES or is_drawn_outside(point)]
    markers = [_marker(metric, point) for point in marked]
    drawable = [marker for marker in markers if marker.outcome == "failed" or marker.value is not None]
    judged = sorted((*points, *notable), key=lambda point: point.as_of)
    band = expected_days((_midnight(point.as_of), point) for point in judged)
    alt = _alt_text(state, line, drawable)
    return TrendData(*span, line, steps, drawable, alt, dots=len(line) <= MAX_DOTS, band=band)


def _midnight(at: datetime) -> datetime:
    return at.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)


def _number(metric: Metric | None, value: Any, point: Point) -> float | None:
    """Return a value as a number, or None. An age is in its unit, as it was when the reading began."""
    if metric is not None and metric.is_age:
        return age_of(value, point.as_of, metric.shown_unit)
    return float(value) if _is_drawable(value) else None


def _is_drawable(value: Any) -> TypeGuard[Number]:
    return is_number(value) and -LARGEST < value < LARGEST


def _marker(metric: Metric | None, point: Point) -> ChartMarker:
    shown = format_value(point.value, point.unit, metric, point.as_of)
    return chart_marker(point, point.as_of, _number(metric, point.value, point), shown)


def _alt_text(state: MetricState, line: Sequence[tuple[datetime, float]], markers: Sequence[ChartMarker]) -> str:
    """Describe the chart for people who cannot see it."""
    ends = ""
    if line:
        ends = f" from {format_number(line[0][1])} to {format_number(line[-1][1])} {state.unit or ''}".rstrip()
    outcomes = Counter(marker.outcome for marker in markers)
    counts = "".join(f", {number} {outcome}" for outcome, number in outcomes.items())
    return f"{state.metric}: {pluralize(len(line), 'value')}{ends}{counts}. The table of readings below has the values"
