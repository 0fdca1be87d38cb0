"""The inventory for programs: one JSON document, or CSV with a row per metric."""

from __future__ import annotations

import csv
import io
from datetime import datetime
from decimal import Decimal
from typing import Any

from dims_worker.analysis.health import MetricHealth
from dims_worker.numbers import digits_of
from dims_worker.reports.inventory import InventoryReport
from dims_worker.text import metric_values
from dims_worker.text.json_documents import facts, health_document, json_text, request_document
from dims_worker.workflows import registry

COLUMNS = (
    *("metric", "category", "name", "value", "unit", "baseline", "before", "change", "drift_pct", "status"),
    *("severity", "critical", "state", "request", "as_of", "instant", "baseline_as_of", "error", "description"),
    *("method", "notes", "states", "sentence"),
)
"""`state` is the worst state of a metric and `states` are all of them. `sentence` explains the worst."""
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n")
"""A spreadsheet reads a text that starts with one of these as a formula (OWASP, CSV Injection)."""


def render_json(inventory: InventoryReport) -> str:
    """Return the JSON document.

    Numbers keep their type, and times are ISO 8601 in UTC. An age is a number in its unit at `generated_at`; its
    `instant` is the time that it counts from.
    """
    return json_text(json_document(inventory)) + "\n"


def json_document(inventory: InventoryReport) -> dict[str, Any]:
    return {
        "project": inventory.project,
        "generated_at": inventory.now,
        "since": inventory.since,
        "newest": inventory.newest,
        "verdict": inventory.sentence,
        "health": {
            "metrics": len(inventory.metrics),
            "disabled": len(inventory.off),
            "well": len(inventory.well),
            **inventory.health,
        },
        "categories": [
            {
                "category": category.name,
                "feed": category.feed,
                "metrics": [
                    metric_row(metric, inventory.now)
                    | {"health": health_document(metric.health), "days": _daily_rows(metric)}
                    for metric in category.metrics
                ],
            }
            for category in inventory.categories
        ],
        "off": list(inventory.off),
        "incidents": [dict(reported.document) for reported in (*inventory.incidents, *inventory.ended)],
        "changes": [dict(change.document) for change in inventory.changes],
        "requests": [
            request_document(row) | {"decide": metric_values.decide_command(row)} for row in inventory.requests
        ],
        "decided": [request_document(row) for row in inventory.decided],
        "drifts": [facts(row) for row in inventory.drifts],
        "runs": [facts(row) for row in inventory.runs],
        "events": [facts(row) for row in inventory.events],
        "received": inventory.received,
        "gaps": [
            {"metric": metric.metric, "what": gap.name, "total": gap.total, "names": list(gap.named)}
            for metric in inventory.metrics
            for gap in metric.gaps
        ],
        "workflows": {
            workflow.name: {
                "run": workflow.run.run_id,
                "outcome": registry.result_status(workflow.result),
                **workflow.result,
            }
            for workflow in inventory.workflows
        },
    }


def metric_row(metric: MetricHealth, now: datetime) -> dict[str, Any]:
    """Return a metric as a row with the keys of `COLUMNS`."""
    state, is_age = metric.state, metric.declared.is_age
    before = metric.before.value if metric.before else None
    if is_age and metric.before:
        before = metric.number(before, metric.before.as_of)  # the age at that time
    return {
        "metric": metric.metric,
        "category": metric.metric.partition(".")[0],
        "name": metric.name,
        "value": metric.number(state.value, now) if is_age else state.value,
        "unit": metric.unit,
        "baseline": metric.number(state.baseline, now) if is_age else state.baseline,
        "before": before,
        "change": metric.change,
        "drift_pct": state.drift_pct,
        "status": metric.status,
        "severity": state.severity,
        "critical": metric.critical,
        "state": metric.health.label,
        "request": metric.request.id if metric.request else None,
        "as_of": state.as_of,
        "instant": state.value if is_age else None,
        "baseline_as_of": state.baseline_as_of,
        "error": state.error,
        "description": metric.declared.description,
        "method": state.method,
        "notes": "; ".join([*metric.doubts, *(f"left out: {text}" for text in metric.left_out)]) or None,
        "states": metric.health.text,
        "sentence": metric.health.sentence,
    }


def _daily_rows(metric: MetricHealth) -> list[dict[str, Any]]:
    """Return the last judged reading of each day."""
    return [{"day": day.day.isoformat(), "value": day.value, "outcome": day.outcome} for day in metric.days]


def render_csv(inventory: InventoryReport) -> str:
    """Return a header and a row per metric, in the order of the configuration (RFC 4180).

    Numbers are not rounded. A text that a spreadsheet would read as a formula starts with an apostrophe.
    """
    output = io.StringIO()
    writer = csv.writer(output)
    writer.writerow(COLUMNS)
    for metric in inventory.metrics:
        row = metric_row(metric, inventory.now)
        writer.writerow([_csv_cell(row[name]) for name in COLUMNS])
    return output.getvalue()


def _csv_cell(value: Any) -> Any:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Decimal):
        return digits_of(value)
    if isinstance(value, str):
        return f"'{value}" if value.startswith(_FORMULA_STARTS) else value
    return value
