"""Compute the health of a metric: one answer that every output shows. Pure.

| flag | a metric has it while | label |
|---|---|---|
| `failing` | its latest measurement failed | failing |
| `waiting` | a held value waits for a person | waits for approval |
| `limit` | its value is beyond `min`, `max` or `max_age` | beyond its limit, or in the future |
| `drifted` | a drift incident is open, or its latest value drifted and is not accepted | lost, drifted |
| `stale` | it was not measured for longer than `stale_after` | stale |
| `overdue` | an event has waited too long for its measurement | overdue |
| `new` | it was never measured, or its value is the first one | not measured yet, new |
| `ok` | it has none of the flags above | ok |
| `off` | it is disabled: it has no other flag | off |
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from dims_worker.config import Config
from dims_worker.domain.decide import IN_FUTURE, SEVERITIES, Judge, Severity, at_least
from dims_worker.formatting import escape_control, format_age, format_limit, format_utc
from dims_worker.numbers import is_number, less_than
from dims_worker.store.incidents import Incident
from dims_worker.store.metric_states import MetricState

Flag = Literal["failing", "waiting", "limit", "drifted", "stale", "overdue", "new", "ok", "off"]
FLAGS: tuple[Flag, ...] = ("failing", "waiting", "limit", "drifted", "stale", "overdue", "new", "ok", "off")
"""The flags of a metric, the worst first."""
PROBLEMS: tuple[Flag, ...] = ("failing", "waiting", "limit", "drifted", "stale", "overdue")
"""The flags that need attention."""
_KINDS = {"failing": "failing", "waiting": "approval", "limit": "limit", "drifted": "drift", "stale": "stale"}
"""The kind of incident behind each flag."""
ACKNOWLEDGED = "acknowledged"
NOT_MEASURED = "not measured yet"
LATE_SWEEPS = 3
"""An event that waits for longer than this many sweeps and a lease is overdue."""


@dataclass(frozen=True, slots=True)
class Health:
    """The health of a metric.

    `flags` are the worst first, and never empty. `label` names the worst flag, with `, acknowledged` if a person has
    acknowledged every incident of the metric. `labels` name all flags. `sentence` explains the worst one. `severity` is
    that of its worst problem. `incidents` are those that are open or acknowledged.
    """

    flags: tuple[Flag, ...]
    labels: tuple[str, ...]
    label: str
    sentence: str
    severity: Severity
    incidents: tuple[Incident, ...] = ()

    @property
    def worst(self) -> Flag:
        return self.flags[0]

    @property
    def problems(self) -> tuple[Flag, ...]:
        """The flags that need attention."""
        return tuple(flag for flag in self.flags if flag in PROBLEMS)

    @property
    def healthy(self) -> bool:
        return not self.problems

    @property
    def request(self) -> int | None:
        """The number of the approval request that a held value waits for."""
        return next((each.request for each in self.incidents if each.kind == "approval"), None)

    @property
    def acknowledged(self) -> bool:
        """Whether a person has acknowledged every incident of the metric."""
        return bool(self.incidents) and all(each.state == ACKNOWLEDGED for each in self.incidents)


@dataclass(frozen=True, slots=True)
class HealthInputs:
    """What the health of a metric depends on. `overdue_after`: how long an event may wait for its measurement."""

    state: MetricState
    incidents: Sequence[Incident]
    judge: Judge
    enabled: bool
    overdue_after: timedelta


def metric_health(config: Config, state: MetricState, incidents: Iterable[Incident], now: datetime) -> Health:
    """Return the health of a configured metric or workflow at `now`. `incidents` may hold those of other metrics."""
    name = state.metric
    own = tuple(each for each in incidents if each.metric == name and each.active)
    late = LATE_SWEEPS * config.settings.sweep + config.settings.lease
    return health_of(HealthInputs(state, own, Judge.of(config, name), config.metric_of(name).enabled, late), now)


def health_of(inputs: HealthInputs, now: datetime) -> Health:
    """Return the health of a metric at `now`."""
    if not inputs.enabled and not inputs.incidents:
        return Health(("off",), ("off",), "off", "It is disabled, so DIMS measures it only by name.", "none")
    found = list(_findings(inputs, now))
    flags = tuple(finding.flag for finding in found)
    severity = max((finding.severity for finding in found), key=SEVERITIES.index)
    incidents = tuple(inputs.incidents)
    labels = tuple(finding.label for finding in found)
    health = Health(flags, labels, labels[0], found[0].sentence, severity, incidents)
    if not health.acknowledged or health.healthy:
        return health
    sentence = f"{health.sentence} {_acknowledged(incidents[-1])}"
    return Health(flags, labels, f"{labels[0]}, {ACKNOWLEDGED}", sentence, severity, incidents)


@dataclass(frozen=True, slots=True)
class _Finding:
    flag: Flag
    label: str
    sentence: str
    severity: Severity


def _findings(inputs: HealthInputs, now: datetime) -> Iterator[_Finding]:
    """Yield what applies to a metric, the worst first."""
    state, problems = inputs.state, False
    for finding in (
        _failing(state),
        _waiting(inputs),
        _limit(inputs, now),
        _drifted(inputs),
        _stale(inputs, now),
        _overdue(inputs, now),
    ):
        if finding is not None:
            problems = True
            yield finding
    if state.as_of is None and state.error is None:
        yield _Finding("new", NOT_MEASURED, "DIMS has not measured it yet.", "none")
    elif state.status == "new" and state.error is None:
        yield _Finding("new", "new", "Its first value is its baseline.", "none")
    elif not problems:
        yield _Finding("ok", "ok", "Its value is accepted.", "none")


def _incident(inputs: HealthInputs, flag: Flag) -> Incident | None:
    return next((each for each in inputs.incidents if each.kind == _KINDS[flag]), None)


def _severity_of(incident: Incident | None, least: Severity) -> Severity:
    if incident is None or incident.severity not in SEVERITIES:
        return least
    return incident.severity


def _failing(state: MetricState) -> _Finding | None:
    if state.error is None:
        return None
    return _Finding("failing", "failing", f"It could not be measured: {escape_control(state.error)}.", "high")


def _waiting(inputs: HealthInputs) -> _Finding | None:
    incident = _incident(inputs, "waiting")
    if incident is None:
        return None
    sentence = f"Request {incident.request} waits for a person: {escape_control(incident.reason)}."
    return _Finding("waiting", "waits for approval", sentence, _severity_of(incident, "high"))


def _limit(inputs: HealthInputs, now: datetime) -> _Finding | None:
    state = inputs.state
    broken = inputs.judge.format_broken_limit(state.value, now, state.as_of) if state.as_of else None
    if broken is None:
        return None
    label = IN_FUTURE if broken.startswith(IN_FUTURE) else "beyond its limit"
    return _Finding("limit", label, f"{escape_control(broken[0].upper() + broken[1:])}.", "high")


def _drifted(inputs: HealthInputs) -> _Finding | None:
    state, incident = inputs.state, _incident(inputs, "drifted")
    if incident is not None:
        label = _drift_label(inputs.judge, incident.anchor, incident.value)
        since = format_utc(incident.anchor_as_of) if incident.anchor_as_of else format_utc(incident.opened_at)
        flaps = f" It came back {incident.flaps + 1} times." if incident.flaps else ""
        sentence = f"It drifted from the value of {since}: {escape_control(incident.reason)}.{flaps}"
        return _Finding("drifted", label, sentence, _severity_of(incident, "high"))
    if _incident(inputs, "waiting") is not None or not has_unaccepted_drift(state):
        return None
    severity: Severity = state.severity if state.severity in SEVERITIES else "high"
    label = _drift_label(inputs.judge, state.baseline, state.value)
    return _Finding("drifted", label, "Its latest value drifted from the baseline and is not accepted.", severity)


def has_unaccepted_drift(state: MetricState) -> bool:
    """Return whether the latest value drifted far and did not become the baseline: a check found it, or a person
    rejected it."""
    if state.as_of is None or state.baseline_as_of is None or state.baseline_as_of >= state.as_of:
        return False
    return state.severity in SEVERITIES and at_least(state.severity, "high") and state.status != "new"


def _drift_label(judge: Judge, before: object, value: object) -> str:
    """Return `lost` for a number that became smaller, unless policy watches only growth, else `drifted`."""
    if judge.policy.direction == "up" or not (is_number(before) and is_number(value)):
        return "drifted"
    return "lost" if less_than(value, before) else "drifted"


def _stale(inputs: HealthInputs, now: datetime) -> _Finding | None:
    state, after = inputs.state, inputs.judge.policy.stale_after
    if after is None or state.as_of is None or now - state.as_of <= after:
        return None
    sentence = f"DIMS last measured it {format_age(now - state.as_of)} ago, longer than {format_limit(after)}."
    return _Finding("stale", "stale", sentence, "medium")


def _overdue(inputs: HealthInputs, now: datetime) -> _Finding | None:
    state = inputs.state
    if not state.due or state.due_since is None or state.error is not None:
        return None
    if now - state.due_since <= inputs.overdue_after:
        return None
    return _Finding("overdue", "overdue", f"An event waits since {format_utc(state.due_since)} for a reading.", "low")


def _acknowledged(incident: Incident) -> str:
    note = f": {escape_control(incident.note)}" if incident.note else ""
    return f"{escape_control(incident.acknowledged_by)} acknowledged it{note}."
