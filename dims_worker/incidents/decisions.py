"""People's decisions on incidents: acknowledge or close one. Every interface decides through here."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from sqlalchemy import Connection, Engine

from dims_worker.approvals.decisions import decide_request, load_request
from dims_worker.config import Config
from dims_worker.domain.approvers import Decider, require_approver
from dims_worker.errors import NotFound, Refused, UsageError
from dims_worker.store import incidents, metric_states
from dims_worker.store.approval_requests import open_requests
from dims_worker.store.engine import clock, transaction
from dims_worker.store.expectations import discard_bands
from dims_worker.store.incidents import Incident


def load_incident(engine: Engine, number: int) -> Incident:
    """Return the incident with a number. Raises NotFound."""
    with transaction(engine) as connection:
        return _existing(connection, number)


def acknowledge_incident(
    engine: Engine, config: Config, number: int, *, version: int | None, person: Decider, note: str | None
) -> Incident:
    """Record that a person knows of an incident. It still counts, and DIMS sends no more messages until it ends.

    `version` is the one that the person saw, or None for the present one. To acknowledge it once more replaces the name
    and the note. Raises NotFound, NotAllowed, and Refused if it is closed or has changed.
    """
    with _decision(engine, config, number, version, person) as change:
        now = clock(change.connection)
        changes = {"state": "acknowledged", "acknowledged_at": now, "acknowledged_by": person.name, "note": note}
        incidents.update_incident(
            change.connection,
            number,
            changes | {"known_by": person.known_by, "updated_at": now},
            new_version=True,
        )
        return _existing(change.connection, number)


def close_incident(
    engine: Engine, config: Config, number: int, *, version: int | None, person: Decider, reason: str
) -> Incident:
    """Close an incident, because a person has decided that it is fine.

    A closed drift starts a new level: its present value becomes the baseline if it is not, and its values teach the
    expected band. DIMS refuses to close a drift while a later value waits for approval, because that value would become
    the baseline without a decision on its request. To close the incident of a held value approves its request. For the
    other kinds, DIMS opens no new incident until the condition was over once. Raises NotFound, NotAllowed, UsageError
    without a reason, and Refused, also if it is closed or has changed.
    """
    if not reason.strip():
        raise UsageError("closing an incident needs a reason, for the people who read it later")
    incident = load_incident(engine, number)
    if incident.kind == "approval" and incident.active and not incident.calm:
        return _approve(engine, config, incident, version, person, reason)
    with _decision(engine, config, number, version, person) as change:
        connection, incident = change.connection, change.incident
        if incident.kind == "approval" and not incident.calm:
            raise Refused(f"incident {number} has just come back, and its value waits for approval. Review it again")
        now = clock(connection)
        if incident.kind == "drift":
            _require_no_request(connection, incident)
            _accept_level(connection, incident)
            discard_bands(connection, [incident.metric])
        incidents.close_incident_row(
            connection,
            number,
            "expected",
            now,
            over=incident.kind == "drift" or incident.calm,
            closed_by=person.name,
            known_by=person.known_by,
            closing_reason=reason,
        )
        return _existing(connection, number)


def _approve(
    engine: Engine, config: Config, incident: Incident, version: int | None, person: Decider, reason: str
) -> Incident:
    """Approve the request of a held value, which closes the incident."""
    request = load_request(engine, str(incident.request))
    # After the request: a later value gives both a new version, so it cannot be approved unseen
    _require_version(load_incident(engine, incident.id), version)
    decide_request(
        engine, config, str(request.id), "approved", version=request.version, person=person, note=reason.strip()
    )
    return load_incident(engine, incident.id)


@dataclass(frozen=True, slots=True)
class _Decision:
    connection: Connection
    incident: Incident


@contextmanager
def _decision(engine: Engine, config: Config, number: int, version: int | None, person: Decider) -> Iterator[_Decision]:
    """Lock an incident and its metric in the order of a run, and check that the person may decide on what they saw."""
    with transaction(engine) as connection:
        metric = _existing(connection, number).metric
        require_approver(config, metric, person)
        metric_states.lock_states(connection, [metric])
        incident = incidents.find_incident(connection, number, lock=True)
        assert incident is not None  # no incident is ever deleted
        if not incident.active:
            by = f" by {incident.closed_by}" if incident.closed_by else ""
            raise Refused(f"incident {number} is closed already ({incident.resolution}{by}). Nothing was changed")
        _require_version(incident, version)
        yield _Decision(connection, incident)


def _require_version(incident: Incident, version: int | None) -> None:
    if version is not None and incident.version != version:
        raise Refused(
            f"incident {incident.id} has changed since version {version}: it has version {incident.version} now. "
            "Review it again"
        )


def _require_no_request(connection: Connection, incident: Incident) -> None:
    """Raise Refused if a value of the metric waits for approval."""
    request = open_requests(connection, [incident.metric]).get(incident.metric)
    if request is not None:
        raise Refused(
            f"incident {incident.id}: a later value of {incident.metric} waits for the decision on request "
            f"{request.id}. Approve or reject that request first. Nothing was changed"
        )


def _accept_level(connection: Connection, incident: Incident) -> None:
    """Make the present value the baseline that a person has accepted, so that the next one is compared with it."""
    state = metric_states.lock_states(connection, [incident.metric]).get(incident.metric)
    if state is None or state.baseline_as_of is None or state.as_of is None:
        return
    if state.baseline_as_of < state.as_of:  # a rejected value, or one that only a check has measured
        state.accept(state.value, state.as_of, by_person=True)
    else:
        state.accepted, state.accepted_as_of = state.baseline, state.baseline_as_of
    state.status, state.severity, state.drift_pct = "ok", "none", 0.0
    metric_states.save_states(connection, [state])


def _existing(connection: Connection, number: int) -> Incident:
    incident = incidents.find_incident(connection, number)
    if incident is None:
        raise NotFound(f"there is no incident {number}: `dims incidents list --state all` shows them")
    return incident
