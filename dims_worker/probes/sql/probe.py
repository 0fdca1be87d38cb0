"""What a database says: the value of a query, a time, the names of what a value counts. One snapshot a pass."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Any

from dims_worker.config import SqlMetric, SqlSource
from dims_worker.errors import MeasureError
from dims_worker.probes.base import (
    Change,
    Deadline,
    Probe,
    Reading,
    ScanContext,
    ScanResult,
    Value,
    exact_reading,
    instant_text,
    missing_reading,
)
from dims_worker.probes.sql.snapshot import QueryResult, first_column, open_snapshot, query_rows

__all__ = ["QueryResult", "SqlProbe", "first_column", "open_snapshot", "query_rows"]

_HUGE = 1e300

Ran = Mapping[str, QueryResult | MeasureError]
"""What each query gave, by its text."""


class SqlProbe(Probe[SqlSource, SqlMetric]):
    """Measures databases. No event tells what changed in one: a metric follows the rules that name it."""

    judges = ()

    def scan(
        self, source: SqlSource, metrics: Mapping[str, SqlMetric], around: ScanContext, deadline: Deadline
    ) -> ScanResult:
        """See `Probe.scan`. A query that fails, or for which no time is left, fails its own metrics alone."""
        kept: dict[str, int] = {}
        for metric in metrics.values():
            if metric.rows is not None:
                kept[metric.rows] = max(kept.get(metric.rows, 0), metric.names)
        with open_snapshot(source, around, deadline) as ask:
            values = {query: _tried(ask.first, query) for query in dict.fromkeys(m.query for m in metrics.values())}
            rows = {query: _tried(ask, query, keep) for query, keep in kept.items()}
        return ScanResult(tuple(_reading(name, metric, values, rows) for name, metric in metrics.items()))

    def touched(self, source: SqlSource, metric: SqlMetric, change: Change, around: ScanContext) -> str | None:
        """See `Probe.touched`: never, by paths or keys."""
        return None


def _tried(ask: Callable[..., QueryResult], *arguments: Any) -> QueryResult | MeasureError:
    try:
        return ask(*arguments)
    except MeasureError as error:
        return error


def _reading(name: str, metric: SqlMetric, values: Ran, rows: Ran) -> Reading:
    try:
        details = _details(metric, rows)
        found = _cell(_answer(values, metric.query), metric.column)
    except MeasureError as error:
        return Reading.failed(name, metric.shown_unit, str(error))
    except LookupError as error:
        return missing_reading(name, metric, error.args[0])
    try:
        value = _instant(found) if metric.is_age else _value(found)
        return exact_reading(name, metric, value, details)
    except (ValueError, OverflowError) as error:
        return Reading.failed(name, metric.shown_unit, str(error))


def _answer(ran: Ran, query: str) -> QueryResult:
    answer = ran[query]
    if isinstance(answer, MeasureError):
        raise answer
    return answer


def _details(metric: SqlMetric, rows: Ran) -> dict[str, Any]:
    """The names of what the value counts, as text: the first `names` of `rows_total`."""
    if metric.rows is None:
        return {}
    try:
        answer = _answer(rows, metric.rows)
    except MeasureError as error:
        raise MeasureError(f"`rows`: {error}") from None
    return {"rows": [_text(row[0]) for row in answer.rows[: metric.names]], "rows_total": answer.total}


def _text(name: Any) -> str:
    return name.isoformat() if isinstance(name, date) else str(name).replace("\0", r"\x00")


def _cell(answer: QueryResult, column: str | None) -> Any:
    """The wanted column of the first row. Raises LookupError for no row and for NULL, MeasureError where it is
    not clear which column."""
    columns = answer.columns
    if column is None and len(columns) != 1:
        raise MeasureError(f"the query gives {len(columns)} columns; name one in `column`: {', '.join(columns)}")
    if column is not None and columns.count(column) != 1:
        how = "more than one" if column in columns else "no"
        raise MeasureError(f"the query gives {how} column {column!r}, but {', '.join(columns)}")
    if not answer.rows:
        raise LookupError("the query gives no row")
    cell = answer.rows[0][0 if column is None else columns.index(column)]
    if cell is None:
        raise LookupError("the query gives NULL")
    return cell


def _value(cell: Any) -> Value:
    """A cell as a reading's value. Raises ValueError, with the reason, for what is none."""
    match cell:
        case bool() | int():
            return cell
        case str():
            return cell.replace("\0", r"\x00")  # as no text in PostgreSQL can hold it
        case float() | Decimal():
            if not abs(number := float(cell)) < _HUGE:
                raise ValueError(f"the query gives {cell:g}, which is no measurement")
            return int(cell) if isinstance(cell, Decimal) and cell == cell.to_integral_value() else number
        case date():  # and datetime
            return cell.isoformat()
        case _:
            raise ValueError(f"the query gives {type(cell).__name__}, which is no number, text, truth value or time")


def _instant(cell: Any) -> str:
    """A time in UTC, as ages keep it; without a zone it is UTC. Raises ValueError for what is no time."""
    match cell:
        case datetime():
            moment = cell
        case date():
            moment = datetime.combine(cell, time(), UTC)
        case str():  # SQLite has no type for times
            try:
                moment = datetime.fromisoformat(cell.strip())
            except ValueError:
                raise ValueError(f"the query gives {cell[:50]!r}, which is no time") from None
        case _:
            raise ValueError(f"the query gives {type(cell).__name__}, which is no time")
    return instant_text(moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC))
