"""People's decisions: approve or reject a request, or set a baseline by hand. Every interface decides through here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal

from sqlalchemy import Connection, Engine

from dims_worker.config import Config
from dims_worker.domain.approvers import Decider, require_approver
from dims_worker.domain.decide import Baseline, Judge, drift_pct
from dims_worker.errors import MeasureError, NotFound, Refused, UsageError
from dims_worker.numbers import exact_decimal, is_number, number_of, value_text
from dims_worker.probes.base import Reading, Value
from dims_worker.probes.text_values import checked_text
from dims_worker.store import approval_requests, incidents, metric_states
from dims_worker.store.approval_requests import ApprovalRequest
from dims_worker.store.engine import clock, transaction
from dims_worker.store.metric_states import MetricState
from dims_worker.store.runs import set_reading_outcome

Choice = Literal["approved", "rejected"]


@dataclass(frozen=True, slots=True)
class DecisionResult:
    """A decided request. `already`: it was decided the same way before this call."""

    request: ApprovalRequest
    choice: Choice
    already: bool = False


@dataclass(frozen=True, slots=True)
class BaselineInput:
    """A value that a person has found to be right."""

    metric: str
    value: Value
    note: str | None = None


def load_request(engine: Engine, name: str) -> ApprovalRequest:
    """Return the request with a number, or the open request of a metric. Raises NotFound."""
    with transaction(engine) as connection:
        return _existing(approval_requests.find_request(connection, name), name)


def decide_request(
    engine: Engine, config: Config, name: str, choice: Choice, *, version: int, person: Decider, note: str | None
) -> DecisionResult:
    """Approve or reject the version of a request that the reviewer saw.

    An approved value becomes the baseline, and the value that a person last accepted. After a rejection, DIMS opens no
    new request while readings stay in the same band. The incident ends with the decision. A rejected value stays
    visible as an acknowledged drift until it is back.

    To repeat a decision changes nothing. Raises NotFound, NotAllowed, and Refused, if the request was decided
    differently, or if its value or the baseline changed meanwhile.
    """
    with transaction(engine) as connection:
        metric = _existing(approval_requests.find_request(connection, name), name).metric
        require_approver(config, metric, person)
        state = metric_states.lock_states(connection, [metric])[metric]  # before the request, in the order of a run
        request = _existing(approval_requests.find_request(connection, name, lock=True), name)
        if request.state == choice:
            return DecisionResult(request, choice, already=True)
        _require_unchanged(request, version, state)
        now = clock(connection)
        decision = {"closed_by": person.name, "known_by": person.known_by, "closing_reason": note}
        if choice == "approved":
            state.accept(request.value, request.as_of, by_person=True)
            _judge_again(config, state, now)
            incidents.settle_incidents(connection, metric, "approved", now, **decision)
        else:
            state.rejected, state.rejected_as_of = request.anchor, request.as_of
            incidents.keep_as_drift(connection, request, "rejected", now, **decision)
        metric_states.save_states(connection, [state])
        approval_requests.close_request(
            connection, request.id, choice, decided_by=person.name, known_by=person.known_by, note=note
        )
        set_reading_outcome(connection, request.metric, request.as_of, choice)
    decided = replace(request, state=choice, decided_by=person.name, known_by=person.known_by, note=note)
    return DecisionResult(decided, choice)


def set_baselines(
    engine: Engine, config: Config, baselines: Sequence[BaselineInput], person: Decider
) -> list[ApprovalRequest]:
    """Set baselines by hand, all or none. Each becomes an approved request of kind `baseline`. An open request of the
    same metric is withdrawn.

    Raises NotFound, NotAllowed, and UsageError for a value that the metric cannot have.
    """
    for baseline in baselines:
        if baseline.metric not in config.metrics:
            raise NotFound(f"no metric is called {baseline.metric}: `dims metrics` lists them")
        require_approver(config, baseline.metric, person)
    names = [baseline.metric for baseline in baselines]
    with transaction(engine) as connection:
        locked = metric_states.lock_states(connection, names)
        if missing := sorted(set(names) - locked.keys()):
            raise NotFound(f"{missing[0]} is not in the database yet: run `dims verify` first")
        for baseline in baselines:
            _require_valid(config, baseline, locked[baseline.metric])
        for request in approval_requests.open_requests(connection, names).values():
            approval_requests.close_request(connection, request.id, "withdrawn")
        numbers = [_set(connection, config, baseline, locked[baseline.metric], person) for baseline in baselines]
        metric_states.save_states(connection, list(locked.values()))
        return [_existing(approval_requests.find_request(connection, str(number)), str(number)) for number in numbers]


def _set(connection: Connection, config: Config, baseline: BaselineInput, state: MetricState, person: Decider) -> int:
    now = clock(connection)
    before, before_as_of = state.baseline if state.baseline_as_of else None, state.baseline_as_of
    state.accept(baseline.value, now, by_person=True)
    _judge_again(config, state, now)
    decision = {"closed_by": person.name, "known_by": person.known_by, "closing_reason": baseline.note}
    incidents.settle_incidents(connection, baseline.metric, "expected", now, **decision)
    request = {
        "metric": baseline.metric,
        "kind": "baseline",
        "state": "approved",
        "value": baseline.value,
        "unit": config.metrics[baseline.metric].shown_unit,
        "as_of": now,
        "baseline": before,
        "baseline_as_of": before_as_of,
        "baseline_version": state.baseline_version,
        "drift_pct": drift_pct(before, baseline.value) if before_as_of else None,
        "severity": "none",
        "reason": "set by hand",
        "note": baseline.note,
        "decided_at": now,
        "decided_by": person.name,
        "known_by": person.known_by,
    }
    return approval_requests.insert_request(connection, request)


def _judge_again(config: Config, state: MetricState, now: datetime) -> None:
    """Judge the last reading against the baseline that a person has just accepted."""
    if state.as_of is not None and state.metric in config.metrics:
        accepted = Baseline(state.baseline)
        verdict = Judge.of(config, state.metric).decide(accepted, state.value, accepted, now)
        state.status, state.severity, state.drift_pct = verdict.status, verdict.severity, verdict.drift_pct


def _require_valid(config: Config, baseline: BaselineInput, state: MetricState) -> None:
    """Raise UsageError if the metric cannot have the value."""
    name, value = baseline.metric, baseline.value
    if config.metrics[name].is_age:
        raise UsageError(f"{name} is an age and has no baseline: set `max_age` in the configuration instead")
    try:
        Reading(name, value, "", "exact")
        if is_number(value):
            number_of(exact_decimal(value))
        if isinstance(value, str) and checked_text(value, "it is") != value:
            raise ValueError("a text cannot contain NUL, which PostgreSQL does not store")
    except (ValueError, MeasureError) as error:
        raise UsageError(f"{name}: {error}") from None
    if state.as_of is not None and value is not None and state.value is not None:
        kind, last_kind = _kind(value), _kind(state.value)
        if kind != last_kind:
            last = value_text(state.value)
            raise UsageError(f"{name}: {value_text(value)} is a {kind}, but its last reading is the {last_kind} {last}")


def _kind(value: Value) -> str:
    return "text" if isinstance(value, str) else "boolean" if isinstance(value, bool) else "number"


def _require_unchanged(request: ApprovalRequest, version: int, state: MetricState) -> None:
    if request.state != "open":
        by = f" by {request.decided_by}" if request.decided_by else ""
        raise Refused(f"request {request.id} is {request.state}{by} already. Nothing was changed")
    if request.version != version or request.baseline_version != state.baseline_version:
        raise Refused(
            f"request {request.id} has changed since version {version}: version {request.version} now proposes "
            f"{value_text(request.value)} against the baseline {value_text(state.baseline)} ({request.reason}). Review "
            "it again"
        )


def _existing(request: ApprovalRequest | None, name: str) -> ApprovalRequest:
    if request is None:
        raise NotFound(f"there is no request {name!r}: `dims approvals list` shows the open requests")
    return request
