"""Write everything that is known about an incident as lines, with the commands that go on from it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from dims_worker.analysis.incidents import IncidentFacts
from dims_worker.config import Config
from dims_worker.domain.health import incident_label
from dims_worker.formatting import display_unit, escape_control, format_band, format_value, pluralize, shell_quote
from dims_worker.store.incidents import Incident
from dims_worker.text.evidence import evidence_lines, gap_lines
from dims_worker.text.incidents import (
    configured_metric,
    incident_facts,
    incident_owner,
    incident_status,
)
from dims_worker.text.metric_values import decide_command
from dims_worker.text.phrases import Line, ago_with_time

MAX_OTHERS = 10
"""The most other incidents of a story to name."""
_ENDS = {
    "drift": "when the value is back near {before}{band}, or when you close it",
    "failing": "with the next successful measurement",
    "limit": "when the value is within its limit again",
    "stale": "with the next reading",
    "approval": "when you approve or reject the request, or when a value needs no approval",
    "silence": "with the next event that the rule matches",
}
"""How an incident of each kind ends."""


def incident_headline(config: Config, incident: Incident) -> str:
    """Return the number, version, metric and label in one line."""
    label = incident_label(config, incident)
    return f"incident {incident.id}, version {incident.version}: {escape_control(incident.metric)}: {label}"


def incident_lines(config: Config, known: IncidentFacts, now: datetime) -> Iterator[Line]:
    """Yield what is wrong and since when, the values and the band, the story, the evidence, and the next commands."""
    incident = known.incident
    yield "what", f"{incident_facts(config, incident, now)} ({incident.severity})"
    if incident.kind in ("drift", "approval", "silence"):
        yield "why", escape_control(incident.reason)
    run = f", run {incident.run_id}" if incident.run_id is not None else ""
    yield "since", f"{ago_with_time(incident.since, now)}{run}"
    yield from _value_lines(config, incident, now)
    yield from _story_lines(config, known)
    if owner := incident_owner(config, incident):
        yield "owner", escape_control(owner)
    yield "state", incident_status(incident, now)
    if known.evidence:
        yield from evidence_lines(known.evidence, now)
    yield from gap_lines(known.gaps)
    if incident.active:
        band = " or inside its expected band" if incident.low is not None else ""
        before = _value(config, incident, incident.anchor, now)
        yield "ends", _ENDS[incident.kind].format(before=before, band=band)
        yield from next_commands(known)


def _value_lines(config: Config, incident: Incident, now: datetime) -> Iterator[Line]:
    if incident.anchor_as_of is not None:
        before = _value(config, incident, incident.anchor, now)
        yield "before", f"{before}, measured {ago_with_time(incident.anchor_as_of, now)}"
    if incident.as_of is not None:
        yield (
            "latest",
            f"{_value(config, incident, incident.value, now)}, measured {ago_with_time(incident.as_of, now)}",
        )
    if incident.low is not None and incident.high is not None:
        yield "expected", f"{format_band(incident.low, incident.high)}, when it opened"


def _story_lines(config: Config, known: IncidentFacts) -> Iterator[Line]:
    """Yield the incidents that opened in the same run."""
    if not known.others:
        return
    opened = pluralize(known.story_size, "incident")
    yield "story", f"{known.incident.story}: {opened} opened in the same run"
    for other in known.others[:MAX_OTHERS]:
        yield "", f"incident {other.id}, {escape_control(other.metric)}: {incident_label(config, other)}, {other.state}"
    if rest := known.others[MAX_OTHERS:]:
        yield "", f"and {len(rest):,} more"


def next_commands(known: IncidentFacts) -> Iterator[Line]:
    """Yield the commands that go on from an active incident."""
    incident, request = known.incident, known.request
    if request is not None and request.state == "open":
        yield "next", f"{decide_command(request)}   (or reject)"
    if incident.state == "open":
        yield "next", f"{acknowledge_command(incident)}   (you work on it: no more messages)"
    if request is None or request.state != "open":
        effect = "the new values are expected, and teach" if incident.kind == "drift" else "it is fine until it is over"
        yield "next", f"{close_command(incident)}   ({effect})"
    if incident.rule is None:
        yield "next", f"dims explain {shell_quote(incident.metric)}"


def acknowledge_command(incident: Incident) -> str:
    """Return the command that acknowledges an incident."""
    return f"dims incidents ack {incident.id}"


def close_command(incident: Incident) -> str:
    """Return the command that closes an incident."""
    return f"dims incidents close {incident.id} --reason TEXT"


def _value(config: Config, incident: Incident, value: object, now: datetime) -> str:
    metric = configured_metric(config, incident.metric)
    return format_value(value, display_unit(metric, incident.unit), metric, now)
