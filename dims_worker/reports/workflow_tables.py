"""What a workflow found, as figures and tables: whatever its result holds, however deep, and nothing left as JSON."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

FIRST = ("name", "feed", "folder", "id", "key", "path", "kind", "category", "workflow", "what", "of", "season", "date")
"""Keys that say what a row is about stand before its others: the database keeps keys in an order of its own."""
ASIDE = frozenset({"workflow", "generated_at", "quick", "sections", "unreached", "summary", "attention"})
"""What every result has is told otherwise, and each section of an audit is a result of its own."""


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of one kind; each has a cell for every column, None where it says nothing."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]


def figures(result: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Single values by their paths, `games.all.missing_pct`; what was not reached has None."""
    return [(path, cell_value(value)) for path, value in _singles("", _parts(result))]


def tables(result: Mapping[str, Any]) -> list[Table]:
    """What was not reached, what needs a look, the summary, then each list of the result; so are a row's own lists."""
    found = []
    if result["unreached"]:
        found.append(Table("not reached", ("source", "why"), tuple(sorted(result["unreached"].items()))))
    if result.get("attention"):
        found.append(Table("to look at", ("what",), tuple((one,) for one in result["attention"])))
    if result.get("summary"):
        found.append(Table("summary", ("what", "figure"), tuple(map(tuple, result["summary"]))))
    return [*found, *_lists("", _parts(result))]


def cell_value(value: Any) -> Any:
    """A value as it is; a text that is a day or a time as one, several values as a text."""
    if isinstance(value, list):
        return ", ".join(str(one) for one in value)
    if isinstance(value, str) and value[:4].isdigit() and len(value) >= 10 and value[4] == value[7] == "-":
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            return value
        return moment.replace(tzinfo=moment.tzinfo or UTC)
    if isinstance(value, date) and not isinstance(value, datetime):
        return datetime(value.year, value.month, value.day, tzinfo=UTC)
    return value


def _parts(result: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in result.items() if key not in ASIDE}


def _singles(path: str, part: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(part, Mapping):
        if not _keyed(path, part):
            for key in _ordered(part):
                yield from _singles(_below(path, key), part[key])
    elif not isinstance(part, list):
        yield path, part


def _lists(path: str, part: Any) -> Iterator[Table]:
    if isinstance(part, Mapping) and _keyed(path, part):
        yield from _table(path, [{"name": key, **one} for key, one in part.items()])
    elif isinstance(part, Mapping):
        for key in _ordered(part):
            yield from _lists(_below(path, key), part[key])
    elif isinstance(part, list) and part:
        yield from _table(path, [one if isinstance(one, Mapping) else {"name": one} for one in part])


def _keyed(path: str, part: Mapping[str, Any]) -> bool:
    """Whether a mapping is rows by their names, such as categories: alike, and not parts of a result."""
    inner = list(part.values())
    return (
        bool(path)
        and len(inner) > 1
        and all(isinstance(one, Mapping) and one.keys() == inner[0].keys() for one in inner)
    )


def _table(title: str, rows: Sequence[Mapping[str, Any]]) -> Iterator[Table]:
    """A table, and one for each kind of list that its rows hold, whose rows begin with what they belong to."""
    inner: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        whose = [(f"of {key}", row[key]) for key in FIRST if isinstance(row.get(key), str | int)][:2]
        for key, value in row.items():
            if _nested(value):
                inner.setdefault(key, []).extend({**dict(whose), **one} for one in value)
    plain = [{key: value for key, value in _plain(row) if key not in inner} for row in rows]
    columns = tuple(_ordered(dict.fromkeys(key for row in plain for key in row)))
    yield Table(title, columns, tuple(tuple(row.get(key) for key in columns) for row in plain))
    for key, found in inner.items():
        yield from _table(_below(title, key), found)


def _plain(row: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """A row's cells; what it holds in mappings by dotted names. Its lists of mappings are tables of their own."""
    for key, value in row.items():
        if isinstance(value, Mapping):
            yield from ((_below(key, name), one) for name, one in _plain(value))
        elif not _nested(value):
            yield key, cell_value(value)


def _nested(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(one, Mapping) for one in value)


def _ordered(keys: Mapping[str, Any]) -> list[str]:
    """What says whose a row is, then what it is about, then the others as they come."""
    known = [key for key in keys if key.startswith("of ")] + [key for key in FIRST if key in keys]
    return [*known, *(key for key in keys if key not in known)]


def _below(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key
