"""What all reports for people say with the same words: values, changes, states, times."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from dims_worker.analysis.health import MetricHealth
from dims_worker.formatting import NO_VALUE, format_number, format_value
from dims_worker.formatting import format_utc as when
from dims_worker.store.approval_requests import ApprovalRequest


def metric_value(one: MetricHealth, of: Any, now: datetime) -> str:
    """A value of a metric with its unit, an age at `now`; `-` where there was never one."""
    return format_value(of, one.unit, one.declared, now) if one.measured else NO_VALUE


def metric_instant(one: MetricHealth, of: Any) -> str:
    """The same where it must not change while nothing is measured: an age as the moment it counts from."""
    if one.declared.is_age and isinstance(of, str):
        return f"since {when(datetime.fromisoformat(of))}"
    return metric_value(one, of, datetime.now(UTC)) if one.measured else NO_VALUE


def metric_change(one: MetricHealth) -> str:
    """What a metric went up or down by: `+1,230`, `-0.4 GB`; words where it is no number; `-` where it is an age."""
    if one.before is None or not one.compared:
        return NO_VALUE
    by = one.change
    if by is None:
        return "as before" if one.before.value == one.state.value else "another"
    if by == 0:
        return "0"
    # As few decimals as the value has, and yet never a 0 that is none
    shown = format_number(abs(by), one.declared.precision)
    if not shown.strip("0.,"):
        shown = f"{abs(by):.2g}"
    return f"{'+' if by > 0 else '-'}{shown}"


def decide_command(request: ApprovalRequest) -> str:
    """The command that accepts what waits."""
    return f"dims approvals approve {request.id} --version {request.version}"
