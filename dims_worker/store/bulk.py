"""Pass many rows to one statement: a list of mappings as one JSON parameter, which SQL reads as typed columns."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import Column, Table
from sqlalchemy.dialects import postgresql

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
    """Return a value as JSON in which numbers keep their type.

    JSONB reads 1e+22 as an integer, but 10000000000000000000000.0 as a float.
    """
    text = json.dumps(value, default=_plain, ensure_ascii=False, allow_nan=False)
    if "e+" in text:  # Python writes floats from 1e16 on with an exponent
        text = _MARKED.sub(r"\1", json.dumps(_marked(value), default=_plain, ensure_ascii=False, allow_nan=False))
    return text


_MARKED = re.compile(r'"\\u0000(-?\d+\.0)"')
"""A large float after `_marked`. The NUL makes it unique: PostgreSQL stores no text that contains one."""


def _marked(value: Any) -> Any:
    if isinstance(value, float) and abs(value) >= 1e16:
        return f"\0{int(value)}.0"
    if isinstance(value, Mapping):
        return {key: _marked(part) for key, part in value.items()}
    return [_marked(part) for part in value] if isinstance(value, list | tuple) else value


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    raise TypeError(f"{type(value).__name__} cannot be stored")
