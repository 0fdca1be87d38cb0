"""What policy says of a drift. Pure: values and a `Judge` in, a `Verdict` out (DESIGN section 7)."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal

from dims_worker.config import Config, Policy
from dims_worker.config.units import AGES
from dims_worker.formatting import format_age, is_number
from dims_worker.probes.base import Value

Status = Literal["new", "ok", "minor", "moderate", "major", "extreme", "failed"]
Severity = Literal["none", "low", "medium", "high", "urgent"]
Tier = Literal["auto", "notify", "approve"]

SEVERITIES: tuple[Severity, ...] = ("none", "low", "medium", "high", "urgent")
_STATUSES: tuple[Status, ...] = ("ok", "minor", "moderate", "major", "extreme")
DRIFT_CAP = 1e9
"""Percent; beyond it a number says no more than `very far`, and JSON knows no infinity."""


@dataclass(frozen=True, slots=True)
class Baseline:
    """A value that stands: a baseline, or what a person last accepted. Its value may be null."""

    value: Value


@dataclass(frozen=True, slots=True)
class Verdict:
    """`drift_pct` is None where there is nothing to compare with; `reason` says it in a sentence."""

    status: Status
    severity: Severity
    tier: Tier
    drift_pct: float | None
    reason: str


FAILED = Verdict("failed", "none", "auto", None, "could not be measured")


@dataclass(frozen=True, slots=True)
class Judge:
    """How one metric is judged."""

    policy: Policy = field(default_factory=Policy)
    is_age: bool = False

    @classmethod
    def of(cls, config: Config, name: str) -> Judge:
        return cls(config.policy_of(name), config.metric_of(name).is_age)

    def decide(self, baseline: Baseline | None, value: Value, accepted: Baseline | None, now: datetime) -> Verdict:
        """The verdict on a good reading.

        `baseline` is the last accepted value, `accepted` the last one that a person accepted (critical
        metrics are judged against both, so that many small steps do not slip by).
        """
        broken = self.limit_words(value, now)
        if self.is_age or baseline is None:
            status: Status = "new" if baseline is None else "ok"
            said = "the first good reading" if baseline is None else "an age, judged by its limit alone"
            return self._verdict(status, "none", None, said, broken, held=False)
        drift, said, watched = self._compare(baseline.value, value)
        status = "minor" if drift is None else self._status(drift)
        severity = self._severity(status) if watched else "none"
        held = watched and self._needs_person(drift)
        if accepted is not None and not held:
            since, _, watched_since = self._compare(accepted.value, value)
            if watched_since and self._needs_person(since):
                held, severity = (
                    True,
                    max(severity, self._severity(self._status(since or 0)), key=SEVERITIES.index),
                )
                said += f"; {since:.1f} % from {accepted.value!r}, which a person last accepted"
        return self._verdict(status, severity, drift, said, broken, held=held)

    def _verdict(
        self,
        status: Status,
        severity: Severity,
        drift: float | None,
        said: str,
        broken: str | None,
        *,
        held: bool,
    ) -> Verdict:
        if broken:
            severity = max(severity, "high", key=SEVERITIES.index)
            said = f"{said}; {broken}"
        if held:
            tier: Tier = "approve"
        else:
            tier = "notify" if SEVERITIES.index(severity) >= SEVERITIES.index("high") else "auto"
        return Verdict(status, severity, tier, drift, said)

    def _compare(self, old: Value, new: Value) -> tuple[float | None, str, bool]:
        """Drift in percent, its sentence, and whether policy watches a change of this direction and size."""
        drift = drift_pct(old, new, self.policy.min_abs)
        if not (is_number(old) and is_number(new)):
            return drift, "the same" if drift == 0 else "different, which counts as 100 %", True
        if new == old:
            return 0.0, "the same", True
        way = "up" if new > old else "down"
        noise = self.noise(old, new)
        if noise == "direction":
            return drift, f"goes {way}, and only {self.policy.direction} is watched", False
        if noise == "min_abs":
            return drift, f"changes by less than min_abs = {self.policy.min_abs:g}", False
        if old == 0:
            return drift, "from 0, which counts as 100 %", True
        return drift, f"{way} {drift:.1f} %", True

    def noise(self, old: Value, new: Value) -> Literal["direction", "min_abs"] | None:
        """The key of policy that makes a change of numbers noise; None: it is watched, as any other change is."""
        if not (is_number(old) and is_number(new)) or old == new:
            return None
        if self.policy.direction not in ("both", "up" if new > old else "down"):
            return "direction"
        return "min_abs" if abs(new - old) < self.policy.min_abs else None

    def _status(self, drift: float) -> Status:
        limits = self.policy.thresholds
        if drift == 0:
            return "ok"
        return _STATUSES[1 + sum(drift >= limit for limit in (limits.moderate, limits.major, limits.extreme))]

    def _severity(self, status: Status) -> Severity:
        """The status's place on the scale, one step higher for a stable metric that moved."""
        place = _STATUSES.index(status)
        stable = self.policy.volatility == "stable"
        return SEVERITIES[min(place + (stable and place > 0), len(SEVERITIES) - 1)]

    def _needs_person(self, drift: float | None) -> bool:
        return self.policy.critical and drift is not None and drift >= self.policy.require_approval_pct

    def limit_words(self, value: Value, now: datetime) -> str | None:
        """Which of `min`, `max`, `max_age` a value breaks, in words; None: none."""
        key = self.broken_limit(value, now)
        if key == "max_age":
            assert isinstance(value, str) and self.policy.max_age is not None
            age = now - datetime.fromisoformat(value)
            return f"{format_age(age)} old, more than max_age = {format_age(self.policy.max_age)}"
        if key is None:
            return None
        return f"{value} is {'below' if key == 'min' else 'above'} {key} = {getattr(self.policy, key):g}"

    def broken_limit(self, value: Value, now: datetime) -> Literal["min", "max", "max_age"] | None:
        """The absolute limit of policy that a value is beyond at `now`."""
        if self.is_age:
            longest = self.policy.max_age
            old = longest is not None and isinstance(value, str) and now - datetime.fromisoformat(value) > longest
            return "max_age" if old else None
        if isinstance(value, bool) or not isinstance(value, int | float):
            return None
        if self.policy.min is not None and value < self.policy.min:
            return "min"
        return "max" if self.policy.max is not None and value > self.policy.max else None


def drift_pct(old: Value, new: Value, min_abs: float = 0) -> float | None:
    """|new - old| / |old| * 100 (DESIGN section 7).

    Text, booleans, null and values of different kinds are equal (0) or different (100). From 0 there is no
    ratio: a change of `min_abs` or more counts as 100, a smaller one has no drift (None).
    """
    if not (is_number(old) and is_number(new)):
        return 0.0 if type(old) is type(new) and old == new else 100.0
    if old == new:
        return 0.0
    if old == 0:
        return 100.0 if abs(new) >= min_abs else None
    try:
        change = abs(new - old)  # times 100 first, where that can be: 29 of 100 is 29 %, not 28.99…
        drift = change * 100 / abs(old) if change < 1e300 else change / abs(old) * 100
        return min(drift, DRIFT_CAP)
    except OverflowError:
        return DRIFT_CAP


def at_least(severity: Severity, floor: Severity) -> bool:
    """Whether a severity is `floor` or worse."""
    return SEVERITIES.index(severity) >= SEVERITIES.index(floor)


def age_of(value: Value, now: datetime, unit: str = "seconds") -> float | None:
    """Return an age at `now` in a unit, from the instant that its reading holds. None if it holds none."""
    if not isinstance(value, str):
        return None
    return (now.astimezone(UTC) - datetime.fromisoformat(value)).total_seconds() / AGES[unit]


def inside_band(anchor: Value, value: Value, tolerance_pct: float) -> bool:
    """Whether a value lies in a request's band: within `tolerance_pct` of the value first proposed."""
    if not (is_number(anchor) and is_number(value)):
        return type(anchor) is type(value) and anchor == value
    return abs(value - anchor) <= abs(anchor) * tolerance_pct / 100
