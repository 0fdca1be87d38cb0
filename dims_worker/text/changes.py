"""Write accepted drifts as sentences and documents, the same in the terminal, on the dashboard and in the API."""

from __future__ import annotations

from datetime import datetime

from dims_worker.analysis.changes import AcceptedDrift
from dims_worker.config import Config
from dims_worker.formatting import display_unit, format_drift, format_number, format_value
from dims_worker.numbers import is_number
from dims_worker.text.evidence import evidence_document
from dims_worker.text.incidents import band_phrase, configured_metric, incident_document
from dims_worker.text.json_documents import Document
from dims_worker.text.phrases import format_acceptance


def change_sentence(config: Config, change: AcceptedDrift, now: datetime) -> str:
    """Return what changed and how large it is: `40 -> 1 file, -97.5 %, 9.3 band widths outside 38 to 42`."""
    metric = configured_metric(config, change.metric)
    unit = display_unit(metric, change.unit)
    shared = is_number(change.before) and is_number(change.after)  # a number needs its unit only once
    before = format_value(change.before, None if shared else unit, metric, now)
    after = format_value(change.after, unit, metric, now)
    drift = format_drift(change.after, change.before, change.drift_pct)
    return f"{before} -> {after}, {drift}{_outside(change)}"


def acceptance_sentence(change: AcceptedDrift, now: datetime) -> str:
    """Return how the change was accepted: `accepted by policy 2 days ago (run 12)`, `approved by ada (option) …`."""
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
            "at": accepted.decided_at or change.as_of,
            "by": accepted.decided_by,
            "known_by": accepted.known_by,
            "note": accepted.note,
            "request": accepted.request,
        },
        "incident": incident_document(config, incident, now) if incident else None,
        **evidence_document(change.evidence, change.gaps),
    }


def _outside(change: AcceptedDrift) -> str:
    band = band_phrase(change.low, change.high, whole=isinstance(change.after, int))
    if band is None:
        return ""
    if not change.distance:
        return f", expected {band}"
    return f", {format_number(round(change.distance, 1), 1)} band widths outside {band}"
