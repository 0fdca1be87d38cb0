"""A run as it was recorded: its readings, and what became of each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

Outcome = Literal["accepted", "held", "rejected", "looked", "superseded", "provisional", "failed"]
"""What became of a reading. `held` waits for a person; `rejected` lies in the band of what one rejected."""


@dataclass(frozen=True, slots=True)
class RunReading:
    """One reading and what became of it. `baseline` is what it was judged against (status new: nothing)."""

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


@dataclass(frozen=True, slots=True)
class Run:
    """A run as it was recorded. `trigger`: event, or verify (a look: no lease, no generation, no new baseline
    but a first one). `channels`: the channels with notifications to send."""

    run_id: int
    trigger: str
    source: str | None
    status: str
    as_of: datetime
    finished_at: datetime
    api_calls: int
    items: tuple[RunReading, ...]
    channels: tuple[str, ...] = ()
