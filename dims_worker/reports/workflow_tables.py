"""A workflow's result as figures and tables. This works for any result, and no value stays JSON."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

FIRST_KEYS = (
    "name",
    "feed",
    "folder",
    "id",
    "key",
    "path",
    "kind",
    "category",
    "workflow",
    "what",
    "of",
    "season",
    "date",
)
"""Keys that say what a row is about come first, because the database does not keep the order of keys."""
COMMON_KEYS = frozenset({"workflow", "generated_at", "quick", "sections", "unreached", "summary", "attention"})
"""Keys of every result, which have their own place in a report. A section of an audit is a result of its own."""


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of one kind. Each row has a cell for every column, None where the result has no value."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]


def figures(result: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Return single values with their paths, such as `games.all.missing_pct`; None where a source was not reached."""
    return [(path, cell_value(value)) for path, value in _single_values("", _own_parts(result))]


def tables(result: Mapping[str, Any]) -> list[Table]:
    """Return tables of the unreached sources, of what needs attention, of the summary, and of each list in the
    result, also of the lists within rows."""
    common = []
    if result["unreached"]:
        common.append(Table("not reached", ("source", "why"), tuple(sorted(result["unreached"].items()))))
    if result.get("attention"):
        common.append(Table("needs attention", ("what",), tuple((note,) for note in result["attention"])))
    if result.get("summary"):
        common.append(Table("summary", ("what", "figure"), tuple(map(tuple, result["summary"]))))
    return [*common, *_list_tables("", _own_parts(result))]


def cell_value(value: Any) -> Any:
    """Return a value for a cell: a text that is a day or a time as a datetime, a list as one text."""
    if isinstance(value, list):
        return ", ".join(str(item) for item in value)
    if isinstance(value, str) and value[:4].isdigit() and len(value) >= 10 and value[4] == value[7] == "-":
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            return value
        return moment.replace(tzinfo=moment.tzinfo or UTC)
    if isinstance(value, date) and not isinstance(value, datetime):
        return datetime(value.year, value.month, value.day, tzinfo=UTC)
    return value


def _own_parts(result: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in result.items() if key not in COMMON_KEYS}


def _single_values(path: str, part: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(part, Mapping):
        if not _is_keyed_table(path, part):
            for key in _ordered(part):
                yield from _single_values(_join(path, key), part[key])
    elif not isinstance(part, list):
        yield path, part


def _list_tables(path: str, part: Any) -> Iterator[Table]:
    if isinstance(part, Mapping) and _is_keyed_table(path, part):
        yield from _tables_of_rows(path, [{"name": key, **row} for key, row in part.items()])
    elif isinstance(part, Mapping):
        for key in _ordered(part):
            yield from _list_tables(_join(path, key), part[key])
    elif isinstance(part, list) and part:
        yield from _tables_of_rows(path, [item if isinstance(item, Mapping) else {"name": item} for item in part])


def _is_keyed_table(path: str, part: Mapping[str, Any]) -> bool:
    """Return whether a mapping holds rows by name, such as categories: its values are mappings with the same keys."""
    rows = list(part.values())
    same_keys = all(isinstance(row, Mapping) and row.keys() == rows[0].keys() for row in rows)
    return bool(path) and len(rows) > 1 and same_keys


def _tables_of_rows(title: str, rows: Sequence[Mapping[str, Any]]) -> Iterator[Table]:
    """Yield a table of the rows, then a table for each list within them. Its rows start with the row they belong to."""
    nested: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        parent = dict([(f"of {key}", row[key]) for key in FIRST_KEYS if isinstance(row.get(key), str | int)][:2])
        for key, value in row.items():
            if _is_row_list(value):
                nested.setdefault(key, []).extend({**parent, **item} for item in value)
    plain = [{key: value for key, value in _cells(row) if key not in nested} for row in rows]
    columns = tuple(_ordered(dict.fromkeys(key for row in plain for key in row)))
    yield Table(title, columns, tuple(tuple(row.get(key) for key in columns) for row in plain))
    for key, inner in nested.items():
        yield from _tables_of_rows(_join(title, key), inner)


def _cells(row: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield a row's cells. Values in nested mappings get dotted names."""
    for key, value in row.items():
        if isinstance(value, Mapping):
            yield from ((_join(key, name), cell) for name, cell in _cells(value))
        elif not _is_row_list(value):
            yield key, cell_value(value)


def _is_row_list(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(item, Mapping) for item in value)


def _ordered(keys: Mapping[str, Any]) -> list[str]:
    """Return the keys: what a row belongs to, what it is about, then the others in their order."""
    first = [key for key in keys if key.startswith("of ")] + [key for key in FIRST_KEYS if key in keys]
    return [*first, *(key for key in keys if key not in first)]


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key
