"""Compute the health of a metric: one answer that every output shows. Pure.

| flag | a metric has it while | label |
|---|---|---|
| `failing` | its latest measurement failed | failing |
| `waiting` | a held value waits for a person | waits for approval |
| `limit` | its value is beyond `min`, `max` or `max_age` | beyond its limit, or in the future |
| `drifted` | a drift incident is open, or its latest value drifted and is not accepted | lost, drifted |
| `stale` | it was not measured for longer than `stale_after` | stale |
| `overdue` | an event has waited too long for its measurement | overdue |
| `new` | it was never measured, or its value is the first one and has no problem | not measured yet, new |
| `ok` | it has none of the flags above | ok |
| `off` | it is disabled: it has no other flag | off |

A doubt about the value takes the place of `ok` in the label: `absent`, `approximate`, `measured while …`.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from dims_worker.config import Config
from dims_worker.config.runtime import WORKFLOW
from dims_worker.domain.decide import IN_FUTURE, SEVERITIES, Judge, Severity, at_least
from dims_worker.domain.run import RunReading
from dims_worker.formatting import escape_control, format_age, format_limit, format_utc
from dims_worker.numbers import is_number, less_than, same_value
from dims_worker.probes.reading_notes import reading_doubts
from dims_worker.store.incidents import Incident
from dims_worker.store.metric_states import MetricState
from dims_worker.store.runs import PastReading

Flag = Literal["failing", "waiting", "limit", "drifted", "stale", "overdue", "new", "ok", "off"]
FLAGS: tuple[Flag, ...] = ("failing", "waiting", "limit", "drifted", "stale", "overdue", "new", "ok", "off")
"""The flags of a metric, the worst first."""
PROBLEMS: tuple[Flag, ...] = ("failing", "waiting", "limit", "drifted", "stale", "overdue")
"""The flags that need attention."""
_KINDS = {"failing": "failing", "waiting": "approval", "limit": "limit", "drifted": "drift", "stale": "stale"}
"""The kind of incident behind each flag."""
WAITS = "waits for approval"
_UNACCEPTED = "Its latest value drifted from the baseline and is not accepted."
_OFF = "It is disabled, so DIMS measures it only by name."
_RETIRED = "The configuration no longer has it, so DIMS does not measure it."
ACKNOWLEDGED = "acknowledged"
NOT_MEASURED = "not measured yet"
CALM = "calm"
LATE_SWEEPS = 3
"""An event that waits for longer than this many sweeps and a lease is overdue."""


@dataclass(frozen=True, slots=True)
class Health:
    """The health of a metric.

    `flags` are the worst first, and never empty. `label` names the worst flag, with `, acknowledged` if a person has
    acknowledged every incident of the metric. `labels` name all flags, `label` first, then the doubts about the value.
    `sentence` explains the worst flag, and `sentences` explain each of them. `severity` is that of its worst problem.
    `incidents` are those that are open or acknowledged. `broken` is the limit that the value breaks, as text. `reasons`
    say in a few words why each flag applies, or are empty.
    """

    flags: tuple[Flag, ...]
    labels: tuple[str, ...]
    label: str
    sentence: str
    severity: Severity
    incidents: tuple[Incident, ...] = ()
    sentences: tuple[str, ...] = ()
    broken: str | None = None
    reasons: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """All labels as one text: `lost, acknowledged; stale`."""
        return "; ".join(self.labels)

    def explained(self, *, without: Flag | None = None) -> str:
        """Return all labels with their reasons: `failing: no such bucket; stale: measured 9 days ago`.

        `without` is a flag that gets no reason.
        """
        rows = itertools.zip_longest(self.labels, self.reasons, self.flags, fillvalue="")
        return "; ".join(f"{label}: {why}" if why and flag != without else label for label, why, flag in rows)

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
    def in_future(self) -> bool:
        """Whether its value is an instant that was in the future when it was measured."""
        return self.broken is not None and self.broken.startswith(IN_FUTURE)

    @property
    def request(self) -> int | None:
        """The number of the approval request that a held value waits for."""
        return next((each.request for each in self.incidents if each.kind == "approval" and not each.calm), None)

    @property
    def acknowledged(self) -> bool:
        """Whether a person has acknowledged every incident of the metric."""
        return bool(self.incidents) and all(each.state == ACKNOWLEDGED for each in self.incidents)


RETIRED = Health(("off",), ("off",), "off", _RETIRED, "none", sentences=(_RETIRED,))
"""The health of a metric that the configuration no longer has."""


def incidents_by_metric(incidents: Iterable[Incident]) -> dict[str, list[Incident]]:
    """Return incidents by their metrics, so that the health of many metrics takes one pass."""
    grouped: dict[str, list[Incident]] = {}
    for incident in incidents:
        grouped.setdefault(incident.metric, []).append(incident)
    return grouped


@dataclass(frozen=True, slots=True)
class HealthInputs:
    """What the health of a metric depends on.

    `overdue_after`: how long an event may wait for its measurement. `request`: the number of the open request that the
    value waits for, where the incident is not known.
    """

    state: MetricState
    incidents: Sequence[Incident]
    judge: Judge
    enabled: bool
    overdue_after: timedelta
    request: int | None = None


def metric_health(config: Config, state: MetricState, incidents: Iterable[Incident], now: datetime) -> Health:
    """Return the health of a configured metric or workflow at `now`. `incidents` may hold those of other metrics."""
    name = state.metric
    own = tuple(each for each in incidents if each.metric == name and each.active)
    late = LATE_SWEEPS * config.settings.sweep + config.settings.lease
    return health_of(HealthInputs(state, own, Judge.of(config, name), config.metric_of(name).enabled, late), now)


def health_of(inputs: HealthInputs, now: datetime) -> Health:
    """Return the health of a metric at `now`."""
    if not inputs.enabled and not inputs.incidents:
        return Health(("off",), ("off",), "off", _OFF, "none", sentences=(_OFF,))
    found = list(_findings(inputs, now))
    doubts = [doubt.partition(": ") for doubt in _doubts(inputs.state)]
    shown = [finding for finding in found if finding.flag != "ok" or not doubts]
    labels = [*(finding.label for finding in shown), *(label for label, _, _ in doubts)]
    reasons = [*(finding.reason for finding in shown), *(escape_control(reason) for _, _, reason in doubts)]
    sentences = [finding.sentence for finding in found]
    incidents = tuple(inputs.incidents)
    if found[0].flag in PROBLEMS and incidents and all(each.state == ACKNOWLEDGED for each in incidents):
        labels[0] = f"{labels[0]}, {ACKNOWLEDGED}"
        sentences[0] = f"{sentences[0]} {_acknowledged(incidents[-1])}"
    return Health(
        flags=tuple(finding.flag for finding in found),
        labels=tuple(labels),
        label=labels[0],
        sentence=sentences[0],
        severity=max((finding.severity for finding in found), key=SEVERITIES.index),
        incidents=incidents,
        sentences=tuple(sentences),
        broken=_broken_limit(inputs, now),
        reasons=tuple(reasons),
    )


def health_of_reading(config: Config, reading: RunReading | PastReading, request: int | None = None) -> Health:
    """Return what a reading alone says about its metric, at the time when it was measured.

    `request` is the number of its request, if that is still open. A reading that a person approved has not drifted.
    """
    configured, first = reading.metric in config.definitions, reading.status == "new"
    judge = Judge.of(config, reading.metric) if configured else Judge()
    state = MetricState(
        reading.metric,
        None,
        error=(reading.error or "") if reading.method == "failed" else None,
        value=reading.value,
        method=reading.method,
        details=reading.details,
        as_of=reading.as_of,
        status=reading.status,
        severity=None if reading.outcome == "approved" else reading.severity,
        baseline=reading.baseline,
        baseline_as_of=None if first and reading.outcome == "looked" else reading.as_of - timedelta.resolution,
        expected_low=reading.expected_low,
        expected_high=reading.expected_high,
    )
    return health_of(HealthInputs(state, (), judge, True, timedelta.max, request), reading.as_of)


@dataclass(frozen=True, slots=True)
class _Finding:
    flag: Flag
    label: str
    sentence: str
    severity: Severity
    reason: str = ""


def _findings(inputs: HealthInputs, now: datetime) -> Iterator[_Finding]:
    """Yield what applies to a metric, the worst first."""
    state, problems = inputs.state, False
    for finding in (
        _failing(state),
        _waiting(inputs),
        _limit(inputs, now),
        _drifted(inputs, now),
        _stale(inputs, now),
        _overdue(inputs, now),
    ):
        if finding is not None:
            problems = True
            yield finding
    if state.as_of is None:
        yield _Finding("new", NOT_MEASURED, "DIMS has not measured it yet.", "none")
    elif state.status == "new" and not problems:
        reason = "first baseline" if state.baseline_as_of else ""
        yield _Finding("new", "new", "It has only its first value.", "none", reason)
    elif not problems:
        calm = next((each.calm_at for each in inputs.incidents if each.calm), None)
        flapped = f" It came and went, and has been calm since {format_utc(calm)}." if calm else ""
        yield _Finding("ok", "ok", f"Its value is accepted.{flapped}", "none")


def _incident(inputs: HealthInputs, flag: Flag) -> Incident | None:
    return next((each for each in inputs.incidents if each.kind == _KINDS[flag] and not each.calm), None)


def _severity_of(incident: Incident | None, least: Severity) -> Severity:
    if incident is None or incident.severity not in SEVERITIES:
        return least
    return incident.severity


def _failing(state: MetricState) -> _Finding | None:
    if state.error is None:
        return None
    error = escape_control(state.error)
    return _Finding("failing", "failing", f"It could not be measured: {error}.", "high", error)


def _waiting(inputs: HealthInputs) -> _Finding | None:
    incident = _incident(inputs, "waiting")
    request = incident.request if incident else inputs.request
    if request is None:
        return None
    why = f": {escape_control(incident.reason)}" if incident else ""
    sentence, reason = f"Request {request} waits for a person{why}.", f"request {request}"
    return _Finding("waiting", WAITS, sentence, _severity_of(incident, "high"), reason)


def _limit(inputs: HealthInputs, now: datetime) -> _Finding | None:
    broken = _broken_limit(inputs, now)
    if broken is None:
        return None
    label = IN_FUTURE if broken.startswith(IN_FUTURE) else "beyond its limit"
    phrase = escape_control(broken)
    reason = phrase.removeprefix(f"{IN_FUTURE}: ")
    return _Finding("limit", label, f"{phrase[0].upper()}{phrase[1:]}.", "high", reason)


def _broken_limit(inputs: HealthInputs, now: datetime) -> str | None:
    state = inputs.state
    return inputs.judge.format_broken_limit(state.value, now, state.as_of) if state.as_of else None


def _doubts(state: MetricState) -> list[str]:
    return reading_doubts(state.method, state.details) if state.as_of else []


def _drifted(inputs: HealthInputs, now: datetime) -> _Finding | None:
    state, incident = inputs.state, _incident(inputs, "drifted")
    if state.metric.startswith(WORKFLOW):  # its value says whether it needs attention
        return None
    if incident is not None:
        label = drift_label(inputs.judge, incident.anchor, incident.value)
        since = format_utc(incident.anchor_as_of) if incident.anchor_as_of else format_utc(incident.opened_at)
        flaps = f" It came back {incident.flaps + 1} times." if incident.flaps else ""
        sentence = f"It drifted from the value of {since}: {escape_control(incident.reason)}.{flaps}"
        reason = f"{escape_control(incident.reason)}, incident {incident.id}"
        return _Finding("drifted", label, sentence, _severity_of(incident, "high"), reason)
    if _waiting(inputs) is not None or not has_unaccepted_drift(inputs.judge, state):
        return None
    if _broken_limit(inputs, now) and not (state.drifted or state.expected_low is not None):
        return None  # the limit alone made its severity high
    severity: Severity = state.severity if state.severity in SEVERITIES else "high"
    label = drift_label(inputs.judge, state.baseline, state.value)
    return _Finding("drifted", label, _UNACCEPTED, severity, "not accepted")


def incident_label(config: Config, incident: Incident) -> str:
    """Return the label of an incident: that of its flag, or `silent` for a silence.

    Like the label of a metric, it ends in `, acknowledged` if a person has acknowledged it. One that flaps and whose
    condition is over for now is `calm`.
    """
    if incident.calm:
        return CALM
    judge = Judge.of(config, incident.metric) if incident.metric in config.definitions else Judge()
    label = {
        "failing": "failing",
        "approval": WAITS,
        "limit": IN_FUTURE if incident.reason.lower().startswith(IN_FUTURE) else "beyond its limit",
        "drift": drift_label(judge, incident.anchor, incident.value),
        "stale": "stale",
        "silence": "silent",
    }[incident.kind]
    return f"{label}, {ACKNOWLEDGED}" if incident.state == ACKNOWLEDGED else label


def has_unaccepted_drift(judge: Judge, state: MetricState) -> bool:
    """Return whether the latest value drifted far and did not become the baseline: a check found it, or a person
    rejected it. With an expected band, far means outside the band."""
    if state.as_of is None or state.baseline_as_of is None or state.baseline_as_of >= state.as_of:
        return False
    if same_value(state.value, state.baseline):  # it was accepted, and measured again without a change
        return False
    if state.severity not in SEVERITIES or state.status == "new" or judge.noise(state.baseline, state.value):
        return False
    low, high = state.expected_low, state.expected_high
    if is_number(state.value) and low is not None and high is not None:
        return state.severity != "none" and (less_than(state.value, low) or less_than(high, state.value))
    return at_least(state.severity, "high")


def drift_label(judge: Judge, before: object, value: object) -> str:
    """Return `lost` for a number that became smaller, unless policy watches only growth, else `drifted`."""
    if judge.policy.direction == "up" or not (is_number(before) and is_number(value)):
        return "drifted"
    return "lost" if less_than(value, before) else "drifted"


def _stale(inputs: HealthInputs, now: datetime) -> _Finding | None:
    state, after = inputs.state, inputs.judge.policy.stale_after
    if after is None or state.as_of is None or now - state.as_of <= after:
        return None
    sentence = f"DIMS last measured it {format_age(now - state.as_of)} ago, longer than {format_limit(after)}."
    return _Finding("stale", "stale", sentence, "medium", f"measured {format_age(now - state.as_of)} ago")


def _overdue(inputs: HealthInputs, now: datetime) -> _Finding | None:
    state = inputs.state
    if not state.due or state.due_since is None or state.error is not None:
        return None
    if now - state.due_since <= inputs.overdue_after:
        return None
    sentence = f"An event has waited for its measurement since {format_utc(state.due_since)}."
    reason = f"an event has waited {format_age(now - state.due_since)}"
    return _Finding("overdue", "overdue", sentence, "low", reason)


def _acknowledged(incident: Incident) -> str:
    note = f": {escape_control(incident.note)}" if incident.note else ""
    return f"{escape_control(incident.acknowledged_by)} acknowledged it{note}."
