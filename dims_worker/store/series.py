"""Queries on how metrics went: every reading of one, and one reading a day of many. Each reads by the index of the
history, a metric and a span at a time, so that it costs what it returns, however long the history is."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any

from sqlalchemy import Connection, text

from dims_worker.store.runs import AGO

UNJUDGED = ("failed", "superseded", "provisional")
"""Outcomes of readings that say nothing of a value."""


@dataclass(frozen=True, slots=True)
class Point:
    """A reading as a point of a metric's trend. `value` is None where it failed, and where it is null."""

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


_POINT = ", ".join(Point.__slots__)
_DAY = ", ".join(name for name in Day.__slots__ if name != "day")


def trend(connection: Connection, metric: str, span: timedelta, limit: int | None = None) -> list[Point]:
    """A metric's readings of the last `span`, the newest `limit` of them, oldest first; superseded and provisional
    ones are left out."""
    found = connection.execute(
        text(
            f"SELECT {_POINT} FROM dims_metrics_history WHERE metric = :metric "
            f"AND as_of > {AGO} AND outcome NOT IN ('superseded', 'provisional') "
            "ORDER BY as_of DESC, id DESC LIMIT :limit"
        ),
        {"metric": metric, "span": span, "limit": limit},
    )
    return [Point(*row) for row in found][::-1]


def daily(connection: Connection, metrics: Collection[str], days: int) -> dict[str, list[Day]]:
    """The last judged reading of each of the last `days` days, today among them, by metric, oldest first. A day
    without one is not there."""
    found = connection.execute(
        text(
            f"SELECT m.metric, d.day::date, {_DAY} "
            "FROM unnest(CAST(:metrics AS text[])) WITH ORDINALITY AS m(metric, n) CROSS JOIN "
            "generate_series(date_trunc('day', now(), 'UTC') - make_interval(days => :days - 1), now(), "
            "interval '1 day') AS d(day) CROSS JOIN LATERAL ("
            f"SELECT {_DAY} FROM dims_metrics_history h WHERE h.metric = m.metric AND h.as_of >= d.day "
            "AND h.as_of < d.day + interval '1 day' AND h.outcome <> ALL(:unjudged) "
            "ORDER BY h.as_of DESC, h.id DESC LIMIT 1) AS h ORDER BY m.n, d.day"
        ),
        {"metrics": list(metrics), "days": days, "unjudged": list(UNJUDGED)},
    )
    series: dict[str, list[Day]] = {metric: [] for metric in metrics}
    for row in found:
        series[row.metric].append(Day(*row[1:]))
    return series
