"""Approving and rejecting what waits for a person."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from sqlalchemy import Connection, Engine

from dims_worker.errors import NotFound, Refused
from dims_worker.store import requests, states
from dims_worker.store.engine import transaction
from dims_worker.store.requests import Request
from dims_worker.store.runs import mark_reading
from dims_worker.store.states import State

Choice = Literal["approved", "rejected"]


@dataclass(frozen=True, slots=True)
class Decision:
    """A request as it was decided."""

    request: Request
    choice: Choice


def show(engine: Engine, name: str) -> Request:
    """A request by number, or a metric's open one. Raises NotFound."""
    with transaction(engine) as connection:
        return _found(requests.find_request(connection, name), name)


def decide(engine: Engine, name: str, choice: Choice, *, version: int, who: str, note: str | None) -> Decision:
    """Approve or reject the version of a request that the reviewer saw.

    Approving makes its value the baseline, and the value that a person last accepted. Raises NotFound, and
    Refused, with the new facts, where the request was decided meanwhile or it or the baseline has changed.
    """
    with transaction(engine) as connection:
        metric = _found(requests.find_request(connection, name), name).metric
        state = states.lock(connection, [metric])[metric]  # before the request, as a run does
        request = _found(requests.find_request(connection, name, lock=True), name)
        _still_as_seen(request, version, state)
        if choice == "approved":
            state.accept(request.value, request.as_of, by_person=True)
            if state.value == request.value:
                state.status, state.severity, state.drift_pct = "ok", "none", 0.0
            states.save(connection, [state])
        _close(connection, request, choice, who, note)
    return Decision(replace(request, state=choice, decided_by=who, note=note), choice)


def _close(connection: Connection, request: Request, choice: Choice, who: str, note: str | None) -> None:
    requests.close_request(connection, request.id, choice, who=who, note=note)
    mark_reading(connection, request.metric, request.as_of, choice)


def _still_as_seen(request: Request, version: int, state: State) -> None:
    if request.state != "open":
        by = f" by {request.decided_by}" if request.decided_by else ""
        raise Refused(f"request {request.id} is {request.state}{by} already; nothing was changed")
    if request.version != version or request.baseline_version != state.baseline_version:
        raise Refused(
            f"request {request.id} is not what version {version} was: version {request.version} now proposes "
            f"{request.value!r} against the baseline {state.baseline!r} ({request.reason}); look at it again"
        )


def _found(request: Request | None, name: str) -> Request:
    if request is None:
        raise NotFound(f"there is no request {name!r}: `dims approvals list` names those that wait")
    return request
