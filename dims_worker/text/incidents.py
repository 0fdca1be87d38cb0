"""Write incidents as sentences and documents, the same in the terminal, on the dashboard and in the API."""

from __future__ import annotations

from datetime import datetime

from dims_worker.config import Config, Metric
from dims_worker.domain.decide import IN_FUTURE, drift_pct
from dims_worker.domain.health import incident_label
from dims_worker.formatting import (
    display_unit,
    escape_control,
    format_ago,
    format_band,
    format_drift,
    format_utc,
    format_value,
)
from dims_worker.numbers import is_number
from dims_worker.store.incidents import Incident, Resolution
from dims_worker.text.json_documents import Document, facts
from dims_worker.text.phrases import reason_text

RESOLUTIONS: dict[Resolution, str] = {
    "recovered": "recovered",
    "expected": "closed as expected",
    "approved": "ended, because its request was approved",
    "rejected": "ended, because its request was rejected",
    "expired": "ended, because its request expired",
    "timeout": "closed after `close_after`",
    "retired": "ended, because it is no longer configured",
}
"""How an incident ended, by its resolution."""


def incident_sentence(config: Config, incident: Incident, now: datetime) -> str:
    """Return what is wrong, after the label of the incident: `lost: 40 -> 1 file, -97.5 %`.

    `now` is needed for values that are ages. The sentence says nothing about people: see `incident_status`.
    """
    label = incident_label(config, incident)
    since = f" since {format_utc(incident.since)}" if incident.kind == "failing" else ""
    return f"{label}{since}: {incident_facts(config, incident, now)}"


def incident_facts(config: Config, incident: Incident, now: datetime) -> str:
    """Return what is wrong, without the label: `40 -> 1 file, -97.5 %`."""
    reason = escape_control(incident.reason)
    match incident.kind:
        case "drift":
            return f"{incident_change(config, incident, now)}{_expected(incident)}"
        case "approval":
            asked = f", request {incident.request}" if incident.request is not None else ""
            return f"{incident_change(config, incident, now)}{asked}"
        case "stale":
            return f"last measured {format_utc(incident.as_of)}" if incident.as_of else reason
        case "limit" if reason.lower().startswith(f"{IN_FUTURE}: "):
            return reason[len(IN_FUTURE) + 2 :]  # the label says it
        case "silence":
            return f"nothing from rule {escape_control(incident.rule)} since {format_utc(incident.since)}"
        case "limit" | "failing":
            return reason


def incident_change(config: Config, incident: Incident, now: datetime) -> str:
    """Return the value before an incident, its latest value and the drift: `40 -> 1 file, -97.5 %`."""
    metric = configured_metric(config, incident.metric)
    unit = display_unit(metric, incident.unit)
    after = format_value(incident.value, unit, metric, now)
    if incident.anchor_as_of is None:
        return after
    # A number needs its unit only once
    shared = is_number(incident.anchor) and is_number(incident.value)
    before = format_value(incident.anchor, None if shared else unit, metric, now)
    drift = format_drift(incident.value, incident.anchor, incident_drift(incident))
    return f"{before} -> {after}, {drift}"


def incident_drift(incident: Incident) -> float | None:
    """Return the drift of the latest value from the value before the incident, in percent. None without both."""
    if incident.anchor_as_of is None or incident.as_of is None:
        return None
    return drift_pct(incident.anchor, incident.value)


def incident_status(incident: Incident, now: datetime) -> str:
    """Return what people and DIMS did about an incident: `open`, `acknowledged by ada 2 hours ago: “…”`.

    One that flaps says so. A closed one says how it ended, when, by whom and why.
    """
    if incident.state == "closed":
        how = RESOLUTIONS[incident.resolution] if incident.resolution else "closed"
        by = f" by {escape_control(incident.closed_by)}" if incident.closed_by else ""
        return f"{how}{by} {format_ago(incident.closed_at, now)}{reason_text(incident.closing_reason)}"
    flaps = f", flaps: it came back {_times(incident.flaps)}" if incident.flaps else ""
    flaps += f", calm since {format_utc(incident.calm_at)}" if incident.calm_at else ""
    if incident.state == "acknowledged":
        by = escape_control(incident.acknowledged_by)
        when = format_ago(incident.acknowledged_at, now)
        return f"acknowledged by {by} {when}{reason_text(incident.note)}{flaps}"
    return f"open{flaps}"


def incident_span(config: Config, incident: Incident, now: datetime) -> str:
    """Return from when to when an incident lasted, and what it was: for the history of its metric."""
    since, end = format_utc(incident.since), incident.ended_at
    span = f"{since} to {format_utc(end)}" if end else f"since {since}"
    sentence = f"{incident_label(config, incident)}: {incident_facts(config, incident, now)}"
    return f"incident {incident.id}, {span}: {sentence}; {incident_status(incident, now)}"


def incident_owner(config: Config, incident: Incident) -> str | None:
    """Return who is responsible for the metric of an incident. None: no one is configured."""
    name = incident.metric
    return config.policy_of(name).owner if name in config.definitions else None


def incident_document(config: Config, incident: Incident, now: datetime, story_size: int | None = None) -> Document:
    """Return an incident as `--json` and the API show it: all its columns, and what every output says about it.

    `drift_pct` is the drift from the anchor. `story_size` is the number of incidents in its story, if it is known. An
    age is the instant that the reading holds.
    """
    return {
        **facts(incident),
        "rule": incident.rule,
        "label": incident_label(config, incident),
        "sentence": incident_sentence(config, incident, now),
        "status": incident_status(incident, now),
        "drift_pct": incident_drift(incident),
        "since": incident.since,
        "flapping": incident.flapping,
        "owner": incident_owner(config, incident),
        "story_size": story_size,
    }


def configured_metric(config: Config, name: str) -> Metric | None:
    """Return the configuration of a metric or a workflow, or None if there is none, as for a rule."""
    return config.metric_of(name) if name in config.definitions else None


def _expected(incident: Incident) -> str:
    if incident.low is None or incident.high is None:
        return ""
    return f", expected {format_band(incident.low, incident.high)}"


def _times(number: int) -> str:
    return "once" if number == 1 else "twice" if number == 2 else f"{number:,} times"
