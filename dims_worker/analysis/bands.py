"""The expected band that a reading was judged by, and what it was learned from."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, Literal, Protocol

from sqlalchemy import Connection

from dims_worker.analysis.learning import Lesson, learn_bands
from dims_worker.config import Config
from dims_worker.domain.decide import SEVERITIES, at_least
from dims_worker.domain.expectation import HORIZON, Expectation
from dims_worker.formatting import format_band, is_number
from dims_worker.numbers import exact_decimal
from dims_worker.store.incidents import Incident, list_incidents

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


def expected_text(reading: BandedReading) -> str:
    """Return the band that a reading was judged by, `4,310 to 4,470`, or an empty text."""
    if reading.expected_low is None or reading.expected_high is None:
        return ""
    return format_band(reading.expected_low, reading.expected_high)


WhyNone = Literal["drift", "age", "no number", "too few"]
"""Why a metric has no band: `expect: drift`, an age, a value that is no number, or too few accepted values."""

MOST_INCIDENTS = 100
"""The most incidents whose values do not teach that an explanation reads."""
_TEACHING = ("expected", "approved", "timeout")
"""The resolutions after which the values of an incident teach."""


@dataclass(frozen=True, slots=True)
class LearnedBand:
    """The band of a day, and what it was learned from: `values` accepted daily values, the newest from `last_day`.

    `band` is None if there is none, and `why_none` says why. `left_out` are the incidents whose values do not teach,
    newest first.
    """

    day: date
    band: Expectation | None
    why_none: WhyNone | None
    values: int = 0
    last_day: date | None = None
    last: float | None = None
    left_out: tuple[Incident, ...] = ()


def learn_band(connection: Connection, config: Config, metric: str, value: Any, as_of: datetime) -> LearnedBand | None:
    """Compute the band for a value measured at `as_of` again, with the current policy. None if it is no metric."""
    if metric not in config.metrics:
        return None
    policy, day = config.policy_of(metric), as_of.astimezone(UTC).date()
    if config.metrics[metric].is_age:
        return LearnedBand(day, None, "age")
    if policy.expect == "drift":
        return LearnedBand(day, None, "drift")
    if not is_number(value):
        return LearnedBand(day, None, "no number")
    lesson = learn_bands(connection, {metric: policy.min_abs}, day)[metric]
    last_day, last = lesson.values[-1] if lesson.values else (None, None)
    left_out = tuple(_not_teaching(connection, metric, day, lesson))
    why_none: WhyNone | None = None if lesson.band else "too few"
    return LearnedBand(day, lesson.band, why_none, len(lesson.values), last_day, last, left_out)


def _not_teaching(connection: Connection, metric: str, day: date, lesson: Lesson) -> list[Incident]:
    """Return the incidents of the metric, up to this day, whose values do not teach."""
    first = datetime.combine(day, time(), UTC) - timedelta(days=HORIZON)
    incidents = list_incidents(connection, limit=MOST_INCIDENTS, state="all", metrics=[metric], since=first)
    return [
        each
        for each in incidents
        if does_not_teach(each) and not _taught(each, lesson) and each.first_as_of and each.first_as_of.date() <= day
    ]


def _taught(incident: Incident, lesson: Lesson) -> bool:
    """Return whether the values of a drift taught this time although they usually do not."""
    recovered = lesson.with_recovered and incident.resolution == "recovered"
    return incident.kind == "drift" and (recovered or (lesson.with_unbanded and incident.low is None))


def does_not_teach(incident: Incident) -> bool:
    """Return whether the values of an incident do not teach. They do once a person has called them expected."""
    if incident.kind not in ("drift", "approval", "limit"):
        return False
    return incident.active or incident.resolution not in _TEACHING
