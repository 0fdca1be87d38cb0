"""A recorded run: its readings and the outcome of each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

Outcome = Literal["accepted", "held", "rejected", "looked", "superseded", "provisional", "failed"]
"""The outcome of a reading.

`held` waits for approval. `rejected` lies in the band of a value that a person rejected. `looked` is from a check
without a lease (`dims verify`), which does not move the baseline.
"""


@dataclass(frozen=True, slots=True)
class RunReading:
    """A reading and its outcome. `baseline` is the value it was judged against (for status new, there was none)."""

    metric: str
    value: Any
    unit: str
    method: str
    as_of: datetime
    outcome: Outcome
    generation: int | None = None
    baseline: Any = None
    drift_pct: float | None = None
    status: str | None = None
    severity: str | None = None
    tier: str | None = None
    reason: str | None = None
    error: str | None = None
    details: Mapping[str, Any] | None = None
    expected_low: float | None = None
    expected_high: float | None = None


@dataclass(frozen=True, slots=True)
class Run:
    """A recorded run.

    `trigger` is `event`, or `verify` for a check without a lease, which sets no baseline except a first one.
    `channels` are the channels with notifications to send. `run_id` is 0 if nothing was recorded, because nothing had
    changed.
    """

    run_id: int
    trigger: str
    source: str | None
    status: str
    as_of: datetime
    finished_at: datetime
    api_calls: int
    items: tuple[RunReading, ...]
    channels: tuple[str, ...] = ()

    @classmethod
    def without_changes(cls, trigger: str, source: str | None, as_of: datetime, finished_at: datetime) -> Run:
        """Return the run of a comparison that found everything unchanged."""
        return cls(0, trigger, source, "ok", as_of, finished_at, 0, ())
