"""Draw the trend of a metric in characters. Each outcome has its own sign and its own colour."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from rich.text import Text

from dims_worker.formatting import format_day, format_utc_short

ROWS = 12
"""Rows of a chart of numbers."""
MOST_TEXTS = 8
"""At most this many different texts have a row, the newest ones."""
FEWEST_COLUMNS = 8
"""The plot has at least this many columns beside its labels."""


@dataclass(frozen=True, slots=True)
class TerminalMarker:
    """How an outcome is drawn. Where two readings overlap, the marker that is later in `MARKERS` is drawn."""

    name: str
    sign: str
    plain: str
    style: str


MARKERS = {
    "expected": TerminalMarker("expected", "░", ":", "blue"),
    "baseline": TerminalMarker("baseline", "─", "-", "dim"),
    "looked": TerminalMarker("looked", "○", "o", "cyan"),
    "accepted": TerminalMarker("accepted", "●", "*", "green"),
    "outside": TerminalMarker("outside", "■", "#", "bold red"),
    "approved": TerminalMarker("approved", "▲", "A", "bold green"),
    "rejected": TerminalMarker("rejected", "✕", "x", "red"),
    "held": TerminalMarker("held", "◆", "H", "bold yellow"),
    "failed": TerminalMarker("failed", "!", "!", "bold magenta"),
}
_PRIORITY = {name: index for index, name in enumerate(MARKERS)}


@dataclass(frozen=True, slots=True)
class ChartPoint:
    """A reading to draw: a number, or the text of a text, boolean or null.

    A failed reading has no value. `baseline` is None if there was none to compare with. `outcome` is `outside` for an
    accepted value outside its band. `expected` is the band that it was judged by, or None if there was none.
    """

    at: datetime
    outcome: str
    value: float | str | None
    baseline: float | str | None
    expected: tuple[float, float] | None = None


def draw_chart(
    points: Sequence[ChartPoint],
    since: datetime,
    until: datetime,
    width: int,
    label: Callable[[Any], str],
    *,
    plain: bool = False,
) -> list[Text]:
    """Return the lines of a chart, and its legend.

    The chart is `width` columns wide, or wider if the labels leave no room for the plot. Numbers are drawn to scale. If
    any value is a text, each text has a row. `label` formats a value with its unit. `plain` draws in ASCII.
    """
    numeric = all(not isinstance(value, str) for point in points for value in (point.value, point.baseline))
    scale = _NumberRows(points) if numeric else _TextRows(points)
    ticks: Sequence[Any] = scale.ticks
    labels = [label(tick) if tick is not None else "" for tick in ticks]
    margin = max((len(text) for text in labels), default=0)
    columns = max(FEWEST_COLUMNS, width - margin - 3)
    grid = _Grid(columns, len(ticks), since, until)
    for point in points:
        grid.draw(point, scale)
    edge, corner, line = ("|", "+", "-") if plain else ("┤", "└", "─")
    lines = [Text.assemble(f"{text:>{margin}} {edge} ", *grid.row(row, plain)) for row, text in enumerate(labels)]
    if any(grid.failures):
        lines.append(Text.assemble(f"{'failed'[:margin]:>{margin}} {edge} ", *grid.failed()))
    lines.append(Text(f"{'':>{margin}} {corner}{line * (columns + 1)}"))
    lines.append(Text(f"{'':>{margin}}   {_dates(since, until, columns)}"))
    return [*lines, _legend(points, plain)]


class _NumberRows:
    """Rows for numbers to scale, with the largest in row 0."""

    def __init__(self, points: Sequence[ChartPoint]) -> None:
        values = [value for point in points for value in (point.value, point.baseline)]
        numbers = [value for value in values if value is not None and not isinstance(value, str)]
        self.low, self.high = min(numbers, default=0), max(numbers, default=0)
        self._widen([point.expected for point in points if point.expected])
        if not numbers:
            self.ticks: list[float | None] = [None]
            return
        rows = ROWS if self.high > self.low else 1
        labelled = {0, rows // 3, rows * 2 // 3, rows - 1}
        self.ticks = [self._value_at(row, rows) if row in labelled else None for row in range(rows)]

    def _widen(self, bands: Sequence[tuple[float, float]]) -> None:
        """Make room for the bands, which may double the axis. A wider one would flatten the values."""
        if not bands:
            return
        reach = max(self.high - self.low, 0.1 * max(abs(self.low), abs(self.high)))
        low, high = min(low for low, _ in bands), max(high for _, high in bands)
        self.low = min(self.low, max(low, self.low - reach))
        self.high = max(self.high, min(high, self.high + reach))

    def rows_between(self, low: float, high: float) -> range:
        """Return the rows of a band, as far as they are in the chart."""
        if high < self.low or low > self.high:
            return range(0)
        first, last = self.row(min(high, self.high)), self.row(max(low, self.low))
        return range(first or 0, (last or 0) + 1)

    def _value_at(self, row: int, rows: int) -> float:
        if row in (0, rows - 1):  # exactly the measured value: an integer stays an integer
            return self.high if row == 0 else self.low
        value = self.high - (self.high / (rows - 1) - self.low / (rows - 1)) * row
        return round(value) if isinstance(self.low, int) and isinstance(self.high, int) else value

    def row(self, value: float | str) -> int | None:
        if isinstance(value, str):
            return None
        if self.high <= self.low:
            return 0
        share = (self.high / 2 - value / 2) / (self.high / 2 - self.low / 2)  # halves, because the span can overflow
        return min(ROWS - 1, max(0, math.floor(share * (ROWS - 1) + 0.5)))


class _TextRows:
    """One row for each text, with the newest in row 0."""

    def __init__(self, points: Sequence[ChartPoint]) -> None:
        newest = dict.fromkeys(str(point.value) for point in reversed(points) if point.value is not None)
        self.ticks = list(newest)[:MOST_TEXTS]

    def row(self, value: float | str) -> int | None:
        return self.ticks.index(str(value)) if str(value) in self.ticks else None


class _Grid:
    """A grid with columns of time and rows of values. Each cell holds its outcome with the highest priority.

    Points must be drawn from the oldest to the newest.
    """

    def __init__(self, columns: int, rows: int, since: datetime, until: datetime) -> None:
        self.columns, self.since = columns, since
        self.span = max((until - since) / timedelta(seconds=1), 1e-9)
        self.cells: list[list[str | None]] = [[None] * columns for _ in range(rows)]
        self.failures = [False] * columns
        self.last_column = -1

    def draw(self, point: ChartPoint, scale: _NumberRows | _TextRows) -> None:
        share = (point.at - self.since) / timedelta(seconds=1) / self.span
        column = min(self.columns - 1, max(0, int(share * self.columns)))
        if point.outcome == "failed":
            self.failures[column] = True
        elif point.value is not None:
            self._put(scale.row(point.value), column, point.outcome)
        if point.baseline is not None:  # it was in force since the previous reading
            row = scale.row(point.baseline)
            for between in range(self.last_column + 1, column + 1):
                self._put(row, between, "baseline")
        if point.expected is not None and isinstance(scale, _NumberRows):
            for row in scale.rows_between(*point.expected):
                for between in range(min(self.last_column + 1, column), column + 1):
                    self._put(row, between, "expected")
        self.last_column = column

    def _put(self, row: int | None, column: int, outcome: str) -> None:
        if row is None:
            return
        current = self.cells[row][column]
        if current is None or _PRIORITY.get(outcome, 0) > _PRIORITY.get(current, 0):
            self.cells[row][column] = outcome

    def row(self, row: int, plain: bool) -> list[tuple[str, str]]:
        markers = (MARKERS.get(outcome or "") for outcome in self.cells[row])
        return [((each.plain if plain else each.sign), each.style) if each else (" ", "") for each in markers]

    def failed(self) -> list[tuple[str, str]]:
        return [("!", MARKERS["failed"].style) if failed else (" ", "") for failed in self.failures]


def _dates(since: datetime, until: datetime, columns: int) -> str:
    """Return the first and the last day and, if there is room, the middle one. A span under two days has times."""
    form = format_day if until - since > timedelta(days=2) else format_utc_short
    first, middle, last = (form(time) for time in (since, since + (until - since) / 2, until))
    if columns < len(first) + len(last) + 1:
        return last.rjust(columns)
    between = columns - len(first) - len(last)
    return first + (middle if between >= len(middle) + 2 else "").center(between) + last


def _legend(points: Sequence[ChartPoint], plain: bool) -> Text:
    """Return the signs in the chart, and how many readings each one has."""
    parts: list[tuple[str, str] | str] = []
    for name, marker in MARKERS.items():
        count = sum(point.outcome == name for point in points)
        text = f"{count:,} {name}"
        if name in ("baseline", "expected"):
            text, count = name, sum(getattr(point, name) is not None for point in points)
        if count:
            parts += ["   " if parts else "", (marker.plain if plain else marker.sign, marker.style), f" {text}"]
    return Text.assemble(*parts)
