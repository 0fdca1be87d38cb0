"""Find the accepted drifts of the last days, the largest first, each with its evidence."""

from __future__ import annotations

import heapq
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from sqlalchemy import Connection

from dims_worker.analysis.evidence import Evidence, Gap, ValueChange, gather_evidence, named_gaps
from dims_worker.analysis.explanation import explain_request
from dims_worker.config import Config, Policy
from dims_worker.domain.decide import drift_pct
from dims_worker.domain.health import incidents_by_metric
from dims_worker.numbers import fits_float, is_number
from dims_worker.store.approval_requests import ApprovalRequest, approved_since
from dims_worker.store.baselines import Acceptance, last_accepted
from dims_worker.store.incidents import Incident, list_incidents
from dims_worker.store.point_in_time import accepted_drifts, readings_of_requests
from dims_worker.store.runs import PastReading, runs_by_number

EXTREME_WIDTHS = 2
"""A drift of `thresholds.extreme` is as large as this many band widths. Both are urgent from there on."""
MAX_WIDTHS = 1_000
_INCIDENTS = 10_000
"""The most incidents to search for those of the changes."""


@dataclass(frozen=True, slots=True)
class AcceptedDrift:
    """A value that became the baseline although it differs notably from the one before it.

    `low` and `high` are the expected band, and `distance` is how many band widths the value lies outside it. They are
    None if there was no band. `accepted` is how, when and by whom, and `request` what a person decided. `reading` is
    its number in the history. `run_id` is None for a baseline set by hand, which has no evidence. `incident` is the one
    that the change opened, or during which it happened.
    """

    metric: str
    unit: str
    before: Any
    after: Any
    drift_pct: float | None
    status: str | None
    severity: str | None
    low: float | None
    high: float | None
    distance: float | None
    size: float
    as_of: datetime
    accepted_at: datetime
    run_id: int | None
    reason: str | None
    details: Mapping[str, Any] | None
    accepted: Acceptance
    request: ApprovalRequest | None = None
    reading: int | None = None
    incident: Incident | None = None
    evidence: Evidence | None = None
    gaps: tuple[Gap, ...] = ()


def recent_changes(connection: Connection, config: Config, since: datetime, limit: int) -> list[AcceptedDrift]:
    """Return the largest `limit` drifts that were accepted since then, the largest first.

    A drift is a change with a status of moderate or worse, or with a severity, in either direction. Its size is its
    distance from the expected band in band widths. Without a band, the drift in percent gives the size: a drift of
    `thresholds.extreme` counts as EXTREME_WIDTHS. Of the same size, the larger drift comes first, then the newer one.
    """
    changes = []
    largest = largest_drifts(connection, config, since, limit)
    runs = runs_by_number(connection, [drift.run_id for drift in largest if drift.run_id is not None])
    begun = {run.run_id: run.started_at for run in runs}
    for drift in largest:
        evidence, gaps = _evidence(connection, config, drift, begun)
        changes.append(replace(drift, evidence=evidence, gaps=tuple(gaps)))
    return changes


def largest_drifts(connection: Connection, config: Config, since: datetime, limit: int) -> list[AcceptedDrift]:
    """Return what `recent_changes` returns, without the evidence. It takes five queries, however many they are."""
    drifts = _accepted(connection, config, since)
    largest = heapq.nlargest(limit, drifts, key=lambda drift: (drift.size, drift.drift_pct or 0, drift.accepted_at))
    incidents = incidents_by_metric(_incidents(connection, {drift.metric for drift in largest}, since))
    return [
        replace(
            drift,
            incident=_incident_of(drift, incidents.get(drift.metric, ())),
            gaps=tuple(named_gaps(drift.details, drift.after)),
        )
        for drift in largest
    ]


def _accepted(connection: Connection, config: Config, since: datetime) -> Iterator[AcceptedDrift]:
    """Yield what policy accepted, and what people accepted, since then."""
    requests = approved_since(connection, since)
    readings = readings_of_requests(connection, [request.id for request in requests])
    for request in requests:
        if (drift := _by_person(config, request, readings.get(request.id))) is not None:
            yield drift
    for reading in accepted_drifts(connection, since):
        accepted = Acceptance(reading.value, reading.as_of, "policy", reading.as_of, reading.run_id)
        yield _drift(config, reading, accepted, None)


def _drift(
    config: Config, reading: PastReading, accepted: Acceptance, request: ApprovalRequest | None
) -> AcceptedDrift:
    distance = distance_outside(reading.value, reading.expected_low, reading.expected_high)
    return AcceptedDrift(
        metric=reading.metric,
        unit=reading.unit,
        before=reading.baseline,
        after=reading.value,
        drift_pct=reading.drift_pct,
        status=reading.status,
        severity=reading.severity,
        low=reading.expected_low,
        high=reading.expected_high,
        distance=distance,
        size=_size(_policy(config, reading.metric), distance, reading.drift_pct),
        as_of=reading.as_of,
        accepted_at=accepted.decided_at or reading.recorded_at,
        run_id=reading.run_id,
        reason=reading.reason,
        details=reading.details,
        accepted=accepted,
        request=request,
        reading=reading.id,
    )


def _by_person(config: Config, request: ApprovalRequest, reading: PastReading | None) -> AcceptedDrift | None:
    """Return the drift that a person accepted. None for a baseline set by hand that hardly differs, or is the first."""
    accepted = Acceptance(
        value=request.value,
        as_of=request.as_of,
        how="by hand" if request.kind == "baseline" else "approved",
        begun=request.as_of,
        run_id=request.run_id,
        request=request.id,
        decided_at=request.decided_at,
        decided_by=request.decided_by,
        known_by=request.known_by,
        note=request.note,
    )
    if reading is not None:
        return _drift(config, reading, accepted, request)
    policy = _policy(config, request.metric)
    drift = drift_pct(request.baseline, request.value, policy.min_abs)
    if request.baseline_as_of is None or drift is None or drift < policy.thresholds.moderate:
        return None
    return AcceptedDrift(
        metric=request.metric,
        unit=request.unit,
        before=request.baseline,
        after=request.value,
        drift_pct=drift,
        status=None,
        severity=request.severity,
        low=None,
        high=None,
        distance=None,
        size=_size(policy, None, drift),
        as_of=request.as_of,
        accepted_at=request.decided_at or request.as_of,
        run_id=request.run_id,
        reason=request.reason,
        details=(request.evidence or {}).get("details"),
        accepted=accepted,
        request=request,
    )


def distance_outside(value: Any, low: float | None, high: float | None) -> float | None:
    """Return how many band widths a value lies outside its expected band: 0 inside it.

    None if there is no band, or if the value is no number that a float can hold. Also None for more than MAX_WIDTHS:
    the band of a metric that never changed is so narrow that its width says nothing about the size of a change.
    """
    if low is None or high is None or not is_number(value) or not fits_float(value):
        return None
    outside, width = max(low - float(value), float(value) - high, 0.0), high - low
    return None if outside > width * MAX_WIDTHS else outside / (width or 1.0)


def _size(policy: Policy, distance: float | None, drift: float | None) -> float:
    if distance is not None:
        return distance
    return EXTREME_WIDTHS * (drift or 0.0) / policy.thresholds.extreme


def _policy(config: Config, metric: str) -> Policy:
    """Return the policy of a metric. One that is no longer configured has the general policy."""
    return config.policy_of(metric) if metric in config.definitions else config.policy


def _incidents(connection: Connection, metrics: Collection[str], since: datetime) -> list[Incident]:
    """Return the drift and approval incidents of these metrics, newest first: those that changed since then, and those
    that are not closed."""
    changed = list_incidents(connection, limit=_INCIDENTS, state="all", metrics=metrics, since=since)
    active = list_incidents(connection, limit=_INCIDENTS, state="active", metrics=metrics)
    known = {incident.id: incident for incident in (*changed, *active) if incident.kind in ("drift", "approval")}
    return [known[number] for number in sorted(known, reverse=True)]


def _incident_of(drift: AcceptedDrift, incidents: Iterable[Incident]) -> Incident | None:
    """Return the incident that a change opened, or else the one during which it happened."""
    own = [incident for incident in incidents if incident.metric == drift.metric]
    for incident in own:
        if drift.run_id is not None and incident.run_id == drift.run_id:
            return incident
        if incident.request is not None and incident.request == drift.accepted.request:
            return incident
    return next((incident for incident in own if incident.lasted_at(drift.as_of)), None)


def _evidence(
    connection: Connection, config: Config, drift: AcceptedDrift, begun: Mapping[int, datetime]
) -> tuple[Evidence | None, Sequence[Gap]]:
    """Return the evidence of a change, from the events between the value before it and its reading, and its gaps."""
    if drift.request is not None:
        return explain_request(connection, config, drift.request)
    gaps = named_gaps(drift.details, drift.after)
    measured = begun.get(drift.run_id) if drift.run_id is not None else None
    before = last_accepted(connection, drift.metric, drift.as_of, before=drift.reading)
    if measured is None or before is None or before.begun >= measured:
        return None, gaps
    change = ValueChange(drift.before, drift.after, before.begun, measured)
    return gather_evidence(connection, config, drift.metric, change), gaps
