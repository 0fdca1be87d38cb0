"""Write what DIMS did with a reading, as text and as a JSON document."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Protocol

from dims_worker.config import Config
from dims_worker.domain.decide import age_of
from dims_worker.formatting import escape_control
from dims_worker.text.events import DONE


class JudgedReading(Protocol):
    """A reading with its verdict: one of a run, or a row of the history."""

    @property
    def metric(self) -> str: ...
    @property
    def value(self) -> Any: ...
    @property
    def unit(self) -> str: ...
    @property
    def method(self) -> str: ...
    @property
    def as_of(self) -> datetime: ...
    @property
    def baseline(self) -> Any: ...
    @property
    def drift_pct(self) -> float | None: ...
    @property
    def status(self) -> str | None: ...
    @property
    def severity(self) -> str | None: ...
    @property
    def tier(self) -> str | None: ...
    @property
    def outcome(self) -> str: ...
    @property
    def reason(self) -> str | None: ...
    @property
    def error(self) -> str | None: ...
    @property
    def details(self) -> Mapping[str, Any] | None: ...


def done_text(item: JudgedReading) -> str:
    """Return what DIMS did with a reading: `ok`, `new: first baseline`, `held: waits for approval`."""
    if item.status == "new" and item.outcome == "accepted":
        return "new: first baseline"
    if item.outcome == "superseded" and item.reason:
        return escape_control(item.reason if item.error is None else f"failed: {item.error}; {item.reason}")
    if item.status == "ok" and item.outcome in ("accepted", "looked"):
        return "ok"
    return DONE.get(item.outcome, item.outcome)


def reading_json(config: Config, item: JudgedReading) -> dict[str, Any]:
    """Return a reading as `--json` prints it. An age is a number in its unit at `as_of`, with the instant beside it."""
    metric = config.metrics.get(item.metric)
    value, baseline = item.value, item.baseline
    instant = {}
    if metric is not None and metric.is_age:
        instant = {"instant": value}
        value = age_of(value, item.as_of, item.unit)
        baseline = age_of(baseline, item.as_of, item.unit)
    return {
        "metric": item.metric,
        "value": value,
        "unit": item.unit,
        "baseline": baseline,
        "drift_pct": item.drift_pct,
        "status": item.status,
        "severity": item.severity,
        "tier": item.tier,
        "method": item.method,
        "as_of": item.as_of,
        "error": item.error,
        "outcome": item.outcome,
        "reason": item.reason,
        "details": item.details,
        **instant,
    }
