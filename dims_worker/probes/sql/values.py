"""Convert what a database returns to the value of a reading, or say which cast to write instead.

PostgreSQL sends each value as text with its type, so no driver rounds or changes it. Formats: manual, chapter 8.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

from dims_worker.config.units import AGES
from dims_worker.errors import MeasureError
from dims_worker.numbers import number_of
from dims_worker.probes.base import Value
from dims_worker.probes.text_values import checked_text

_LAST_YEAR = "a year after 9999. If it counts milliseconds, write to_timestamp(x / 1000.0)"
_NO_FRACTION = re.compile(r"[+-]?\d+")
_ISO_TIME = re.compile(r"\d{4}-\d\d-\d\d([T ].+)?|\d{8}(T.+)?")
_UNUSABLE = {
    "money": "whose text depends on the locale of the server: write CAST(x AS numeric)",
    "json": "not a single value: take one out of it, such as CAST(x ->> 'total' AS numeric)",
    "bytea": "which is binary: write octet_length(x) or encode(x, 'hex')",
    "void": "which is no value: write a query that returns one",
}
_UNUSABLE["record"] = "a row: name one of its columns"
_UNUSABLE["jsonb"] = _UNUSABLE["json"]
_UNUSABLE_CATEGORIES = {
    "A": "an array: write cardinality(x), x[1] or array_to_string(x, ',')",
    "C": "a row: name one of its columns, as in (x).column",
    "R": "a range: write lower(x) or upper(x)",
    "P": "which is no value: write a query that returns one",
}
_AS_TEXT_CATEGORIES = "SEIV"
"""Of PostgreSQL: text, enumerations, network addresses and bit strings."""
_AS_TEXT = frozenset({"uuid", "time", "timetz", "macaddr", "macaddr8", "pg_lsn"})


@dataclass(frozen=True, slots=True)
class ServerType:
    """A type of PostgreSQL: its name, and its category in pg_type."""

    name: str
    category: str


def of_server(written: str, kind: ServerType) -> Any:
    """Return the value that PostgreSQL wrote as text. An interval is written as months and seconds.

    Raises MeasureError, with the cast to write, for a type or a value that is no measurement.
    """
    if reader := _READERS.get(kind.name):
        return reader(written)
    if kind.category in _AS_TEXT_CATEGORIES or kind.name in _AS_TEXT or kind.name.startswith("reg"):
        return written
    why = _UNUSABLE.get(kind.name) or _UNUSABLE_CATEGORIES.get(kind.category) or "write CAST(x AS text)"
    name = f"{kind.name.removeprefix('_')}[]" if kind.category == "A" else kind.name
    raise MeasureError(f"the query returns {name}, {why}")


def _number(written: str) -> Value:
    try:
        return number_of(written)
    except ValueError as error:
        fix = f". {_FINITE}" if written in _NOT_FINITE else ""
        raise MeasureError(f"the query returns {error}{fix}") from None


_NOT_FINITE = ("NaN", "Infinity", "-Infinity", "nan", "inf", "-inf")
_FINITE = "Leave such values out, for example with FILTER (WHERE abs(x) < 'Infinity')"


def _float(written: str) -> float:
    _number(written)  # refuses NaN, infinity and 1e300
    return float(written) + 0.0  # without a sign for zero


def _instant(written: str) -> datetime:
    """Return the time that PostgreSQL wrote in its ISO format."""
    if written.lstrip("-") == "infinity":
        raise MeasureError(
            f"the query returns the time {written!r}. Leave it out, for example with max(x) FILTER (WHERE isfinite(x))"
        )
    if written.endswith("BC"):
        raise MeasureError(f"the query returns {written!r}, a time before the year 1: leave such times out")
    try:
        return datetime.fromisoformat(written)
    except ValueError:
        raise MeasureError(f"the query returns the time {written!r}, which is out of range: {_LAST_YEAR}") from None


def _interval(written: str) -> timedelta:
    months, _, seconds = written.partition(" ")
    if seconds.lstrip("-") in ("Infinity", "NaN"):
        raise MeasureError(f"the query returns the interval {seconds.lower()!r}, which is not a measurement")
    if months != "0":
        raise MeasureError(
            f"the query returns an interval of {months} months, and a month has no fixed length: subtract two times, "
            "or write EXTRACT(epoch FROM x), which counts 30 days for a month"
        )
    try:
        return timedelta(microseconds=int(Decimal(seconds) * 1_000_000))
    except OverflowError:
        raise MeasureError("the query returns an interval that is out of range: write EXTRACT(epoch FROM x)") from None


_READERS: dict[str, Callable[[str], Any]] = {
    **dict.fromkeys(("int2", "int4", "int8", "oid"), int),
    **dict.fromkeys(("float4", "float8"), _float),
    **dict.fromkeys(("timestamp", "timestamptz"), _instant),
    "numeric": _number,
    "bool": lambda written: written in ("t", "true"),
    "date": lambda written: _instant(written).date(),
    "interval": _interval,
}


def value_of(cell: Any, unit: str | None) -> Value:
    """Return the value of a reading. An interval is a number in `unit`, which must be a unit of time.

    Raises MeasureError, with the fix, if the cell holds no such value.
    """
    match cell:
        case MeasureError():
            raise cell
        case bool() | int():
            return cell
        case str():
            return checked_text(cell, "the query returns")
        case float() | Decimal():
            return _number(str(cell)) if isinstance(cell, Decimal) else _float(repr(cell))
        case date() | time():  # and datetime
            return cell.isoformat()
        case timedelta():
            return _in_unit(cell, unit)
        case bytes() | memoryview():
            raise MeasureError("the query returns bytes, not a number: return their length, or hex as text")
        case _:
            kind = type(cell).__name__
            raise MeasureError(f"the query returns {kind}, not a number, text, truth value or time: write a CAST")


def _in_unit(span: timedelta, unit: str | None) -> Value:
    if unit not in AGES:
        raise MeasureError(
            f"the query returns an interval: set `unit` to {', '.join(AGES)}, or write EXTRACT(epoch FROM x), which "
            "returns seconds"
        )
    microseconds = span // timedelta(microseconds=1)
    whole, rest = divmod(microseconds, int(AGES[unit] * 1_000_000))
    return microseconds / (AGES[unit] * 1_000_000) if rest else whole


def instant_of(cell: Any, zone: str) -> tuple[str, bool]:
    """Return an instant in ISO 8601 UTC, and whether `zone` was assumed because the cell has no time zone.

    Raises MeasureError, with the cast to write, for a cell that is not a time.
    """
    moment = _moment(cell)
    naive = moment.tzinfo is None
    try:
        return (moment.replace(tzinfo=ZoneInfo(zone)) if naive else moment).astimezone(UTC).isoformat(), naive
    except OverflowError:
        raise MeasureError(f"the query returns the time {moment.isoformat()!r}, which is out of range") from None


def _moment(cell: Any) -> datetime:
    match cell:
        case MeasureError():
            raise cell
        case datetime():
            return cell
        case date():
            return datetime.combine(cell, time())
        case str():
            text = cell.strip()
            try:
                if _ISO_TIME.fullmatch(text):
                    return datetime.fromisoformat(text)
            except ValueError:
                pass  # the text looks like a time, such as 2026-02-30, and is none: see below
            cast = _EPOCH if _NO_FRACTION.fullmatch(text) else "write CAST(x AS timestamptz) or to_timestamp(x, format)"
            raise MeasureError(f"the query returns {text[:50]!r}, which is not a time in ISO 8601: {cast}")
        case int() | float() | Decimal() if not isinstance(cell, bool):
            raise MeasureError(f"the query returns {type(cell).__name__}, which is not a time: {_EPOCH}")
        case timedelta():
            raise MeasureError(
                "the query returns an interval, which is not a time: return the time that it counts from"
            )
        case _:
            raise MeasureError(f"the query returns {type(cell).__name__}, which is not a time: write a CAST")


_EPOCH = "write to_timestamp(x) for seconds since 1970, or to_timestamp(x / 1000.0) for milliseconds"

MAX_NAME = 1000
"""The most characters of a name in the details of a reading."""


def name_text(name: Any) -> str:
    """Return a name for the details of a reading, cut at `MAX_NAME` characters."""
    text = name.isoformat() if isinstance(name, date | time) else str(name).replace("\0", r"\x00")
    return text if len(text) <= MAX_NAME else f"{text[:MAX_NAME]}…"
