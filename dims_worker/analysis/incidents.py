"""Gather the evidence for an incident: the events between the value before it and the reading that opened it."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection

from dims_worker.analysis.evidence import Evidence, Gap, ValueChange, gather_evidence, named_gaps
from dims_worker.analysis.explanation import explain_request
from dims_worker.config import Config
from dims_worker.store.approval_requests import ApprovalRequest, requests_by_number
from dims_worker.store.baselines import change_span
from dims_worker.store.incidents import Incident, incidents_of_story
from dims_worker.store.runs import reading_at, runs_by_number


@dataclass(frozen=True, slots=True)
class IncidentFacts:
    """An incident with the others of its story, its approval request, its evidence and the names in its reading."""

    incident: Incident
    others: tuple[Incident, ...]
    request: ApprovalRequest | None
    evidence: Evidence | None
    gaps: tuple[Gap, ...]

    @property
    def story_size(self) -> int:
        return len(self.others) + 1


def explain_incident(connection: Connection, config: Config, incident: Incident) -> IncidentFacts:
    """Return what DIMS knows about an incident.

    Only a change of a value has evidence: a drift or a held value. That of a held value is its request's, so that both
    count the same events.
    """
    story = incidents_of_story(connection, incident.story)
    others = tuple(each for each in story if each.id != incident.id)
    request = None
    if incident.request is not None:
        request = requests_by_number(connection, [incident.request]).get(incident.request)
    if request is not None:
        evidence, gaps = explain_request(connection, config, request)
        return IncidentFacts(incident, others, request, evidence, tuple(gaps))
    reading = reading_at(connection, incident.metric, incident.as_of) if incident.as_of else None
    names = named_gaps(reading.details, reading.value) if reading else ()
    return IncidentFacts(incident, others, None, _evidence(connection, config, incident), names)


def _evidence(connection: Connection, config: Config, incident: Incident) -> Evidence | None:
    if incident.kind != "drift" or incident.anchor_as_of is None or incident.run_id is None:
        return None
    run = next(iter(runs_by_number(connection, [incident.run_id])), None)
    if run is None:  # deleted, because it is older than `settings.history_days`
        return None
    after, until = change_span(connection, incident.metric, incident.anchor_as_of, run.started_at)
    return gather_evidence(
        connection, config, incident.metric, ValueChange(incident.anchor, incident.value, after, until)
    )
