"""The inventory as an Excel workbook: a sheet for each thing that people sort, filter and draw, with real numbers and
dates (UTC)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, time
from pathlib import Path
from typing import Any

from sqlalchemy import Connection

from dims_worker.analysis.health import MetricHealth, any_number, health_labels, health_sentence
from dims_worker.reports import json_csv, workflow_tables
from dims_worker.reports.inventory import InventoryReport, WorkflowResult
from dims_worker.reports.spreadsheet import NAME, Book, Sheet, new_workbook
from dims_worker.store import point_in_time
from dims_worker.store.approval_requests import list_requests
from dims_worker.store.events import list_events
from dims_worker.store.runs import PastReading, RunRow, list_runs
from dims_worker.workflows import registry

MOST = 100_000
"""So many drifts, runs, requests and events at most."""
READINGS = 1_000_000
"""So many readings at most, an equal part of them for each metric: they fit on a sheet."""
CHARTS = 24
WIDE, HIGH = 9, 16
"""A chart's size in columns and rows."""

LATEST = json_csv.COLUMNS
READING = ("metric", "as_of", "value", "unit", "outcome", "status", "severity", "tier", "drift_pct", "baseline",
           "method", "run_id", "recorded_at", "reason", "error")  # fmt: skip
RUN = ("run_id", "trigger", "source", "status", "started_at", "finished_at", "seconds", "readings", "failed", "held",
       "api_calls", "worker")  # fmt: skip
APPROVAL = ("id", "metric", "kind", "state", "version", "value", "unit", "baseline", "drift_pct", "severity", "reason",
            "as_of", "opened_at", "decided_at", "decided_by", "known_by", "note", "expires_at", "run_id")  # fmt: skip
EVENT = ("seq", "received_at", "type", "subject", "producer", "event_id", "event_time", "outcome", "reason")
WIDTHS = {
    **{"metric": 40, "description": 48, "reason": 40, "error": 40, "note": 30, "state": 22, "subject": 36},
    **{"as_of": 20, "instant": 20, "baseline_as_of": 20, "recorded_at": 20, "started_at": 20, "finished_at": 20},
    **{"opened_at": 20, "decided_at": 20, "expires_at": 20, "received_at": 20, "event_time": 20, "type": 34},
    **{"name": 28, "category": 24, "value": 16, "baseline": 16, "before": 16, "source": 18, "event_id": 38},
    **{"producer": 28, "worker": 20},
}


def write_workbook(connection: Connection, found: InventoryReport, path: Path) -> None:
    """Write the workbook, in the transaction in which `found` was gathered.

    Raises UsageError where XlsxWriter is not installed.
    """
    with new_workbook(path) as book:
        book.workbook.set_properties(
            {"title": f"{found.project}: data inventory", "created": found.now.replace(tzinfo=None)}
        )
        _overview(book, found)
        _table(book, "latest", LATEST, _latest(found))
        _history(book, connection, found)
        known = {one.metric: one for one in found.standings}
        drifts = point_in_time.recent_drifts(connection, list(known), found.since, MOST + 1)
        _newest(book, "drift", READING, [_reading(one, known) for one in drifts])
        runs = list_runs(connection, limit=MOST + 1)
        _newest(book, "runs", RUN, [_run(one) for one in runs if one.started_at > found.since])
        asked = list_requests(connection, limit=MOST + 1)
        _newest(book, "approvals", APPROVAL, [[getattr(one, name) for name in APPROVAL] for one in asked])
        events = [one for one in list_events(connection, limit=MOST + 1) if one.received_at > found.since]
        _newest(book, "events", EVENT, [[getattr(one, name) for name in EVENT] for one in events])
        _trends(book, found)
        for workflow in found.workflows:
            _workflow(book, workflow)


def _table(book: Book, name: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> Sheet:
    sheet = book.sheet(name, [WIDTHS.get(column, 12) for column in columns])
    sheet.table(columns, rows)
    return sheet


def _newest(book: Book, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """The first `MOST` of the rows; where there is one more, the sheet says so."""
    sheet = _table(book, name, columns, rows[:MOST])
    if len(rows) > MOST:
        sheet.note(f"Only the newest {MOST:,} are here")


def _overview(book: Book, found: InventoryReport) -> None:
    sheet = book.sheet("overview", (40, 16, 16, 60))
    sheet.title(f"{found.project}: data inventory")
    sheet.note(health_sentence(found.health))
    sheet.line(["as of", found.now])
    sheet.line(["newest reading", found.newest])
    sheet.line(["history, drift, runs and events since", found.since])
    sheet.line(["metrics", len(found.standings)])
    sheet.line(["well", len(found.well)])
    for word, names in found.health.items():
        sheet.line([word, len(names), None, ", ".join(names)])
    for outcome, number in found.received.items():
        sheet.line([f"events {outcome}", number])
    sheet.at += 1
    rows = (
        [
            category.name,
            len(category.standings),
            sum(bool(health_labels(one)) for one in category.standings),
            ", ".join(one.name for one in category.standings if health_labels(one)),
        ]
        for category in found.categories
    )
    sheet.table(("category", "metrics", "to look at", "which"), rows)


def _latest(found: InventoryReport) -> Iterator[list[Any]]:
    for one in found.standings:
        row = json_csv.metric_row(one, found.now) | {"instant": typed(one, one.state.value)}
        if not one.declared.is_age:
            row["instant"] = None
        yield [row[name] for name in LATEST]


def typed(one: MetricHealth | None, value: Any) -> Any:
    """A value as a cell has it: the instant of an age is a date."""
    if one is not None and one.declared.is_age and isinstance(value, str):
        return datetime.fromisoformat(value)
    return value


def _history(book: Book, connection: Connection, found: InventoryReport) -> None:
    known = {one.metric: one for one in found.standings}
    each = READINGS // max(len(known), 1)
    counted: Counter[str] = Counter()

    def rows() -> Iterator[list[Any]]:
        for reading in point_in_time.readings_since(connection, list(known), found.since, each + 1):
            counted[reading.metric] += 1
            if counted[reading.metric] <= each:
                yield _reading(reading, known)

    sheet = _table(book, "history", READING, rows())
    if cut := [name for name, number in counted.items() if number > each]:
        sheet.note(f"Of these only the newest {each:,} readings are here: {', '.join(cut)}")


def _reading(reading: PastReading, known: Mapping[str, MetricHealth]) -> list[Any]:
    one = known.get(reading.metric)
    values = {"value": typed(one, reading.value), "baseline": typed(one, reading.baseline)}
    return [values[name] if name in values else getattr(reading, name) for name in READING]


def _run(run: RunRow) -> list[Any]:
    took = (run.finished_at - run.started_at).total_seconds()
    return [took if name == "seconds" else getattr(run, name) for name in RUN]


def _trends(book: Book, found: InventoryReport) -> None:
    """A chart a metric on `trends`, drawn from `days`: a row a day, a column a metric."""
    shown = found.trends[:CHARTS] or [one for one in found.standings if any_number(one) and not one.declared.is_age]
    shown = shown[:CHARTS]
    days = sorted({day.day for one in shown for day in one.days})
    values = {(one.metric, day.day): one.number(day.value, day.as_of) for one in shown for day in one.days}
    book_days = book.sheet("days", (20, *(22 for _ in shown)))
    rows = ([midnight(day), *(values.get((one.metric, day)) for one in shown)] for day in days)
    book_days.table(("day", *(one.metric for one in shown)), rows)
    sheet = book.sheet("trends")
    sheet.title(f"{len(shown)} metrics that matter most, a value a day" if shown else "No metric has a number yet")
    for number, one in enumerate(shown, 1):
        row, column = divmod(number - 1, 2)
        _chart(book, sheet, one, number, len(days), (2 + row * HIGH, column * WIDE))


def midnight(day: date) -> datetime:
    return datetime.combine(day, time(), UTC)


def _chart(book: Book, sheet: Sheet, one: MetricHealth, column: int, days: int, at: tuple[int, int]) -> None:
    chart = book.workbook.add_chart({"type": "line"})
    chart.add_series(
        {
            "name": ["days", 0, column],
            "categories": ["days", 1, 0, days, 0],
            "values": ["days", 1, column, days, column],
            "line": {"color": "#2B6CB0", "width": 1.5},
        }
    )
    chart.set_title({"name": f"{one.metric} ({one.unit})" if one.unit else one.metric, "name_font": {"size": 11}})
    chart.set_legend({"none": True})
    chart.set_x_axis({"date_axis": True, "num_format": "d mmm", "major_gridlines": {"visible": False}})
    chart.set_y_axis({"num_format": "#,##0.##", "major_gridlines": {"visible": True, "line": {"color": "#E3E8EC"}}})
    chart.show_blanks_as("gap")
    sheet.sheet.insert_chart(*at, chart, {"x_scale": 1.15, "y_scale": 1.05})


def _workflow(book: Book, found: WorkflowResult) -> None:
    """The result of a workflow: its figures, then each list of it as a table; the longest can be filtered."""
    sheet = book.sheet(found.name[:NAME], (44, 22, *(18 for _ in range(10))))
    sheet.title(f"{found.name}: {registry.result_status(found.result)}")
    sheet.sheet.freeze_panes(1, 1)
    sheet.line(["run", found.run.run_id])
    sheet.line(["began", found.run.started_at])
    for path, value in workflow_tables.figures(found.result):
        sheet.line([path, value])
    tables = workflow_tables.tables(found.result)
    longest = max(tables, key=lambda table: len(table.rows), default=None)
    for table in tables:
        sheet.at += 1
        sheet.title(table.title)
        sheet.table(table.columns, table.rows, head=table is longest)
