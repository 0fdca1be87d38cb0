"""Write the parts of an explanation: values, policy keys, bands, people and times."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from dims_worker.analysis.explanation import Explanation
from dims_worker.config import Metric, Policy
from dims_worker.formatting import (
    escape_control,
    format_ago,
    format_exact,
    format_utc_seconds,
    format_value,
    is_number,
)
from dims_worker.numbers import exact_decimal, number_of
from dims_worker.store.baselines import Acceptance

Line = tuple[str, str]
"""A topic, in one word of at most eleven letters, and a sentence."""


@dataclass(frozen=True, slots=True)
class ExplanationView:
    """An explanation to write as text. `metric` is None if it is not configured, or for a workflow."""

    explanation: Explanation
    metric: Metric | None

    def value(self, value: Any) -> str:
        """Return a value with the unit of the metric."""
        return format_value(value, self.explanation.unit, self.metric, self.explanation.now)

    def quoted(self, value: Any) -> str:
        """Return a value as part of a sentence: a text is in quotes."""
        return f"“{escape_control(value)}”" if isinstance(value, str) else self.value(value)

    def origin(self, key: str) -> str:
        """Return where a policy key is set: `metric`, `category m`, `policy`, `default`."""
        origin = self.explanation.origins[key]
        if origin == "category":
            return f"category {self.explanation.metric.partition('.')[0]}"
        return "policy" if origin == "general" else origin

    def key(self, key: str, value: str) -> str:
        """Return `require_approval_pct = 15 (default)`."""
        return f"{key} = {value} ({self.origin(key)})"

    def band(self, anchor: Any, policy: Policy) -> str:
        """Return the values that one approval request stands for: `200,900 to 209,100 objects`."""
        return band_text(anchor, policy.tolerance_pct, self.explanation.unit) or self.quoted(anchor)


def band_text(anchor: Any, tolerance_pct: float, unit: str) -> str:
    """Return the range around the first value of a request, or an empty text if it contains only that value."""
    if not is_number(anchor) or not tolerance_pct or not anchor:
        return ""
    middle = exact_decimal(anchor)
    reach = middle.copy_abs() * exact_decimal(tolerance_pct) / 100
    low, high = number_of(middle - reach), number_of(middle + reach)
    if isinstance(anchor, int):
        low, high = math.ceil(low), math.floor(high)
        if low == high:
            return ""
    return f"{format_exact(low)} to {format_exact(high)} {unit}".strip()


def format_acceptance(acceptance: Acceptance, now: datetime) -> str:
    """Return how and by whom a value was accepted: `set by hand by ada (option) 2 days ago: “…” (request 1)`."""
    if acceptance.how in ("first", "policy"):
        how = "the first good reading," if acceptance.how == "first" else "accepted by policy"
        return f"{how} {format_ago(acceptance.as_of, now)} (run {acceptance.run_id})"
    how = "approved" if acceptance.how == "approved" else "set by hand"
    person = f"{escape_control(acceptance.decided_by)} ({acceptance.known_by})"
    when = format_ago(acceptance.decided_at, now)
    return f"{how} by {person} {when}{reason_text(acceptance.note)} (request {acceptance.request})"


def reason_text(note: str | None) -> str:
    """Return a note to append to a sentence: `: “counted again”`."""
    return f": “{escape_control(note)}”" if note else ""


def ago_with_time(time: datetime, now: datetime) -> str:
    """Return `3 minutes ago (2026-11-25 20:14:03 UTC)`."""
    return f"{format_ago(time, now)} ({format_utc_seconds(time)} UTC)"
