"""A metric's explanation in sentences, and as a document."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from dims_worker.analysis.explanation import Comparison, Explanation
from dims_worker.config import Config
from dims_worker.config.formula import PRICES
from dims_worker.formatting import (
    escape_control,
    format_age,
    format_ago,
    format_exact,
    format_value,
    is_number,
    pluralize,
)
from dims_worker.store.approval_requests import ApprovalRequest
from dims_worker.store.runs import PastReading
from dims_worker.text.evidence import evidence_document, evidence_lines, gap_lines
from dims_worker.text.phrases import (
    ExplanationView,
    Line,
    accepted_by,
    ago_with_time,
    reason_text,
)
from dims_worker.text.readings import done_text, reading_json
from dims_worker.text.verdict import verdict_lines


def headline(config: Config, one: Explanation) -> str:
    """The metric, its value, and what is the matter with it."""
    if one.policy is None or one.reading is None:
        return f"{one.metric} {health_words(one)}"
    return f"{one.metric}: {ExplanationView(one, config.metrics.get(one.metric)).value(one.reading.value)}, {health_words(one)}"


def health_words(one: Explanation) -> str:
    """What is the matter with a metric, in a few words."""
    if one.policy is None:
        return "is no longer configured"
    if one.reading is None:
        return "was never measured"
    if one.state.error:
        return "but the last attempt failed"
    beyond = f", beyond {one.judged.limit}" if one.judged and one.judged.limit else ""
    return f"{_word(one, one.reading)}{beyond}"


def _word(one: Explanation, reading: PastReading) -> str:
    """`ok`; `major, held: request 12 waits for a person`."""
    status = one.judged.verdict.status if one.judged else reading.status
    done = done_text(reading)
    if reading.outcome == "held":
        done = f"held: request {one.request.id} waits for a person" if one.request else "held; its request has ended"
    return done if not status or done.startswith(status) else f"{status}, {done}"


def explanation_lines(config: Config, one: Explanation) -> Iterator[Line]:
    """All that there is to say of a metric, the verdict's reasons after the values that it speaks of."""
    shown = ExplanationView(one, config.metrics.get(one.metric))
    yield from verdict_reasons(shown)
    if one.evidence:
        yield from evidence_lines(one.evidence, one.now)
    yield from gap_lines(one.gaps)
    if one.request:
        yield from _request(shown, one.request)
    for decision in one.decisions:
        yield "before", _decision(shown, decision)


def verdict_reasons(shown: ExplanationView) -> Iterator[Line]:
    """The values, how the verdict follows from them, and what became of the reading."""
    yield from _reading(shown)
    yield from _baseline(shown)
    yield from _formula(shown)
    yield from verdict_lines(shown)
    if reading := shown.one.reading:
        yield "outcome", f"{reading.outcome}: {outcome_words(shown, reading)}"


def _reading(shown: ExplanationView) -> Iterator[Line]:
    """The last good reading, and what has been the matter since."""
    one, state, now = shown.one, shown.one.state, shown.one.now
    if reading := one.reading:
        since = f" (since {reading.value})" if shown.metric and shown.metric.is_age and reading.value else ""
        source = f" of {one.run.source}" if one.run and one.run.source else ""
        look = ", a look" if _looked(one) else ""
        when = f"measured {ago_with_time(reading.as_of, now)}, run {reading.run_id}{source}{look}"
        yield "reading", f"{shown.value(reading.value)}{since}, {when}"
    if state.retired_at:
        back = "configured again: it is due as soon as a worker starts with that" if one.policy else "it is never due"
        yield "retired", f"{ago_with_time(state.retired_at, now)}; what is known of it stays; {back}"
    if shown.metric is not None and not shown.metric.enabled:
        yield "off", "measured only for who names it in full (enabled: false)"
    if state.error:
        tried = f"; {pluralize(state.failures, 'failure')} in a row" if state.failures else ""
        if state.not_before and state.not_before > now:
            tried += f", tried again in {format_age(state.not_before - now)}"
        yield "failed", f"{format_ago(state.failed_at, now)}: {escape_control(state.error)}{tried}"
    if state.due:
        yield "due", f"has waited {format_age(now - (state.due_since or now))} for a measurement"
    if one.stale and one.policy and one.policy.stale_after and state.as_of:
        limit = shown.key("stale_after", format_age(one.policy.stale_after))
        yield (
            "stale",
            f"unmeasured for {format_age(now - state.as_of)}, longer than {limit}: no producer told of anything",
        )
    if one.waits:
        due = ", ".join(each.name for each in one.inputs if each.due) or "an input"
        yield "waits", f"{shown.value(one.waits.value)} is provisional, and not judged: {due} is still due"


def _looked(one: Explanation) -> bool:
    return one.run is not None and one.run.trigger == "verify"


def _baseline(shown: ExplanationView) -> Iterator[Line]:
    one, state = shown.one, shown.one.state
    if shown.metric is not None and shown.metric.is_age:
        return
    if state.baseline_as_of is None:
        if one.policy is not None:
            why = "what it measures has changed; " if state.as_of else ""
            yield "baseline", f"none: {why}the next good reading becomes it"
        return
    how = accepted_by(one.since, one.now) if one.since else f"accepted {format_ago(state.baseline_as_of, one.now)}"
    again = one.since is not None and one.since.as_of < state.baseline_as_of
    still = f"; measured the same until {format_ago(state.baseline_as_of, one.now)}" if again else ""
    yield "baseline", f"{shown.value(state.baseline)}, {how}{still}"
    if one.redefined:
        yield "", "what it measures has changed: the next good reading is new"


def _formula(shown: ExplanationView) -> Iterator[Line]:
    """A derived metric's formula, with its inputs' values in the place of their names."""
    one = shown.one
    if one.formula is None:
        return
    values = {
        each.name: format_exact(each.value) if is_number(each.value) else shown.quoted(each.value)
        for each in one.inputs
    }
    formula = " ".join(one.formula.split())
    filled = re.sub(r"[a-z]\w*(\.\w+)+", lambda name: values.get(name[0], name[0]), formula)
    fresh = one.reading and not one.waits and not any(each.error or each.due for each in one.inputs)
    result = f" = {shown.value(one.reading.value)}" if fresh and one.reading else ""
    yield "formula", f"{formula} = {filled}{result}"
    for each in one.inputs:
        when = "a price" if each.name.startswith(f"{PRICES}.") else format_ago(each.as_of, one.now)
        what = f"; failed: {escape_control(each.error)}" if each.error else "; due" if each.due else ""
        yield "input", f"{each.name}: {f'{values[each.name]} {each.unit}'.strip()}, {when}{what}"


def outcome_words(shown: ExplanationView, reading: PastReading) -> str:
    """What became of the last good reading."""
    one, state = shown.one, shown.one.state
    if reading.outcome == "held":
        waits = f"request {one.request.id} waits for a person" if one.request else "its request has ended"
        return f"the baseline stays, and {waits}"
    if reading.outcome == "rejected":
        band = shown.band(state.rejected, one.policy) if state.rejected_as_of and one.policy else ""
        asked = f"; nobody is asked again about {band}, until a value is accepted" if band else ""
        return f"the baseline stays{asked}"
    set_since = state.baseline_as_of is not None and state.baseline_as_of > reading.as_of
    if reading.outcome == "looked":
        return "a person has set the baseline since" if set_since and not _looked(one) else "a look changes no baseline"
    return f"it became the baseline{', and a person has set another since' if set_since else ''}"


def _request(shown: ExplanationView, request: ApprovalRequest) -> Iterator[Line]:
    now, policy = shown.one.now, shown.one.policy
    band = f"; a reading of {shown.band(request.anchor, policy)} updates it" if policy else ""
    ends = f"; it ends by itself in {format_age(request.expires_at - now)}" if request.expires_at else ""
    yield "request", f"{request.id}, version {request.version}, opened {format_ago(request.opened_at, now)}{band}{ends}"
    yield "decide", decision_hint(request)


def decision_hint(request: ApprovalRequest) -> str:
    """What to do about an open request."""
    return f"dims approvals approve {request.id} --version {request.version}   (or reject)"


def _decision(shown: ExplanationView, request: ApprovalRequest) -> str:
    """What was decided, when, by whom, why."""
    metric, now = shown.metric, shown.one.now
    value, before = (format_value(each, request.unit, metric, now) for each in (request.value, request.baseline))
    by = f" by {escape_control(request.decided_by)} ({request.known_by})" if request.decided_by else ""
    when = f"{by} {format_ago(request.decided_at, now)}{reason_text(request.note)} (request {request.id})"
    if request.kind == "baseline":
        return f"{value}{f' (was {before})' if request.baseline_as_of else ''} set by hand{when}"
    return f"{value} against {before} {request.state}{when}"


def explanation_document(config: Config, one: Explanation) -> dict[str, Any]:
    """The facts as `--json` prints them."""
    state, judged = one.state, one.judged
    policy = one.policy.model_dump(mode="json") if one.policy else {}
    reading = {**reading_json(config, one.reading), "run": one.reading.run_id} if one.reading else None
    if reading:
        reading["trigger"] = one.run.trigger if one.run else None
    failure = {name: getattr(state, name) for name in ("error", "failed_at", "failures", "not_before")}
    baseline = {"value": state.baseline, "as_of": state.baseline_as_of, "since": _facts(one.since)}
    return {
        "metric": one.metric,
        "unit": one.unit,
        "configured": one.policy is not None,
        "retired_at": state.retired_at,
        "redefined": one.redefined,
        "due_since": state.due_since if state.due else None,
        "stale": one.stale,
        "reading": reading,
        "failure": failure if state.error else None,
        "provisional": reading_json(config, one.waits) if one.waits else None,
        "baseline": baseline if state.baseline_as_of else None,
        "verdict": {
            **_facts(judged.verdict),
            "against": _weighed(judged.baseline),
            "person": _weighed(judged.person),
            "limit": judged.limit,
            "recorded_otherwise": judged.otherwise,
        } if judged else None,
        "policy": {key: {"value": policy[key], "from": origin} for key, origin in one.origins.items()},
        "formula": one.formula,
        "inputs": [_facts(each) for each in one.inputs],
        **evidence_document(one.evidence, one.gaps),
        "request": _facts(one.request),
        "decisions": [_facts(each) for each in one.decisions],
    }  # fmt: skip


def _facts(row: Any) -> Any:
    return {name: getattr(row, name) for name in row.__slots__} if row is not None else None


def _weighed(one: Comparison | None) -> dict[str, Any] | None:
    return {**_facts(one.against), "drift_pct": one.drift_pct, "noise": one.noise} if one else None
