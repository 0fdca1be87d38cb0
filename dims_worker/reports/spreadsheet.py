"""Excel workbooks: typed cells, frozen headers, filters and column widths.

XlsxWriter writes row by row to disk (`constant_memory`), so memory does not grow with the rows. Excel's own limits are
1,048,576 rows per sheet, 32,767 characters per cell and 15 digits per number
(https://support.microsoft.com/office/1672b34d-7043-467e-8e27-269d656771c3).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dims_worker.errors import UsageError
from dims_worker.formatting import escape_control, format_number, pluralize
from dims_worker.numbers import digits_of, dumps, fits_float

if TYPE_CHECKING:
    import pandas as pd
    from xlsxwriter import Workbook
    from xlsxwriter.format import Format

MAX_ROWS = 1_048_576
MAX_CHARACTERS = 32_767
MAX_SHEET_NAME = 31
FIRST_UNSAFE_INTEGER = 10**15
LAST_FROZEN_ROW = 24
"""A frozen header further down would leave no room for the rows under it."""
FIRST_DAY = datetime(1900, 3, 1, tzinfo=UTC)
"""Excel treats 1900 as a leap year, so it shows earlier dates wrong."""
LAST_DAY = datetime(9999, 12, 31, tzinfo=UTC)
"""Excel rounds a later time of this day up to the year 10000, which it shows as an error."""
MAX_WIDTH, WIDTH_SAMPLE = 60, 200
"""A column of a frame is as wide as its first rows need, up to a limit."""


@contextmanager
def new_workbook(path: Path) -> Iterator[Book]:
    """Yield a new workbook, which is written when the block ends.

    Raises UsageError where XlsxWriter is not installed.
    """
    try:
        import xlsxwriter
    except ImportError:
        raise UsageError("XlsxWriter is not installed. Run: pip install 'dims-worker[report]'") from None
    options = {"constant_memory": True, "strings_to_formulas": False, "strings_to_urls": False}
    with xlsxwriter.Workbook(str(path), options) as workbook:
        yield Book(workbook)


def save_frames(path: Path, frames: Mapping[str, pd.DataFrame]) -> Path:
    """Write a sheet for each frame and return the path. Times are in UTC, and their headers say so."""
    with new_workbook(path) as book:
        for name, frame in frames.items():
            timed = [hasattr(kind, "tz") for kind in frame.dtypes]
            columns = [
                f"{column} (UTC)" if is_time else str(column) for column, is_time in zip(frame, timed, strict=True)
            ]
            widths = [19 if is_time else _width(frame[column]) for column, is_time in zip(frame, timed, strict=True)]
            rows = frame.astype(object).where(frame.notna(), None).itertuples(index=False, name=None)
            book.sheet(name, widths).table(columns, rows)
    return path


def _width(column: pd.Series[Any]) -> int:
    longest = max((len(str(value)) for value in column.head(WIDTH_SAMPLE)), default=0)
    return min(MAX_WIDTH, max(len(str(column.name)) + 3, longest + 2))


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
        """Return a new, empty sheet. `widths` are in characters."""
        return Sheet(self, name, widths)


class Sheet:
    """A sheet that is written from the top down. `at` is the number of the next row, from 0."""

    def __init__(self, book: Book, name: str, widths: Sequence[int]) -> None:
        self._book = book
        self.sheet = book.workbook.add_worksheet(name[:MAX_SHEET_NAME])
        self.at = 0
        for column, width in enumerate(widths):
            self.sheet.set_column(column, column, width)

    def table(self, columns: Sequence[str], rows: Iterable[Sequence[Any]], *, head: bool = True) -> int:
        """Write a header and rows, and return the number of rows.

        The `head` table of a sheet has a filter and, near the top, a frozen header. The last row counts the rows that
        do not fit.
        """
        first, written, dropped = self.at, 0, 0
        self.line(columns, self._book.head)
        if head and first <= LAST_FROZEN_ROW:
            self.sheet.freeze_panes(self.at, 1)
        for row in rows:
            if self.at >= MAX_ROWS - 1:
                dropped += 1
                continue
            self.line(row)
            written += 1
        if head:
            self.sheet.autofilter(first, 0, max(self.at - 1, first), len(columns) - 1)
        if dropped:
            self.note(f"{pluralize(dropped, 'more row')} did not fit on the sheet. Use --since with a later day.")
        return written + dropped

    def line(self, values: Sequence[Any], style: Format | None = None) -> None:
        for column, value in enumerate(values):
            self._cell(column, value, style)
        self.at += 1

    def note(self, text: str) -> None:
        self.line([text], self._book.note)

    def title(self, text: str) -> None:
        self.line([text], self._book.title)

    def _cell(self, column: int, value: Any, style: Format | None) -> None:
        sheet, row = self.sheet, self.at
        if value is None:
            return
        if isinstance(value, bool):
            sheet.write_boolean(row, column, value, style)
        elif isinstance(value, int) and abs(value) < FIRST_UNSAFE_INTEGER:
            sheet.write_number(row, column, value, style or (self._book.whole if abs(value) >= 1000 else None))
        elif isinstance(value, float) and math.isfinite(value):
            sheet.write_number(row, column, value, style)
        elif isinstance(value, Decimal) and fits_float(value):
            sheet.write_number(row, column, float(value), style)
        elif isinstance(value, datetime) and FIRST_DAY <= value <= LAST_DAY:
            sheet.write_datetime(row, column, value.astimezone(UTC).replace(tzinfo=None), style or self._book.date)
        else:  # always as text, also where it looks like a formula or a link
            sheet.write_string(row, column, cell_text(value), style)


def cell_text(value: Any) -> str:
    """Return a value as the text of a cell: lists and mappings as JSON, long texts cut with their length."""
    if isinstance(value, datetime):
        value = value.isoformat()
    if isinstance(value, Decimal):
        value = digits_of(value)  # a spreadsheet keeps 15 digits of a number, and all of a text
    if isinstance(value, Mapping | list | tuple):
        value = dumps(value, ensure_ascii=False)
    text = escape_control(value)
    if len(text) <= MAX_CHARACTERS:
        return text
    length = f"… ({format_number(len(text))} characters)"
    return text[: MAX_CHARACTERS - len(length)] + length
