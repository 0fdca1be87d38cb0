"""Write a verdict as sentences, step by step: drift, status, limits, severity, tier."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from dims_worker.analysis.explanation import Comparison, JudgedVerdict
from dims_worker.config import Policy
from dims_worker.domain.decide import BACK, Judge, Limit, at_least, drift_pct, reaches_approval
from dims_worker.domain.expectation import Expectation
from dims_worker.formatting import format_exact, format_limit, format_percent, is_number
from dims_worker.numbers import difference, magnitude, same_number
from dims_worker.store.runs import PastReading
from dims_worker.text.expectation import expectation_lines, severity_by_band
from dims_worker.text.phrases import ExplanationView, Line, format_acceptance

_BOUNDS = {
    "minor": (None, "moderate"),
    "moderate": ("moderate", "major"),
    "major": ("major", "extreme"),
    "extreme": ("extreme", None),
}
"""The thresholds below and above each status."""
_BEYOND = {"min": "below", "max": "above", "max_age": "more than"}
_BY_PERSON = "what a person last accepted"


def verdict_lines(view: ExplanationView) -> Iterator[Line]:
    """Yield the steps that lead to the verdict on the last good reading, or nothing if it has no verdict."""
    explanation = view.explanation
    if explanation.judged and explanation.policy and explanation.reading:
        yield from _VerdictReasons(view, explanation.judged, explanation.policy, explanation.reading).lines()


@dataclass(frozen=True, slots=True)
class _VerdictReasons:
    view: ExplanationView
    judged: JudgedVerdict
    policy: Policy
    reading: PastReading

    def lines(self) -> Iterator[Line]:
        judged, verdict, explanation = self.judged, self.judged.verdict, self.view.explanation
        if judged.baseline:
            against = judged.baseline.against
            if drift_pct(against.value, explanation.state.baseline) != 0:  # the reading replaced it
                yield "against", f"{self.view.value(against.value)}, {format_acceptance(against, explanation.now)}"
            yield "drift", self._drift(judged.baseline)
        yield "status", f"{verdict.status}: {self._status()}"
        if judged.person:
            how = format_acceptance(judged.person.against, explanation.now)
            yield "person", f"{self._formula(judged.person)} from {_BY_PERSON}: {how}"
        yield from self._limits()
        if explanation.learned:
            yield from expectation_lines(self.view, explanation.learned, self.policy)
        yield "severity", f"{verdict.severity}: {self._severity()}"
        yield "tier", f"{verdict.tier}: {self._tier()}"
        if judged.policy_changed:
            recorded = f"{self.reading.status}, {self.reading.severity}, {self.reading.tier}"
            yield "policy", f"{self._what_changed()} changed since; the recorded verdict is {recorded}"

    def _what_changed(self) -> str:
        """Name what differs from when the reading was recorded: the policy, or the band that was learned."""
        verdict, reading = self.judged.verdict, self.reading
        band = (verdict.expected_low, verdict.expected_high)
        return "has" if band == (reading.expected_low, reading.expected_high) else "or the expected band has"

    def _drift(self, comparison: Comparison) -> str:
        formula, old, new = self._formula(comparison), comparison.against.value, self.reading.value
        if comparison.noise == "direction":
            way = "up" if new > old else "down"
            origin = self.view.origin("direction")
            return f"{formula}; it goes {way}, and only {self.policy.direction} is watched (direction: {origin})"
        if comparison.noise == "min_abs":
            limit = self.view.key("min_abs", format_exact(self.policy.min_abs))
            return f"{formula}; {format_exact(magnitude(difference(new, old)))} is noise, less than {limit}"
        return formula

    def _formula(self, comparison: Comparison) -> str:
        """Return the formula of `drift_pct` with its numbers: `|205,000 - 172,726| / 172,726 x 100 = 18.7 %`."""
        old, new, drift = comparison.against.value, self.reading.value, comparison.drift_pct
        if not (is_number(old) and is_number(new)):
            if drift == 0:
                return f"{self.view.quoted(new)} is unchanged: 0 %"
            return f"{self.view.quoted(old)} became {self.view.quoted(new)}: different, which counts as 100 %"
        if same_number(old, new):
            return "the same value: 0 %"
        change = f"|{format_exact(new)} - {format_exact(old) if old >= 0 else f'({format_exact(old)})'}|"
        if old == 0:
            counted = ", so it counts as 100 %" if drift else ""
            return f"{change} = {format_exact(magnitude(new))}; a change from 0 has no ratio{counted}"
        divisor = format_exact(old) if old > 0 else f"|{format_exact(old)}|"
        return f"{change} / {divisor} x 100 = {self._percent(drift or 0)}"

    def _percent(self, drift: float) -> str:
        steps = self.policy.thresholds
        return format_percent(drift, steps.moderate, steps.major, steps.extreme, self.policy.require_approval_pct)

    def _status(self) -> str:
        verdict = self.judged.verdict
        if verdict.status == "new":
            return "it is the first good reading"
        if self.judged.baseline is None:
            return "only max_age judges an age"
        if verdict.status == "ok":
            return "there is no drift"
        if verdict.drift_pct is None:
            return "the value changed, but a change from 0 has no ratio"
        start, end = (getattr(self.policy.thresholds, step) if step else None for step in _BOUNDS[verdict.status])
        bounds = [f"{start:g} % or more"] if start is not None else []
        bounds += [f"less than {end:g} %"] if end is not None else []
        return f"{', '.join(bounds)} (thresholds: {self.view.origin('thresholds')})"

    def _limits(self) -> Iterator[Line]:
        """Yield the absolute limit that the value breaks, or else those that it respects."""
        value, policy, key = self.reading.value, self.policy, self.view.key
        judge = Judge(policy, is_age=bool(self.view.metric and self.view.metric.is_age))
        if unjudged := judge.format_unjudged_limit(value):
            yield "limit", unjudged
        limits = {"min": policy.min, "max": policy.max} if is_number(value) else {}
        written = {name: key(name, format_exact(limit)) for name, limit in limits.items() if limit is not None}
        if policy.max_age is not None and isinstance(value, str):
            written["max_age"] = key("max_age", format_limit(policy.max_age))
        if self.judged.limit:
            yield "limit", self._broken_limit(self.judged.limit, written)
        elif written:
            yield "limit", f"{self.view.value(value)} is within {' and '.join(written.values())}"

    def _broken_limit(self, limit: Limit, written: Mapping[str, str]) -> str:
        """Return the limit that the value breaks. `written` are the keys of the policy with their values."""
        value = self.reading.value
        if limit == "future":
            judge, now = Judge(self.policy, is_age=True), self.view.explanation.now
            return judge.format_broken_limit(value, now, self.reading.as_of) or ""
        return f"{self.view.value(value)} is {_BEYOND[limit]} {written[limit]}"

    def _severity(self) -> str:
        status, baseline = self.judged.verdict.status, self.judged.baseline
        band = self._band()
        reasons = []
        if band is not None:
            reasons.append(severity_by_band(self.view, Judge(self.policy), band, self.reading.value))
            if self._is_held_by_drift(band):
                reasons.append(self._drift_reason(status))
        elif baseline and baseline.noise:
            reasons.append("the change is not watched")
        elif f"; {BACK} " in self.judged.verdict.reason:
            reasons.append("the value is back at the one before an incident, so its drift does not count")
        elif status not in ("new", "ok"):
            reasons.append(self._drift_reason(status))
        if self._is_for_person():
            reasons.append(f"it is far from {_BY_PERSON}")
        if self.judged.limit:
            reasons.append("a broken limit makes it high or worse")
        return "; ".join(reasons) or "nothing has changed"

    def _drift_reason(self, status: str) -> str:
        drift = f"{'an' if status == 'extreme' else 'a'} {status} drift of a {self.policy.volatility} metric"
        reason = f"{drift} (volatility: {self.view.origin('volatility')})"
        return f"{reason}, one step higher" if self.policy.volatility == "stable" else reason

    def _band(self) -> Expectation | None:
        """Return the band that the severity follows from, or None if it follows from the drift."""
        learned = self.view.explanation.learned
        return learned.band if learned and self.judged.verdict.expected_low is not None else None

    def _is_held_by_drift(self, band: Expectation) -> bool:
        """Return whether the drift that holds the value is more severe than its distance to the band."""
        if self.judged.verdict.tier != "approve" or self._is_for_person():
            return False
        return Judge(self.policy).severity_outside(band, self.reading.value) != self.judged.verdict.severity

    def _is_for_person(self) -> bool:
        """Return whether the reading is held for its drift from what a person accepted, not from the baseline."""
        return self.judged.verdict.tier == "approve" and not self._reaches(self.judged.baseline)

    def _reaches(self, comparison: Comparison | None) -> bool:
        if comparison is None or comparison.noise or comparison.drift_pct is None:
            return False
        return reaches_approval(self.policy, comparison.against.value, self.reading.value, comparison.drift_pct)

    def _tier(self) -> str:
        verdict, baseline = self.judged.verdict, self.judged.baseline
        limit = self.view.key("require_approval_pct", f"{self.policy.require_approval_pct:g}")
        critical = f"critical ({self.view.origin('critical')})"
        if verdict.tier == "approve":
            comparison = self.judged.person if self._is_for_person() else baseline
            assert comparison is not None and comparison.drift_pct is not None
            base = f" from {_BY_PERSON}" if comparison is self.judged.person else ""
            if comparison.drift_pct < self.policy.require_approval_pct:
                return f"it is {critical}, and a change{base} without a ratio always reaches {limit}"
            return f"it is {critical}, and {self._percent(comparison.drift_pct)}{base} reaches {limit}"
        below = "it is outside the expected band" if verdict.tier == "notify" else "severity is below high"
        reason = "severity is high or worse" if at_least(verdict.severity, "high") else below
        if baseline is None or baseline.noise or not baseline.drift_pct:
            return reason
        if self.policy.critical:
            return f"{reason}; it is {critical}, but {self._percent(baseline.drift_pct)} is below {limit}"
        return f"{reason}; it is not {critical}, so it needs no approval" if self._reaches(baseline) else reason
