"""The inventory as an Excel workbook: one sheet per kind of data, with native numbers, dates (UTC) and charts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, time
from pathlib import Path
from typing import Any

from sqlalchemy import Connection

from dims_worker.analysis.changes import largest_drifts
from dims_worker.analysis.health import MetricHealth, any_number, health_labels
from dims_worker.config import Metric
from dims_worker.formatting import pluralize
from dims_worker.reports import json_csv, workflow_tables
from dims_worker.reports.inventory import (
    STATE_TITLES,
    InventoryReport,
    ReportedChange,
    ReportedIncident,
    WorkflowResult,
    report_change,
    report_incident,
)
from dims_worker.reports.spreadsheet import Book, Sheet, new_workbook
from dims_worker.store import point_in_time
from dims_worker.store.approval_requests import list_requests
from dims_worker.store.events import list_events
from dims_worker.store.incidents import list_incidents
from dims_worker.store.runs import PastReading, RunRow, list_runs
from dims_worker.workflows import registry

MAX_ROWS = 100_000
"""A sheet lists at most this many closed incidents, changes, drifts, runs, requests or events."""
MAX_READINGS = 1_000_000
"""The readings on the `history` sheet: each metric gets an equal share, and together they fit on one sheet."""
MAX_CHARTS = 24
CHART_COLUMNS, CHART_ROWS = 9, 16
"""The cells that a chart covers."""

LATEST_COLUMNS = json_csv.COLUMNS
INCIDENT_COLUMNS = (
    *("incident", "story", "metric", "kind", "state", "label", "severity", "what", "before", "value", "unit"),
    *("drift_pct", "expected_low", "expected_high", "as_of", "opened_at", "acknowledged_at", "acknowledged_by", "note"),
    *("closed_at", "resolution", "closed_by", "closing_reason", "request", "run_id", "flaps", "owner"),
)
CHANGE_COLUMNS = (
    *("metric", "as_of", "before", "after", "unit", "drift_pct", "expected_low", "expected_high", "band_widths"),
    *("severity", "what", "accepted", "decided_at", "reason", "incident", "request", "run_id"),
)
READING_COLUMNS = (
    *("metric", "as_of", "value", "unit", "outcome", "status", "severity", "tier", "drift_pct", "baseline"),
    *("method", "run_id", "recorded_at", "reason", "error"),
)
RUN_COLUMNS = (
    *("run_id", "trigger", "source", "status", "started_at", "finished_at", "seconds", "readings", "failed", "held"),
    *("api_calls", "worker"),
)
REQUEST_COLUMNS = (
    *("id", "metric", "kind", "state", "version", "value", "unit", "baseline", "drift_pct", "compared_with"),
    *(
        "severity",
        "reason",
        "as_of",
        "opened_at",
        "decided_at",
        "decided_by",
        "known_by",
        "note",
        "expires_at",
        "run_id",
    ),
)
EVENT_COLUMNS = ("seq", "received_at", "type", "subject", "producer", "event_id", "event_time", "outcome", "reason")
WIDTHS = {
    16: ("value", "baseline", "before", "after", "acknowledged_by", "closed_by"),
    20: ("source", "instant", "worker", "state", "category", "label"),
    34: ("name", "producer", "note", "type", "subject"),
    40: ("metric", "reason", "error", "description", "event_id", "notes", "closing_reason", "states"),
    60: ("what", "sentence", "accepted"),
}
"""The columns by their width in characters. Times are 20 wide, other columns 12."""


def write_workbook(connection: Connection, inventory: InventoryReport, path: Path) -> None:
    """Write the workbook, in the transaction in which `inventory` was read.

    Raises UsageError where XlsxWriter is not installed.
    """
    with new_workbook(path) as book:
        created = inventory.now.replace(tzinfo=None)
        book.workbook.set_properties({"title": f"{inventory.project}: data inventory", "created": created})
        _overview(book, inventory)
        _table(book, "latest", LATEST_COLUMNS, _latest_rows(inventory))
        _incidents(book, connection, inventory)
        _changes(book, connection, inventory)
        metrics = {metric.metric: metric for metric in inventory.metrics}
        _history(book, connection, inventory, metrics)
        drifts = point_in_time.recent_drifts(connection, list(metrics), inventory.since, MAX_ROWS + 1)
        _newest(book, "drift", READING_COLUMNS, [_reading_row(reading, metrics) for reading in drifts])
        runs = list_runs(connection, limit=MAX_ROWS + 1)
        _newest(book, "runs", RUN_COLUMNS, [_run_row(run) for run in runs if run.started_at > inventory.since])
        requests = list_requests(connection, limit=MAX_ROWS + 1)
        _newest(book, "approvals", REQUEST_COLUMNS, [_row(request, REQUEST_COLUMNS) for request in requests])
        events = list_events(connection, limit=MAX_ROWS + 1)
        recent = [_row(event, EVENT_COLUMNS) for event in events if event.received_at > inventory.since]
        _newest(book, "events", EVENT_COLUMNS, recent)
        _trends(book, inventory)
        for workflow in inventory.workflows:
            _workflow(book, workflow)


def _table(book: Book, name: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> Sheet:
    sheet = book.sheet(name, [_width(column) for column in columns])
    sheet.table(columns, rows)
    return sheet


def _width(column: str) -> int:
    default = 20 if column.endswith(("_at", "as_of", "_time")) else 12
    return next((width for width, names in WIDTHS.items() if column in names), default)


def _newest(book: Book, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Write the first `MAX_ROWS` rows. Where there are more, the sheet says so."""
    sheet = _table(book, name, columns, rows[:MAX_ROWS])
    if len(rows) > MAX_ROWS:
        sheet.note(f"This sheet has only the newest {pluralize(MAX_ROWS, 'row')}")


def _overview(book: Book, inventory: InventoryReport) -> None:
    sheet = book.sheet("overview", (40, 16, 16, 60))
    sheet.title(f"{inventory.project}: data inventory")
    sheet.note(inventory.sentence)
    sheet.line(["as of", inventory.now])
    sheet.line(["newest reading", inventory.newest])
    sheet.line(["history, drift, changes, runs and events since", inventory.since])
    kinds = Counter(reported.incident.kind for reported in inventory.incidents)
    listed = ", ".join(f"{number} {kind}" for kind, number in kinds.most_common())
    sheet.line(["open incidents", len(inventory.incidents), None, listed])
    sheet.line(["metrics", len(inventory.metrics)])
    sheet.line(["disabled metrics", len(inventory.off)])
    sheet.line(["ok", len(inventory.well)])
    for state, names in inventory.health.items():
        sheet.line([STATE_TITLES.get(state, state), len(names), None, ", ".join(names)])
    for outcome, number in inventory.received.items():
        sheet.line([f"events {outcome}", number])
    sheet.at += 1
    rows = []
    for category in inventory.categories:
        problems = [metric.name for metric in category.metrics if health_labels(metric)]
        rows.append([category.name, len(category.metrics), len(problems), ", ".join(problems)])
    sheet.table(("category", "metrics", "need attention", "which"), rows)


def _incidents(book: Book, connection: Connection, inventory: InventoryReport) -> None:
    """Write the incidents that are not closed, then the newest that ended since then."""
    ended = list_incidents(connection, limit=MAX_ROWS + 1, state="closed", since=inventory.since)
    reported = [report_incident(inventory.config, incident, inventory.now) for incident in ended[:MAX_ROWS]]
    rows = [_incident_row(each) for each in (*inventory.incidents, *reported)]
    sheet = _table(book, "incidents", INCIDENT_COLUMNS, rows)
    if len(ended) > MAX_ROWS:
        sheet.note(f"This sheet has only the newest {pluralize(MAX_ROWS, 'incident')} that ended")


def _incident_row(reported: ReportedIncident) -> list[Any]:
    incident = reported.incident
    row = {
        "incident": incident.id,
        "label": reported.label,
        "what": reported.what,
        "before": _cell(reported.metric, incident.anchor),
        "value": _cell(reported.metric, incident.value),
        "drift_pct": reported.document["drift_pct"],
        "expected_low": incident.low,
        "expected_high": incident.high,
        "owner": reported.document["owner"],
    }
    return [row[name] if name in row else getattr(incident, name) for name in INCIDENT_COLUMNS]


def _changes(book: Book, connection: Connection, inventory: InventoryReport) -> None:
    drifts = largest_drifts(connection, inventory.config, inventory.since, MAX_ROWS + 1)
    changes = [report_change(inventory.config, drift, inventory.now) for drift in drifts[:MAX_ROWS]]
    sheet = _table(book, "changes", CHANGE_COLUMNS, [_change_row(change) for change in changes])
    if len(drifts) > MAX_ROWS:
        sheet.note(f"This sheet has only the largest {pluralize(MAX_ROWS, 'change')}")


def _change_row(change: ReportedChange) -> list[Any]:
    drift = change.drift
    row = {
        "before": _cell(change.metric, drift.before),
        "after": _cell(change.metric, drift.after),
        "expected_low": drift.low,
        "expected_high": drift.high,
        "band_widths": drift.distance,
        "what": change.what,
        "accepted": change.accepted,
        "decided_at": drift.accepted.decided_at,
        "incident": drift.incident.id if drift.incident else None,
        "request": drift.accepted.request,
    }
    return [row[name] if name in row else getattr(drift, name) for name in CHANGE_COLUMNS]


def _latest_rows(inventory: InventoryReport) -> Iterator[list[Any]]:
    for metric in inventory.metrics:
        row = json_csv.metric_row(metric, inventory.now)
        row["instant"] = _cell(metric.declared, metric.state.value) if metric.declared.is_age else None
        yield [row[name] for name in LATEST_COLUMNS]


def _cell(metric: Metric | None, value: Any) -> Any:
    """Return a value for a cell: an age's instant becomes a date."""
    if metric is not None and metric.is_age and isinstance(value, str):
        return datetime.fromisoformat(value)
    return value


def _history(
    book: Book, connection: Connection, inventory: InventoryReport, metrics: Mapping[str, MetricHealth]
) -> None:
    limit = MAX_READINGS // max(len(metrics), 1)
    counts: Counter[str] = Counter()

    def rows() -> Iterator[list[Any]]:
        for reading in point_in_time.readings_since(connection, list(metrics), inventory.since, limit + 1):
            counts[reading.metric] += 1
            if counts[reading.metric] <= limit:
                yield _reading_row(reading, metrics)

    sheet = _table(book, "history", READING_COLUMNS, rows())
    if cut := [name for name, number in counts.items() if number > limit]:
        sheet.note(f"This sheet has only the newest {pluralize(limit, 'reading')} of: {', '.join(cut)}")


def _row(record: Any, columns: Sequence[str]) -> list[Any]:
    return [getattr(record, name) for name in columns]


def _reading_row(reading: PastReading, metrics: Mapping[str, MetricHealth]) -> list[Any]:
    metric = metrics.get(reading.metric)
    declared = metric.declared if metric else None
    typed = {name: _cell(declared, getattr(reading, name)) for name in ("value", "baseline")}
    return [typed[name] if name in typed else getattr(reading, name) for name in READING_COLUMNS]


def _run_row(run: RunRow) -> list[Any]:
    seconds = (run.finished_at - run.started_at).total_seconds()
    return [seconds if name == "seconds" else getattr(run, name) for name in RUN_COLUMNS]


def _trends(book: Book, inventory: InventoryReport) -> None:
    """Draw a chart for each metric on `trends` from the sheet `days`, which has a row per day and a column per
    metric."""
    numeric = [metric for metric in inventory.metrics if any_number(metric) and not metric.declared.is_age]
    metrics = (inventory.trends or numeric)[:MAX_CHARTS]
    days = sorted({day.day for metric in metrics for day in metric.days})
    values = {
        (metric.metric, day.day): metric.number(day.value, day.as_of) for metric in metrics for day in metric.days
    }
    rows = ([_midnight(day), *(values.get((metric.metric, day)) for metric in metrics)] for day in days)
    book.sheet("days", (20, *(22 for _ in metrics))).table(("day", *(metric.metric for metric in metrics)), rows)
    sheet = book.sheet("trends")
    sheet.title(
        f"The {len(metrics)} most important metrics, one value per day" if metrics else "No metric has a number yet"
    )
    for number, metric in enumerate(metrics):
        row, column = divmod(number, 2)
        _chart(book, sheet, metric, number + 1, len(days), (2 + row * CHART_ROWS, column * CHART_COLUMNS))


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time(), UTC)


def _chart(book: Book, sheet: Sheet, metric: MetricHealth, column: int, days: int, cell: tuple[int, int]) -> None:
    chart = book.workbook.add_chart({"type": "line"})
    chart.add_series(
        {
            "name": ["days", 0, column],
            "categories": ["days", 1, 0, days, 0],
            "values": ["days", 1, column, days, column],
            "line": {"color": "#2B6CB0", "width": 1.5},
        }
    )
    title = f"{metric.metric} ({metric.unit})" if metric.unit else metric.metric
    chart.set_title({"name": title, "name_font": {"size": 11}})
    chart.set_legend({"none": True})
    chart.set_x_axis({"date_axis": True, "num_format": "d mmm", "major_gridlines": {"visible": False}})
    chart.set_y_axis({"num_format": "#,##0.##", "major_gridlines": {"visible": True, "line": {"color": "#E3E8EC"}}})
    chart.show_blanks_as("gap")
    sheet.sheet.insert_chart(*cell, chart, {"x_scale": 1.15, "y_scale": 1.05})


def _workflow(book: Book, workflow: WorkflowResult) -> None:
    """Write a workflow's result: its figures, then its lists as tables. The longest table has the filter."""
    sheet = book.sheet(workflow.name, (44, 22, *(18 for _ in range(10))))
    sheet.title(f"{workflow.name}: {registry.result_status(workflow.result)}")
    sheet.sheet.freeze_panes(1, 1)
    sheet.line(["run", workflow.run.run_id])
    sheet.line(["started", workflow.run.started_at])
    for path, value in workflow_tables.figures(workflow.result):
        sheet.line([path, value])
    tables = workflow_tables.tables(workflow.result)
    longest = max(tables, key=lambda table: len(table.rows), default=None)
    for table in tables:
        sheet.at += 1
        sheet.title(table.title)
        sheet.table(table.columns, table.rows, head=table is longest)
