"""Facts as JSON documents: the same ones that `--json` prints and that the site's API answers with."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import Any

from sqlalchemy import Connection

from dims_worker.config import Config, Metric
from dims_worker.config.units import AGES
from dims_worker.domain.decide import Judge, age_of
from dims_worker.formatting import display_unit
from dims_worker.store.approval_requests import ApprovalRequest, open_requests
from dims_worker.store.engine import clock
from dims_worker.store.events import LoggedEvent
from dims_worker.store.history import Point
from dims_worker.store.metric_states import MetricState, states_of

Document = dict[str, Any]


def facts(row: Any) -> Document:
    """All that a row of the store says, by the names of its columns."""
    return {name: getattr(row, name) for name in row.__slots__}


def metric_documents(connection: Connection, config: Config, names: Collection[str]) -> list[Document]:
    """How these metrics stand, in three queries however many they are."""
    known, waiting, now = states_of(connection, names), open_requests(connection, names), clock(connection)
    return [metric_document(config, known[name], waiting.get(name), now) for name in names]


def metric_document(config: Config, state: MetricState, request: ApprovalRequest | None, now: datetime) -> Document:
    """A metric as it stands at `now`. An age is a number in its unit; the instant that it counts from stands beside
    it. `beyond`: the limit that its value breaks, in words. `request`: the number of the one that waits."""
    name = state.metric
    declared = config.metric_of(name) if name in config.definitions else None
    policy = config.policy_of(name) if declared else None
    stale = bool(policy and policy.stale_after and state.as_of and now - state.as_of > policy.stale_after)
    return {
        "metric": name,
        "category": name.partition(".")[0],
        "description": declared.description if declared else "",
        **_valued(declared, state.value, state.baseline, display_unit(declared, state.unit), now),
        "drift_pct": state.drift_pct,
        "status": "failed" if state.error else state.status,
        "severity": state.severity,
        "drifted": state.drifted,
        "as_of": state.as_of,
        "stale": stale,
        "failed": state.error is not None,
        "error": state.error,
        "due": state.due,
        "beyond": Judge.of(config, name).format_broken_limit(state.value, now) if declared and state.as_of else None,
        "request": request.id if request else None,
        "critical": bool(policy and policy.critical),
        "enabled": bool(declared and declared.enabled),
    }


def point_document(config: Config, metric: str, point: Point) -> Document:
    """A reading as a point of its metric's trend; an age is a number in its unit, as it was then."""
    declared = config.metric_of(metric) if metric in config.definitions else None
    said = {name: value for name, value in facts(point).items() if name != "run_id"}
    return {**said, **_valued(declared, point.value, point.baseline, point.unit, point.as_of), "run": point.run_id}


def _valued(declared: Metric | None, value: Any, baseline: Any, unit: str, at: datetime) -> Document:
    if declared is None or not declared.is_age or unit not in AGES:
        return {"value": value, "unit": unit, "baseline": baseline}
    ages = [None if (seconds := age_of(one, at)) is None else seconds / AGES[unit] for one in (value, baseline)]
    return {"value": ages[0], "unit": unit, "baseline": ages[1], "instant": value}


def event_document(event: LoggedEvent) -> Document:
    """An event of the log, without what it carries."""
    said = {name: value for name, value in facts(event).items() if name not in ("data", "payload", "batch_id")}
    return {**said, "metrics": list(event.metrics), "rules": list(event.rules)}
