"""Record a run in one transaction: readings, verdicts, baselines, approval requests and notifications.

Rows are locked in one order, so two runs cannot wait for each other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from typing import Any

from sqlalchemy import Connection

from dims_worker.approvals.lifecycle import update_requests
from dims_worker.config import Config, DerivedMetric
from dims_worker.domain.backoff import BACKOFF_MAX, retry_delay
from dims_worker.domain.decide import FAILED, Baseline, Judge, Verdict, inside_band
from dims_worker.domain.expectation import Expectation
from dims_worker.domain.run import Outcome, Run, RunReading
from dims_worker.incidents.lifecycle import (
    Judgement,
    KnownIncidents,
    RunFacts,
    is_back,
    known_incidents,
    update_incidents,
)
from dims_worker.notifications.outbox import write_run_notifications
from dims_worker.pipeline.expectations import expected_bands
from dims_worker.probes.base import IN_PROGRESS, Reading
from dims_worker.probes.derived import derive_reading
from dims_worker.store import leases, metric_states
from dims_worker.store.engine import clock
from dims_worker.store.leases import Claim
from dims_worker.store.metric_states import MetricState
from dims_worker.store.runs import insert_readings, insert_run

DEFINITION_CHANGED = "its definition has changed: run `dims verify --update`, or restart the worker, to apply it"


@dataclass(slots=True)
class Measurement:
    """What to record: the readings of a scan that began at `as_of`, and the claim that allowed it."""

    readings: Mapping[str, Reading]
    as_of: datetime
    trigger: str
    worker: str
    source: str | None = None
    api_calls: int = 0
    claim: Claim | None = None
    result: Mapping[str, Any] | None = None
    """The full result of a workflow."""
    crashed: bool = False
    """Whether the scan crashed or blocked its process. The attempt then counts, so that DIMS finds the metric that
    is the cause by measuring metrics alone, and the others go on."""
    states: Mapping[str, str] = field(default_factory=dict)
    """What the readings were measured from."""
    unchanged: frozenset[str] = frozenset()
    """The metrics that have no reading, because they would be measured from the same state as the last time."""


def record_run(connection: Connection, config: Config, measured: Measurement, now: datetime | None = None) -> Run:
    """Record a run completely or not at all. `now` is the time of the database by default.

    If the claim lost its lease meanwhile, the readings go to the history as superseded and change nothing else. The
    worker that has the lease now measures again.
    """
    claim = measured.claim
    if claim is not None:
        cooldown = config.cooldown_of(claim.source)
        if not leases.release_lease(connection, claim, cooldown):
            readings = measured.readings.values()
            items = [_superseded(reading, measured.as_of, "its lease was lost") for reading in readings]
            return _write(connection, measured, items)
    dependents = config.dependents({*measured.readings, *measured.unchanged})
    return _record(connection, config, measured, dependents, now or clock(connection))


def prepare_record(connection: Connection, config: Config, measured: Measurement) -> None:
    """Compute the expected bands that a record needs, in a transaction before it, so that it is short."""
    expected_bands(connection, config, _judged_names(config, measured), measured.as_of)


def _judged_names(config: Config, measured: Measurement) -> tuple[str, ...]:
    return (*measured.readings, *config.dependents({*measured.readings, *measured.unchanged}))


def compute_missing_derived(connection: Connection, config: Config, worker: str) -> Run | None:
    """Compute the derived metrics that have no value under their present definition, because their inputs were
    measured with an older configuration. None if there is no such metric whose inputs are all measured."""
    names = metric_states.missing_derived(connection, {name: config.definitions[name] for name in config.derived})
    if not names:
        return None
    known = metric_states.read_states(connection, config.with_inputs(names))
    measured = {name for name, state in known.items() if not state.due and (state.as_of or state.error)}
    ready: list[str] = []
    for name, metric in config.derived.items():
        if name in names and metric.enabled and config.with_inputs(metric.inputs) <= measured | {*ready}:
            ready.append(name)
    if not ready:
        return None
    now = clock(connection)
    return _record(connection, config, Measurement({}, now, "verify", worker), tuple(ready), now)


def _record(
    connection: Connection, config: Config, measured: Measurement, dependents: tuple[str, ...], now: datetime
) -> Run:
    names = {*measured.readings, *measured.unchanged, *dependents}
    locked = metric_states.lock_states(connection, names)
    bands = expected_bands(connection, config, (*measured.readings, *dependents), measured.as_of)
    recording = _Recording(config, measured, locked, now, bands, known_incidents(connection, config, names, now))
    for name in sorted(measured.unchanged):
        recording.confirm(name)
    items = [recording.apply(reading) for reading in measured.readings.values()]
    # Read after the derived rows are locked, so that two runs with one input each cannot miss each other's value
    others = metric_states.read_states(connection, config.with_inputs(dependents) - names)
    items += [item for name in dependents if (item := recording.apply_derived(name, {**others, **locked}))]
    metric_states.save_states(connection, list(locked.values()))
    if measured.unchanged and not items:
        return Run.without_changes(measured.trigger, measured.source, measured.as_of, recording.now)
    return _write(connection, measured, items, recording, config)


@dataclass(slots=True)
class _Recording:
    """Applies the readings of a run to the states of its metrics, in memory."""

    config: Config
    measured: Measurement
    states: dict[str, MetricState]
    now: datetime
    bands: Mapping[str, Expectation]
    incidents: KnownIncidents
    judged: dict[str, Judgement] = field(default_factory=dict)
    applied: set[str] = field(default_factory=set)
    confirmed: set[str] = field(default_factory=set)
    failed: set[str] = field(default_factory=set)

    def is_check(self, name: str) -> bool:
        """Return whether a reading is only a check: neither claimed, nor derived from a claimed metric."""
        claim = self.measured.claim
        if claim is None:
            return True
        metric = self.config.metric_of(name)
        if isinstance(metric, DerivedMetric):
            return not any(read in claim.generations for read in self.config.with_inputs([name]))
        return name not in claim.generations

    def apply(self, reading: Reading) -> RunReading:
        """Judge a reading of a source and update the state of its metric."""
        state = self.states[reading.metric]
        if state.changed(self.config.definitions[reading.metric]):
            return _superseded(reading, self.measured.as_of, DEFINITION_CHANGED)
        claim = self.measured.claim
        generation = claim.generations.get(reading.metric) if claim else None
        if claim and generation is not None and not self.measured.crashed:
            # The scan has ended well. A quarantined metric gets one attempt, alone.
            state.attempts = leases.QUARANTINE_AFTER - 1 if claim.quarantined else 0
        if state.as_of is not None and self.measured.as_of <= state.as_of:
            return _superseded(reading, self.measured.as_of, "a newer reading is recorded already")
        self.applied.add(reading.metric)
        if claim and generation is not None:
            self._update_schedule(state, claim, generation, failed=reading.method == "failed")
        if reading.method == "failed":
            return self._failed(state, reading, self.measured.as_of, generation)
        return self._judge(state, reading, self.measured.as_of, generation)

    def confirm(self, name: str) -> None:
        """Note that a metric has still the value of its last reading, because what it reads has not changed."""
        state, claim = self.states[name], self.measured.claim
        assert claim is not None
        if state.changed(self.config.definitions[name]):
            return
        state.attempts = 0
        if state.as_of is None or self.measured.as_of <= state.as_of:
            return
        self.confirmed.add(name)
        state.as_of = self.measured.as_of
        self._update_schedule(state, claim, claim.generations[name], failed=False)

    def _update_schedule(self, state: MetricState, claim: Claim, generation: int, *, failed: bool) -> None:
        """Set when a metric is measured again, after a reading under a claim."""
        if failed:
            state.not_before = self.now + (BACKOFF_MAX if claim.quarantined else retry_delay(state.failures))
            state.failures += 1
            return
        state.measured_gen = max(state.measured_gen, generation)
        state.failures, state.not_before = 0, None
        state.due_since = self.measured.as_of if state.due else None

    def apply_derived(self, name: str, known: Mapping[str, MetricState]) -> RunReading | None:
        """Compute a derived metric from the latest readings of its inputs.

        None while an input was never measured. Provisional, and not judged, while an input is still due.
        """
        metric = self.config.metrics[name]
        assert isinstance(metric, DerivedMetric)
        # New in the configuration, or defined otherwise: a worker with the registered configuration computes it
        is_old = name not in self.states or self.states[name].changed(self.config.definitions[name])
        inputs = [known[read] for read in sorted(metric.inputs) if read in known]
        never = any(state.as_of is None and state.error is None for state in inputs)
        if is_old or never or len(inputs) < len(metric.inputs):
            return None
        latest = {state.metric: self._latest(state, known) for state in inputs}
        reading = derive_reading(name, metric, latest, self.config.price_of)
        state = self.states[name]
        failed = {name for name, read in latest.items() if read.method == "failed"}
        as_of = min((s.failed_at if s.metric in failed else s.as_of) or self.measured.as_of for s in inputs)
        if not self.config.with_inputs([name]) & (self.applied | self.failed):
            return self._confirm_derived(state, reading, as_of, known)
        # Without a baseline it is newly defined, and its older readings do not count
        if state.as_of and state.baseline_as_of and as_of < state.as_of and reading.method != "failed":
            return _superseded(reading, as_of, "a newer reading is recorded already")
        if not failed and any(self._still_due(read, known) for read in metric.inputs):
            item = _unjudged(reading, as_of, "provisional", "an input is still due")
            return replace(item, baseline=state.baseline)
        if reading.method == "failed":
            return self._failed(state, reading, as_of, None)
        self.applied.add(name)
        return self._judge(state, reading, as_of, None)

    def _confirm_derived(
        self, state: MetricState, reading: Reading, as_of: datetime, known: Mapping[str, MetricState]
    ) -> RunReading | None:
        """Note that the inputs of a derived metric were found unchanged. It is judged if it had to wait for that."""
        metric = self.config.metrics[state.metric]
        assert isinstance(metric, DerivedMetric)
        if any(self._still_due(read, known) for read in metric.inputs) or reading.method == "failed":
            return None
        if state.error is not None or (reading.value, reading.unit) != (state.value, state.unit):
            self.applied.add(state.metric)
            return self._judge(state, reading, as_of, None)
        self.confirmed.add(state.metric)
        state.as_of = max(as_of, state.as_of or as_of)
        return None

    def _still_due(self, name: str, known: Mapping[str, MetricState]) -> bool:
        """Return whether a newer reading of an input is expected. In a check, its own readings are final. A derived
        input is due while one of its own inputs is."""
        if name in self.applied and self.is_check(name):
            return False
        metric = self.config.metrics[name]
        if isinstance(metric, DerivedMetric):
            if name in self.states:
                return name not in self.applied | self.confirmed
            return any(self._still_due(read, known) for read in metric.inputs)
        return name in known and known[name].due

    def _latest(self, state: MetricState, known: Mapping[str, MetricState]) -> Reading:
        """Return the latest reading of an input. A failure counts while the input is due, and in its own run. Otherwise
        it came from a check, and must not hide a good reading from later events."""
        due = any(known[read].due for read in self.config.with_inputs([state.metric]) if read in known)
        if state.error is not None and (due or state.metric in self.failed or state.as_of is None):
            return Reading.failed(state.metric, state.unit or "", state.error)
        return Reading(state.metric, state.value, state.unit or "", "exact", None, state.details or {})

    def _failed(self, state: MetricState, reading: Reading, as_of: datetime, generation: int | None) -> RunReading:
        self.failed.add(state.metric)
        state.error, state.failed_at, state.state = reading.error, as_of, None
        return _item(reading, as_of, generation, state, FAILED, "failed")

    def _judge(self, state: MetricState, reading: Reading, as_of: datetime, generation: int | None) -> RunReading:
        baseline = Baseline(state.baseline) if state.baseline_as_of is not None else None
        accepted = Baseline(state.accepted) if state.accepted_as_of is not None else None
        judge, expected = Judge.of(self.config, state.metric), self.bands.get(state.metric)
        if state.unit is not None and reading.unit != state.unit:
            expected = None  # it was learned in another unit
        verdict = judge.decide(baseline, reading.value, accepted, self.now, expected=expected)
        incident = self.incidents.get((state.metric, "drift"))
        if incident is not None and incident.active and is_back(judge, incident, reading.value, expected):
            verdict = judge.returned(verdict, incident.anchor, reading.value, self.now)
        item = _item(reading, as_of, generation, state, verdict, self._outcome(state, reading, as_of, verdict))
        self.judged[state.metric] = Judgement(judge, verdict, state.baseline_as_of, expected)
        state.error = state.failed_at = None
        state.details = dict(reading.details) or None
        state.value, state.unit, state.method, state.as_of = reading.value, reading.unit, reading.method, as_of
        state.status, state.severity, state.drift_pct = verdict.status, verdict.severity, verdict.drift_pct
        state.expected_low, state.expected_high = verdict.expected_low, verdict.expected_high
        if baseline is None:
            state.history_since = as_of
        # What was only looked at is measured again under a claim, because it was not accepted
        state.state = None if item.outcome == "looked" else self.measured.states.get(state.metric)
        if item.outcome == "accepted":
            state.accept(
                reading.value, as_of, by_person=baseline is None
            )  # the first value counts as accepted by a person
        return item

    def _outcome(self, state: MetricState, reading: Reading, as_of: datetime, verdict: Verdict) -> Outcome:
        in_progress = IN_PROGRESS in reading.details
        if verdict.status == "new" and not in_progress:
            return "accepted"
        baseline_is_newer = state.baseline_as_of is not None and as_of < state.baseline_as_of  # a person set it
        if in_progress or self.is_check(state.metric) or baseline_is_newer:
            return "looked"
        if verdict.tier != "approve":
            return "accepted"
        if state.rejected_as_of is None:
            return "held"
        if inside_band(state.rejected, reading.value, self.config.policy_of(state.metric).tolerance_pct):
            return "rejected"  # a person has rejected this band already
        state.rejected = state.rejected_as_of = None
        return "held"


def _item(
    reading: Reading, as_of: datetime, generation: int | None, state: MetricState, verdict: Verdict, outcome: Outcome
) -> RunReading:
    return replace(
        _unjudged(reading, as_of, outcome, verdict.reason),
        generation=generation,
        baseline=state.baseline,
        drift_pct=verdict.drift_pct,
        status=verdict.status,
        severity=verdict.severity,
        tier=verdict.tier,
        details=dict(reading.details) or None,
        expected_low=verdict.expected_low,
        expected_high=verdict.expected_high,
    )


def _superseded(reading: Reading, as_of: datetime, reason: str) -> RunReading:
    return _unjudged(reading, as_of, "superseded", reason)


def _unjudged(reading: Reading, as_of: datetime, outcome: Outcome, reason: str | None) -> RunReading:
    metric, value, unit, method = reading.metric, reading.value, reading.unit, reading.method
    return RunReading(metric, value, unit, method, as_of, outcome, reason=reason, error=reading.error)


def _write(
    connection: Connection,
    measured: Measurement,
    items: list[RunReading],
    recording: _Recording | None = None,
    config: Config | None = None,
) -> Run:
    """Write a run, and what follows from its readings. A superseded run has no `recording` and no `config`."""
    failed = sum(item.outcome == "failed" for item in items)
    status = "partial" if failed else "ok" if config else "superseded"
    run_id, finished_at = insert_run(
        connection,
        {
            "trigger": measured.trigger,
            "source": measured.source,
            "status": status,
            "started_at": measured.as_of,
            "lease_epoch": measured.claim.epoch if measured.claim else None,
            "worker": measured.worker,
            "readings": len(items),
            "failed": failed,
            "held": sum(item.outcome == "held" for item in items),
            "api_calls": measured.api_calls,
            "result": measured.result,
        },
    )
    insert_readings(connection, ({"run_id": run_id, **asdict(item)} for item in items))
    channels: tuple[str, ...] = ()
    if config and recording:
        locked = recording.states
        update_requests(connection, config, run_id, items, locked)
        facts = RunFacts(run_id, items, locked, recording.judged, recording.incidents)
        update_incidents(connection, config, facts, recording.now)
        channels = write_run_notifications(connection, config, run_id, items, locked, recording.now)
    trigger, source, as_of, api_calls = measured.trigger, measured.source, measured.as_of, measured.api_calls
    return Run(run_id, trigger, source, status, as_of, finished_at, api_calls, tuple(items), channels)
