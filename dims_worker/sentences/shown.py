"""How an explanation's values, keys of policy, bands, people and times are written."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeGuard

from dims_worker.config import Metric, Policy
from dims_worker.explain import Explanation
from dims_worker.store.acceptances import Acceptance
from dims_worker.wording import ago, clean, value_text

Line = tuple[str, str]
"""What it is about, in a word of at most nine letters, and a sentence."""


@dataclass(frozen=True, slots=True)
class Shown:
    """One explanation, for people; `metric` None: it is not configured, or a workflow."""

    one: Explanation
    metric: Metric | None

    def value(self, value: Any) -> str:
        return value_text(value, self.one.unit, self.metric, self.one.now)

    def quoted(self, value: Any) -> str:
        """A value within a sentence: a text in quotes."""
        return f"“{clean(value)}”" if isinstance(value, str) else self.value(value)

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
        return band(anchor, policy.tolerance_pct, self.one.unit) or self.quoted(anchor)


def band(anchor: Any, tolerance_pct: float, unit: str) -> str:
    """The values around a request's first one that it stands for, too; empty where it is that one alone."""
    if not is_number(anchor) or not tolerance_pct or not anchor:
        return ""
    reach = abs(anchor) * tolerance_pct / 100
    low, high = anchor - reach, anchor + reach
    if isinstance(anchor, int):
        low, high = math.ceil(low), math.floor(high)
        if low == high:
            return ""
    return f"{plain(low)} to {plain(high)} {unit}".strip()


def is_number(value: Any) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def plain(value: float) -> str:
    """A number to reckon with, unrounded as far as anyone reads: 172,726 or 3.256789."""
    if isinstance(value, int) or (value == int(value) and abs(value) < 1e15):
        return f"{int(value):,}"
    return f"{value:,.10g}"


def accepted_by(one: Acceptance, now: datetime) -> str:
    """How a value came to be accepted, and by whom: `set by hand by ada (option) 2 days ago: “…” (request 1)`."""
    if one.how == "first":
        return f"the first good reading, {ago(one.as_of, now)} (run {one.run_id})"
    if one.how == "policy":
        return f"accepted by policy {ago(one.as_of, now)} (run {one.run_id})"
    done = "approved" if one.how == "approved" else "set by hand"
    who = f"{clean(one.decided_by)} ({one.known_by})"
    return f"{done} by {who} {ago(one.decided_at, now)}{because(one.note)} (request {one.request})"


def because(note: str | None) -> str:
    return f": “{clean(note)}”" if note else ""


def at(time: datetime, now: datetime) -> str:
    """`3 minutes ago (2026-11-25 20:14:03 UTC)`."""
    return f"{ago(time, now)} ({time.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC)"
