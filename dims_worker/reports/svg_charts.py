"""Trends as inline SVG without scripts, fonts or libraries. The colours are CSS classes of the page."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import cache
from html import escape
from itertools import repeat
from typing import Any

from markupsafe import Markup

from dims_worker.analysis.bands import BandedReading, expected_text, is_outside_band
from dims_worker.analysis.health import MetricHealth
from dims_worker.formatting import (
    escape_control,
    format_day_and_month,
    format_drift,
    format_number,
    format_utc_short,
    format_value,
    is_number,
)
from dims_worker.store.history import TREND_OUTCOMES, UNMARKED_OUTCOMES, DailyLine, Day, Point

LEFT, RIGHT, TOP, BOTTOM = 46, 8, 8, 20
"""The margins of a chart."""


@dataclass(frozen=True, slots=True)
class ChartSize:
    """The width and height of a chart in user units. `style`: one more CSS class beside `trend`."""

    width: int
    height: int
    style: str = ""


SMALL = ChartSize(360, 150)
LONGEST_GAP = timedelta(days=3)
"""The band continues over a gap of up to this length between two days with one."""


@dataclass(frozen=True, slots=True)
class ChartMarker:
    """A reading that was `held`, `approved`, `rejected` or `failed`, or accepted `outside` its band. `value` is None
    where it is not a number."""

    at: date
    outcome: str
    value: float | None
    title: str


@dataclass(frozen=True, slots=True)
class ExpectedDay:
    """The band of a day. In a chart of instants, `day` is its midnight in UTC."""

    day: date
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class TrendData:
    """A value between two moments. All dates are days, or all are instants.

    `line`: the accepted values. `steps`: the baseline where it moved. `description`: the chart in one sentence.
    `dots`: draw each value of the line as a dot. `band`: where values were expected, the oldest day first.
    """

    first: date
    last: date
    line: Sequence[tuple[date, float]]
    steps: Sequence[tuple[date, float]]
    markers: Sequence[ChartMarker]
    description: str
    dots: bool = False
    band: Sequence[ExpectedDay] = ()

    @property
    def values(self) -> list[float]:
        """Return all values on the vertical axis."""
        marked = [marker.value for marker in self.markers if marker.value is not None]
        return [value for _, value in (*self.line, *self.steps)] + marked

    @property
    def span(self) -> tuple[float, float]:
        """Return the ends of the vertical axis. The band may double it. A wider one would flatten the values."""
        low, high = min(self.values), max(self.values)
        reach = max(high - low, 0.1 * max(abs(low), abs(high)))
        low_band = min((max(day.low, low - reach) for day in self.band), default=low)
        high_band = max((min(day.high, high + reach) for day in self.band), default=high)
        return min(low, low_band), max(high, high_band)


@dataclass(frozen=True, slots=True)
class ChartScale:
    """The scale from days (or instants) and values to user units, x to the right and y downwards."""

    first: date
    last: date
    low: float
    high: float
    left: float
    top: float
    width: float
    height: float

    def x(self, day: date) -> float:
        span = self.last - self.first
        return self.left + (self.width * ((day - self.first) / span) if span else self.width / 2)

    def y(self, value: float) -> float:
        span = self.high - self.low
        return self.top + (self.height * (1 - (value - self.low) / span) if span else self.height / 2)

    def path(self, points: Iterable[tuple[date, float]], *, steps: bool = False) -> str:
        """Return the `d` attribute of a line through the points."""
        places = [(_round(self.x(day)), _round(self.y(value))) for day, value in points]
        first = [f"M{x} {y}" for x, y in places[:1]]
        return "".join(first + [f"H{x}V{y}" if steps else f"L{x} {y}" for x, y in places[1:]])


def sparkline(metric: MetricHealth, first: date, last: date) -> Markup:
    """Return a metric's days as a chart in a line of text, empty where no day has a number."""
    points = [(day, value) for day, value in _line(metric.days) if day >= first]
    line = DailyLine([(day - first).days for day, _ in points], [value for _, value in points])
    return sparkline_svg(line, (last - first).days + 1)


def sparkline_svg(line: DailyLine, days: int) -> Markup:
    """Return the sparkline of a number of days. It is fast enough for hundreds on one page."""
    if not line.days:
        return Markup("")
    low, high = min(line.values), max(line.values)
    places, span = _day_places(days), high - low
    heights = (25 - 22 * ((value - low) / span) for value in line.values) if span else repeat(14.0)
    points = [f"{places[day]} {y:.1f}" for day, y in zip(line.days, heights, strict=False)]
    x, _, y = points[-1].partition(" ")
    description = f"{len(points)} days, from {format_number(low)} to {format_number(high)}"
    return _markup(
        f'<svg class="spark" viewBox="0 0 120 28" role="img" aria-label="{description}">'
        f'<path d="M{"L".join(points)}"/><circle cx="{x}" cy="{y}" r="2.2"/></svg>'
    )


@cache
def _day_places(days: int) -> list[str]:
    """Return the x of each day in a sparkline."""
    return [_round(2 + 116 * day / (days - 1) if days > 1 else 60) for day in range(days)]


def metric_trend_svg(metric: MetricHealth, first: date, last: date, now: datetime) -> Markup:
    """Return a metric's trend: its values, its baseline, and what was held, approved, rejected, or failed."""
    line = list(_line(metric.days))
    markers = [marker for point in metric.marks if (marker := _marker(metric, point, now)).at >= first]
    markers += [_outside_marker(metric, day) for day in metric.days if is_drawn_outside(day)]
    drawable = [marker for marker in markers if marker.outcome == "failed" or marker.value is not None]
    steps = list(baseline_steps(((day.day, day.baseline) for day in metric.days), last))
    band = expected_days((day.day, day) for day in metric.days if day.day >= first)
    description = _description(metric, line, drawable)
    return trend_svg(TrendData(first, last, line, steps, drawable, description, band=band), SMALL)


def trend_svg(trend: TrendData, size: ChartSize) -> Markup:
    """Return a trend as SVG, empty where it has no number."""
    if not trend.values:
        return Markup("")
    low, high = trend.span
    ticks = _ticks(low, high)
    low, high = min(ticks[0], low), max(ticks[-1], high)
    width, height = size.width - LEFT - RIGHT, size.height - TOP - BOTTOM
    scale = ChartScale(trend.first, trend.last, low, high, LEFT, TOP, width, height)
    parts = [
        f'<svg class="{f"trend {size.style}".strip()}" viewBox="0 0 {size.width} {size.height}" role="img" '
        f'aria-label="{escape(trend.description)}">',
        _band_svg(scale, trend.band) if trend.band else "",
        *_grid(scale, ticks, size),
        f'<path class="base" d="{scale.path(trend.steps, steps=True)}"/>' if trend.steps else "",
        f'<path class="line" d="{scale.path(trend.line)}"/>' if trend.line else "",
        *(_dot(scale, at, value) for at, value in (trend.line if trend.dots else ())),
        *(_marker_svg(scale, marker, size) for marker in trend.markers),
        "</svg>",
    ]
    return _markup("".join(parts))


def legend_html(*, expected: bool) -> Markup:
    """Return the legend of a trend's lines and markers. `expected`: the charts show the band of expected values."""
    band = {"expected": '<path class="expected" d="M1 1H21V11H1Z"/>', "outside": _symbol("outside", 11, 6)}
    symbols = {
        "accepted": '<path class="line" d="M1 6H21"/>',
        "baseline": '<path class="base" d="M1 6H21"/>',
        **(band if expected else {}),
        **{outcome: _symbol(outcome, 11, 6) for outcome in ("held", "approved", "rejected", "failed")},
    }
    drawn = (f'<li><svg viewBox="0 0 22 12" aria-hidden="true">{svg}</svg>{name}</li>' for name, svg in symbols.items())
    return _markup(f'<ul class="legend">{"".join(drawn)}</ul>')


def trends_legend_html(metrics: Iterable[MetricHealth]) -> Markup:
    """Return the legend of the trends of these metrics."""
    return legend_html(expected=any(day.expected_low is not None for metric in metrics for day in metric.days))


def expected_days(readings: Iterable[tuple[date, BandedReading]]) -> list[ExpectedDay]:
    """Return the band of each day, from readings with their day, oldest first. The last reading of a day counts."""
    bands = {
        day: ExpectedDay(day, reading.expected_low, reading.expected_high)
        for day, reading in readings
        if reading.expected_low is not None and reading.expected_high is not None
    }
    return list(bands.values())


def is_drawn_outside(reading: Day | Point) -> bool:
    """Return whether a reading that no person decided is outside its band."""
    return reading.outcome in UNMARKED_OUTCOMES and is_outside_band(reading)


def compact(value: float) -> str:
    """Return a number for an axis in at most four characters and a sign: 172,000 is `172k`."""
    for factor, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= factor and (factor > 1e3 or abs(value) >= 1e4):
            return f"{value / factor:.3g}{letter}" if abs(value) < 1e15 else f"{value:.1e}"
    return f"{value:,.4g}" if abs(value) < 1e4 else f"{value:,.0f}"


def _description(metric: MetricHealth, line: Sequence[tuple[date, float]], markers: Sequence[ChartMarker]) -> str:
    ends = f" from {format_number(line[0][1])} to {format_number(line[-1][1])}" if line else ""
    outcomes = Counter(marker.outcome for marker in markers)
    return f"{metric.metric}: {len(line)} days{ends}" + "".join(f", {n} {outcome}" for outcome, n in outcomes.items())


def _line(days: Sequence[Day]) -> Iterator[tuple[date, float]]:
    return ((day.day, float(day.value)) for day in days if is_number(day.value) and day.outcome in TREND_OUTCOMES)


def baseline_steps(baselines: Iterable[tuple[date, Any]], last: date) -> Iterator[tuple[date, float]]:
    """Yield the baseline where it moved, and its last value at the end."""
    baseline: float | None = None
    for at, value in baselines:
        if is_number(value) and float(value) != baseline:
            baseline = float(value)
            yield at, baseline
    if baseline is not None:
        yield last, baseline


def _ticks(low: float, high: float) -> list[float]:
    """Return three to six round numbers, the first at most `low` and the last at least `high`."""
    if low == high:
        reach = abs(low) * 0.1 or 1.0
        low, high = low - reach, high + reach
    rough = (high - low) / 3
    power = 10.0 ** math.floor(math.log10(rough)) if rough > 0 else 1.0
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough)
    begin = math.floor(low / step)
    return [round(n * step, 12) for n in range(begin, math.ceil(high / step) + 1)][:12]


def _grid(scale: ChartScale, ticks: Sequence[float], size: ChartSize) -> Iterator[str]:
    for tick in ticks:
        y = _round(scale.y(tick))
        yield f'<path class="rule" d="M{LEFT} {y}H{size.width - RIGHT}"/>'
        yield f'<text x="{LEFT - 6}" y="{y}" dy="3.5" text-anchor="end">{compact(tick)}</text>'
    days = (scale.last - scale.first).days
    labels = ((0.0, "start"), (0.5, "middle"), (1.0, "end"))
    for part, anchor in labels if days > 1 else labels[1:2]:
        day = scale.first + timedelta(days=round(days * part))
        place = f'x="{_round(scale.x(day))}" y="{size.height - 5}"'
        yield f'<text {place} text-anchor="{anchor}">{format_day_and_month(day)}</text>'


def _marker(metric: MetricHealth, point: Point, now: datetime) -> ChartMarker:
    value = float(point.value) if is_number(point.value) else None
    shown = format_value(point.value, point.unit, metric.declared, now)
    return chart_marker(point, point.as_of.astimezone(UTC).date(), value, shown)


def _outside_marker(metric: MetricHealth, day: Day) -> ChartMarker:
    shown = format_value(day.value, metric.unit, metric.declared, day.as_of)
    return ChartMarker(day.day, "outside", float(day.value), _marker_title(day, day.day, "outside", shown))


def chart_marker(point: Point, at: date, value: float | None, shown: str) -> ChartMarker:
    """Return the marker of a reading. `value` is its place in the chart, and `shown` its value with the unit."""
    outcome = "outside" if is_drawn_outside(point) else point.outcome
    if point.outcome == "failed":
        return ChartMarker(at, "failed", None, f"{_format_time(at)}, failed: {escape_control(point.error or '')}")
    return ChartMarker(at, outcome, value, _marker_title(point, at, outcome, shown))


def _marker_title(reading: Day | Point, at: date, outcome: str, shown: str) -> str:
    expected = expected_text(reading)
    drift = format_drift(reading.value, reading.baseline, reading.drift_pct)
    return f"{_format_time(at)}, {outcome}: {shown} ({drift}){f', expected {expected}' if expected else ''}"


def _format_time(at: date) -> str:
    return format_utc_short(at) if isinstance(at, datetime) else str(at)


def _marker_svg(scale: ChartScale, marker: ChartMarker, size: ChartSize) -> str:
    """Draw a marker. A failure has no value, so it is on the time axis."""
    y = size.height - BOTTOM if marker.value is None else scale.y(marker.value)
    return _symbol(marker.outcome, scale.x(marker.at), y, f"<title>{escape(marker.title)}</title>")


def _band_svg(scale: ChartScale, band: Sequence[ExpectedDay]) -> str:
    """Draw the band as areas. A short gap between two days is closed, and a longer one stays open."""
    areas: list[list[tuple[float, float, float, float]]] = []
    day, right_edge = timedelta(days=1), scale.left + scale.width
    for number, each in enumerate(band):
        following = band[number + 1].day if number + 1 < len(band) else each.day + day
        end = following if following - each.day <= LONGEST_GAP else each.day + day
        # The place of a date is the middle of its day
        half = 0 if isinstance(each.day, datetime) else (scale.x(each.day + day) - scale.x(each.day)) / 2
        left, right = (min(max(scale.x(at) - half, scale.left), right_edge) for at in (each.day, end))
        top, bottom = (scale.y(min(max(value, scale.low), scale.high)) for value in (each.high, each.low))
        if not areas or areas[-1][-1][1] < left:
            areas.append([])
        areas[-1].append((left, right, top, bottom))
    return f'<path class="expected" d="{"".join(map(_area_path, areas))}"/>'


def _area_path(area: Sequence[tuple[float, float, float, float]]) -> str:
    """Return the outline of rectangles side by side: along the upper edges, and back along the lower ones."""
    upper = "".join(f"V{_round(top)}H{_round(right)}" for _, right, top, _ in area)
    lower = "".join(f"V{_round(bottom)}H{_round(left)}" for left, _, _, bottom in reversed(area))
    return f"M{_round(area[0][0])} {_round(area[0][3])}{upper}{lower}Z"


def _dot(scale: ChartScale, at: date, value: float) -> str:
    title = f"<title>{_format_time(at)}: {format_number(value)}</title>"
    return f'<circle class="dot" cx="{_round(scale.x(at))}" cy="{_round(scale.y(value))}" r="2">{title}</circle>'


def _symbol(outcome: str, x: float, y: float, title: str = "") -> str:
    """Draw the symbol of an outcome. Each has its own shape, for readers who cannot distinguish the colours."""
    shapes = {
        "held": "m0 -4.5 4.5 4.5 -4.5 4.5 -4.5 -4.5z",
        "outside": "m-3.5 -3.5h7v7h-7z",
        "rejected": "m-3.5 -3.5 7 7m0 -7 -7 7",
        "failed": "m0 -7v7",
    }
    if outcome in shapes:
        return f'<path class="{outcome}" d="M{_round(x)} {_round(y)}{shapes[outcome]}">{title}</path>'
    return f'<circle class="{escape(outcome)}" cx="{_round(x)}" cy="{_round(y)}" r="3.2">{title}</circle>'


def _round(value: float) -> str:
    """Return a coordinate with at most one decimal. A tenth of a pixel is not visible."""
    return f"{value:.1f}".removesuffix(".0")


def _markup(svg: str) -> Markup:
    """Mark what this module draws as HTML. It escapes every text in it."""
    return Markup(svg)  # noqa: S704
