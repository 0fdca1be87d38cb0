"""How an explanation's values, keys of policy, bands, people and times are written."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from dims_worker.analysis.explanation import Explanation
from dims_worker.config import Metric, Policy
from dims_worker.formatting import escape_control, format_ago, format_exact, format_utc_seconds, format_value, is_number
from dims_worker.store.baselines import Acceptance

Line = tuple[str, str]
"""What it is about, in a word of at most nine letters, and a sentence."""


@dataclass(frozen=True, slots=True)
class ExplanationView:
    """One explanation, for people; `metric` None: it is not configured, or a workflow."""

    one: Explanation
    metric: Metric | None

    def value(self, value: Any) -> str:
        return format_value(value, self.one.unit, self.metric, self.one.now)

    def quoted(self, value: Any) -> str:
        """A value within a sentence: a text in quotes."""
        return f"“{escape_control(value)}”" if isinstance(value, str) else self.value(value)

    def origin(self, key: str) -> str:
        """Where a key of policy was said: `metric`, `category m`, `policy`, `default`."""
        origin = self.one.origins[key]
        if origin == "category":
            return f"category {self.one.metric.partition('.')[0]}"
        return "policy" if origin == "general" else origin

    def key(self, key: str, value: str) -> str:
        """`require_approval_pct = 15 (default)`."""
        return f"{key} = {value} ({self.origin(key)})"

    def band(self, anchor: Any, policy: Policy) -> str:
        """The values that one request stands for: `200,900 to 209,100 objects`."""
        return band_text(anchor, policy.tolerance_pct, self.one.unit) or self.quoted(anchor)


def band_text(anchor: Any, tolerance_pct: float, unit: str) -> str:
    """The values around a request's first one that it stands for, too; empty where it is that one alone."""
    if not is_number(anchor) or not tolerance_pct or not anchor:
        return ""
    reach = abs(anchor) * tolerance_pct / 100
    low, high = anchor - reach, anchor + reach
    if isinstance(anchor, int):
        low, high = math.ceil(low), math.floor(high)
        if low == high:
            return ""
    return f"{format_exact(low)} to {format_exact(high)} {unit}".strip()


def accepted_by(one: Acceptance, now: datetime) -> str:
    """How a value came to be accepted, and by whom: `set by hand by ada (option) 2 days ago: “…” (request 1)`."""
    if one.how == "first":
        return f"the first good reading, {format_ago(one.as_of, now)} (run {one.run_id})"
    if one.how == "policy":
        return f"accepted by policy {format_ago(one.as_of, now)} (run {one.run_id})"
    done = "approved" if one.how == "approved" else "set by hand"
    who = f"{escape_control(one.decided_by)} ({one.known_by})"
    return f"{done} by {who} {format_ago(one.decided_at, now)}{reason_text(one.note)} (request {one.request})"


def reason_text(note: str | None) -> str:
    return f": “{escape_control(note)}”" if note else ""


def ago_with_time(time: datetime, now: datetime) -> str:
    """`3 minutes ago (2026-11-25 20:14:03 UTC)`."""
    return f"{format_ago(time, now)} ({format_utc_seconds(time)} UTC)"
