"""Frames as one Excel workbook, a sheet each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from dims_worker.report.sheet import opened

WIDEST, READ = 60, 200
"""Characters of a column at most; so many rows tell how wide one is."""


def save(path: Path, sheets: Mapping[str, pd.DataFrame]) -> Path:
    """Write the frames; times are UTC, and their headers say so. Returns the path."""
    with opened(path) as book:
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
