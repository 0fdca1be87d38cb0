"""Judge a reading against its baseline by policy. Pure: values and a `Judge` in, a `Verdict` out."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import Literal

from dims_worker.config import Config, Policy
from dims_worker.config.units import AGES
from dims_worker.formatting import format_age, is_number
from dims_worker.numbers import difference, exact_decimal, less_than, magnitude, ratio, same_number, value_text
from dims_worker.probes.base import Value

Status = Literal["new", "ok", "minor", "moderate", "major", "extreme", "failed"]
Severity = Literal["none", "low", "medium", "high", "urgent"]
Tier = Literal["auto", "notify", "approve"]

SEVERITIES: tuple[Severity, ...] = ("none", "low", "medium", "high", "urgent")
_STATUSES: tuple[Status, ...] = ("ok", "minor", "moderate", "major", "extreme")
DRIFT_CAP = 1e9
"""The largest drift, in percent. JSON has no infinity, and beyond this a number adds no information."""


@dataclass(frozen=True, slots=True)
class Baseline:
    """The value that a reading is compared with: the baseline, or the last value a person accepted. It may be null."""

    value: Value


@dataclass(frozen=True, slots=True)
class Verdict:
    """The judgement on a reading. `drift_pct` is None if there is nothing to compare with."""

    status: Status
    severity: Severity
    tier: Tier
    drift_pct: float | None
    reason: str


FAILED = Verdict("failed", "none", "auto", None, "could not be measured")


@dataclass(frozen=True, slots=True)
class Judge:
    """The policy of one metric, applied to its readings."""

    policy: Policy = field(default_factory=Policy)
    is_age: bool = False

    @classmethod
    def of(cls, config: Config, name: str) -> Judge:
        return cls(config.policy_of(name), config.metric_of(name).is_age)

    def decide(self, baseline: Baseline | None, value: Value, accepted: Baseline | None, now: datetime) -> Verdict:
        """Return the verdict on a good reading.

        `baseline` is the last accepted value, `accepted` the last value that a person accepted. A critical metric is
        judged against both. Otherwise many small steps could add up to a large drift that no person sees.
        """
        broken_limit = self.format_broken_limit(value, now)
        if baseline is None:
            return self._verdict("new", "none", None, "the first good reading", broken_limit, held=False)
        if self.is_age:
            return self._verdict("ok", "none", None, "an age, judged only by its limit", broken_limit, held=False)
        drift, reason, watched = self._compare(baseline.value, value)
        status = "minor" if drift is None else self._status(drift)
        severity = self._severity(status) if watched else "none"
        held = watched and self._needs_person(drift)
        if accepted is not None and not held:
            total, _, watched_total = self._compare(accepted.value, value)
            if watched_total and self._needs_person(total):
                held = True
                severity = max(severity, self._severity(self._status(total or 0)), key=SEVERITIES.index)
                reason += f"; {total:.1f} % from {value_text(accepted.value)}, which a person last accepted"
        return self._verdict(status, severity, drift, reason, broken_limit, held=held)

    def _verdict(
        self,
        status: Status,
        severity: Severity,
        drift: float | None,
        reason: str,
        broken_limit: str | None,
        *,
        held: bool,
    ) -> Verdict:
        if broken_limit:
            severity = max(severity, "high", key=SEVERITIES.index)
            reason = f"{reason}; {broken_limit}"
        tier: Tier = "approve" if held else "notify" if at_least(severity, "high") else "auto"
        return Verdict(status, severity, tier, drift, reason)

    def _compare(self, old: Value, new: Value) -> tuple[float | None, str, bool]:
        """Return the drift in percent, its reason, and whether policy watches this direction and size."""
        drift = drift_pct(old, new, self.policy.min_abs)
        if not (is_number(old) and is_number(new)):
            return drift, "unchanged" if drift == 0 else "different, which counts as 100 %", True
        if same_number(new, old):
            return 0.0, "unchanged", True
        way = "up" if new > old else "down"
        noise = self.noise(old, new)
        if noise == "direction":
            return drift, f"goes {way}, but policy watches only {self.policy.direction}", False
        if noise == "min_abs":
            return drift, f"changes by less than min_abs = {self.policy.min_abs:g}", False
        if old == 0:
            return drift, "from 0, which counts as 100 %", True
        return drift, f"{way} {drift:.1f} %", True

    def noise(self, old: Value, new: Value) -> Literal["direction", "min_abs"] | None:
        """Return the policy key that makes a change of numbers noise, or None if policy watches the change."""
        if not (is_number(old) and is_number(new)) or same_number(old, new):
            return None
        if self.policy.direction not in ("both", "up" if new > old else "down"):
            return "direction"
        return "min_abs" if less_than(magnitude(difference(new, old)), self.policy.min_abs) else None

    def _status(self, drift: float) -> Status:
        limits = self.policy.thresholds
        if drift == 0:
            return "ok"
        return _STATUSES[1 + sum(drift >= limit for limit in (limits.moderate, limits.major, limits.extreme))]

    def _severity(self, status: Status) -> Severity:
        """Return the severity of a status: one step higher for a stable metric that changed."""
        place = _STATUSES.index(status)
        stable = self.policy.volatility == "stable"
        return SEVERITIES[min(place + (stable and place > 0), len(SEVERITIES) - 1)]

    def _needs_person(self, drift: float | None) -> bool:
        return self.policy.critical and drift is not None and drift >= self.policy.require_approval_pct

    def format_broken_limit(self, value: Value, now: datetime) -> str | None:
        """Return a phrase for the limit (`min`, `max`, `max_age`) that a value breaks, or None."""
        key = self.broken_limit(value, now)
        if key == "max_age":
            assert isinstance(value, str) and self.policy.max_age is not None
            age = now - datetime.fromisoformat(value)
            return f"{format_age(age)} old, more than max_age = {format_age(self.policy.max_age)}"
        if key is None:
            return None
        return f"{value_text(value)} is {'below' if key == 'min' else 'above'} {key} = {getattr(self.policy, key):g}"

    def broken_limit(self, value: Value, now: datetime) -> Literal["min", "max", "max_age"] | None:
        """Return the limit of policy that a value breaks at `now`, or None."""
        if self.is_age:
            max_age = self.policy.max_age
            old = max_age is not None and isinstance(value, str) and now - datetime.fromisoformat(value) > max_age
            return "max_age" if old else None
        if not is_number(value):
            return None
        if self.policy.min is not None and less_than(value, self.policy.min):
            return "min"
        return "max" if self.policy.max is not None and less_than(self.policy.max, value) else None


def drift_pct(old: Value, new: Value, min_abs: float = 0) -> float | None:
    """Return |new - old| / |old| * 100, at most DRIFT_CAP.

    Texts, booleans, nulls and values of different types are equal (0) or different (100). From 0 there is no
    ratio: a change of `min_abs` or more counts as 100, and a smaller one has no drift (None).
    """
    if not (is_number(old) and is_number(new)):
        return 0.0 if type(old) is type(new) and old == new else 100.0
    if same_number(old, new):
        return 0.0
    if old == 0:
        return None if less_than(magnitude(new), min_abs) else 100.0
    try:
        change = magnitude(
            difference(new, old)
        )  # multiply first if that cannot overflow: 29 of 100 is 29 %, not 28.99…
        drift = ratio(change * 100, magnitude(old)) if change < 1e300 else ratio(change, magnitude(old)) * 100
        return min(drift, DRIFT_CAP)
    except OverflowError:
        return DRIFT_CAP


def at_least(severity: Severity, floor: Severity) -> bool:
    """Return whether a severity is `floor` or worse."""
    return SEVERITIES.index(severity) >= SEVERITIES.index(floor)


def age_of(value: Value, now: datetime, unit: str = "seconds") -> float | None:
    """Return an age at `now` in a unit, from the instant that its reading holds. None if it holds none."""
    if not isinstance(value, str):
        return None
    return (now.astimezone(UTC) - datetime.fromisoformat(value)).total_seconds() / AGES[unit]


def inside_band(anchor: Value, value: Value, tolerance_pct: float) -> bool:
    """Return whether a value lies in a request's band: within `tolerance_pct` of the value first proposed."""
    if not (is_number(anchor) and is_number(value)):
        return type(anchor) is type(value) and anchor == value
    if isinstance(value, Decimal) or isinstance(anchor, Decimal):
        reach = exact_decimal(anchor).copy_abs() * exact_decimal(tolerance_pct) / 100
        return exact_decimal(difference(value, anchor)).copy_abs() <= reach
    return abs(value - anchor) <= abs(anchor) * tolerance_pct / 100
