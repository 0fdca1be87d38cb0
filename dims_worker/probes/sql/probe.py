"""Measure a database: the value of a query, a time, and the names of what a value counts. One snapshot a pass."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Any

from dims_worker.config import SqlMetric, SqlSource
from dims_worker.errors import MeasureError
from dims_worker.probes.base import (
    Deadline,
    Probe,
    Reading,
    ScanContext,
    ScanResult,
    Value,
    exact_reading,
    missing_reading,
    result_of,
    result_or_error,
)
from dims_worker.probes.sql.snapshot import QueryResult, open_snapshot

_HUGE = 1e300

Results = Mapping[str, QueryResult | MeasureError]
"""The result or error of each query, by its text."""


class SqlProbe(Probe[SqlSource, SqlMetric]):
    """Measures databases. No event reports changes in a database: use rules that name the metrics."""

    def scan(
        self, source: SqlSource, metrics: Mapping[str, SqlMetric], context: ScanContext, deadline: Deadline
    ) -> ScanResult:
        """See `Probe.scan`. A query that fails, or has no time left, fails only its own metrics."""
        kept: dict[str, int] = {}
        for metric in metrics.values():
            if metric.rows is not None:
                kept[metric.rows] = max(kept.get(metric.rows, 0), metric.names)
        with open_snapshot(source, context, deadline) as snapshot:
            queries = dict.fromkeys(metric.query for metric in metrics.values())
            values = {query: result_or_error(snapshot.first, query) for query in queries}
            rows = {query: result_or_error(snapshot, query, keep) for query, keep in kept.items()}
        return ScanResult(tuple(_reading(name, metric, values, rows) for name, metric in metrics.items()))


def _reading(name: str, metric: SqlMetric, values: Results, rows: Results) -> Reading:
    try:
        details = _details(metric, rows)
        cell = _cell(result_of(values[metric.query]), metric.column)
    except MeasureError as error:
        return Reading.failed(name, metric.shown_unit, str(error))
    except LookupError as error:
        return missing_reading(name, metric, error.args[0])
    try:
        value = _instant(cell) if metric.is_age else _value(cell)
        return exact_reading(name, metric, value, details)
    except (ValueError, OverflowError) as error:
        return Reading.failed(name, metric.shown_unit, str(error))


def _details(metric: SqlMetric, rows: Results) -> dict[str, Any]:
    """Return the names of what the value counts, as text: the first `names` of `rows_total`."""
    if metric.rows is None:
        return {}
    try:
        answer = result_of(rows[metric.rows])
    except MeasureError as error:
        raise MeasureError(f"`rows`: {error}") from None
    return {"rows": [_text(row[0]) for row in answer.rows[: metric.names]], "rows_total": answer.total}


def _text(name: Any) -> str:
    return name.isoformat() if isinstance(name, date) else str(name).replace("\0", r"\x00")


def _cell(answer: QueryResult, column: str | None) -> Any:
    """Return the column in the first row. Raises LookupError for no row and for NULL, and MeasureError if the column
    is ambiguous or missing."""
    columns = answer.columns
    if column is None and len(columns) != 1:
        raise MeasureError(f"the query returns {len(columns)} columns. Set `column` to one of {', '.join(columns)}")
    if column is not None and columns.count(column) != 1:
        number = "more than one" if column in columns else "no"
        raise MeasureError(f"the query returns {number} column {column!r}. It returns {', '.join(columns)}")
    if not answer.rows:
        raise LookupError("the query returns no row")
    cell = answer.rows[0][0 if column is None else columns.index(column)]
    if cell is None:
        raise LookupError("the query returns NULL")
    return cell


def _value(cell: Any) -> Value:
    """Convert a cell to the value of a reading. Raises ValueError, with the reason, if that is not possible."""
    match cell:
        case bool() | int():
            return cell
        case str():
            return cell.replace("\0", r"\x00")  # PostgreSQL cannot store NUL in a text
        case float() | Decimal():
            if not abs(number := float(cell)) < _HUGE:
                raise ValueError(f"the query returns {cell:g}, which is not a measurement")
            return int(cell) if isinstance(cell, Decimal) and cell == cell.to_integral_value() else number
        case date():  # and datetime
            return cell.isoformat()
        case _:
            raise ValueError(f"the query returns {type(cell).__name__}, not a number, text, truth value or time")


def _instant(cell: Any) -> str:
    """Convert a cell to an instant in UTC. A time without a zone is UTC. Raises ValueError for other values."""
    match cell:
        case datetime():
            moment = cell
        case date():
            moment = datetime.combine(cell, time(), UTC)
        case str():  # SQLite has no type for times
            try:
                moment = datetime.fromisoformat(cell.strip())
            except ValueError:
                raise ValueError(f"the query returns {cell[:50]!r}, which is not a time") from None
        case _:
            raise ValueError(f"the query returns {type(cell).__name__}, which is not a time")
    return (moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)).isoformat()
