"""Format numbers, values, drifts, times, durations and words of commands for people, the same way everywhere.

No other module of dims_worker formats a time, which a test checks. Times are shown in UTC.
"""

from __future__ import annotations

import math
import os
import shlex
import unicodedata
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any, Protocol

from dims_worker.config import Metric
from dims_worker.config.units import AGES, FUTURE_TOLERANCE
from dims_worker.numbers import Number, fits_float, same_number
from dims_worker.numbers import is_number as is_number  # noqa: PLC0414 - others import it from here

NO_VALUE = "-"
_UNESCAPED = frozenset(" /.,:;=@+-_~#^&*()[]{}<>|?")
"""Characters besides letters and digits that need no escape in the format of `printf`, whatever the shell."""
_YEAR = 365.25 * AGES["days"]
_ROUNDS_TO_ONE = 0.9995
"""The smallest number that three significant digits round to 1: 59.98 seconds are a minute."""
_COUNTED_YEARS, _COUNTED_HOURS = 4, 10
"""From so many on, a time is in whole years or hours. Shorter ones would lose too much by it."""
_WRITTEN_OUT = 1e15
"""An estimate from here on has an exponent."""
_ELAPSED_UNITS = ("days", "hours", "minutes", "seconds")
_COUNTED_UNITS = ("files", "lines", "objects", "commits", "bytes", "games", "hours", "days", "minutes", "weeks")


def escape_control(text: object) -> str:
    r"""Escape control characters (`\x1b`), so that a text from outside cannot move the cursor or colour the screen."""
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in str(text))


def shell_quote(word: str) -> str:
    r"""Quote a word for any POSIX shell: as it is, in '…', or in "$(printf '…')" with octal escapes.

    The escapes are for what a terminal, a browser or the history of a shell may change: invisible characters, text that
    is not in Unicode form NFC, `!` beside a quote. Line breaks at the end stay as they are, because `$(…)` would remove
    them. Names from `os.fsdecode` keep their bytes. Raises ValueError for NUL, which no command can contain.
    """
    if "\0" in word:
        raise ValueError(f"no shell command can contain the word {word!r}")
    start = word.rstrip("\n")
    end = f"'{word[len(start) :]}'" if start != word else ""
    is_composed = unicodedata.is_normalized("NFC", start)
    if start.isprintable() and is_composed and not ("'" in start and "!" in start):
        return shlex.quote(start) + end if start or not end else end
    text = "".join(_for_printf(character, is_composed) for character in start)
    text = f"\\055{text[1:]}" if text.startswith("-") else text  # it is no option of `printf`
    return f"\"$(printf '{text}')\"{end}"


def _for_printf(character: str, is_composed: bool) -> str:
    if character.isascii():
        is_plain = character.isalnum() or character in _UNESCAPED
    else:
        is_plain = is_composed and character.isprintable()
    return character if is_plain else "".join(f"\\{byte:03o}" for byte in os.fsencode(character))


def pluralize(count: int, noun: str) -> str:
    """Return a count with its noun: `1 metric`, `5 metrics`, `1,234 metrics`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def count_metrics(count: int) -> str:
    """Return `1 metric`, `5 metrics`."""
    return pluralize(count, "metric")


def format_number(value: Number, precision: int | None = None) -> str:
    """Return `172,726` or `3.25`: `precision` decimals, or else up to four significant digits."""
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, Decimal) and fits_float(value):
        value = float(value)
    if precision is not None:
        return f"{value:,.{precision}f}"
    return f"{value:,.4g}" if -1000 < value < 1000 else f"{value:,.1f}"


def format_exact(value: Number) -> str:
    """Return a number to calculate with, with up to ten significant digits: `172,726`, `3.256789`.

    A number that a float cannot hold has all its digits.
    """
    if isinstance(value, Decimal):
        if not fits_float(value):
            return f"{value:,f}"
        value = float(value)
    if isinstance(value, int) or (value == int(value) and abs(value) < 1e15):
        return f"{int(value):,}"
    return f"{value:,.10g}"


def format_band(low: float, high: float) -> str:
    """Return an expected band: `4,310 to 4,470`, `0.12 to 0.2`. Large numbers have no decimals."""
    return f"{format_estimate(low)} to {format_estimate(high)}"


def format_estimate(number: float) -> str:
    """Return a number that DIMS has estimated, without decimals that mean nothing: `4,390`, `0.123`, `1.2e+20`."""
    if abs(number) >= _WRITTEN_OUT:
        return f"{number:.3g}"
    return f"{number + 0.0:,.0f}" if abs(number) >= 100 or number == round(number) else f"{number:,.3g}"


def format_value(value: Any, unit: str | None, metric: Metric | None, now: datetime) -> str:
    """Return a value with its unit, `1,230 files`. An age is a duration up to `now`, `51.0 hours`."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        if metric is not None and metric.is_age and (instant := parse_instant(value)) is not None:
            return _format_age_value(now - instant, metric.shown_unit)
        return escape_control(value)
    unit = unit or ""
    if value == 1 and unit in _COUNTED_UNITS:
        unit = unit.removesuffix("s")
    return f"{format_number(value, metric.precision if metric else None)} {unit}".strip()


def parse_instant(value: Any) -> datetime | None:
    """Return the instant that the reading of an age holds, or None for every other value.

    A metric that is an age now can have been something else when it was measured. An instant without a zone is in UTC.
    So is one that would be outside the years 1 to 9999 in UTC.
    """
    try:
        instant = datetime.fromisoformat(value)
    except (TypeError, ValueError):
        return None
    if instant.tzinfo is None:
        return instant.replace(tzinfo=UTC)
    try:
        return instant.astimezone(UTC)
    except OverflowError:
        return instant.replace(tzinfo=UTC)


def _format_age_value(age: timedelta, unit: str) -> str:
    """Return an age in its unit, `51.0 hours`, or `in 4.09 years` for an instant in the future."""
    if age < -FUTURE_TOLERANCE:
        return format_age(age)
    return f"{max(0.0, age.total_seconds()) / AGES[unit]:,.1f} {unit}"


def display_unit(metric: Metric | None, measured_in: str | None) -> str:
    """Return the unit to show: the one that the value was measured in, because the configuration may have changed
    since. An age is stored as an instant, so it takes the unit that is configured now."""
    if metric is not None and (measured_in is None or (metric.is_age and measured_in in AGES)):
        return metric.shown_unit
    return measured_in or ""


def format_bytes(number: int) -> str:
    """Return bytes in powers of 1,000: `999 B`, `5.3 kB`, `12.0 GB`."""
    value = float(number)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 999.95 or (unit == "B" and number < 1000):
            return f"{number:,} B" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:,.1f} TB"


def format_drift(value: Any, baseline: Any, drift: float | None) -> str:
    """Return `+18.7 %` or `-3.0 %`: the size of the drift, with the direction in which the value moved.

    A drift is never rounded up to a whole number, which may be a limit, nor to 0: `+14.96 %`, `+0.04 %`.
    """
    if drift is None:
        return NO_VALUE
    signed = is_number(value) and is_number(baseline) and not same_number(value, baseline)
    sign = ("+" if value > baseline else "-") if signed else ""
    return f"{sign}{format_percent(drift, math.ceil(drift))}"


class ComparedValue(Protocol):
    """An approval request: a value, the drift that holds it, and the value that this is the drift from."""

    @property
    def value(self) -> Any: ...
    @property
    def unit(self) -> str: ...
    @property
    def drift_pct(self) -> float | None: ...
    @property
    def compared_with(self) -> Any: ...
    @property
    def from_person(self) -> bool: ...


def format_holding_drift(request: ComparedValue, metric: Metric | None, now: datetime) -> str:
    """Return the drift that holds a value: `+18.7 %`, or `+15.0 % from 100 GB` if that is not the baseline but the
    value that a person last accepted."""
    drift = format_drift(request.value, request.compared_with, request.drift_pct)
    if not request.from_person:
        return drift
    return f"{drift} from {format_value(request.compared_with, request.unit, metric, now)}"


def format_percent(share: float, *limits: float) -> str:
    """Return `14.99 %`: as many decimals as it takes not to round the share to 0 or across one of the limits."""
    decimals = 1
    while decimals < 9 and not _is_faithful(round(share, decimals), share, limits):
        decimals += 1
    return f"{share:,.{decimals}f} %"


def _is_faithful(rounded: float, share: float, limits: tuple[float, ...]) -> bool:
    return all((rounded >= limit) == (share >= limit) for limit in limits) and bool(rounded) == bool(share)


def format_ago(time: datetime | None, now: datetime) -> str:
    """Return how long ago a time was: `3 minutes ago`, `just now`, `in 2 hours`, or `never` for None."""
    return format_elapsed(now - time) if time else "never"


def format_elapsed(span: timedelta) -> str:
    """Return an elapsed time in whole numbers of its largest unit: `3 minutes ago`, `in 2 hours`, `just now`.

    From four years on, the unit is a year of 365.25 days.
    """
    seconds = span.total_seconds()
    amount = _whole_amount(abs(seconds))
    if amount is None:
        return "just now"
    return f"{amount} ago" if seconds > 0 else f"in {amount}"


def _whole_amount(seconds: float) -> str | None:
    if seconds >= _COUNTED_YEARS * _YEAR:
        return pluralize(int(seconds / _YEAR), "year")
    for unit in _ELAPSED_UNITS:
        if whole := int(seconds / AGES[unit]):
            return pluralize(whole, unit.removesuffix("s"))
    return None


def format_remaining(time: datetime, now: datetime) -> str:
    """Return how long it is until a time: `in 1.5 hours`, or `now` for a time that has passed."""
    return f"in {format_age(time - now)}" if time > now else "now"


def format_duration(span: timedelta) -> str:
    """Return how long an operation took: `230 ms`, `3.1 s`, `2 min 5 s`, `13 h 20 min`, `2 days 5 h`.

    It ended before it began if a clock was set back meanwhile. How long it took is unknown then.
    """
    seconds = span.total_seconds()
    if seconds < 0:
        return "an unknown time"
    if round(seconds * 1000) < 1000:
        return f"{seconds * 1000:.0f} ms"
    if round(seconds, 1) < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60 * _COUNTED_HOURS:
        return f"{minutes:,} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min"
    return f"{hours // 24:,} days {hours % 24} h"


def format_age(span: timedelta) -> str:
    """Return a duration in one unit, with three significant digits: `4.25 days`, `1 hour`, `12,345 years`.

    A negative one is a time that lies ahead: `in 4.09 years`.
    """
    seconds = abs(span.total_seconds())
    sign = "in " if span < timedelta(0) else ""
    for unit, factor in (("years", _YEAR), *reversed(AGES.items())):
        if seconds / factor >= _ROUNDS_TO_ONE:
            amount = _significant(seconds / factor)
            return f"{sign}{amount} {unit.removesuffix('s') if amount == '1' else unit}"
    return f"{sign}{seconds:.1f} seconds"


def format_limit(span: timedelta) -> str:
    """Return a configured duration exactly, in the largest unit that divides it: `400 days`, `2 weeks`."""
    seconds = span / timedelta(seconds=1)
    for unit, factor in reversed(AGES.items()):
        if seconds >= factor and (seconds / factor).is_integer():
            return pluralize(int(seconds / factor), unit.removesuffix("s"))
    return format_age(span)


def _significant(amount: float) -> str:
    """Return a positive number with three significant digits or, from 1,000 on, with all of its whole part."""
    decimals = 2 if amount < 9.995 else 1 if amount < 99.95 else 0
    text = f"{amount:,.{decimals}f}"
    return text.rstrip("0").rstrip(".") if decimals else text


def format_clock(time: datetime) -> str:
    """Return the time of day: `14:03:07`."""
    return f"{time.astimezone(UTC):%H:%M:%S}"


def format_utc(time: datetime) -> str:
    """Return `2026-11-25 14:03 UTC`."""
    return f"{format_utc_short(time)} UTC"


def format_utc_seconds(time: datetime) -> str:
    """Return `2026-11-25 14:03:07`, in UTC."""
    return f"{time.astimezone(UTC):%Y-%m-%d %H:%M:%S}"


def format_utc_short(time: datetime | None) -> str:
    """Return `2026-11-25 14:03`, where the reader already knows that times are in UTC, or `never` for None."""
    return f"{time.astimezone(UTC):%Y-%m-%d %H:%M}" if time else "never"


def format_utc_compact(time: datetime) -> str:
    """Return `20261125T140307Z` (the basic format of ISO 8601), for ids and file names."""
    return f"{time.astimezone(UTC):%Y%m%dT%H%M%SZ}"


def format_day(time: datetime) -> str:
    """Return `2026-11-25`, the day in UTC."""
    return f"{time.astimezone(UTC):%Y-%m-%d}"


def format_day_and_month(day: date) -> str:
    """Return `25 Nov`, for the axis of a chart."""
    return f"{day.day} {day:%b}"
