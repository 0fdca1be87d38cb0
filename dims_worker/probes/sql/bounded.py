"""Write the query that returns values of PostgreSQL as text, never longer than DIMS stores, with their types."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from dims_worker.errors import MeasureError
from dims_worker.probes.sql.values import MAX_NAME, ServerType, name_text, of_server
from dims_worker.probes.text_values import MAX_TEXT, text_too_long

_INET, _INTERVAL, _VOID = 869, 1186, 2278
"""The numbers of these types in pg_type, the same in every PostgreSQL."""

_SECONDS = (
    "CASE WHEN isfinite({x}) THEN (extract(year FROM {x}) * 12 + extract(month FROM {x}))::bigint::text || ' ' || "
    "extract(epoch FROM {x})::text WHEN {x} IS NOT NULL THEN '0 Infinity' END"
)
_TYPE = "(SELECT typname || ' ' || typcategory::text FROM pg_catalog.pg_type WHERE oid = {type})"


@dataclass(frozen=True, slots=True)
class ServerColumn:
    """A column of a query: its name, and the number of its type in pg_type."""

    name: str
    type: int


def description(inner: str) -> str:
    """Return a query with the columns of `inner` and without rows."""
    return f"SELECT * FROM (\n{inner}\n) AS dims_query LIMIT 0"  # noqa: S608 - the query of the user


def columns(described: Sequence[Any]) -> Sequence[ServerColumn]:
    """Return the columns that a cursor describes (PEP 249)."""
    return tuple(ServerColumn(column[0], int(column[1])) for column in described)


def values(inner: str, described: Sequence[ServerColumn]) -> str:
    """Return a query for the first two rows: of each column its text, its bytes, and its type."""
    parts = []
    for number, column in enumerate(described, 1):
        written = _text(f"c{number}", column)
        size = f"octet_length({written})"
        parts.append(f"CASE WHEN {size} <= {MAX_TEXT} THEN {written} END, {size}, {_TYPE.format(type=column.type)}")
    return f"SELECT {', '.join(parts)} FROM {_from(inner, described)} LIMIT 2"  # noqa: S608 - the query of the user


def cells(row: Sequence[Any]) -> Iterator[Any]:
    """Return the values of a row of `values`. One that cannot be a measurement is a MeasureError."""
    for written, size, kind in zip(row[::3], row[1::3], row[2::3], strict=True):
        try:
            yield _cell(written, size, kind)
        except MeasureError as error:
            yield error


def _cell(written: str | None, size: int | None, kind: str) -> Any:
    server_type = ServerType(*kind.rsplit(" ", 1))
    if size is not None and written is None:
        raise text_too_long(size, "the query returns")
    if written is None and server_type.name != "void":
        return None
    return of_server(written or "", server_type)


def names(inner: str, described: Sequence[ServerColumn]) -> str:
    """Return a query for all rows: of the first column its text, cut, and its type."""
    written = "c1::text" if described and described[0].type != _VOID else "NULL::text"
    kind = _TYPE.format(type=described[0].type) if described else "NULL"
    return f"SELECT left({written}, {MAX_NAME + 1}) AS name, {kind} AS kind FROM {_from(inner, described)}"  # noqa: S608 - the query of the user


def name_of(row: Sequence[Any]) -> str:
    """Return the name in a row of `names`. A time is in ISO 8601."""
    written, kind = row
    if written is not None and kind.split(" ")[0] in ("date", "timestamp", "timestamptz"):
        try:
            return name_text(of_server(written, ServerType(*kind.rsplit(" ", 1))))
        except MeasureError:
            return name_text(written)  # infinity, or a year that Python does not know: a name all the same
    return name_text(written)


def _from(inner: str, described: Sequence[ServerColumn]) -> str:
    # OFFSET 0 makes the server compute each column once, however often it is used
    names = ", ".join(f"c{number}" for number in range(1, len(described) + 1))
    alias = f"dims_row({names})" if names else "dims_row"
    return f"(SELECT * FROM (\n{inner}\n) AS dims_query OFFSET 0) AS {alias}"  # noqa: S608 - the query of the user


def _text(name: str, column: ServerColumn) -> str:
    if column.type == _VOID:
        return "NULL::text"
    if column.type == _INET:
        return f"CASE WHEN {name} IS NOT NULL THEN format('%s', {name}) END"  # a cast would add /32
    return f"({_SECONDS.format(x=name)})" if column.type == _INTERVAL else f"{name}::text"
