"""The expected band that a reading was judged by, as charts and tables show it."""

from __future__ import annotations

from decimal import Decimal
from typing import Any, Protocol

from dims_worker.domain.decide import SEVERITIES, at_least
from dims_worker.formatting import format_band, is_number
from dims_worker.numbers import exact_decimal

OUTSIDE_SEVERITIES = tuple(severity for severity in SEVERITIES if at_least(severity, "medium"))
"""The severities of a value outside its band, unless policy watches only the other direction."""


class BandedReading(Protocol):
    """A reading with the band that it was judged by, which is None if there was none."""

    @property
    def value(self) -> Any: ...
    @property
    def severity(self) -> str | None: ...
    @property
    def expected_low(self) -> float | None: ...
    @property
    def expected_high(self) -> float | None: ...


def is_outside_band(reading: BandedReading) -> bool:
    """Return whether DIMS judged a reading as outside its band. A growth that policy does not watch is not."""
    low, high, value = reading.expected_low, reading.expected_high, reading.value
    if low is None or high is None or not is_number(value) or reading.severity not in OUTSIDE_SEVERITIES:
        return False
    exact = exact_decimal(value)
    return exact < Decimal(low) or exact > Decimal(high)


def expected_text(reading: BandedReading, precision: int | None = None) -> str:
    """Return the band that a reading was judged by, `4,310 to 4,470`, or an empty text."""
    if reading.expected_low is None or reading.expected_high is None:
        return ""
    whole = isinstance(reading.value, int)
    return format_band(reading.expected_low, reading.expected_high, whole=whole, precision=precision)
