"""Judge a reading against its baseline by policy. Pure: values and a `Judge` in, a `Verdict` out."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from fractions import Fraction
from typing import Literal

from dims_worker.config import Config, Policy
from dims_worker.config.units import AGES, FUTURE_TOLERANCE
from dims_worker.domain.expectation import Expectation
from dims_worker.formatting import (
    format_age,
    format_band,
    format_exact,
    format_limit,
    format_percent,
    format_utc,
    is_number,
    parse_instant,
)
from dims_worker.numbers import Number, less_than, same_number, value_text
from dims_worker.probes.base import Value

Status = Literal["new", "ok", "minor", "moderate", "major", "extreme", "failed"]
Severity = Literal["none", "low", "medium", "high", "urgent"]
Tier = Literal["auto", "notify", "approve"]
Limit = Literal["min", "max", "max_age", "future"]
"""The limit that a value breaks: a key of the policy, or `future` for an age whose instant lies ahead of the clock."""

SEVERITIES: tuple[Severity, ...] = ("none", "low", "medium", "high", "urgent")
_STATUSES: tuple[Status, ...] = ("ok", "minor", "moderate", "major", "extreme")
BY_PERSON = "which a person last accepted"
"""The end of the part of a reason that names the value which a person last accepted."""
BACK = "back at"
"""The part of a reason that says that a value ended an incident."""
IN_FUTURE = "in the future"
"""The label of an age whose instant was ahead of the clock when it was measured, and how its broken limit begins."""
OUTSIDE_STEPS = (0.5, 2)
"""The distances to the expected band, in band widths, from which the severity is high and urgent."""
DRIFT_CAP = 1e9
"""The largest drift, in percent. JSON has no infinity, and beyond this a number adds no information."""
DRIFT_DECIMALS = 9
"""The decimals of a drift, in percent. Sums and products of floats, as in a derived metric, are less exact."""


@dataclass(frozen=True, slots=True)
class Baseline:
    """The value that a reading is compared with: the baseline, or the last value a person accepted. It may be null."""

    value: Value


@dataclass(frozen=True, slots=True)
class HoldingDrift:
    """The drift that makes a value wait for a person: from the baseline, or from what a person last accepted."""

    value: Value
    drift_pct: float
    from_person: bool = False


@dataclass(frozen=True, slots=True)
class Verdict:
    """The judgement on a reading. `drift_pct` is None if there is nothing to compare with.

    `drifted` says that its drift needs attention, whatever its limits are. `expected_low` and `expected_high` are the
    band that it was judged by, if there was one.
    """

    status: Status
    severity: Severity
    tier: Tier
    drift_pct: float | None
    reason: str
    drifted: bool = False
    expected_low: float | None = None
    expected_high: float | None = None


FAILED = Verdict("failed", "none", "auto", None, "could not be measured")


@dataclass(frozen=True, slots=True)
class Judge:
    """The policy of one metric, applied to its readings."""

    policy: Policy = field(default_factory=Policy)
    is_age: bool = False

    @classmethod
    def of(cls, config: Config, name: str) -> Judge:
        return cls(config.policy_of(name), config.metric_of(name).is_age)

    def decide(
        self,
        baseline: Baseline | None,
        value: Value,
        accepted: Baseline | None,
        now: datetime,
        measured: datetime | None = None,
        expected: Expectation | None = None,
    ) -> Verdict:
        """Return the verdict at `now` on a good reading that was `measured` then. Default: it was measured now.

        `baseline` is the last accepted value, `accepted` the last value that a person accepted. A critical metric is
        judged against both. Otherwise many small steps could add up to a large drift that no person sees. With an
        `expected` band, the severity of a number comes from its distance to the band, and not from the drift.
        """
        broken_limit = self.format_broken_limit(value, now, measured)
        if baseline is None:
            return self._verdict(value, "new", "none", None, "the first good reading", broken_limit, held=False)
        if self.is_age:
            return self._verdict(
                value, "ok", "none", None, "an age, judged only by its limit", broken_limit, held=False
            )
        drift, reason, watched = self._compare(baseline.value, value)
        status = "minor" if drift is None else self._status(drift)
        severity = self._severity(status) if watched else "none"
        if expected is not None and is_number(value):
            severity = self.severity_outside(expected, value)
            reason += f"; expected {format_band(expected.low, expected.high)}"
        else:
            expected = None
        holding = self.holding_drift(baseline, value, accepted)
        if holding:
            severity = max(severity, self._severity(self._status(holding.drift_pct)), key=SEVERITIES.index)
        if holding and holding.from_person:
            reason += f"; {self._percent(holding.drift_pct)} from {value_text(holding.value)}, {BY_PERSON}"
        drifted = severity != "none" if expected else at_least(severity, "high")
        verdict = self._verdict(value, status, severity, drift, reason, broken_limit, held=holding is not None)
        if drifted and verdict.tier == "auto":
            verdict = replace(verdict, tier="notify")
        if expected is None:
            return replace(verdict, drifted=drifted)
        return replace(verdict, drifted=drifted, expected_low=expected.low, expected_high=expected.high)

    def severity_outside(self, expected: Expectation, value: Number) -> Severity:
        """Return the severity of a number by its distance to the expected band, in band widths: `none` inside the band
        and in a direction that policy does not watch, else `medium`, `high` from 0.5 and `urgent` from 2 on.

        A stable metric has the next higher one.
        """
        distance = expected.distance(value)
        way = "down" if less_than(value, expected.low) else "up"
        if distance == 0 or self.policy.direction not in ("both", way):
            return "none"
        place = SEVERITIES.index("medium") + sum(distance >= limit for limit in OUTSIDE_STEPS)
        return SEVERITIES[min(place + (self.policy.volatility == "stable"), len(SEVERITIES) - 1)]

    def returned(self, verdict: Verdict, before: Value, value: Value, now: datetime) -> Verdict:
        """Return the verdict on a value that ends a drift incident: the way back to the value `before` is no drift.

        A broken limit keeps its severity, and a value that waits for a person keeps its verdict.
        """
        if verdict.tier == "approve":
            return verdict
        broken = self.broken_limit(value, now) is not None
        reason = f"{verdict.reason}; {BACK} {value_text(before)}, the value before the incident"
        if broken:
            return replace(verdict, severity="high", tier="notify", reason=reason, drifted=False)
        return replace(verdict, severity="none", tier="auto", reason=reason, drifted=False)

    def recovered(
        self, anchor: Value, worst: Value, value: Value, expected: Expectation | None, expected_before: bool
    ) -> bool:
        """Return whether an accepted value ends a drift that began at `anchor`. `worst` is its latest value until now.

        A drift that left the expected band ends when a value is inside it. Any other ends below `thresholds.moderate`,
        which is smaller than the drift that began it, so that a value at the edge does not flap. On the other side of
        the anchor, a value ends it unless it has drifted far there, too.
        """
        if expected is not None and expected_before and is_number(value):
            return self.severity_outside(expected, value) == "none"
        drift, _, watched = self._compare(anchor, value)
        if not watched or drift is None or drift < self.policy.thresholds.moderate:
            return True
        if not (is_number(anchor) and is_number(worst) and is_number(value)):
            return False
        crossed = less_than(worst, anchor) != less_than(value, anchor)
        return crossed and not at_least(self._severity(self._status(drift)), "high")

    def holding_drift(self, baseline: Baseline, value: Value, accepted: Baseline | None) -> HoldingDrift | None:
        """Return the first drift that holds a value for approval: from the baseline, else from what a person last
        accepted. None if neither does."""
        if not self.policy.critical:
            return None
        for against, from_person in ((baseline, False), (accepted, True)):
            if against is not None:
                drift, _, watched = self._compare(against.value, value)
                if watched and drift is not None and reaches_approval(self.policy, against.value, value, drift):
                    return HoldingDrift(against.value, drift, from_person)
        return None

    def _verdict(
        self,
        value: Value,
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
        if unjudged := self.format_unjudged_limit(value):
            reason = f"{reason}; {unjudged}"
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
            return drift, f"changes by less than min_abs = {format_exact(self.policy.min_abs)}", False
        if old == 0:
            return drift, "from 0, which counts as 100 %", True
        return drift, f"{way} {self._percent(drift or 0)}", True

    def noise(self, old: Value, new: Value) -> Literal["direction", "min_abs"] | None:
        """Return the policy key that makes a change of numbers noise, or None if policy watches the change."""
        if not (is_number(old) and is_number(new)) or same_number(old, new):
            return None
        if self.policy.direction not in ("both", "up" if new > old else "down"):
            return "direction"
        return "min_abs" if abs(_exact(new) - _exact(old)) < _exact(self.policy.min_abs) else None

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

    def _percent(self, drift: float) -> str:
        """Return a drift with as many decimals as it takes not to round it to a limit that it does not reach."""
        steps = self.policy.thresholds
        return format_percent(drift, self.policy.require_approval_pct, steps.moderate, steps.major, steps.extreme)

    def format_unjudged_limit(self, value: Value) -> str | None:
        """Return a phrase for the limits `min` and `max` if they cannot judge a value that is no number, else None."""
        limits = {"min": self.policy.min, "max": self.policy.max}
        named = " and ".join(f"{key} = {format_exact(limit)}" for key, limit in limits.items() if limit is not None)
        if not named or self.is_age or is_number(value):
            return None
        return f"{named} cannot judge it, because {'null' if value is None else f'{value!r:.40}'} is no number"

    def format_broken_limit(self, value: Value, now: datetime, measured: datetime | None = None) -> str | None:
        """Return a phrase for the limit that a value breaks, or None. The arguments are those of `broken_limit`."""
        key = self.broken_limit(value, now, measured)
        if key is None:
            return None
        if key in ("min", "max"):
            limit = format_exact(getattr(self.policy, key))
            return f"{value_text(value)} is {'below' if key == 'min' else 'above'} {key} = {limit}"
        instant = parse_instant(value)
        assert instant is not None
        if key == "future":
            ahead = format_age(instant - (measured or now))
            advice = "check the clock and the time zone that it was written with"
            return f"{IN_FUTURE}: {format_utc(instant)} was {ahead} ahead when DIMS read it; {advice}"
        assert self.policy.max_age is not None
        return f"{format_age(now - instant)} old, more than max_age = {format_limit(self.policy.max_age)}"

    def broken_limit(self, value: Value, now: datetime, measured: datetime | None = None) -> Limit | None:
        """Return the limit that a value breaks at `now`, or None.

        An instant that was in the future when it was `measured` stays so until it is measured again. Otherwise an
        age that no one measures would become fresh when its instant comes. Default: it was measured now.
        """
        if self.is_age:
            return self._broken_age(parse_instant(value), now, measured or now)
        if not is_number(value):
            return None
        if self.policy.min is not None and less_than(value, self.policy.min):
            return "min"
        return "max" if self.policy.max is not None and less_than(self.policy.max, value) else None

    def _broken_age(self, instant: datetime | None, now: datetime, measured: datetime) -> Limit | None:
        if instant is None:
            return None
        if is_future(instant, measured):
            return "future"
        return "max_age" if self.policy.max_age is not None and now - instant > self.policy.max_age else None


def is_future(instant: datetime, measured: datetime) -> bool:
    """Return whether an instant was in the future when it was measured: ahead by more than clocks may differ."""
    return instant - measured > FUTURE_TOLERANCE


def drift_pct(old: Value, new: Value, min_abs: float = 0) -> float | None:
    """Return |new - old| / |old| * 100, at most DRIFT_CAP.

    Texts, booleans, nulls and values of different types are equal (0) or different (100). From 0 there is no
    ratio: a change of `min_abs` or more counts as 100, and a smaller one has no drift (None).

    The result is exact for the decimals that people see, and rounded to DRIFT_DECIMALS: from 1.2 to 1.38 is 15 %. As
    floats it would be 14.999999999999993 %, less than a limit of 15. A change is never rounded to no drift.
    """
    if not (is_number(old) and is_number(new)):
        return 0.0 if type(old) is type(new) and old == new else 100.0
    if same_number(old, new):
        return 0.0
    if old == 0:
        return 100.0 if abs(_exact(new)) >= _exact(min_abs) else None
    before = _exact(old)
    drift = abs(_exact(new) - before) * 100 / abs(before)
    if drift >= DRIFT_CAP:
        return DRIFT_CAP
    return float(round(drift, DRIFT_DECIMALS)) or max(float(drift), sys.float_info.min)


def reaches_approval(policy: Policy, old: Value, new: Value, drift: float) -> bool:
    """Return whether a drift reaches `require_approval_pct`. A change without a ratio, from 0 or of a value that is
    not a number, always does."""
    has_ratio = is_number(old) and is_number(new) and old != 0
    return drift >= policy.require_approval_pct or (drift > 0 and not has_ratio)


def _exact(number: Number) -> Fraction:
    """Return the decimal number that a float is printed as, which is the one that was measured."""
    return Fraction(repr(number)) if isinstance(number, float) else Fraction(number)


def at_least(severity: Severity, floor: Severity) -> bool:
    """Return whether a severity is `floor` or worse."""
    return SEVERITIES.index(severity) >= SEVERITIES.index(floor)


def age_of(value: Value, now: datetime, unit: str = "seconds") -> float | None:
    """Return an age at `now` in a unit, from the instant that its reading holds.

    None if it holds none, and for an instant in the future, which has no age. An instant that is ahead by less than
    clocks may differ has the age 0.
    """
    instant = parse_instant(value)
    if instant is None or is_future(instant, now):
        return None
    return max(timedelta(0), now - instant) / timedelta(seconds=AGES[unit])


def inside_band(anchor: Value, value: Value, tolerance_pct: float) -> bool:
    """Return whether a value lies in a request's band: within `tolerance_pct` of the value first proposed."""
    if not (is_number(anchor) and is_number(value)):
        return type(anchor) is type(value) and anchor == value
    return abs(_exact(value) - _exact(anchor)) * 100 <= abs(_exact(anchor)) * _exact(tolerance_pct)
