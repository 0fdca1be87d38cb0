"""Trends as inline SVG, drawn by ourselves: no script, no font, no library. Colours are the page's classes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import cache
from html import escape
from itertools import repeat

from dims_worker.analysis.health import MetricHealth
from dims_worker.formatting import escape_control, format_drift, format_number, format_value, is_number
from dims_worker.store.history import STANDS, DailyLine, Day, Point

LEFT, RIGHT, TOP, BOTTOM = 46, 8, 8, 20


@dataclass(frozen=True, slots=True)
class ChartSize:
    """A picture's width and height, in user units; `style`: a class of its own beside `trend`."""

    width: int
    height: int
    style: str = ""


SMALL = ChartSize(360, 150)


@dataclass(frozen=True, slots=True)
class ChartMarker:
    """A reading that stood out: `held`, `approved`, `rejected`, `failed`. `value` None: it failed, or was no number."""

    at: date
    outcome: str
    value: float | None
    title: str


@dataclass(frozen=True, slots=True)
class TrendData:
    """How a value went between two moments; all are days, or all are instants.

    `line`: the values that stood. `steps`: the baseline where it moved. `said`: the picture in words. `dots`: each
    value of the line is seen.
    """

    first: date
    last: date
    line: Sequence[tuple[date, float]]
    steps: Sequence[tuple[date, float]]
    marks: Sequence[ChartMarker]
    said: str
    dots: bool = False

    @property
    def values(self) -> list[float]:
        """Everything that stands on the axis of values."""
        marked = [mark.value for mark in self.marks if mark.value is not None]
        return [value for _, value in (*self.line, *self.steps)] + marked


@dataclass(frozen=True, slots=True)
class ChartScale:
    """From days (or instants) and values to places: x to the right, y downwards, both in user units."""

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
        """The `d` of a line through the points."""
        parts: list[str] = []
        for day, value in points:
            x, y = _place(self.x(day)), _place(self.y(value))
            if not parts:
                parts.append(f"M{x} {y}")
            else:
                parts.append(f"H{x}V{y}" if steps else f"L{x} {y}")
        return "".join(parts)


def sparkline(one: MetricHealth, first: date, last: date) -> str:
    """A metric's days in the height of a line; nothing where no day has a number."""
    points = [(day, value) for day, value in _line(one.days) if day >= first]
    line = DailyLine([(day - first).days for day, _ in points], [value for _, value in points])
    return sparkline_svg(line, (last - first).days + 1)


def sparkline_svg(line: DailyLine, days: int) -> str:
    """The same of a line that reaches over so many days. Made for hundreds on one page."""
    if not line.days:
        return ""
    low, high = min(line.values), max(line.values)
    places, span = _places(days), high - low
    heights = (25 - 22 * ((value - low) / span) for value in line.values) if span else repeat(14.0)
    points = [f"{places[day]} {y:.1f}" for day, y in zip(line.days, heights, strict=False)]
    x, _, y = points[-1].partition(" ")
    said = f"{len(points)} days, from {format_number(low)} to {format_number(high)}"
    return (
        f'<svg class="spark" viewBox="0 0 120 28" role="img" aria-label="{said}">'
        f'<path d="M{"L".join(points)}"/><circle cx="{x}" cy="{y}" r="2.2"/></svg>'
    )


@cache
def _places(days: int) -> list[str]:
    """Where each of so many days stands in a sparkline."""
    return [_place(2 + 116 * day / (days - 1) if days > 1 else 60) for day in range(days)]


def metric_trend_svg(one: MetricHealth, first: date, last: date, now: datetime) -> str:
    """A metric's trend: values, the steps of its baseline, and what was held, approved, rejected, or failed."""
    line = list(_line(one.days))
    marks = [_mark(one, point, now) for point in one.marks]
    seen = [mark for mark in marks if mark.at >= first and (mark.outcome == "failed" or mark.value is not None)]
    return trend_svg(TrendData(first, last, line, list(_steps(one.days, last)), seen, _said(one, line)), SMALL)


def trend_svg(course: TrendData, size: ChartSize) -> str:
    """A course as SVG; nothing where it has no number."""
    values = course.values
    if not values:
        return ""
    ticks = _ticks(min(values), max(values))
    scale = ChartScale(course.first, course.last, min(ticks[0], *values), max(ticks[-1], *values), LEFT, TOP,
                  size.width - LEFT - RIGHT, size.height - TOP - BOTTOM)  # fmt: skip
    return "".join(
        (
            f'<svg class="{f"trend {size.style}".strip()}" viewBox="0 0 {size.width} {size.height}" role="img" '
            f'aria-label="{escape(course.said)}">',
            *_grid(scale, ticks, size),
            f'<path class="base" d="{scale.path(course.steps, steps=True)}"/>' if course.steps else "",
            f'<path class="line" d="{scale.path(course.line)}"/>' if course.line else "",
            *(_dot(scale, *one) for one in (course.line if course.dots else ())),
            *(_drawn(scale, mark, size) for mark in course.marks),
            "</svg>",
        )
    )


def legend_html() -> str:
    """What the marks of a trend mean."""
    signs = {
        "accepted": '<path class="line" d="M1 6H21"/>',
        "baseline": '<path class="base" d="M1 6H21"/>',
        **{outcome: _sign(outcome, 11, 6) for outcome in ("held", "approved", "rejected", "failed")},
    }
    drawn = (f'<li><svg viewBox="0 0 22 12" aria-hidden="true">{s}</svg>{name}</li>' for name, s in signs.items())
    return f'<ul class="legend">{"".join(drawn)}</ul>'


def compact(value: float) -> str:
    """172,000 as `172k`: at most four characters and a sign, as an axis wants it."""
    for factor, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= factor and (factor > 1e3 or abs(value) >= 1e4):
            return f"{value / factor:.3g}{letter}" if abs(value) < 1e15 else f"{value:.1e}"
    return f"{value:,.4g}" if abs(value) < 1e4 else f"{value:,.0f}"


def _said(one: MetricHealth, line: Sequence[tuple[date, float]]) -> str:
    marked: dict[str, int] = {}
    for point in one.marks:
        marked[point.outcome] = marked.get(point.outcome, 0) + 1
    ends = f" from {format_number(line[0][1])} to {format_number(line[-1][1])}" if line else ""
    more = "".join(f", {n} {outcome}" for outcome, n in marked.items())
    return f"{one.metric}: {len(line)} days{ends}{more}"


def _line(days: Sequence[Day]) -> Iterator[tuple[date, float]]:
    return ((each.day, float(each.value)) for each in days if is_number(each.value) and each.outcome in STANDS)


def _steps(days: Sequence[Day], last: date) -> Iterator[tuple[date, float]]:
    """The baseline where it moved, and up to the end."""
    known: float | None = None
    for each in days:
        if is_number(each.baseline) and float(each.baseline) != known:
            known = float(each.baseline)
            yield each.day, known
    if known is not None:
        yield last, known


def _ticks(low: float, high: float) -> list[float]:
    """Three to six round numbers that hold the values between them."""
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
        y = _place(scale.y(tick))
        yield f'<path class="rule" d="M{LEFT} {y}H{size.width - RIGHT}"/>'
        yield f'<text x="{LEFT - 6}" y="{y}" dy="3.5" text-anchor="end">{compact(tick)}</text>'
    days = (scale.last - scale.first).days
    labels = ((0.0, "start"), (0.5, "middle"), (1.0, "end"))
    for part, anchor in labels if days > 1 else labels[1:2]:
        day = scale.first + timedelta(days=round(days * part))
        yield f'<text x="{_place(scale.x(day))}" y="{size.height - 5}" text-anchor="{anchor}">{day.day} {day:%b}</text>'


def _mark(one: MetricHealth, point: Point, now: datetime) -> ChartMarker:
    day = point.as_of.astimezone(UTC).date()
    value = float(point.value) if is_number(point.value) else None
    if point.outcome == "failed":
        return ChartMarker(day, "failed", None, f"{day}, failed: {escape_control(point.error or '')}")
    drift = format_drift(point.value, point.baseline, point.drift_pct)
    told = f"{format_value(point.value, point.unit, one.declared, now)} ({drift})"
    return ChartMarker(day, point.outcome, value, f"{day}, {point.outcome}: {told}")


def _drawn(scale: ChartScale, mark: ChartMarker, size: ChartSize) -> str:
    """A failure stands on the axis of time: it has no value."""
    y = size.height - BOTTOM if mark.value is None else scale.y(mark.value)
    return _sign(mark.outcome, scale.x(mark.at), y, f"<title>{escape(mark.title)}</title>")


def _dot(scale: ChartScale, at: date, value: float) -> str:
    title = f"<title>{at:%Y-%m-%d %H:%M}: {format_number(value)}</title>"
    return f'<circle class="dot" cx="{_place(scale.x(at))}" cy="{_place(scale.y(value))}" r="2">{title}</circle>'


def _sign(outcome: str, x: float, y: float, title: str = "") -> str:
    """Each outcome has a shape of its own, for those who do not tell its colour."""
    shapes = {
        "held": "m0 -4.5 4.5 4.5 -4.5 4.5 -4.5 -4.5z",
        "rejected": "m-3.5 -3.5 7 7m0 -7 -7 7",
        "failed": "m0 -7v7",
    }
    at = f"M{_place(x)} {_place(y)}"
    if outcome in shapes:
        return f'<path class="{outcome}" d="{at}{shapes[outcome]}">{title}</path>'
    return f'<circle class="{escape(outcome)}" cx="{_place(x)}" cy="{_place(y)}" r="3.2">{title}</circle>'


def _place(value: float) -> str:
    """With one decimal at most: a tenth of a pixel is more than anybody sees."""
    return f"{value:.1f}".removesuffix(".0")
