"""Explain why the value of a metric has its verdict, from its state, history, approval requests and events."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from sqlalchemy import Connection

from dims_worker.analysis.bands import LearnedBand, learn_band
from dims_worker.analysis.evidence import Evidence, Gap, ValueChange, gather_evidence, named_gaps
from dims_worker.config import Config, DerivedMetric, Policy
from dims_worker.config.formula import parse_formula
from dims_worker.config.policy import Origin
from dims_worker.domain.decide import BACK, Baseline, Judge, Limit, Verdict, drift_pct
from dims_worker.domain.expectation import Expectation
from dims_worker.domain.health import RETIRED, Health, metric_health
from dims_worker.errors import NotFound
from dims_worker.formatting import display_unit
from dims_worker.probes.base import Value
from dims_worker.store import approval_requests, metric_states
from dims_worker.store.approval_requests import ApprovalRequest
from dims_worker.store.baselines import Acceptance, accepted_since, change_span, last_accepted
from dims_worker.store.engine import clock
from dims_worker.store.incidents import Incident, open_incidents
from dims_worker.store.metric_states import MetricState
from dims_worker.store.runs import PastReading, RunRow, newest_reading, reading_at, runs_by_number

DECISIONS = 5
"""The most past decisions to list."""
_DECIDED = ("approved", "rejected", "expired")


@dataclass(frozen=True, slots=True)
class Comparison:
    """A reading compared with an accepted value. `noise` is the policy key that makes DIMS ignore the change."""

    against: Acceptance
    drift_pct: float | None
    noise: Literal["direction", "min_abs"] | None


@dataclass(frozen=True, slots=True)
class JudgedVerdict:
    """The verdict under the current policy.

    `baseline` is the value that the reading was compared with, or None for a first reading or an age. `person` is the
    value that a person last accepted, if the metric is critical and that value differs. `limit` is the policy key of
    a broken limit. `policy_changed` says that the recorded verdict differs, because the policy was another one.
    """

    verdict: Verdict
    baseline: Comparison | None
    person: Comparison | None
    limit: Limit | None
    policy_changed: bool


@dataclass(frozen=True, slots=True)
class FormulaInput:
    """An input of a derived metric, by its name in the formula, with its latest value and its problem."""

    name: str
    value: Value
    unit: str
    as_of: datetime | None
    error: str | None
    due: bool


@dataclass(frozen=True, slots=True)
class Explanation:
    """All facts about one metric at `now`.

    `health` has the incidents of the metric. `policy` is None if the metric is not configured. `reading` is the last
    good reading with a verdict, from `run`.
    `provisional` is a newer reading that has no verdict yet. `since` is how the baseline got its value. `decisions`
    are the newest first. `incidents` are those that are open or acknowledged, oldest first. `learned` is the expected
    band for the reading, or why there is none.
    """

    metric: str
    unit: str
    now: datetime
    state: MetricState
    health: Health
    policy: Policy | None
    origins: Mapping[str, Origin]
    redefined: bool
    reading: PastReading | None
    run: RunRow | None
    provisional: PastReading | None
    since: Acceptance | None
    judged: JudgedVerdict | None
    formula: str | None
    inputs: tuple[FormulaInput, ...]
    evidence: Evidence | None
    gaps: tuple[Gap, ...]
    request: ApprovalRequest | None
    decisions: tuple[ApprovalRequest, ...]
    incidents: tuple[Incident, ...] = ()
    learned: LearnedBand | None = None

    @property
    def stale(self) -> bool:
        """Whether the last measurement is older than `stale_after`."""
        return "stale" in self.health.flags


def explain_metric(connection: Connection, config: Config, metric: str) -> Explanation:
    """Return all facts about one metric. Raises NotFound if it is neither configured nor recorded."""
    configured = metric in config.definitions
    known = metric_states.read_states(connection, [metric]).get(metric)
    if known is None and not configured:
        raise NotFound(f"no metric is called {metric}: `dims metrics` lists them")
    state = known or MetricState(metric, config.source_of(metric))
    now = clock(connection)
    reading = reading_at(connection, metric, state.as_of) if state.as_of else None
    run = next(iter(runs_by_number(connection, [reading.run_id])), None) if reading else None
    against, person = _accepted_before(connection, state, reading)
    begun = run.started_at if run else state.as_of  # a derived reading is older than the day that it was judged for
    learned = learn_band(connection, config, metric, reading.value, begun) if reading and begun and configured else None
    band = learned.band if learned else None
    judged = (
        judged_by(Judge.of(config, metric), reading, against, person, now, band) if reading and configured else None
    )
    declared = config.metrics.get(metric)
    is_age = declared is not None and declared.is_age
    inputs = _inputs(connection, config, declared) if isinstance(declared, DerivedMetric) else ()
    requests = approval_requests.list_requests(connection, limit=50, metric=metric)
    incidents = tuple(open_incidents(connection, [metric]))
    waiting = next((request for request in requests if request.state == "open"), None)
    return Explanation(
        metric=metric,
        unit=display_unit(config.metric_of(metric) if configured else None, state.unit),
        now=now,
        state=state,
        health=metric_health(config, state, incidents, now) if configured else RETIRED,
        policy=config.policy_of(metric) if configured else None,
        origins=config.policy_origins(metric) if configured else {},
        redefined=bool(known and configured and state.changed(config.definitions[metric])),
        reading=reading,
        run=run,
        provisional=_provisional(connection, state, reading),
        since=_since(connection, state),
        judged=judged,
        formula=declared.derive if isinstance(declared, DerivedMetric) else None,
        inputs=inputs,
        evidence=None if is_age else _evidence(connection, config, reading, run, against, waiting),
        gaps=named_gaps(reading.details, reading.value) if reading else (),
        request=waiting,
        decisions=tuple(request for request in requests if request.state in _DECIDED)[:DECISIONS],
        incidents=incidents,
        learned=learned,
    )


def explain_request(
    connection: Connection, config: Config, request: ApprovalRequest
) -> tuple[Evidence | None, list[Gap]]:
    """Return the evidence and gaps of the value that a request proposes. A baseline set by hand has none."""
    change = _change_of(connection, request)
    if change is None:
        return None, []
    details = (request.evidence or {}).get("details")
    return gather_evidence(connection, config, request.metric, change), list(named_gaps(details, request.value))


def _change_of(connection: Connection, request: ApprovalRequest) -> ValueChange | None:
    """Return the change that a request is about, in the span that its evidence counts. None if set by hand."""
    if request.baseline_as_of is None or request.run_id is None:
        return None
    stored = request.evidence or {}
    if "after" in stored:
        after, until = (datetime.fromisoformat(stored[key]) for key in ("after", "until"))
    else:
        (run,) = runs_by_number(connection, [request.run_id])
        after, until = change_span(connection, request.metric, request.baseline_as_of, run.started_at)
    return ValueChange(request.baseline, request.value, after, until)


def _provisional(connection: Connection, state: MetricState, reading: PastReading | None) -> PastReading | None:
    newest = newest_reading(connection, state.metric) if reading else None
    if newest and reading and newest.outcome == "provisional" and newest.id > reading.id:
        return newest
    return None


def _since(connection: Connection, state: MetricState) -> Acceptance | None:
    if state.baseline_as_of is None:
        return None
    return accepted_since(connection, state.metric, state.baseline, state.baseline_as_of)


def _accepted_before(
    connection: Connection, state: MetricState, reading: PastReading | None
) -> tuple[Acceptance | None, Acceptance | None]:
    """Return the value that the last reading was compared with, and the value that a person had last accepted then.

    A reading that became the baseline was compared with the previous baseline. Any other was compared with the
    current one.
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
    judge: Judge,
    reading: PastReading,
    against: Acceptance | None,
    person: Acceptance | None,
    now: datetime,
    expected: Expectation | None = None,
) -> JudgedVerdict | None:
    """Return the verdict on a good reading under a policy, with the comparisons that lead to it.

    An age is judged at `now`. `expected` is the band for the day of the reading. Return None if the value that the
    reading was compared with is no longer recorded.
    """
    if against is None and reading.status != "new":
        return None
    baseline, by_person = (Baseline(each.value) if each else None for each in (against, person))
    verdict = judge.decide(baseline, reading.value, by_person, now, reading.as_of, expected)
    if against is not None and f"; {BACK} " in (reading.reason or ""):
        verdict = judge.returned(verdict, reading.value, reading.value, now)
    differs = judge.policy.critical and person and against and drift_pct(person.value, against.value) != 0
    as_recorded = (reading.status, reading.severity, reading.tier) == (verdict.status, verdict.severity, verdict.tier)
    set_since = against is not None and against.as_of > reading.as_of
    return JudgedVerdict(
        verdict=verdict,
        baseline=_compare(judge, against, reading.value),
        person=_compare(judge, person if differs else None, reading.value),
        limit=judge.broken_limit(reading.value, now, reading.as_of),
        policy_changed=not (as_recorded or judge.is_age or set_since),
    )


def _compare(judge: Judge, against: Acceptance | None, value: Value) -> Comparison | None:
    if against is None or judge.is_age:
        return None
    drift = drift_pct(against.value, value, judge.policy.min_abs)
    return Comparison(against, drift, judge.noise(against.value, value))


def _inputs(connection: Connection, config: Config, metric: DerivedMetric) -> tuple[FormulaInput, ...]:
    """Return the inputs of a formula in the order in which it names them."""
    states = metric_states.states_of(connection, metric.inputs)
    inputs = []
    for name in sorted(parse_formula(metric.derive).names, key=metric.derive.find):
        if name in config.price_of:
            inputs.append(FormulaInput(name, config.price_of[name], "", None, None, due=False))
            continue
        category, short, *detail = name.split(".")
        state = states[f"{category}.{short}"]
        value = (state.details or {}).get(detail[0]) if detail else state.value
        unit = "" if detail else display_unit(config.metrics[state.metric], state.unit)
        inputs.append(FormulaInput(name, value, unit, state.as_of, state.error, state.due))
    return tuple(inputs)


def _evidence(
    connection: Connection,
    config: Config,
    reading: PastReading | None,
    run: RunRow | None,
    against: Acceptance | None,
    request: ApprovalRequest | None,
) -> Evidence | None:
    """Return the evidence for the change since the baseline, or None if a person set the baseline after the run.

    A held reading has the evidence of its request, so that both count the same events.
    """
    if reading is None or run is None or against is None or against.begun >= run.started_at:
        return None
    if request and reading.outcome == "held" and (asked := _change_of(connection, request)):
        return gather_evidence(connection, config, reading.metric, asked)
    change = ValueChange(against.value, reading.value, against.begun, run.started_at)
    return gather_evidence(connection, config, reading.metric, change)
