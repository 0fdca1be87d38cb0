"""How a metric went, as a large picture: the values that stood, its baseline, and each reading that stood out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any

from markupsafe import Markup
from sqlalchemy import Connection

from dims_worker.analysis.health import points_in_unit
from dims_worker.config import Config, Metric
from dims_worker.config.units import AGES
from dims_worker.domain.decide import age_of
from dims_worker.formatting import (
    escape_control,
    format_drift,
    format_number,
    format_utc_short,
    format_value,
    pluralize,
)
from dims_worker.reports.svg_charts import ChartMarker, ChartSize, TrendData, trend_svg
from dims_worker.store.history import TREND_OUTCOMES, Point, sampled_readings
from dims_worker.store.metric_states import MetricState
from dims_worker.store.point_in_time import notable_readings
from dims_worker.text.phrases import is_number
from dims_worker.web.context import trusted_html

SPANS = (7, 30, 90, 365)
"""Days that a picture may show."""
STEPS = 180
"""A picture shows so many values at most: more would stand on the same place."""
MARKS = 100
"""So many readings that stood out are marked, the newest."""
APART = 60
"""So many values are seen as points of their own."""
LARGEST = 1e300
"""What is larger cannot be told apart on an axis."""
SIZES = (ChartSize(1000, 300, "wide"), ChartSize(360, 220, "narrow"))


def pictures(connection: Connection, config: Config, state: MetricState, now: datetime, days: int) -> Markup:
    """A metric's last days for a wide screen and for a phone; nothing where it had no numbers."""
    span = timedelta(days=days)
    first = now - span
    points = sampled_readings(connection, state.metric, first, span / STEPS, TREND_OUTCOMES)
    marks = notable_readings(connection, [state.metric], first, MARKS)[state.metric]
    found = course(config.metrics.get(state.metric), state, points, marks, (first, now))
    if not found.line and all(mark.value is None for mark in found.markers):
        return trusted_html("")
    return trusted_html("".join(trend_svg(found, size) for size in SIZES))


def course(
    metric: Metric | None,
    state: MetricState,
    points: Sequence[Point],
    marks: Sequence[Point],
    span: tuple[datetime, datetime],
) -> TrendData:
    """What the picture is drawn from: what was measured in the unit that the metric has now. Pure."""
    points, marks = (points_in_unit(listed, metric, state.unit) for listed in (points, marks))
    line = [(point.as_of, value) for point in points if (value := _number(metric, point.value, point)) is not None]
    steps = [] if metric is not None and metric.is_age else list(_steps(state, points, span))
    seen = [_mark(metric, point) for point in marks]
    shown = [mark for mark in seen if mark.outcome == "failed" or mark.value is not None]
    return TrendData(*span, line, steps, shown, _said(state, line, shown), dots=len(line) <= APART)


def _number(metric: Metric | None, value: Any, point: Point) -> float | None:
    """A value as it is drawn: an age in its unit, when the reading began; None where it is no number."""
    if metric is not None and metric.is_age:
        seconds = age_of(value, point.as_of)
        return None if seconds is None else seconds / AGES[metric.shown_unit]
    return float(value) if is_number(value) and abs(value) < LARGEST else None


def _steps(
    state: MetricState, points: Sequence[Point], span: tuple[datetime, datetime]
) -> Iterator[tuple[datetime, float]]:
    """The baseline that readings were judged against, where it moved, then the one that stands."""
    known: float | None = None
    first, now = span
    stands = [(max(state.baseline_as_of, first), state.baseline)] if state.baseline_as_of else []
    for at, value in (*((point.as_of, point.baseline) for point in points), *stands):
        if is_number(value) and abs(value) < LARGEST and float(value) != known:
            known = float(value)
            yield at, known
    if known is not None:
        yield now, known


def _mark(metric: Metric | None, point: Point) -> ChartMarker:
    when = format_utc_short(point.as_of)
    if point.outcome == "failed":
        return ChartMarker(point.as_of, "failed", None, f"{when}, failed: {escape_control(point.error or '')}")
    drift = format_drift(point.value, point.baseline, point.drift_pct)
    told = f"{format_value(point.value, point.unit, metric, point.as_of)} ({drift})"
    return ChartMarker(
        point.as_of, point.outcome, _number(metric, point.value, point), f"{when}, {point.outcome}: {told}"
    )


def _said(state: MetricState, line: Sequence[tuple[datetime, float]], marks: Sequence[ChartMarker]) -> str:
    ends = (
        f" from {format_number(line[0][1])} to {format_number(line[-1][1])} {state.unit or ''}".rstrip() if line else ""
    )
    told: dict[str, int] = {}
    for mark in marks:
        told[mark.outcome] = told.get(mark.outcome, 0) + 1
    more = "".join(f", {n} {outcome}" for outcome, n in told.items())
    return f"{state.metric}: {pluralize(len(line), 'value')}{ends}{more}; the table of readings below tells the same"
