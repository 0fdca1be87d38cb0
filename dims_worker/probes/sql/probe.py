"""Measure a database: the value of a query, a time, and the names of what a value counts. One snapshot a pass."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from functools import partial
from typing import Any, Literal, TypeVar

from dims_worker.config import SqlMetric, SqlSource
from dims_worker.errors import MeasureError
from dims_worker.probes.base import (
    Deadline,
    Probe,
    Reading,
    ScanContext,
    ScanResult,
    exact_reading,
    missing_reading,
    result_of,
    result_or_error,
)
from dims_worker.probes.sql.snapshot import QueryResult, QueryTookTooLong, TablesReplaced, open_snapshot
from dims_worker.probes.sql.values import instant_of, value_of

_SNAPSHOTS = 3
"""How often a pass begins at most."""

Role = Literal["value", "rows"]
"""What a query of a metric is for."""

Answers = Mapping[tuple[str, Role], QueryResult | MeasureError]
"""The result or error of each query, by its text and role."""

T = TypeVar("T")
_K = TypeVar("_K", bound=Hashable)


class SqlProbe(Probe[SqlSource, SqlMetric]):
    """Measures databases. No event reports changes in a database: use rules that name the metrics."""

    def scan(
        self, source: SqlSource, metrics: Mapping[str, SqlMetric], context: ScanContext, deadline: Deadline
    ) -> ScanResult:
        """See `Probe.scan`. A query that fails, or takes longer than its share of the time, fails only its own metrics.

        All queries run in one snapshot. If a table of one was replaced meanwhile, all run again in a new one, while the
        time left allows it.
        """
        for _ in range(_SNAPSHOTS):
            begun = deadline.left
            answers = _query_all(source, metrics, context, deadline)
            replaced = any(isinstance(answer, TablesReplaced) for answer in answers.values())
            if not replaced or deadline.left < begun - deadline.left:
                break
        return ScanResult(tuple(_reading(name, metric, answers) for name, metric in metrics.items()))


def _query_all(
    source: SqlSource, metrics: Mapping[str, SqlMetric], context: ScanContext, deadline: Deadline
) -> Answers:
    """Run every query once, in one snapshot."""
    kept: dict[str, int] = {}
    for metric in metrics.values():
        if metric.rows is not None:
            kept[metric.rows] = max(kept.get(metric.rows, 0), metric.names)
    with open_snapshot(source, context, deadline) as snapshot:
        calls: dict[tuple[str, Role], Callable[[Deadline], QueryResult]] = {}
        for query in dict.fromkeys(metric.query for metric in metrics.values()):
            calls[query, "value"] = partial(snapshot.first, query)
        for query, keep in kept.items():
            calls[query, "rows"] = partial(snapshot.names, query, keep)
        return _run_in_shares(calls, deadline)


def _run_in_shares(calls: Mapping[_K, Callable[[Deadline], T]], deadline: Deadline) -> dict[_K, T | MeasureError]:
    """Run the calls one after the other, each within its own share of the time left.

    A call that took too long runs once more at the end, with the time that the others left over, if that is more.
    """
    answers: dict[_K, T | MeasureError] = {}
    late: dict[_K, float] = {}
    for number, (key, call) in enumerate(calls.items()):
        share = deadline.share(len(calls) - number + len(late))
        answers[key] = result_or_error(call, share)
        if isinstance(answers[key], QueryTookTooLong):
            late[key] = share.timeout.total_seconds()
    for number, (key, had) in enumerate(late.items()):
        share = deadline.share(len(late) - number)
        if share.timeout.total_seconds() > had:
            answers[key] = result_or_error(calls[key], share)
    return answers


def _reading(name: str, metric: SqlMetric, answers: Answers) -> Reading:
    try:
        details = _details(metric, answers)
        cell = _cell(result_of(answers[metric.query, "value"]), metric.column)
        if not metric.is_age:
            return exact_reading(name, metric, value_of(cell, metric.unit), details)
        instant, assumed = instant_of(cell, metric.timezone)
        return exact_reading(
            name, metric, instant, details | ({"assumed_timezone": metric.timezone} if assumed else {})
        )
    except MeasureError as error:
        return Reading.failed(name, metric.shown_unit, str(error))
    except LookupError as error:
        return missing_reading(name, metric, error.args[0])


def _details(metric: SqlMetric, answers: Answers) -> dict[str, Any]:
    """Return the names of what the value counts, as text: the first `names` of `rows_total`."""
    if metric.rows is None:
        return {}
    try:
        answer = result_of(answers[metric.rows, "rows"])
    except MeasureError as error:
        raise MeasureError(f"`rows`: {error}") from None
    return {"rows": [row[0] for row in answer.rows[: metric.names]], "rows_total": answer.total}


def _cell(answer: QueryResult, column: str | None) -> Any:
    """Return the column of the only row. Raises LookupError for no row and for NULL, and MeasureError if there are more
    rows, or the column is ambiguous or missing."""
    columns = answer.columns
    if column is None and len(columns) != 1:
        raise MeasureError(f"the query returns {len(columns)} columns. Set `column` to one of {', '.join(columns)}")
    if column is not None and columns.count(column) != 1:
        number = "more than one" if column in columns else "no"
        raise MeasureError(f"the query returns {number} column {column!r}. It returns {', '.join(columns)}")
    if not answer.rows:
        raise LookupError("the query returns no row")
    if answer.total > 1:
        raise MeasureError("the query returns more than one row: aggregate them, or add ORDER BY and LIMIT 1")
    cell = answer.rows[0][0 if column is None else columns.index(column)]
    if cell is None:
        raise LookupError("the query returns NULL")
    return cell
