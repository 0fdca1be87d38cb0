"""Values, drifts and times as people read them: plain words, the same on the terminal and in messages."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from dims_worker.config import Metric
from dims_worker.config.quantities import AGES, words

NOTHING = "-"
PLURALS = ("files", "lines", "objects", "commits", "bytes", "games", "hours", "days", "minutes", "weeks")


def clean(text: object) -> str:
    """A text from outside without control characters, so that it cannot move the cursor or colour the screen."""
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in str(text))


def number(value: float, precision: int | None = None) -> str:
    """172,726 or 3.25: at most `precision` decimals, else up to four significant ones."""
    if isinstance(value, int):
        return f"{value:,}"
    if precision is not None:
        return f"{value:,.{precision}f}"
    return f"{value:,.4g}" if abs(value) < 1000 else f"{value:,.1f}"


def value_text(value: Any, unit: str | None, metric: Metric | None, now: datetime) -> str:
    """A value with its unit; an age as its length at `now`."""
    if value is None:
        return "null"
    if isinstance(value, str):
        if metric is not None and metric.is_age:
            seconds = (now - datetime.fromisoformat(value)).total_seconds()
            return f"{seconds / AGES[metric.shown_unit]:,.1f} {metric.shown_unit}"
        return clean(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    unit = unit or ""
    if value == 1 and unit in PLURALS:
        unit = unit.removesuffix("s")
    return f"{number(value, metric.precision if metric else None)} {unit}".strip()


def drift_text(value: Any, baseline: Any, drift: float | None) -> str:
    """+18.7 %, -3 %; the sign is the value's way, the size the verdict's."""
    if drift is None:
        return NOTHING
    numbers = all(isinstance(one, int | float) and not isinstance(one, bool) for one in (value, baseline))
    sign = ("+" if value > baseline else "-") if numbers and value != baseline else ""
    return f"{sign}{drift:.1f} %"


def ago(time: datetime | None, now: datetime) -> str:
    """How long ago, as `3.2 minutes ago`."""
    return f"{words(now - time)} ago" if time else "never"


def clock_text(time: datetime) -> str:
    return time.astimezone(UTC).strftime("%H:%M:%S")


def count(number_of: int, noun: str) -> str:
    """`1 metric`, `5 metrics`."""
    return f"{number_of:,} {noun}{'' if number_of == 1 else 's'}"
