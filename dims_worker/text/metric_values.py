"""Write values and changes the same way in every report."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from dims_worker.analysis.health import MetricHealth
from dims_worker.formatting import NO_VALUE, format_number, format_utc, format_value, parse_instant
from dims_worker.numbers import magnitude, same_value
from dims_worker.store.approval_requests import ApprovalRequest


def metric_value(health: MetricHealth, value: Any, now: datetime) -> str:
    """Return a value of a metric with its unit, an age at `now`, or `-` if the metric was never measured."""
    return format_value(value, health.unit, health.declared, now) if health.measured else NO_VALUE


def metric_instant(health: MetricHealth, value: Any) -> str:
    """Return a value as text that changes only with a new measurement: an age as the instant where it begins."""
    if health.declared.is_age and (instant := parse_instant(value)) is not None:
        return f"{'at' if health.in_future else 'since'} {format_utc(instant)}"
    return metric_value(health, value, datetime.now(UTC))


def metric_change(health: MetricHealth) -> str:
    """Return how much a metric changed: `+1,230`, `-0.4`, `changed` for a text, `-` for an age."""
    if health.before is None or not health.compared:
        return NO_VALUE
    change = health.change
    if change is None:
        return "unchanged" if same_value(health.before.value, health.state.value) else "changed"
    if change == 0:
        return "0"
    size = magnitude(change)
    # Round to the decimals of the value, but never to 0.
    amount = format_number(size, health.declared.precision)
    if not amount.strip("0.,"):
        amount = f"{size:.2g}"
    return f"{'+' if change > 0 else '-'}{amount}"


def decide_command(request: ApprovalRequest) -> str:
    """Return the command that approves a request."""
    return f"dims approvals approve {request.id} --version {request.version}"
