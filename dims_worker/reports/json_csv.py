"""The inventory for programs: one JSON document, or CSV with a row a metric."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from dims_worker.analysis.health import MetricHealth, health_labels, health_sentence
from dims_worker.reports.inventory import InventoryReport
from dims_worker.text import metric_values
from dims_worker.workflows import registry

COLUMNS = (
    *("metric", "category", "name", "value", "unit", "baseline", "before", "change", "drift_pct", "status"),
    *("severity", "critical", "state", "request", "as_of", "instant", "baseline_as_of", "error", "description"),
)
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")
"""What a spreadsheet takes for the beginning of a formula (OWASP, CSV Injection)."""


def render_json(inventory: InventoryReport) -> str:
    """Numbers keep their type, times are ISO 8601 in UTC. An age is a number in its unit at `generated_at`; the
    instant it counts from stands beside it."""
    return json.dumps(json_document(inventory), default=_plain, indent=2, ensure_ascii=False) + "\n"


def json_document(inventory: InventoryReport) -> dict[str, Any]:
    """The same before it is text."""
    return {
        "project": inventory.project,
        "generated_at": inventory.now,
        "since": inventory.since,
        "newest": inventory.newest,
        "verdict": health_sentence(inventory.health),
        "health": {"metrics": len(inventory.standings), "well": len(inventory.well), **inventory.health},
        "categories": [
            {
                "category": category.name,
                "feed": category.feed,
                "metrics": [metric_row(one, inventory.now) | {"days": daily_rows(one)} for one in category.standings],
            }
            for category in inventory.categories
        ],
        "off": list(inventory.off),
        "requests": [_slots(one) | {"decide": metric_values.decide_command(one)} for one in inventory.requests],
        "decided": _all(inventory.decided),
        "drifts": _all(inventory.drifts),
        "runs": _all(inventory.runs),
        "events": _all(inventory.events),
        "received": inventory.received,
        "gaps": [
            {"metric": one.metric, "what": gap.name, "total": gap.total, "names": list(gap.named)}
            for one in inventory.standings
            for gap in one.gaps
        ],
        "workflows": {
            one.name: {"run": one.run.run_id, "outcome": registry.result_status(one.result), **one.result}
            for one in inventory.workflows
        },
    }


def metric_row(one: MetricHealth, now: datetime) -> dict[str, Any]:
    """A metric as a row: the keys of `COLUMNS`."""
    state, is_age = one.state, one.declared.is_age
    before = one.before.value if one.before else None
    if is_age and one.before:
        before = one.number(before, one.before.as_of)  # as old as it was then
    return {
        "metric": one.metric,
        "category": one.metric.partition(".")[0],
        "name": one.name,
        "value": one.number(state.value, now) if is_age else state.value,
        "unit": one.unit,
        "baseline": one.number(state.baseline, now) if is_age else state.baseline,
        "before": before,
        "change": one.change,
        "drift_pct": state.drift_pct,
        "status": one.status,
        "severity": state.severity,
        "critical": one.critical,
        "state": ", ".join(health_labels(one)) or "ok",
        "request": one.request.id if one.request else None,
        "as_of": state.as_of,
        "instant": state.value if is_age else None,
        "baseline_as_of": state.baseline_as_of,
        "error": state.error,
        "description": one.declared.description,
    }


def daily_rows(one: MetricHealth) -> list[dict[str, Any]]:
    """A metric's last judged reading of each day."""
    return [{"day": each.day.isoformat(), "value": each.value, "outcome": each.outcome} for each in one.days]


def render_csv(inventory: InventoryReport) -> str:
    """A header and a row a metric, in the order of the configuration (RFC 4180). Numbers are unrounded; a text that a
    spreadsheet would take for a formula has an apostrophe before it."""
    written = io.StringIO()
    writer = csv.writer(written)
    writer.writerow(COLUMNS)
    for one in inventory.standings:
        row = metric_row(one, inventory.now)
        writer.writerow([_cell(row[name]) for name in COLUMNS])
    return written.getvalue()


def _cell(value: Any) -> Any:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, str):
        return f"'{value}" if value.startswith(_FORMULA) else value
    return value


def _slots(row: Any) -> dict[str, Any]:
    return {name: getattr(row, name) for name in row.__slots__}


def _all(rows: Iterable[Any]) -> list[dict[str, Any]]:
    return [_slots(row) for row in rows]


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} has no JSON form")
