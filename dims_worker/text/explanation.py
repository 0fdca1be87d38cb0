"""Write the explanation of a metric as sentences and as a JSON document."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from dims_worker.analysis.explanation import Comparison, Explanation, JudgedVerdict
from dims_worker.config import Config
from dims_worker.config.formula import PRICES
from dims_worker.formatting import (
    escape_control,
    format_age,
    format_ago,
    format_exact,
    format_limit,
    format_remaining,
    format_value,
    is_number,
    pluralize,
)
from dims_worker.probes.reading_notes import left_out, reading_doubts
from dims_worker.store.approval_requests import ApprovalRequest
from dims_worker.store.incidents import Incident
from dims_worker.store.runs import PastReading
from dims_worker.text.evidence import evidence_document, evidence_lines, gap_lines
from dims_worker.text.expectation import expectation_document
from dims_worker.text.incidents import incident_document, incident_sentence, incident_status
from dims_worker.text.json_documents import health_document, request_document
from dims_worker.text.metric_values import decide_command
from dims_worker.text.phrases import ExplanationView, Line, ago_with_time, format_acceptance, reason_text
from dims_worker.text.readings import reading_json
from dims_worker.text.verdict import verdict_lines


def headline(config: Config, explanation: Explanation) -> str:
    """Return the metric, its value and its health in one line."""
    metric, health = explanation.metric, format_health(explanation)
    if explanation.policy is None:
        return f"{metric} is no longer configured"
    if explanation.reading is None:
        return f"{metric}: {health}"
    value = ExplanationView(explanation, config.metrics.get(metric)).value(explanation.reading.value)
    return f"{metric}: {value}, {health}"


def format_health(explanation: Explanation) -> str:
    """Return the health of a metric in a few words: `lost; stale`, `waits for approval`."""
    return explanation.health.text


def _request_state(explanation: Explanation) -> str:
    if explanation.request:
        return f"request {explanation.request.id} waits for approval"
    return "its request has ended"


def explanation_lines(config: Config, explanation: Explanation) -> Iterator[Line]:
    """Yield all that is known about a metric: the verdict, the evidence, the request and past decisions."""
    view = ExplanationView(explanation, config.metrics.get(explanation.metric))
    for incident in explanation.incidents:
        yield "incident", incident_hint(config, incident, explanation.now)
    yield from verdict_reasons(view)
    if explanation.evidence:
        yield from evidence_lines(explanation.evidence, explanation.now)
    yield from gap_lines(explanation.gaps)
    if explanation.request:
        yield from _request_lines(view, explanation.request)
    for decision in explanation.decisions:
        yield "before", _format_decision(view, decision)


def verdict_reasons(view: ExplanationView) -> Iterator[Line]:
    """Yield the values, how the verdict follows from them, and the outcome of the reading."""
    yield from _reading_lines(view)
    yield from _problem_lines(view)
    yield from _baseline_lines(view)
    yield from _formula_lines(view)
    yield from verdict_lines(view)
    if reading := view.explanation.reading:
        yield "outcome", f"{reading.outcome}: {_format_outcome(view, reading)}"


def _reading_lines(view: ExplanationView) -> Iterator[Line]:
    """Yield the last good reading, and whether the metric is retired or off."""
    explanation, now = view.explanation, view.explanation.now
    if reading := explanation.reading:
        since = f" (since {reading.value})" if view.metric and view.metric.is_age and reading.value else ""
        source = f" of {explanation.run.source}" if explanation.run and explanation.run.source else ""
        check = ", a check" if _is_check(explanation) else ""
        when = f"measured {ago_with_time(reading.as_of, now)}, run {reading.run_id}{source}{check}"
        yield "reading", f"{view.value(reading.value)}{since}, {when}"
        for doubt in reading_doubts(reading.method, reading.details):
            yield "note", escape_control(doubt)
        for text in left_out(reading.details):
            yield "left out", escape_control(text)
    if retired_at := explanation.state.retired_at:
        effect = "its data stays, and it is never due"
        if explanation.policy:
            effect = "it is configured again, and becomes due when a worker starts with this configuration"
        yield "retired", f"{ago_with_time(retired_at, now)}; {effect}"
    if view.metric is not None and not view.metric.enabled:
        yield "off", "measured only if you name it in full (enabled: false)"


def _problem_lines(view: ExplanationView) -> Iterator[Line]:
    """Yield the problems since the last good reading."""
    explanation, state, now = view.explanation, view.explanation.state, view.explanation.now
    if state.error:
        attempts = f"; {pluralize(state.failures, 'failure')} in a row" if state.failures else ""
        if state.not_before and state.not_before > now:
            attempts += f", next attempt {format_remaining(state.not_before, now)}"
        yield "failing", f"{format_ago(state.failed_at, now)}: {escape_control(state.error)}{attempts}"
    if state.due:
        yield "due", f"has waited {format_age(now - (state.due_since or now))} for a measurement"
    if explanation.stale and explanation.policy and explanation.policy.stale_after and state.as_of:
        limit = view.key("stale_after", format_limit(explanation.policy.stale_after))
        yield "stale", f"not measured for {format_age(now - state.as_of)}, longer than {limit}: no event arrived"
    if explanation.provisional:
        due = ", ".join(each.name for each in explanation.inputs if each.due) or "an input"
        value = view.value(explanation.provisional.value)
        yield "waits", f"{value} is provisional and has no verdict yet: {due} is still due"


def _is_check(explanation: Explanation) -> bool:
    return explanation.run is not None and explanation.run.trigger == "verify"


def _baseline_lines(view: ExplanationView) -> Iterator[Line]:
    explanation, state = view.explanation, view.explanation.state
    if view.metric is not None and view.metric.is_age:
        return
    if state.baseline_as_of is None:
        if explanation.policy is not None:
            why = "what it measures has changed; " if state.as_of else ""
            yield "baseline", f"none: {why}the next good reading becomes it"
        return
    since, until = explanation.since, format_ago(state.baseline_as_of, explanation.now)
    how = format_acceptance(since, explanation.now) if since else f"accepted {until}"
    repeated = f"; measured the same until {until}" if since and since.as_of < state.baseline_as_of else ""
    yield "baseline", f"{view.value(state.baseline)}, {how}{repeated}"
    if explanation.redefined:
        yield "", "what it measures has changed: the next good reading is new"


def _formula_lines(view: ExplanationView) -> Iterator[Line]:
    """Yield the formula of a derived metric, with the values of its inputs in place of their names."""
    explanation = view.explanation
    if explanation.formula is None:
        return
    values = {
        each.name: format_exact(each.value) if is_number(each.value) else view.quoted(each.value)
        for each in explanation.inputs
    }
    formula = " ".join(explanation.formula.split())
    filled = re.sub(r"[a-z]\w*(\.\w+)+", lambda name: values.get(name[0], name[0]), formula)
    current = not explanation.provisional and not any(each.error or each.due for each in explanation.inputs)
    result = f" = {view.value(explanation.reading.value)}" if explanation.reading and current else ""
    yield "formula", f"{formula} = {filled}{result}"
    for each in explanation.inputs:
        when = "a price" if each.name.startswith(f"{PRICES}.") else format_ago(each.as_of, explanation.now)
        problem = f"; failed: {escape_control(each.error)}" if each.error else "; due" if each.due else ""
        yield "input", f"{each.name}: {f'{values[each.name]} {each.unit}'.strip()}, {when}{problem}"


def _format_outcome(view: ExplanationView, reading: PastReading) -> str:
    """Return what the last good reading did to the baseline."""
    explanation, state = view.explanation, view.explanation.state
    if reading.outcome == "held":
        return f"the baseline does not change, and {_request_state(explanation)}"
    if reading.outcome == "rejected":
        band = ""
        if state.rejected_as_of and explanation.policy:
            values = view.band(state.rejected, explanation.policy)
            band = f"; a reading of {values} opens no new request until a value is accepted"
        return f"the baseline does not change{band}"
    replaced = state.baseline_as_of is not None and state.baseline_as_of > reading.as_of
    if reading.outcome == "looked":
        if replaced and not _is_check(explanation):
            return "a person has set the baseline since"
        return "a check does not change the baseline"
    return f"it became the baseline{', and a person has set another one since' if replaced else ''}"


def _request_lines(view: ExplanationView, request: ApprovalRequest) -> Iterator[Line]:
    now, policy = view.explanation.now, view.explanation.policy
    band = f"; a reading of {view.band(request.anchor, policy)} updates it" if policy else ""
    expires = f"; it expires {format_remaining(request.expires_at, now)}" if request.expires_at else ""
    opened = f"opened {format_ago(request.opened_at, now)}"
    yield "request", f"{request.id}, version {request.version}, {opened}{band}{expires}"
    yield "decide", decision_hint(request)


def incident_hint(config: Config, incident: Incident, now: datetime) -> str:
    """Return what is wrong, what people do about it, and the command that shows more."""
    sentence, status = incident_sentence(config, incident, now), incident_status(incident, now)
    return f"{sentence}; {status}   (dims incidents show {incident.id})"


def decision_hint(request: ApprovalRequest) -> str:
    """Return how to decide an open request."""
    return f"{decide_command(request)}   (or reject)"


def _format_decision(view: ExplanationView, request: ApprovalRequest) -> str:
    """Return what was decided, by whom, when and why."""
    metric, now = view.metric, view.explanation.now
    value, baseline = (format_value(each, request.unit, metric, now) for each in (request.value, request.baseline))
    by = f" by {escape_control(request.decided_by)} ({request.known_by})" if request.decided_by else ""
    when = f"{by} {format_ago(request.decided_at, now)}{reason_text(request.note)} (request {request.id})"
    if request.kind == "baseline":
        return f"{value}{f' (was {baseline})' if request.baseline_as_of else ''} set by hand{when}"
    return f"{value} against {baseline} {request.state}{when}"


def explanation_document(config: Config, explanation: Explanation) -> dict[str, Any]:
    """Return the facts as `--json` prints them."""
    state, judged, reading = explanation.state, explanation.judged, explanation.reading
    policy = explanation.policy.model_dump(mode="json") if explanation.policy else {}
    failure = {name: getattr(state, name) for name in ("error", "failed_at", "failures", "not_before")}
    baseline = {"value": state.baseline, "as_of": state.baseline_as_of, "since": _columns(explanation.since)}
    return {
        "metric": explanation.metric,
        "unit": explanation.unit,
        "configured": explanation.policy is not None,
        "retired_at": state.retired_at,
        "redefined": explanation.redefined,
        "due_since": state.due_since if state.due else None,
        "health": health_document(explanation.health),
        "stale": explanation.stale,
        "reading": _reading_document(config, explanation, reading) if reading else None,
        "failure": failure if state.error else None,
        "provisional": reading_json(config, explanation.provisional) if explanation.provisional else None,
        "baseline": baseline if state.baseline_as_of else None,
        "verdict": _verdict_document(judged) if judged else None,
        "expected": expectation_document(explanation.learned),
        "policy": {key: {"value": policy[key], "from": origin} for key, origin in explanation.origins.items()},
        "formula": explanation.formula,
        "inputs": [_columns(each) for each in explanation.inputs],
        **evidence_document(explanation.evidence, explanation.gaps),
        "request": request_document(explanation.request) if explanation.request else None,
        "decisions": [request_document(each) for each in explanation.decisions],
        "incidents": [incident_document(config, each, explanation.now) for each in explanation.incidents],
    }


def _reading_document(config: Config, explanation: Explanation, reading: PastReading) -> dict[str, Any]:
    trigger = explanation.run.trigger if explanation.run else None
    return {**reading_json(config, reading), "run": reading.run_id, "trigger": trigger}


def _verdict_document(judged: JudgedVerdict) -> dict[str, Any]:
    return {
        **_columns(judged.verdict),
        "against": _comparison_document(judged.baseline),
        "person": _comparison_document(judged.person),
        "limit": judged.limit,
        "policy_changed": judged.policy_changed,
    }


def _columns(row: Any) -> Any:
    return {name: getattr(row, name) for name in row.__slots__} if row is not None else None


def _comparison_document(comparison: Comparison | None) -> dict[str, Any] | None:
    if comparison is None:
        return None
    return {**_columns(comparison.against), "drift_pct": comparison.drift_pct, "noise": comparison.noise}
