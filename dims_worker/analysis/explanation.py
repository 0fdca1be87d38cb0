"""Why a metric's value has its verdict: the facts, out of its row, its history, its requests and the event log."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from sqlalchemy import Connection

from dims_worker.analysis.evidence import Evidence, Gap, ValueChange, gather_evidence, named_gaps
from dims_worker.config import Config, DerivedMetric, Policy
from dims_worker.config.formula import parse_formula
from dims_worker.config.policy import Origin
from dims_worker.domain.decide import Baseline, Judge, Verdict, drift_pct
from dims_worker.errors import NotFound
from dims_worker.formatting import display_unit
from dims_worker.probes.base import Value
from dims_worker.store import approval_requests, metric_states
from dims_worker.store.approval_requests import ApprovalRequest
from dims_worker.store.baselines import Acceptance, accepted_since, last_accepted
from dims_worker.store.engine import clock
from dims_worker.store.metric_states import MetricState
from dims_worker.store.runs import PastReading, RunRow, newest_reading, reading_at, runs_by_number

DECISIONS = 5
"""So many of the last decisions are told."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """A reading against an accepted value. `noise`: the key of policy for which the change is not watched."""

    against: Acceptance
    drift_pct: float | None
    noise: Literal["direction", "min_abs"] | None


@dataclass(frozen=True, slots=True)
class JudgedVerdict:
    """The verdict that follows from the policy in force; `otherwise`: another one was recorded, by another policy.

    `baseline`: what the reading was judged against (None: nothing, or an age). `person`: what a person had last
    accepted, where the metric is critical and that is another value. `limit`: the key of policy that is broken.
    """

    verdict: Verdict
    baseline: Comparison | None
    person: Comparison | None
    limit: Literal["min", "max", "max_age"] | None
    otherwise: bool


@dataclass(frozen=True, slots=True)
class FormulaInput:
    """What a derived metric reads, by its name in the formula: the latest value, and what is the matter with it."""

    name: str
    value: Value
    unit: str
    as_of: datetime | None
    error: str | None
    due: bool


@dataclass(frozen=True, slots=True)
class Explanation:
    """All facts of one metric at `now`.

    `policy` None: it is not configured (any more). `reading`: the last good one that was judged, with its `run`.
    `waits`: a newer, provisional one. `since`: from when on the baseline was what it is. `formula` and `inputs` of a
    derived metric. `decisions`: what people decided of it, newest first.
    """

    metric: str
    unit: str
    now: datetime
    state: MetricState
    policy: Policy | None
    origins: Mapping[str, Origin]
    redefined: bool
    reading: PastReading | None
    run: RunRow | None
    waits: PastReading | None
    since: Acceptance | None
    judged: JudgedVerdict | None
    formula: str | None
    inputs: tuple[FormulaInput, ...]
    evidence: Evidence | None
    gaps: tuple[Gap, ...]
    request: ApprovalRequest | None
    decisions: tuple[ApprovalRequest, ...]

    @property
    def stale(self) -> bool:
        """Whether it was unmeasured for longer than `stale_after`."""
        after = self.policy.stale_after if self.policy else None
        return bool(after and self.state.as_of and self.now - self.state.as_of > after)


def explain_metric(connection: Connection, config: Config, metric: str) -> Explanation:
    """Everything that speaks of one metric. Raises NotFound where nobody knows it."""
    configured = metric in config.definitions
    known = metric_states.read_states(connection, [metric]).get(metric)
    if known is None and not configured:
        raise NotFound(f"no metric is called {metric}: `dims metrics` lists them")
    state = known or MetricState(metric, config.source_of(metric))
    now = clock(connection)
    reading = reading_at(connection, metric, state.as_of) if state.as_of else None
    run = next(iter(runs_by_number(connection, [reading.run_id])), None) if reading else None
    newest = newest_reading(connection, metric) if state.as_of else None
    against, person = _accepted_before(connection, state, reading)
    judged = judged_by(Judge.of(config, metric), reading, against, person, now) if reading and configured else None
    declared = config.metrics.get(metric)
    is_age = declared is not None and declared.is_age
    inputs = _inputs(connection, config, declared) if isinstance(declared, DerivedMetric) else ()
    decided = approval_requests.list_requests(connection, limit=50, metric=metric)
    return Explanation(
        metric=metric,
        unit=display_unit(config.metric_of(metric) if configured else None, state.unit),
        now=now,
        state=state,
        policy=config.policy_of(metric) if configured else None,
        origins=config.policy_origins(metric) if configured else {},
        redefined=bool(known and configured and state.changed(config.definitions[metric])),
        reading=reading,
        run=run,
        waits=newest if newest and reading and newest.outcome == "provisional" and newest.id > reading.id else None,
        since=_since(connection, state),
        judged=judged,
        formula=declared.derive if isinstance(declared, DerivedMetric) else None,
        inputs=inputs,
        evidence=None if is_age else _evidence(connection, config, reading, run, against),
        gaps=named_gaps(reading.details, reading.value) if reading else (),
        request=next((one for one in decided if one.state == "open"), None),
        decisions=tuple(one for one in decided if one.state in ("approved", "rejected", "expired"))[:DECISIONS],
    )


def explain_request(
    connection: Connection, config: Config, request: ApprovalRequest
) -> tuple[Evidence | None, list[Gap]]:
    """The same evidence for what a request proposes, or proposed; none for a baseline that was set by hand."""
    if request.baseline_as_of is None or request.run_id is None:
        return None, []
    (run,) = runs_by_number(connection, [request.run_id])
    against = last_accepted(connection, request.metric, request.baseline_as_of)
    known = against is not None and against.begun < run.started_at  # not what became of the request itself
    after = against.begun if against and known else request.baseline_as_of
    change = ValueChange(request.baseline, request.value, after, run.started_at)
    details = (request.evidence or {}).get("details")
    return gather_evidence(connection, config, request.metric, change), list(named_gaps(details, request.value))


def _since(connection: Connection, state: MetricState) -> Acceptance | None:
    if state.baseline_as_of is None:
        return None
    return accepted_since(connection, state.metric, state.baseline, state.baseline_as_of)


def _accepted_before(
    connection: Connection, state: MetricState, reading: PastReading | None
) -> tuple[Acceptance | None, Acceptance | None]:
    """What the last reading was judged against, and what a person had last accepted then.

    A reading that became the baseline was judged against the one before; any other against the one that stands.
    """
    if reading is None or state.baseline_as_of is None or reading.status == "new":
        return None, None
    own = reading.outcome in ("accepted", "approved") and state.baseline_as_of == reading.as_of
    until, before = (reading.as_of, reading.id) if own else (state.baseline_as_of, None)
    against = last_accepted(connection, state.metric, until, before=before)
    if own:
        return against, last_accepted(connection, state.metric, until, before=before, by_person=True)
    if state.accepted_as_of is None:
        return against, None
    return against, last_accepted(connection, state.metric, state.accepted_as_of, by_person=True)


def judged_by(
    judge: Judge, reading: PastReading, against: Acceptance | None, person: Acceptance | None, now: datetime
) -> JudgedVerdict | None:
    """The verdict on a good reading under a policy, and what it follows from. Pure.

    An age is judged as it is at `now`. None where it is not known any more what it was judged against.
    """
    if against is None and reading.status != "new":
        return None
    known, accepted = (Baseline(one.value) if one else None for one in (against, person))
    verdict = judge.decide(known, reading.value, accepted, now)
    apart = judge.policy.critical and person and against and drift_pct(person.value, against.value) != 0
    as_recorded = (reading.status, reading.severity, reading.tier) == (verdict.status, verdict.severity, verdict.tier)
    set_since = against is not None and against.as_of > reading.as_of
    return JudgedVerdict(
        verdict=verdict,
        baseline=_weighed(judge, against, reading.value),
        person=_weighed(judge, person if apart else None, reading.value),
        limit=judge.broken_limit(reading.value, now),
        otherwise=not (as_recorded or judge.is_age or set_since),
    )


def _weighed(judge: Judge, against: Acceptance | None, value: Value) -> Comparison | None:
    if against is None or judge.is_age:
        return None
    drift = drift_pct(against.value, value, judge.policy.min_abs)
    return Comparison(against, drift, judge.noise(against.value, value))


def _inputs(connection: Connection, config: Config, metric: DerivedMetric) -> tuple[FormulaInput, ...]:
    """What the formula reads, in the order of the formula."""
    known = metric_states.states_of(connection, metric.inputs)
    found = []
    for name in sorted(parse_formula(metric.derive).names, key=metric.derive.find):
        if name in config.price_of:
            found.append(FormulaInput(name, config.price_of[name], "", None, None, due=False))
            continue
        category, short, *detail = name.split(".")
        read = known[f"{category}.{short}"]
        value = (read.details or {}).get(detail[0]) if detail else read.value
        unit = "" if detail else display_unit(config.metrics[read.metric], read.unit)
        found.append(FormulaInput(name, value, unit, read.as_of, read.error, read.due))
    return tuple(found)


def _evidence(
    connection: Connection, config: Config, reading: PastReading | None, run: RunRow | None, against: Acceptance | None
) -> Evidence | None:
    """What speaks for the change from one run to the other; nothing where a person has set the baseline since."""
    if reading is None or run is None or against is None or against.begun >= run.started_at:
        return None
    change = ValueChange(against.value, reading.value, against.begun, run.started_at)
    return gather_evidence(connection, config, reading.metric, change)
