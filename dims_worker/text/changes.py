"""Write accepted drifts as sentences and documents, the same in the terminal, on the dashboard and in the API."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from dims_worker.analysis.changes import AcceptedDrift
from dims_worker.config import Config
from dims_worker.formatting import (
    display_unit,
    escape_control,
    format_ago,
    format_band,
    format_drift,
    format_number,
    format_value,
)
from dims_worker.numbers import is_number
from dims_worker.text.evidence import evidence_document, evidence_lines, gap_lines
from dims_worker.text.incidents import (
    configured_metric,
    incident_document,
    incident_sentence,
    incident_status,
)
from dims_worker.text.json_documents import Document
from dims_worker.text.phrases import Line, ago_with_time, format_acceptance


def change_sentence(config: Config, change: AcceptedDrift, now: datetime) -> str:
    """Return what changed and how large it is: `40 -> 1 file, -97.5 %, 9.3 band widths outside 38 to 42`."""
    metric = configured_metric(config, change.metric)
    unit = display_unit(metric, change.unit)
    shared = is_number(change.before) and is_number(change.after)  # a number needs its unit only once
    before = format_value(change.before, None if shared else unit, metric, now)
    after = format_value(change.after, unit, metric, now)
    drift = format_drift(change.after, change.before, change.drift_pct)
    return f"{before} -> {after}, {drift}{_outside(change)}"


def change_headline(config: Config, change: AcceptedDrift, now: datetime) -> str:
    """Return the metric and what changed in one line."""
    return f"{escape_control(change.metric)}: {change_sentence(config, change, now)}"


def change_lines(config: Config, change: AcceptedDrift, now: datetime) -> Iterator[Line]:
    """Yield when it was measured, how it was accepted, its incident, and its evidence."""
    run = f", run {change.run_id}" if change.run_id is not None else ""
    verdict = ", ".join(word for word in (change.status, change.severity) if word and word != "none")
    if change.accepted.how != "by hand":
        yield "measured", f"{ago_with_time(change.as_of, now)}{run}{f': {verdict}' if verdict else ''}"
    yield "accepted", acceptance_sentence(change, now)
    if incident := change.incident:
        sentence = incident_sentence(config, incident, now)
        yield "incident", f"{incident.id}: {sentence}; {incident_status(incident, now)}"
    if change.evidence:
        yield from evidence_lines(change.evidence, now)
    yield from gap_lines(change.gaps)


def acceptance_sentence(change: AcceptedDrift, now: datetime) -> str:
    """Return how the change was accepted: by policy or by whom, when and why."""
    if change.accepted.how == "policy":
        return f"by policy {format_ago(change.accepted_at, now)}"
    return format_acceptance(change.accepted, now)


def change_document(config: Config, change: AcceptedDrift, now: datetime) -> Document:
    """Return an accepted drift as `--json` and the API show it, with its evidence and its incident."""
    accepted, incident = change.accepted, change.incident
    return {
        "metric": change.metric,
        "before": change.before,
        "after": change.after,
        "unit": change.unit,
        "drift_pct": change.drift_pct,
        "expected_low": change.low,
        "expected_high": change.high,
        "band_widths": change.distance,
        "size": change.size,
        "status": change.status,
        "severity": change.severity,
        "reason": change.reason,
        "sentence": change_sentence(config, change, now),
        "as_of": change.as_of,
        "run": change.run_id,
        "accepted": {
            "how": accepted.how,
            "at": change.accepted_at,
            "by": accepted.decided_by,
            "known_by": accepted.known_by,
            "note": accepted.note,
            "request": accepted.request,
        },
        "incident": incident_document(config, incident, now) if incident else None,
        **evidence_document(change.evidence, change.gaps),
    }


def _outside(change: AcceptedDrift) -> str:
    if change.low is None or change.high is None:
        return ""
    band = format_band(change.low, change.high)
    if not change.distance:
        return f", expected {band}"
    return f", {format_number(float(f'{change.distance:.2g}'))} band widths outside {band}"
