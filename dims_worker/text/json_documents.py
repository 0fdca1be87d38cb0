"""Build the JSON documents that `--json` prints and that the API of the dashboard returns."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection

from dims_worker.config import Config, Metric
from dims_worker.config.units import AGES
from dims_worker.domain.decide import age_of
from dims_worker.domain.health import RETIRED, Health, incidents_by_metric, metric_health
from dims_worker.formatting import display_unit
from dims_worker.numbers import dumps
from dims_worker.probes.reading_notes import reading_doubts
from dims_worker.store.approval_requests import ApprovalRequest, open_requests
from dims_worker.store.engine import clock
from dims_worker.store.events import LoggedEvent
from dims_worker.store.history import Point
from dims_worker.store.incidents import Incident, open_incidents
from dims_worker.store.metric_states import MetricState, states_of

Document = dict[str, Any]


def facts(row: Any) -> Document:
    """Return a row of the store by the names of its columns."""
    return {name: getattr(row, name) for name in row.__slots__}


def json_text(document: Any) -> str:
    """Return a document as indented JSON. Numbers keep their type, and times are ISO 8601."""
    return dumps(document, default=_json_default, indent=2, ensure_ascii=False)


def _json_default(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} has no JSON form")


def metric_documents(connection: Connection, config: Config, names: Collection[str]) -> list[Document]:
    """Return the current state of these metrics. It takes four queries, however many they are."""
    states, waiting, now = states_of(connection, names), open_requests(connection, names), clock(connection)
    incidents = incidents_by_metric(open_incidents(connection, names))
    return [metric_document(config, states[name], incidents.get(name, ()), waiting.get(name), now) for name in names]


def metric_document(
    config: Config,
    state: MetricState,
    incidents: Sequence[Incident],
    request: ApprovalRequest | None,
    now: datetime,
) -> Document:
    """Return the state of a metric at `now`.

    An age is a number in its unit, with the instant beside it. An instant in the future has no age: the number is
    null. `health` is its health, and `failed`, `drifted`, `stale` and `beyond` follow from it. `beyond` is the limit
    that the value breaks, as text. `doubts` say why the value may not be the whole truth. `request` is the number of
    the open approval request. `incidents` are those of the metric that are open or acknowledged.
    """
    name = state.metric
    metric = config.metric_of(name) if name in config.definitions else None
    health = metric_health(config, state, incidents, now) if metric else RETIRED
    return {
        "metric": name,
        "category": name.partition(".")[0],
        "description": metric.description if metric else "",
        **_values(metric, state.value, state.baseline, display_unit(metric, state.unit), now),
        "drift_pct": state.drift_pct,
        "expected_low": state.expected_low,
        "expected_high": state.expected_high,
        "status": "failed" if "failing" in health.flags else state.status,
        "severity": state.severity,
        "health": health_document(health),
        "drifted": "drifted" in health.flags,
        "as_of": state.as_of,
        "stale": "stale" in health.flags,
        "failed": "failing" in health.flags,
        "error": state.error,
        "due": state.due,
        "beyond": health.broken,
        "method": state.method,
        "doubts": reading_doubts(state.method, state.details),
        "request": request.id if request else None,
        "critical": bool(metric and config.policy_of(name).critical),
        "enabled": bool(metric and metric.enabled),
    }


def health_document(health: Health) -> Document:
    """Return the health of a metric. `incidents` are the numbers of those that are open or acknowledged."""
    return {
        "flags": list(health.flags),
        "label": health.label,
        "labels": list(health.labels),
        "sentence": health.sentence,
        "severity": health.severity,
        "incidents": [incident.id for incident in health.incidents],
    }


def point_document(config: Config, metric: str, point: Point) -> Document:
    """Return a reading as a point of a trend. An age is a number in its unit, as it was at that time."""
    declared = config.metric_of(metric) if metric in config.definitions else None
    columns = {name: value for name, value in facts(point).items() if name != "run_id"}
    return {**columns, **_values(declared, point.value, point.baseline, point.unit, point.as_of), "run": point.run_id}


def _values(metric: Metric | None, value: Any, baseline: Any, unit: str, at: datetime) -> Document:
    if metric is None or not metric.is_age or unit not in AGES:
        return {"value": value, "unit": unit, "baseline": baseline}
    ages = {"value": age_of(value, at, unit), "unit": unit, "baseline": age_of(baseline, at, unit)}
    return {**ages, "instant": value}


def request_document(request: ApprovalRequest) -> Document:
    """Return an approval request. `drift_pct` is the drift from `compared_with`: the baseline, or what a person last
    accepted."""
    return {**facts(request), "compared_with": request.compared_with}


def event_document(event: LoggedEvent) -> Document:
    """Return an event of the log without its data and payload."""
    columns = {name: value for name, value in facts(event).items() if name not in ("data", "payload", "batch_id")}
    return {**columns, "metrics": list(event.metrics), "rules": list(event.rules)}
