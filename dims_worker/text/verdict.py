"""A verdict in sentences, step by step: drift, status, limits, severity, tier."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from dims_worker.analysis.explanation import Comparison, JudgedVerdict
from dims_worker.config import Policy
from dims_worker.domain.decide import at_least, drift_pct
from dims_worker.formatting import format_age, format_exact, format_percent, is_number
from dims_worker.store.runs import PastReading
from dims_worker.text.phrases import ExplanationView, Line, accepted_by

_BETWEEN = {
    "minor": (None, "moderate"),
    "moderate": ("moderate", "major"),
    "major": ("major", "extreme"),
    "extreme": ("extreme", None),
}
"""Between which thresholds a status lies."""
_BEYOND = {"min": "below", "max": "above", "max_age": "more than"}


def verdict_lines(shown: ExplanationView) -> Iterator[Line]:
    """How the verdict on the last good reading follows, in the order in which it does; nothing where there is none."""
    one = shown.one
    if one.judged and one.policy and one.reading:
        yield from _VerdictReasons(shown, one.judged, one.policy, one.reading).lines()


@dataclass(frozen=True, slots=True)
class _VerdictReasons:
    shown: ExplanationView
    judged: JudgedVerdict
    policy: Policy
    reading: PastReading

    def lines(self) -> Iterator[Line]:
        judged, verdict = self.judged, self.judged.verdict
        if judged.baseline:
            was = judged.baseline.against
            if drift_pct(was.value, self.shown.one.state.baseline) != 0:  # the reading took its place
                yield "against", f"{self.shown.value(was.value)}, {accepted_by(was, self.shown.one.now)}"
            yield "drift", self._drift(judged.baseline)
        yield "status", f"{verdict.status}: {self._status()}"
        if judged.person:
            how = accepted_by(judged.person.against, self.shown.one.now)
            yield "person", f"{self._formula(judged.person)} from what a person last accepted: {how}"
        yield from self._limits()
        yield "severity", f"{verdict.severity}: {self._severity()}"
        yield "tier", f"{verdict.tier}: {self._tier()}"
        if judged.otherwise:
            said = self.reading
            yield "policy", f"has changed since; recorded was {said.status}, {said.severity}, {said.tier}"

    def _drift(self, weighed: Comparison) -> str:
        said, old, new = self._formula(weighed), weighed.against.value, self.reading.value
        if weighed.noise == "direction":
            way = "up" if new > old else "down"
            watched = f"only {self.policy.direction} is watched (direction: {self.shown.origin('direction')})"
            return f"{said}; it goes {way}, and {watched}"
        if weighed.noise == "min_abs":
            noise = self.shown.key("min_abs", format_exact(self.policy.min_abs))
            return f"{said}; {format_exact(abs(new - old))} is noise, less than {noise}"
        return said

    def _formula(self, weighed: Comparison) -> str:
        """DESIGN section 7's, with the numbers in it."""
        old, new, drift = weighed.against.value, self.reading.value, weighed.drift_pct
        if not (is_number(old) and is_number(new)):
            if drift == 0:
                return f"{self.shown.quoted(new)} as before: 0 %"
            return f"{self.shown.quoted(old)} became {self.shown.quoted(new)}: different, which counts as 100 %"
        if old == new:
            return "the same value: 0 %"
        change = f"|{format_exact(new)} - {format_exact(old) if old >= 0 else f'({format_exact(old)})'}|"
        if old == 0:
            ratio = "from 0 there is no ratio"
            return f"{change} = {format_exact(abs(new))}; {ratio}{', it counts as 100 %' if drift else ''}"
        by = format_exact(old) if old > 0 else f"|{format_exact(old)}|"
        return f"{change} / {by} x 100 = {self._percent(drift or 0)}"

    def _percent(self, drift: float) -> str:
        steps = self.policy.thresholds
        return format_percent(drift, steps.moderate, steps.major, steps.extreme, self.policy.require_approval_pct)

    def _status(self) -> str:
        verdict = self.judged.verdict
        if verdict.status == "new":
            return "it is the first good reading"
        if self.judged.baseline is None:
            return "an age is judged by max_age alone"
        if verdict.status == "ok":
            return "there is no drift"
        if verdict.drift_pct is None:
            return "there is a change, and no drift to measure it by"
        start, end = (getattr(self.policy.thresholds, step) if step else None for step in _BETWEEN[verdict.status])
        bounds = [f"{start:g} % or more"] if start is not None else []
        bounds += [f"less than {end:g} %"] if end is not None else []
        return f"{', '.join(bounds)} (thresholds: {self.shown.origin('thresholds')})"

    def _limits(self) -> Iterator[Line]:
        """The absolute limit that is broken, else those that are kept."""
        value, policy, key = self.reading.value, self.policy, self.shown.key
        limits = {"min": policy.min, "max": policy.max} if is_number(value) else {}
        told = {name: key(name, format_exact(limit)) for name, limit in limits.items() if limit is not None}
        if policy.max_age is not None and isinstance(value, str):
            told["max_age"] = key("max_age", format_age(policy.max_age))
        if self.judged.limit:
            yield "limit", f"{self.shown.value(value)} is {_BEYOND[self.judged.limit]} {told[self.judged.limit]}"
        elif told:
            yield "limit", f"{self.shown.value(value)} keeps to {' and '.join(told.values())}"

    def _severity(self) -> str:
        status, baseline = self.judged.verdict.status, self.judged.baseline
        reasons = []
        if baseline and baseline.noise:
            reasons.append("the change is not watched")
        elif status not in ("new", "ok"):
            drift = f"{'an' if status == 'extreme' else 'a'} {status} drift of a {self.policy.volatility} metric"
            kind = f"{drift} (volatility: {self.shown.origin('volatility')})"
            reasons.append(f"{kind}, one step higher" if self.policy.volatility == "stable" else kind)
        if self._for_person():
            reasons.append("it is far from what a person last accepted")
        if self.judged.limit:
            reasons.append("beyond a limit it is high at least")
        return "; ".join(reasons) or "nothing has changed"

    def _for_person(self) -> bool:
        """Whether it is held for what a person last accepted, and not for the baseline."""
        return self.judged.verdict.tier == "approve" and not self._reaches(self.judged.baseline)

    def _reaches(self, weighed: Comparison | None) -> bool:
        if weighed is None or weighed.noise or weighed.drift_pct is None:
            return False
        return weighed.drift_pct >= self.policy.require_approval_pct

    def _tier(self) -> str:
        verdict, baseline = self.judged.verdict, self.judged.baseline
        limit = self.shown.key("require_approval_pct", f"{self.policy.require_approval_pct:g}")
        critical = f"critical ({self.shown.origin('critical')})"
        if verdict.tier == "approve":
            weighed = self.judged.person if self._for_person() else baseline
            assert weighed is not None and weighed.drift_pct is not None
            of = " from what a person last accepted" if weighed is self.judged.person else ""
            return f"it is {critical}, and {self._percent(weighed.drift_pct)}{of} reaches {limit}"
        said = "severity is high or worse" if at_least(verdict.severity, "high") else "severity is below high"
        if baseline is None or baseline.noise or not baseline.drift_pct:
            return said
        if self.policy.critical:
            return f"{said}; it is {critical}, but {self._percent(baseline.drift_pct)} is below {limit}"
        return f"{said}; it is not {critical}, so nobody is asked" if self._reaches(baseline) else said
