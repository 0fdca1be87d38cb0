"""Frames as one Excel workbook, a sheet each: real numbers and dates, frozen headers, filters, and no formulas."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import xlsxwriter

_EXACT = 10**15
"""Excel keeps 15 digits of a number: a larger whole one is written as a text, whole."""
_LONGEST, _ROWS = 32_767, 1_048_576


def save(path: Path, sheets: Mapping[str, pd.DataFrame]) -> Path:
    """Write the frames; times are UTC, and their headers say so. Returns the path.

    Raises:
        ValueError: a frame has more rows than a sheet.
    """
    options = {"strings_to_formulas": False, "strings_to_urls": False, "strings_to_numbers": False}
    with xlsxwriter.Workbook(str(path), options) as book:
        head = book.add_format({"bold": True, "bg_color": "#E6EEF4", "bottom": 1, "bottom_color": "#8A8F98"})
        formats = {
            "time": book.add_format({"num_format": "yyyy-mm-dd hh:mm:ss"}),
            "int": book.add_format({"num_format": "#,##0"}),
        }
        for name, found in sheets.items():
            if len(found) >= _ROWS:
                raise ValueError(
                    f"{name}: {len(found):,} rows, and a sheet of Excel holds {_ROWS - 1:,}: ask for fewer days"
                )
            _write(book.add_worksheet(name[:31]), found, head, formats)
    return path


def _write(sheet: Any, found: pd.DataFrame, head: Any, formats: Mapping[str, Any]) -> None:
    for column, name in enumerate(found.columns):
        timed = isinstance(found[name].dtype, pd.DatetimeTZDtype)
        title = f"{name} (UTC)" if timed else str(name)
        sheet.write_string(0, column, title, head)
        widest = len(title) + 3
        for row, value in enumerate(found[name].tolist(), start=1):
            widest = max(widest, _cell(sheet, row, column, value, formats))
        sheet.set_column(column, column, min(60, widest + 1))
    sheet.freeze_panes(1, 1)
    if len(found.columns):
        sheet.autofilter(0, 0, max(1, len(found)), len(found.columns) - 1)


def _cell(sheet: Any, row: int, column: int, value: Any, formats: Mapping[str, Any]) -> int:
    """Write a value as what it is; how wide it is shown. What is missing is an empty cell."""
    if isinstance(value, list | tuple | dict):
        said = str(value)[:_LONGEST]
    elif pd.isna(value):
        return 0
    elif isinstance(value, bool):
        sheet.write_boolean(row, column, value)
        return 5
    elif isinstance(value, pd.Timestamp):
        sheet.write_datetime(row, column, value.tz_convert("UTC").tz_localize(None).to_pydatetime(), formats["time"])
        return 19
    elif isinstance(value, int) and abs(value) < _EXACT:
        sheet.write_number(row, column, value, formats["int"])
        return len(f"{value:,}")
    elif isinstance(value, float) and abs(value) != float("inf"):
        sheet.write_number(row, column, value)
        return 10
    else:
        said = str(value)[:_LONGEST]
    sheet.write_string(row, column, said)
    return len(said)
