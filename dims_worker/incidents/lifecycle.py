"""Open, update and close the incidents of metrics in the transaction of a run."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection

from dims_worker.config import Config
from dims_worker.config.runtime import WORKFLOW
from dims_worker.domain.decide import Judge, Verdict
from dims_worker.domain.expectation import Expectation
from dims_worker.domain.run import RunReading
from dims_worker.formatting import pluralize
from dims_worker.incidents.rules import Condition, Step, next_step
from dims_worker.probes.base import Value
from dims_worker.store import incidents
from dims_worker.store.approval_requests import ApprovalRequest, open_requests
from dims_worker.store.incidents import Incident, IncidentUpdate, closed_columns
from dims_worker.store.metric_states import MetricState

FAILURES = 3
"""A metric that failed this often in a row has an incident, or earlier if a channel asks for it. A single failure is
often over at the next attempt."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """How a reading was judged: by which policy, with which verdict, and against a baseline of which time."""

    judge: Judge
    verdict: Verdict
    baseline_as_of: datetime | None
    expected: Expectation | None


@dataclass(frozen=True, slots=True)
class RunFacts:
    """The readings of a recorded run, the locked rows of its metrics, and how each good reading was judged.

    `known` are the incidents of its metrics before the run.
    """

    run_id: int
    items: Sequence[RunReading]
    states: Mapping[str, MetricState]
    judged: Mapping[str, Judgement]
    known: KnownIncidents


KnownIncidents = Mapping[tuple[str, str], Incident]
"""The newest incident by metric and kind, of those that a new reading can change."""


def known_incidents(
    connection: Connection, config: Config, names: Collection[str], now: datetime
) -> dict[tuple[str, str], Incident]:
    """Return the incidents that new readings of these metrics can change, locked."""
    lasting = incidents.lasting_incidents(connection, names, now - config.notify.quiet_period)
    return {(each.metric, each.kind): each for each in lasting}


def is_back(judge: Judge, known: Incident, value: Value, expected: Expectation | None) -> bool:
    """Return whether an accepted value ends a drift incident."""
    return judge.recovered(known.anchor, known.value, value, expected, expected_before=known.low is not None)


def update_incidents(connection: Connection, config: Config, run: RunFacts, now: datetime) -> None:
    """Update the incidents for a run, in its transaction and after its approval requests."""
    items = [item for item in run.items if item.outcome not in ("superseded", "provisional")]
    if not items:
        return
    quiet, known = config.notify.quiet_period, run.known
    held = [item.metric for item in items if item.outcome == "held"]
    requests = open_requests(connection, held) if held else {}
    least = min([FAILURES, *(each.failures for each in config.notify.channels.values() if each.failures)])
    steps = [
        step
        for item in items
        for condition in _conditions(item, run, known, requests.get(item.metric), now, least)
        if (step := next_step(condition, known.get((condition.metric, condition.kind)), now, quiet))
    ]
    take_steps(connection, steps, now, run.run_id)


def take_steps(connection: Connection, steps: Sequence[Step], now: datetime, run_id: int | None) -> None:
    """Write the steps. Incidents that open together are one story."""
    incidents.update_incidents(connection, [_update(step, step.known, now) for step in steps if step.known])
    opened = [_row(step.condition, now, run_id) for step in steps if step.what == "open"]
    incidents.insert_incidents(connection, opened)


def _update(step: Step, known: Incident, now: datetime) -> IncidentUpdate:
    if step.what == "close":
        return IncidentUpdate(known.id, closed_columns(step.resolution, now, over=True), new_version=True)
    return IncidentUpdate(known.id, step.changes, step.new_version)


def _row(condition: Condition, now: datetime, run_id: int | None) -> dict[str, Any]:
    """Return the row of an incident that opens with a condition."""
    names = ("metric", "kind", "severity", "reason", "value", "unit", "as_of", "anchor", "anchor_as_of", "low", "high")
    facts = {name: getattr(condition, name) for name in (*names, "request")}
    return facts | {"first_as_of": condition.as_of, "run_id": run_id, "opened_at": now, "updated_at": now}


def _conditions(
    item: RunReading,
    run: RunFacts,
    known: Mapping[tuple[str, str], Incident],
    request: ApprovalRequest | None,
    now: datetime,
    least_failures: int,
) -> Iterator[Condition]:
    """Yield what a reading says about each kind of incident. A check opens none and ends only a staleness."""
    metric, failures = item.metric, run.states[item.metric].failures
    if item.outcome == "failed":
        reason = f"failed {pluralize(failures, 'time')} in a row: {item.error}"
        if failures >= least_failures:
            yield Condition(metric, "failing", True, "high", reason)
        return
    yield Condition(metric, "stale", False)
    if not failures:  # a check does not clear the failures of the claims
        yield Condition(metric, "failing", False)
    if item.outcome == "looked" or metric.startswith(WORKFLOW):
        return
    judgement = run.judged[metric]
    yield _limit(item, judgement, now)
    if item.outcome == "held" and request is not None:
        yield _held(item, judgement, request)
    elif item.outcome == "accepted":
        yield Condition(metric, "approval", False, value=item.value, unit=item.unit, as_of=item.as_of)
        yield _drift(item, judgement, known.get((metric, "drift")))


def _limit(item: RunReading, judgement: Judgement, now: datetime) -> Condition:
    broken = judgement.judge.format_broken_limit(item.value, now, item.as_of)
    facts = {"value": item.value, "unit": item.unit, "as_of": item.as_of, "anchor": item.baseline}
    anchor_as_of = judgement.baseline_as_of
    if broken is None:
        return Condition(item.metric, "limit", False, anchor_as_of=anchor_as_of, **facts)
    return Condition(item.metric, "limit", True, "high", broken, anchor_as_of=anchor_as_of, **facts)


def _held(item: RunReading, judgement: Judgement, request: ApprovalRequest) -> Condition:
    return Condition(
        item.metric,
        "approval",
        True,
        item.severity or "high",
        item.reason or "",
        item.value,
        item.unit,
        item.as_of,
        request.compared_with,
        judgement.baseline_as_of,
        item.expected_low,
        item.expected_high,
        request.id,
    )


def _drift(item: RunReading, judgement: Judgement, known: Incident | None) -> Condition:
    """Return whether an accepted value drifts. An open incident is compared with the value before it, whatever the
    baseline is now."""
    verdict, judge = judgement.verdict, judgement.judge
    holds, reason = verdict.drifted, verdict.reason
    severity: str = verdict.severity
    if known is not None and known.active:
        holds = not is_back(judge, known, item.value, judgement.expected)
        if holds and not verdict.drifted:  # it is like the baseline, which has followed the drift
            severity, reason = known.severity, known.reason
    return Condition(
        item.metric,
        "drift",
        holds,
        severity,
        reason,
        item.value,
        item.unit,
        item.as_of,
        item.baseline,
        judgement.baseline_as_of,
        item.expected_low,
        item.expected_high,
    )
