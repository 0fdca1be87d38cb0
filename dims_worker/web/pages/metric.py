"""Show everything about one metric: its value, history, verdict, changes and decisions."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import yaml
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from dims_worker.analysis.bands import expected_text
from dims_worker.analysis.evidence import NamedGap
from dims_worker.analysis.explanation import Explanation, explain_metric
from dims_worker.config import Config, DerivedMetric, Policy
from dims_worker.config.formula import PRICES
from dims_worker.config.policy import Thresholds
from dims_worker.config.runtime import WORKFLOW
from dims_worker.errors import NotFound
from dims_worker.formatting import (
    NO_VALUE,
    format_drift,
    format_exact,
    format_limit,
    format_number,
    format_value,
    is_number,
)
from dims_worker.store.approval_requests import ApprovalRequest
from dims_worker.store.incidents import list_incidents
from dims_worker.store.runs import PastReading, newest_readings
from dims_worker.text.evidence import placed_lines
from dims_worker.text.explanation import verdict_reasons
from dims_worker.text.phrases import ExplanationView
from dims_worker.text.readings import past_reading_text, request_number
from dims_worker.web.context import web_context
from dims_worker.web.incident_cards import CardFacts, IncidentCard, StateLabel, muted_text, state_labels
from dims_worker.web.pages.approvals import RequestCard
from dims_worker.web.trend_chart import SPANS, trend_charts

DEFAULT_DAYS = 30
MAX_READINGS = 50
"""Readings that the page lists, the newest."""
MAX_INCIDENTS = 5
"""Closed incidents that the page lists, the newest."""


def metric_page(request: Request) -> Response:
    """Show `/metrics/{name}`. Raises NotFound."""
    site, name = web_context(request), request.path_params["name"]
    chosen = request.query_params.get("days")
    days = next((span for span in SPANS if str(span) == chosen), DEFAULT_DAYS)
    if "\0" in name:
        raise NotFound("there is no metric with this name")
    with site.read_transaction() as connection:
        explanation = explain_metric(connection, site.config, name)
        now = explanation.now
        chart = trend_charts(connection, site.config, explanation.state, now, days)
        readings = newest_readings(connection, name, MAX_READINGS)
        closed = list_incidents(connection, limit=MAX_INCIDENTS, state="closed", metrics=[name])
        facts = CardFacts.load(connection, site.config, explanation.health.incidents, now)
    health = explanation.health
    cards = [IncidentCard.of(facts, each) for each in health.incidents]
    mute = facts.mutes.get(name)
    retired = [StateLabel("retired")] if explanation.state.retired_at else []
    view = ExplanationView(explanation, site.config.metrics.get(name))
    input_links, dependents = formula_links(site.config, name)
    request_card = RequestCard.of(site.config, explanation.request, now) if explanation.request else None
    values = {
        "section": "inventory",
        "title": name,
        "explanation": explanation,
        "value": view.value(explanation.reading.value) if explanation.reading else None,
        "health": health,
        "labels": [*state_labels(site.config, health), *retired],
        "incidents": [card for card in cards if card.incident.kind != "approval"],  # a request has a card of its own
        "past_incidents": [IncidentCard.of(facts, each) for each in closed],
        "muted": muted_text(mute) if mute else "",
        "description": view.metric.description if view.metric else "",
        "workflow": name.removeprefix(WORKFLOW) if name.startswith(WORKFLOW) else None,
        "request_card": request_card,
        "days": days,
        "spans": SPANS,
        "chart": chart,
        "rows": [HistoryRow.of(site.config, reading, explanation.request) for reading in readings],
        "reasons": [line for line in verdict_reasons(view) if line[0] != "input"],  # inputs have their own table
        "inputs": list(_input_rows(view)),
        "changes": list(placed_lines(explanation.evidence, now)) if explanation.evidence else [],
        "gaps": [NamedGap(gap, explanation.unit) for gap in explanation.gaps],
        "decisions": [RequestCard.of(site.config, decision, now) for decision in explanation.decisions],
        "definition": definition_lines(site.config, name),
        "policy": policy_rows(explanation),
        "input_links": input_links,
        "dependents": dependents,
    }
    return site.page(request, "metric.html", values)


def _input_rows(view: ExplanationView) -> Iterator[dict[str, Any]]:
    """Yield the rows of the table of a derived metric's inputs."""
    for value in view.explanation.inputs:
        text = format_exact(value.value) if is_number(value.value) else view.quoted(value.value)
        yield {
            "name": value.name,
            "value": f"{text} {value.unit}".strip(),
            "as_of": value.as_of,
            "error": value.error,
            "due": value.due,
            "not_measured": "a price" if value.name.startswith(f"{PRICES}.") else "never",
        }


@dataclass(frozen=True, slots=True)
class HistoryRow:
    """A row of the table of readings. An age is the age at the time of the reading."""

    reading: PastReading
    value: str
    drift: str
    outcome: str
    expected: str

    @classmethod
    def of(cls, config: Config, reading: PastReading, request: ApprovalRequest | None) -> HistoryRow:
        failed, metric = reading.method == "failed", config.metrics.get(reading.metric)
        value = NO_VALUE if failed else format_value(reading.value, reading.unit, metric, reading.as_of)
        drift = format_drift(reading.value, reading.baseline, reading.drift_pct)
        number = request_number(reading, {request.metric: request} if request else {})
        state = past_reading_text(config, reading, number)
        return cls(reading, value, drift, state, expected_text(reading) or NO_VALUE)


def formula_links(config: Config, name: str) -> tuple[dict[str, str], list[str]]:
    """Return the metrics that a formula reads, by the name in the formula, and the metrics that read this one."""
    metric = config.metrics.get(name)
    read = metric.inputs if isinstance(metric, DerivedMetric) else frozenset()
    formula = metric.derive if isinstance(metric, DerivedMetric) else ""
    names = {text: ".".join(text.split(".")[:2]) for text in re.findall(r"[a-z]\w*(?:\.\w+)+", formula)}
    inputs = {text: target for text, target in names.items() if target in read}
    return inputs, [other for other, derived in config.derived.items() if name in derived.inputs]


def definition_lines(config: Config, name: str) -> list[str]:
    """Return the YAML of a metric's definition, without its policy. Empty if the metric is not configured."""
    metric = config.metrics.get(name)
    if metric is None:
        return []
    keys = metric.model_dump(mode="json", exclude_unset=True, exclude={*Policy.model_fields, "description"})
    category, _, short = name.partition(".")
    text: str = yaml.safe_dump({category: {short: keys}}, sort_keys=False, allow_unicode=True, width=100)
    return text.splitlines()


def policy_rows(explanation: Explanation) -> list[tuple[str, str, str]]:
    """Return each key of the policy with its value and where it is set."""
    policy, view = explanation.policy, ExplanationView(explanation, None)
    if policy is None:
        return []
    return [(key, _format_setting(getattr(policy, key)), view.origin(key)) for key in Policy.model_fields]


def _format_setting(value: Any) -> str:
    if isinstance(value, Thresholds):
        return ", ".join(f"{key} {format_number(limit)} %" for key, limit in value)
    if isinstance(value, timedelta):
        return format_limit(value)
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value)) or "anyone"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "none" if value is None else format_number(value) if isinstance(value, float) else str(value)


routes = [Route("/metrics/{name}", metric_page, name="metric")]
