"""What people decide: approving and rejecting what waits, and setting a baseline by hand. One way in, one log."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from fnmatch import fnmatchcase
from typing import Literal

from sqlalchemy import Connection, Engine

from dims_worker.config import Config
from dims_worker.domain.decide import Baseline, Judge, drift_pct
from dims_worker.errors import NotAllowed, NotFound, Refused, UsageError
from dims_worker.probes.base import Reading, Value
from dims_worker.store import approval_requests, metric_states
from dims_worker.store.approval_requests import ApprovalRequest
from dims_worker.store.engine import clock, transaction
from dims_worker.store.metric_states import MetricState
from dims_worker.store.runs import set_reading_outcome

Choice = Literal["approved", "rejected"]


@dataclass(frozen=True, slots=True)
class Decider:
    """Who decides, and how that is known: by an `option`, the `environment`, or the `system`'s own user; on the site by
    a `token`, a sign-in `link` or a trusted `proxy`."""

    name: str
    known_by: Literal["option", "environment", "system", "token", "link", "proxy"]


@dataclass(frozen=True, slots=True)
class DecisionResult:
    """A request as it was decided; `already`: before this call, by whomever it names."""

    request: ApprovalRequest
    choice: Choice
    already: bool = False


@dataclass(frozen=True, slots=True)
class BaselineInput:
    """A value that a person knows to be right."""

    metric: str
    value: Value
    note: str | None = None


def load_request(engine: Engine, name: str) -> ApprovalRequest:
    """A request by number, or a metric's open one. Raises NotFound."""
    with transaction(engine) as connection:
        return _found(approval_requests.find_request(connection, name), name)


def decide_request(
    engine: Engine, config: Config, name: str, choice: Choice, *, version: int, person: Decider, note: str | None
) -> DecisionResult:
    """Approve or reject the version of a request that the reviewer saw.

    Approving makes its value the baseline, and the value that a person last accepted; what is rejected is not asked
    again while readings stay in its band. To say again what was decided changes nothing. Raises NotFound, NotAllowed,
    and Refused, with the new facts, where the request was decided otherwise meanwhile or it or the baseline changed.
    """
    with transaction(engine) as connection:
        metric = _found(approval_requests.find_request(connection, name), name).metric
        _allowed(config, metric, person)
        state = metric_states.lock_states(connection, [metric])[metric]  # before the request, as a run does
        request = _found(approval_requests.find_request(connection, name, lock=True), name)
        if request.state == choice:
            return DecisionResult(request, choice, already=True)
        _still_as_seen(request, version, state)
        if choice == "approved":
            state.accept(request.value, request.as_of, by_person=True)
            _judge_again(config, state, clock(connection))
        else:
            state.rejected, state.rejected_as_of = request.anchor, request.as_of
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
    """Record a person's acceptance of values by hand: all of them, or none. The log keeps each as a request of kind
    `baseline`, approved; one that waits for a decision on the same metric is withdrawn.

    Raises NotFound, NotAllowed, and UsageError where a value is none that its metric could have.
    """
    for one in baselines:
        if one.metric not in config.metrics:
            raise NotFound(f"no metric is called {one.metric}: `dims metrics` lists them")
        _allowed(config, one.metric, person)
    names = [one.metric for one in baselines]
    with transaction(engine) as connection:
        locked = metric_states.lock_states(connection, names)
        if missing := sorted(set(names) - locked.keys()):
            raise NotFound(f"{missing[0]} was never registered: `dims verify` does that")
        for one in baselines:
            _fits(config, one, locked[one.metric])
        waiting = approval_requests.open_requests(connection, names)
        for request in waiting.values():
            approval_requests.close_request(connection, request.id, "withdrawn")
        numbers = [_set(connection, config, one, locked[one.metric], person) for one in baselines]
        metric_states.save_states(connection, list(locked.values()))
        return [_found(approval_requests.find_request(connection, str(number)), str(number)) for number in numbers]


def _set(connection: Connection, config: Config, one: BaselineInput, state: MetricState, person: Decider) -> int:
    now = clock(connection)
    before = state.baseline if state.baseline_as_of is not None else None
    drift = None if state.baseline_as_of is None else drift_pct(before, one.value)
    facts = {
        **{"metric": one.metric, "kind": "baseline", "state": "approved", "value": one.value, "as_of": now},
        **{"unit": config.metrics[one.metric].shown_unit, "baseline": before, "drift_pct": drift},
        **{"baseline_as_of": state.baseline_as_of, "severity": "none", "reason": "set by hand", "note": one.note},
        **{"decided_at": now, "decided_by": person.name, "known_by": person.known_by},
    }
    state.accept(one.value, now, by_person=True)
    _judge_again(config, state, now)
    return approval_requests.insert_request(connection, {**facts, "baseline_version": state.baseline_version})


def _judge_again(config: Config, state: MetricState, now: datetime) -> None:
    """What is said of the last reading, against the baseline that a person has just accepted."""
    if state.as_of is not None and state.metric in config.metrics:
        accepted = Baseline(state.baseline)
        verdict = Judge.of(config, state.metric).decide(accepted, state.value, accepted, now)
        state.status, state.severity, state.drift_pct = verdict.status, verdict.severity, verdict.drift_pct


def _fits(config: Config, one: BaselineInput, state: MetricState) -> None:
    """Raises UsageError where the value is none that the metric could have."""
    if config.metrics[one.metric].is_age:
        raise UsageError(f"{one.metric} is an age: it has no baseline to set, `max_age` judges it")
    try:
        Reading(one.metric, one.value, "", "exact")
    except ValueError as error:
        raise UsageError(str(error)) from None
    if state.as_of is not None and one.value is not None and state.value is not None:
        kinds = [_kind(one.value), _kind(state.value)]
        if kinds[0] != kinds[1]:
            raise UsageError(
                f"{one.metric}: {one.value!r} is a {kinds[0]}; its last reading is the {kinds[1]} {state.value!r}"
            )


def _kind(value: Value) -> str:
    return "text" if isinstance(value, str) else "boolean" if isinstance(value, bool) else "number"


def approvers_of(config: Config, metric: str) -> tuple[str, ...]:
    """The patterns of who may decide on a metric; none: anybody."""
    return config.policy_of(metric).approvers if metric in config.metrics else ()


def may_decide(config: Config, metric: str, name: str) -> bool:
    """Whether a person of this name may decide on a metric."""
    approvers = approvers_of(config, metric)
    return not approvers or any(fnmatchcase(name, pattern) for pattern in approvers)


def _allowed(config: Config, metric: str, person: Decider) -> None:
    if not may_decide(config, metric, person.name):
        approvers = approvers_of(config, metric)
        raise NotAllowed(f"{person.name} may not decide on {metric}: `approvers` names {', '.join(approvers)}")


def _still_as_seen(request: ApprovalRequest, version: int, state: MetricState) -> None:
    if request.state != "open":
        by = f" by {request.decided_by}" if request.decided_by else ""
        raise Refused(f"request {request.id} is {request.state}{by} already; nothing was changed")
    if request.version != version or request.baseline_version != state.baseline_version:
        raise Refused(
            f"request {request.id} is not what version {version} was: version {request.version} now proposes "
            f"{request.value!r} against the baseline {state.baseline!r} ({request.reason}); look at it again"
        )


def _found(request: ApprovalRequest | None, name: str) -> ApprovalRequest:
    if request is None:
        raise NotFound(f"there is no request {name!r}: `dims approvals list` names those that wait")
    return request
