"""A metric's trend in characters: what became of each reading is told by its sign as well as by its colour."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from rich.text import Text

ROWS = 12
"""Of a chart of numbers."""
STATES = 8
"""So many different texts have a row each; the newest ones."""
NARROWEST = 8
"""Columns of the picture itself, beside its labels, at least."""


@dataclass(frozen=True, slots=True)
class TerminalMarker:
    """How readings of an outcome are drawn; where two fall on one place, the later in `MARKS` is seen."""

    name: str
    sign: str
    plain: str
    style: str


MARKS = {
    "baseline": TerminalMarker("baseline", "─", "-", "dim"),
    "looked": TerminalMarker("looked", "○", "o", "cyan"),
    "accepted": TerminalMarker("accepted", "●", "*", "green"),
    "approved": TerminalMarker("approved", "▲", "A", "bold green"),
    "rejected": TerminalMarker("rejected", "✕", "x", "red"),
    "held": TerminalMarker("held", "◆", "H", "bold yellow"),
    "failed": TerminalMarker("failed", "!", "!", "bold magenta"),
}
_ORDER = {name: place for place, name in enumerate(MARKS)}


@dataclass(frozen=True, slots=True)
class ChartPoint:
    """A reading to be drawn: a number, or a text, boolean or null as the text it is shown as. A failed one has no
    value, and `baseline` is None where there was none to judge against."""

    at: datetime
    outcome: str
    value: float | str | None
    baseline: float | str | None


def draw_chart(
    dots: Sequence[ChartPoint],
    since: datetime,
    until: datetime,
    width: int,
    label: Callable[[Any], str],
    *,
    plain: bool = False,
) -> list[Text]:
    """The lines of a picture at most `width` columns wide (as far as the labels leave room), and its legend.

    Numbers are drawn to scale; where any value is a text, each state has a row. `label` writes a value with its unit.
    `plain`: in ASCII.
    """
    numeric = all(not isinstance(one, str) for dot in dots for one in (dot.value, dot.baseline))
    scale = _NumberRows.of(dots) if numeric else _TextRows.of(dots)
    ticks: Sequence[Any] = scale.ticks
    labels = [label(one) if one is not None else "" for one in ticks]
    margin = max((len(one) for one in labels), default=0)
    columns = max(NARROWEST, width - margin - 3)
    grid = _Grid(columns, len(ticks), since, until)
    for dot in dots:
        grid.draw(dot, scale)
    edge, corner, line = ("|", "+", "-") if plain else ("┤", "└", "─")
    lines = [Text.assemble(f"{label:>{margin}} {edge} ", *grid.row(row, plain)) for row, label in enumerate(labels)]
    if any(grid.failures):
        lines.append(Text.assemble(f"{'failed'[:margin]:>{margin}} {edge} ", *grid.failed()))
    lines.append(Text(f"{'':>{margin}} {corner}{line * (columns + 1)}"))
    lines.append(Text(f"{'':>{margin}}   {_dates(since, until, columns)}"))
    return [*lines, _legend(dots, plain)]


class _NumberRows:
    """Values to scale, the largest in row 0."""

    def __init__(self, low: float, high: float) -> None:
        self.low, self.high = low, high
        rows = ROWS if high > low else 1
        every = {0, rows // 3, rows * 2 // 3, rows - 1}
        self.ticks: list[float | None] = [self._at(row, rows) if row in every else None for row in range(rows)]

    @classmethod
    def of(cls, dots: Iterable[ChartPoint]) -> _NumberRows:
        values = [one for dot in dots for one in (dot.value, dot.baseline) if one is not None]
        numbers = [one for one in values if not isinstance(one, str)]
        return cls(min(numbers), max(numbers)) if numbers else cls(0, 0)

    def _at(self, row: int, rows: int) -> float:
        if row in (0, rows - 1):  # exactly what was measured, an integer as one
            return self.high if row == 0 else self.low
        value = self.high - (self.high / (rows - 1) - self.low / (rows - 1)) * row
        return round(value) if isinstance(self.low, int) and isinstance(self.high, int) else value

    def row(self, value: float | str) -> int | None:
        if isinstance(value, str):
            return None
        if self.high <= self.low:
            return 0
        share = (self.high / 2 - value / 2) / (self.high / 2 - self.low / 2)  # halves: the span may overflow
        return min(ROWS - 1, max(0, math.floor(share * (ROWS - 1) + 0.5)))


class _TextRows:
    """Texts, a row each, the newest in row 0."""

    def __init__(self, states: Sequence[str]) -> None:
        self.ticks: list[str | None] = list(states)

    @classmethod
    def of(cls, dots: Sequence[ChartPoint]) -> _TextRows:
        newest = dict.fromkeys(str(dot.value) for dot in reversed(dots) if dot.value is not None)
        return cls(list(newest)[:STATES])

    def row(self, value: float | str) -> int | None:
        return self.ticks.index(str(value)) if str(value) in self.ticks else None


class _Grid:
    """Columns of time, rows of values; each place holds the most telling outcome that fell there. Dots are drawn
    oldest first."""

    def __init__(self, columns: int, rows: int, since: datetime, until: datetime) -> None:
        self.columns, self.since = columns, since
        self.span = max((until - since) / timedelta(seconds=1), 1e-9)
        self.places: list[list[str | None]] = [[None] * columns for _ in range(rows)]
        self.failures = [False] * columns
        self.drawn = -1

    def draw(self, dot: ChartPoint, scale: _NumberRows | _TextRows) -> None:
        share = (dot.at - self.since) / timedelta(seconds=1) / self.span
        column = min(self.columns - 1, max(0, int(share * self.columns)))
        if dot.outcome == "failed":
            self.failures[column] = True
        elif dot.value is not None:
            self._put(scale.row(dot.value), column, dot.outcome)
        if dot.baseline is not None:  # it stood since the reading before
            row = scale.row(dot.baseline)
            for between in range(self.drawn + 1, column + 1):
                self._put(row, between, "baseline")
        self.drawn = column

    def _put(self, row: int | None, column: int, outcome: str) -> None:
        if row is None:
            return
        there = self.places[row][column]
        if there is None or _ORDER.get(outcome, 0) > _ORDER.get(there, 0):
            self.places[row][column] = outcome

    def row(self, row: int, plain: bool) -> list[tuple[str, str]]:
        marks = (MARKS.get(one or "") for one in self.places[row])
        return [((mark.plain if plain else mark.sign), mark.style) if mark else (" ", "") for mark in marks]

    def failed(self) -> list[tuple[str, str]]:
        return [("!", MARKS["failed"].style) if one else (" ", "") for one in self.failures]


def _dates(since: datetime, until: datetime, columns: int) -> str:
    """The first and the last day and, where there is room, the one between; within two days the time of day."""
    form = "%Y-%m-%d" if until - since > timedelta(days=2) else "%m-%d %H:%M"
    first, middle, last = (one.astimezone(UTC).strftime(form) for one in (since, since + (until - since) / 2, until))
    if columns < len(first) + len(last) + 1:
        return last.rjust(columns)
    between = columns - len(first) - len(last)
    return first + (middle if between >= len(middle) + 2 else "").center(between) + last


def _legend(dots: Sequence[ChartPoint], plain: bool) -> Text:
    """The signs that are in the picture, and how many readings each stands for."""
    parts: list[tuple[str, str] | str] = []
    for name, mark in MARKS.items():
        number = sum(dot.outcome == name for dot in dots)
        if name == "baseline":
            number = any(dot.baseline is not None for dot in dots)
        if number:
            told = name if name == "baseline" else f"{number:,} {name}"
            parts += ["   " if parts else "", (mark.plain if plain else mark.sign, mark.style), f" {told}"]
    return Text.assemble(*parts)
