"""Values, drifts and times as people read them: plain words, the same on the terminal and in messages."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any

from dims_worker.config import Metric
from dims_worker.config.units import AGES

NO_VALUE = "-"
PAST = ("days", "hours", "minutes", "seconds")
PLURALS = ("files", "lines", "objects", "commits", "bytes", "games", "hours", "days", "minutes", "weeks")


def escape_control(text: object) -> str:
    """A text from outside without control characters, so that it cannot move the cursor or colour the screen."""
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in str(text))


def format_number(value: float, precision: int | None = None) -> str:
    """172,726 or 3.25: at most `precision` decimals, else up to four significant ones."""
    if isinstance(value, int):
        return f"{value:,}"
    if precision is not None:
        return f"{value:,.{precision}f}"
    return f"{value:,.4g}" if abs(value) < 1000 else f"{value:,.1f}"


def format_value(value: Any, unit: str | None, metric: Metric | None, now: datetime) -> str:
    """A value with its unit; an age as its length at `now`."""
    if value is None:
        return "null"
    if isinstance(value, str):
        if metric is not None and metric.is_age:
            seconds = (now - datetime.fromisoformat(value)).total_seconds()
            return f"{seconds / AGES[metric.shown_unit]:,.1f} {metric.shown_unit}"
        return escape_control(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    unit = unit or ""
    if value == 1 and unit in PLURALS:
        unit = unit.removesuffix("s")
    return f"{format_number(value, metric.precision if metric else None)} {unit}".strip()


def display_unit(metric: Metric | None, measured_in: str | None) -> str:
    """The unit of a value: the one that it was measured in, as the configuration may have another by now. An age is
    an instant, which every unit fits."""
    if metric is not None and (metric.is_age or measured_in is None):
        return metric.shown_unit
    return measured_in or ""


def format_drift(value: Any, baseline: Any, drift: float | None) -> str:
    """+18.7 %, -3 %; the sign is the value's way, the size the verdict's."""
    if drift is None:
        return NO_VALUE
    numbers = all(isinstance(one, int | float) and not isinstance(one, bool) for one in (value, baseline))
    sign = ("+" if value > baseline else "-") if numbers and value != baseline else ""
    return f"{sign}{drift:,.1f} %"


def format_ago(time: datetime | None, now: datetime) -> str:
    """How long ago, as `3 minutes ago`; `just now` within a second; `in 2 hours` where a clock is ahead."""
    return format_elapsed(now - time) if time else "never"


def format_elapsed(span: timedelta) -> str:
    """The same of a span, in whole numbers of the largest unit that it fills."""
    seconds = span.total_seconds()
    for name in PAST:
        if whole := int(abs(seconds) / AGES[name]):
            shown = f"{whole:,} {name.removesuffix('s') if whole == 1 else name}"
            return f"{shown} ago" if seconds > 0 else f"in {shown}"
    return "just now"


def format_duration(span: timedelta) -> str:
    """How long something took: `230 ms`, `3.1 s`, `2 min 5 s`."""
    seconds = span.total_seconds()
    if round(seconds * 1000) < 1000:
        return f"{seconds * 1000:.0f} ms"
    if round(seconds, 1) < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes:,} min {rest} s"


def format_clock(time: datetime) -> str:
    return time.astimezone(UTC).strftime("%H:%M:%S")


def pluralize(number_of: int, noun: str) -> str:
    """`1 metric`, `5 metrics`."""
    return f"{number_of:,} {noun}{'' if number_of == 1 else 's'}"


def format_utc(time: datetime) -> str:
    """`2026-11-25 14:03 UTC`."""
    return f"{time.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def format_utc_seconds(time: datetime) -> str:
    """Return `2026-11-25 14:03:07`, in UTC."""
    return f"{time.astimezone(UTC):%Y-%m-%d %H:%M:%S}"


def format_utc_short(time: datetime | None) -> str:
    """The same without the zone, where a page says once that times are UTC; `never`."""
    return f"{time.astimezone(UTC):%Y-%m-%d %H:%M}" if time else "never"


def format_day_and_month(day: date) -> str:
    """Return `25 Nov`, for the axis of a chart."""
    return f"{day.day} {day:%b}"


def format_day(time: datetime) -> str:
    return f"{time.astimezone(UTC):%Y-%m-%d}"


def count_metrics(number_of: int) -> str:
    return pluralize(number_of, "metric")


def format_age(span: timedelta) -> str:
    """A duration in one word and one number, such as `4.2 days`."""
    seconds = span.total_seconds()
    for name, factor in reversed(AGES.items()):
        if abs(seconds) >= factor:
            shown = f"{seconds / factor:.3g}"
            return f"{shown} {name.removesuffix('s') if shown == '1' else name}"
    return f"{seconds:.1f} seconds"


def format_bytes(number: int) -> str:
    """Format bytes in powers of 1,000: `999 B`, `5.3 kB`, `12.0 GB`."""
    value = float(number)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 999.95 or (unit == "B" and number < 1000):
            return f"{number:,} B" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:,.1f} TB"


def format_percent(share: float, *limits: float) -> str:
    """A share in % with so many decimals that it stands on the right side of each limit, and of 0."""
    decimals = 1
    while decimals < 9 and not _is_faithful(round(share, decimals), share, limits):
        decimals += 1
    return f"{share:,.{decimals}f} %"


def _is_faithful(shown: float, share: float, limits: tuple[float, ...]) -> bool:
    return all((shown >= limit) == (share >= limit) for limit in limits) and bool(shown) == bool(share)
