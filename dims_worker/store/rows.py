"""Many rows in one statement: a list of mappings as one JSON parameter, read back as typed columns."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import Column, Table
from sqlalchemy.dialects import postgresql

_DIALECT = postgresql.dialect()  # type: ignore[no-untyped-call]


def recordset(table: Table, names: Iterable[str], parameter: str = "rows") -> str:
    """`jsonb_to_recordset(CAST(:rows AS jsonb)) AS r(name type, …)` for columns of a table."""
    columns: list[Column[Any]] = [table.c[name] for name in names]
    typed = ", ".join(f"{column.name} {column.type.compile(dialect=_DIALECT)}" for column in columns)
    return f"jsonb_to_recordset(CAST(:{parameter} AS jsonb)) AS r({typed})"


def as_json(rows: Iterable[Mapping[str, Any]]) -> str:
    """The rows as one JSON text; times in ISO 8601."""
    return json.dumps(list(rows), default=_plain, ensure_ascii=False, allow_nan=False)


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    raise TypeError(f"{type(value).__name__} cannot be stored")
