"""Pass many rows to one statement: a list of mappings as one JSON parameter, which SQL reads as typed columns."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import Column, Table
from sqlalchemy.dialects import postgresql

from dims_worker import numbers

_DIALECT = postgresql.dialect()  # type: ignore[no-untyped-call]


def recordset(table: Table, names: Iterable[str], parameter: str = "rows") -> str:
    """Return `jsonb_to_recordset(CAST(:rows AS jsonb)) AS r(name type, …)` for columns of a table."""
    columns: list[Column[Any]] = [table.c[name] for name in names]
    typed = ", ".join(f"{column.name} {column.type.compile(dialect=_DIALECT)}" for column in columns)
    return f"jsonb_to_recordset(CAST(:{parameter} AS jsonb)) AS r({typed})"


def rows_as_json(rows: Iterable[Mapping[str, Any]]) -> str:
    """Return the rows as one JSON text, with times in ISO 8601."""
    return dumps(list(rows))


def dumps(value: Any) -> str:
    """Return a value as JSON in which numbers keep their type and all their digits.

    JSONB reads 1e+22 as an integer, but 10000000000000000000000.0 as a float.
    """
    # The values come from JSON or from rows, so they are not circular. The check would take as long as the rest
    text = numbers.dumps(value, default=_plain, ensure_ascii=False, allow_nan=False, check_circular=False)
    return _with_all_digits(text) if "e+" in text else text  # Python writes floats from 1e16 on with an exponent


_STRING = re.compile(r'("[^"\\]*+(?:\\.[^"\\]*+)*+")')
_LARGE = re.compile(r"-?\d+(?:\.\d+)?e\+\d+")


def _with_all_digits(text: str) -> str:
    """Write large floats of a JSON text without an exponent. Strings stay: the rest is joined with NUL between them."""
    parts = _STRING.split(text)
    numbers = _LARGE.sub(lambda match: f"{int(float(match[0]))}.0", "\0".join(parts[::2]))
    parts[::2] = numbers.split("\0")
    return "".join(parts)


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    raise TypeError(f"{type(value).__name__} cannot be stored")
