"""A sheet of a workbook: rows in their order, each value as the type it is, headers that stay, filters, widths.

XlsxWriter writes row by row to disk (`constant_memory`), so the memory it takes does not grow with the rows. What Excel
can hold is bounded: 1,048,576 rows a sheet, 32,767 characters a cell, 15 digits a number
(https://support.microsoft.com/office/1672b34d-7043-467e-8e27-269d656771c3).
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from dims_worker.errors import UsageError
from dims_worker.formatting import escape_control

if TYPE_CHECKING:
    from xlsxwriter import Workbook
    from xlsxwriter.format import Format

ROWS = 1_048_576
LONGEST = 32_767
DIGITS = 10**15
TOP = 20
"""A header further down would leave no room under it."""
NAME = 31
"""Characters of a sheet's name."""
FIRST_DAY = datetime(1900, 3, 1, tzinfo=UTC)
"""Excel takes 1900 for a leap year: before this its dates are another's."""


@contextmanager
def new_workbook(path: Path) -> Iterator[Book]:
    """A new workbook, which is written when the block ends.

    Raises UsageError where XlsxWriter is not installed.
    """
    try:
        import xlsxwriter
    except ImportError:
        raise UsageError("XlsxWriter is not installed: pip install 'dims-worker[report]'") from None
    options = {"constant_memory": True, "strings_to_formulas": False, "strings_to_urls": False}
    with xlsxwriter.Workbook(str(path), options) as made:
        yield Book(made)


class Book:
    """A workbook and the formats that its sheets share."""

    def __init__(self, workbook: Workbook) -> None:
        self.workbook = workbook
        self.head = workbook.add_format({"bold": True, "bg_color": "#E8EEF2", "bottom": 1, "valign": "top"})
        self.date = workbook.add_format({"num_format": "yyyy-mm-dd hh:mm:ss", "align": "left"})
        self.whole = workbook.add_format({"num_format": "#,##0"})
        self.note = workbook.add_format({"italic": True, "font_color": "#5B6770"})
        self.title = workbook.add_format({"bold": True, "font_size": 13})

    def sheet(self, name: str, widths: Sequence[int] = ()) -> Sheet:
        """A new, empty sheet; `widths` in characters."""
        return Sheet(self, name, widths)


class Sheet:
    """Rows are written from the top down; `at` is the next one's number, from 0."""

    def __init__(self, book: Book, name: str, widths: Sequence[int]) -> None:
        self._book = book
        self.sheet = book.workbook.add_worksheet(name[:NAME])
        self.at = 0
        for column, width in enumerate(widths):
            self.sheet.set_column(column, column, width)

    def table(self, columns: Sequence[str], rows: Iterable[Sequence[Any]], *, head: bool = True) -> int:
        """The rows under a header; where it is the sheet's `head`, with a filter, and, at its top, in sight for ever.
        Returns how many there were; those for which the sheet has no room are counted in words in its last row."""
        first, written, beyond = self.at, 0, 0
        self.line(columns, self._book.head)
        if head and first <= TOP:
            self.sheet.freeze_panes(self.at, 1)
        for row in rows:
            if self.at >= ROWS - 1:
                beyond += 1
                continue
            self.line(row)
            written += 1
        if head:
            self.sheet.autofilter(first, 0, max(self.at - 1, first), len(columns) - 1)
        if beyond:
            self.line([f"{beyond:,} more rows do not fit on a sheet: --since a later day"], self._book.note)
        return written + beyond

    def line(self, values: Sequence[Any], style: Format | None = None) -> None:
        """One row."""
        for column, value in enumerate(values):
            self._cell(column, value, style)
        self.at += 1

    def note(self, text: str) -> None:
        self.line([text], self._book.note)

    def title(self, text: str) -> None:
        self.line([text], self._book.title)

    def _cell(self, column: int, value: Any, style: Format | None) -> None:
        sheet, at = self.sheet, self.at
        if value is None:
            return
        if isinstance(value, bool):
            sheet.write_boolean(at, column, value, style)
        elif isinstance(value, int) and abs(value) < DIGITS:
            sheet.write_number(at, column, value, style or (self._book.whole if abs(value) >= 1000 else None))
        elif isinstance(value, float) and math.isfinite(value):
            sheet.write_number(at, column, value, style)
        elif isinstance(value, datetime) and value >= FIRST_DAY:
            sheet.write_datetime(at, column, value.astimezone(UTC).replace(tzinfo=None), style or self._book.date)
        else:  # never as a formula or a link, whatever it looks like
            sheet.write_string(at, column, as_text(value), style)


def as_text(value: Any) -> str:
    """A value as the text of a cell: what is made of parts as JSON, what is too long cut and counted."""
    if isinstance(value, datetime):
        value = value.isoformat()
    if isinstance(value, Mapping | list | tuple):
        value = json.dumps(value, ensure_ascii=False)
    text = escape_control(value)
    if len(text) <= LONGEST:
        return text
    told = f"… ({len(text):,} characters)"
    return text[: LONGEST - len(told)] + told


WIDEST = 60


READ = 200
"""Characters of a column at most; so many rows tell how wide one is."""


def save_frames(path: Path, sheets: Mapping[str, pd.DataFrame]) -> Path:
    """Write the frames; times are UTC, and their headers say so. Returns the path."""
    with new_workbook(path) as book:
        for name, found in sheets.items():
            timed = [isinstance(kind, pd.DatetimeTZDtype) for kind in found.dtypes]
            titles = [
                f"{column} (UTC)" if is_time else str(column) for column, is_time in zip(found, timed, strict=True)
            ]
            widths = [
                19 if is_time else _width(found[column], column) for column, is_time in zip(found, timed, strict=True)
            ]
            book.sheet(name, widths).table(titles, _rows(found))
    return path


def _width(values: pd.Series[Any], title: object) -> int:
    longest = max((len(str(value)) for value in values.head(READ)), default=0)
    return min(WIDEST, max(len(str(title)) + 3, longest + 2))


def _rows(found: pd.DataFrame) -> Iterator[list[Any]]:
    for row in found.itertuples(index=False, name=None):
        yield [_plain(value) for value in row]


def _plain(value: Any) -> Any:
    """What pandas and numpy have of their own as Python's; what is missing as None."""
    if isinstance(value, list | tuple | dict):
        return value
    if pd.isna(value):
        return None
    if isinstance(value, pd.Timestamp):
        return value.to_pydatetime()
    return value.item() if hasattr(value, "item") else value
