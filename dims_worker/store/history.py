"""Queries for trends: all readings of a metric, or one reading per day of many metrics.

Each uses the index of the history, by metric and time span, so its cost depends only on what it returns.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any

from sqlalchemy import Connection, text

from dims_worker.store.runs import AGO

UNJUDGED = ("failed", "superseded", "provisional")
"""Outcomes of readings that were not judged."""
TREND_OUTCOMES = ("accepted", "approved", "looked")
"""Outcomes of the readings that make the line of a trend."""
UNMARKED_OUTCOMES = ("accepted", "looked")
"""Outcomes of the readings on the line that no person decided."""


@dataclass(frozen=True, slots=True)
class Point:
    """A reading as a point of a metric's trend. `value` is None if the reading failed or is null."""

    as_of: datetime
    value: Any
    unit: str
    outcome: str
    status: str | None
    severity: str | None
    drift_pct: float | None
    baseline: Any
    run_id: int
    error: str | None
    expected_low: float | None = None
    expected_high: float | None = None


@dataclass(frozen=True, slots=True)
class Day:
    """The last judged reading of a metric on a day (UTC)."""

    day: date
    as_of: datetime
    value: Any
    outcome: str
    status: str | None
    drift_pct: float | None
    baseline: Any
    severity: str | None = None
    expected_low: float | None = None
    expected_high: float | None = None


@dataclass(frozen=True, slots=True)
class DailyLine:
    """The last number of a metric on each day (UTC). `days` counts from the first day of the query, which is 0."""

    days: Sequence[int] = ()
    values: Sequence[float] = ()


_EACH_DAY = (
    "generate_series(date_trunc('day', now(), 'UTC') - make_interval(days => :days - 1), now(), interval '1 day')"
)
_POINT = ", ".join(Point.__slots__)
_DAY = ", ".join(name for name in Day.__slots__ if name != "day")


def metric_trend(connection: Connection, metric: str, span: timedelta, limit: int | None = None) -> list[Point]:
    """Return the newest `limit` readings of a metric in the last `span`, oldest first.

    Superseded and provisional readings are left out.
    """
    rows = connection.execute(
        text(
            f"SELECT {_POINT} FROM dims_metrics_history WHERE metric = :metric "
            f"AND as_of > {AGO} AND outcome NOT IN ('superseded', 'provisional') "
            "ORDER BY as_of DESC, id DESC LIMIT :limit"
        ),
        {"metric": metric, "span": span, "limit": limit},
    )
    return [Point(*row) for row in rows][::-1]


def daily_readings(connection: Connection, metrics: Collection[str], days: int) -> dict[str, list[Day]]:
    """Return the last judged reading of each of the last `days` days (with today) by metric, oldest first.

    Days without a reading are left out, and so are numbers in a unit other than the metric's current one.
    """
    rows = connection.execute(
        text(
            f"SELECT m.metric, d.day::date, {', '.join(f'h.{name}' for name in Day.__slots__ if name != 'day')} "
            "FROM unnest(CAST(:metrics AS text[])) WITH ORDINALITY AS m(metric, n) "
            f"JOIN dims_metrics s USING (metric) CROSS JOIN {_EACH_DAY} AS d(day) CROSS JOIN LATERAL ("
            f"SELECT {_DAY}, unit FROM dims_metrics_history h WHERE h.metric = m.metric AND h.as_of >= d.day "
            "AND h.as_of < d.day + interval '1 day' AND h.outcome <> ALL(:unjudged) "
            "ORDER BY h.as_of DESC, h.id DESC LIMIT 1) AS h "
            "WHERE h.unit = s.unit OR jsonb_typeof(h.value) <> 'number' ORDER BY m.n, d.day"
        ),
        {"metrics": list(metrics), "days": days, "unjudged": list(UNJUDGED)},
    )
    series: dict[str, list[Day]] = {metric: [] for metric in metrics}
    for row in rows:
        series[row.metric].append(Day(*row[1:]))
    return series


def sampled_readings(
    connection: Connection, metric: str, first: datetime, step: timedelta, outcomes: Collection[str]
) -> list[Point]:
    """Return the last reading with one of these outcomes in each `step` from `first` until now, oldest first.

    Steps without a reading are left out.
    """
    rows = connection.execute(
        text(
            f"SELECT {_POINT} FROM generate_series(CAST(:first AS timestamptz), now(), CAST(:step AS interval)) s(s) "
            f"CROSS JOIN LATERAL (SELECT {_POINT} FROM dims_metrics_history h WHERE h.metric = :metric "
            "AND h.as_of >= s.s AND h.as_of < s.s + CAST(:step AS interval) AND h.outcome = ANY(:outcomes) "
            "ORDER BY h.as_of DESC, h.id DESC LIMIT 1) AS h ORDER BY s.s"
        ),
        {"metric": metric, "first": first, "step": step, "outcomes": list(outcomes)},
    )
    return [Point(*row) for row in rows]


def readings_beyond_band(
    connection: Connection, metric: str, first: datetime, limit: int, severities: Collection[str]
) -> list[Point]:
    """Return the newest `limit` readings since `first` that no person decided, with one of these severities,
    that lie outside the band they were judged by, oldest first."""
    rows = connection.execute(
        text(
            f"SELECT {_POINT} FROM dims_metrics_history WHERE metric = :metric AND as_of >= :first "
            "AND outcome = ANY(:outcomes) AND severity = ANY(:severities) AND expected_low IS NOT NULL "
            "AND CASE jsonb_typeof(value) WHEN 'number' "
            "THEN value::numeric NOT BETWEEN expected_low::numeric AND expected_high::numeric END "
            "ORDER BY as_of DESC, id DESC LIMIT :limit"
        ),
        {
            "metric": metric,
            "first": first,
            "outcomes": list(UNMARKED_OUTCOMES),
            "severities": list(severities),
            "limit": limit,
        },
    )
    return [Point(*row) for row in rows][::-1]


def daily_lines(connection: Connection, metrics: Collection[str], days: int) -> dict[str, DailyLine]:
    """Return the same days as lines to draw, by metric.

    A day counts if its last judged reading is a number, has a trend outcome, and is in the metric's current unit.
    Metrics without such a day are left out.
    """
    rows = connection.execute(
        text(
            "SELECT m.metric, l.days, l.values FROM unnest(CAST(:metrics AS text[])) AS m(metric) "
            "JOIN dims_metrics s USING (metric) CROSS JOIN LATERAL ("
            "SELECT array_agg(d.n - 1 ORDER BY d.n) AS days, array_agg(h.value::float8 ORDER BY d.n) AS values "
            f"FROM {_EACH_DAY} WITH ORDINALITY AS d(day, n) CROSS JOIN LATERAL ("
            "SELECT value, unit, outcome FROM dims_metrics_history h WHERE h.metric = m.metric AND h.as_of >= d.day "
            "AND h.as_of < d.day + interval '1 day' AND h.outcome <> ALL(:unjudged) "
            "ORDER BY h.as_of DESC, h.id DESC LIMIT 1) AS h "
            # A number that no double can hold must not make the query fail
            "WHERE CASE jsonb_typeof(h.value) WHEN 'number' THEN abs(h.value::numeric) < 1e300 END "
            "AND h.outcome = ANY(:outcomes) AND h.unit = s.unit) AS l WHERE l.days IS NOT NULL"
        ),
        {"metrics": list(metrics), "days": days, "unjudged": list(UNJUDGED), "outcomes": list(TREND_OUTCOMES)},
    )
    return {row.metric: DailyLine(row.days, row.values) for row in rows}
