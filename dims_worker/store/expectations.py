"""Queries on what bands are learned from, and on the band of each metric for one day."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

from sqlalchemy import Connection, text

from dims_worker.store.bulk import recordset, rows_as_json
from dims_worker.store.models import expectations

DailyValues = list[tuple[date, float]]
"""The last accepted number of each day (UTC), oldest first."""


def teaching_values(
    connection: Connection,
    metrics: Collection[str],
    day: date,
    days: int,
    *,
    with_recovered: bool = False,
    with_unbanded: bool = False,
) -> dict[str, DailyValues]:
    """Return the accepted numbers of the last `days` days before `day`, by metric. Days without one are left out.

    Numbers in another unit than the present one, and those under an older definition, do not count. The values of an
    incident count only once a person has closed it as expected, or its `close_after` has. `with_recovered`: those of
    every drift that recovered count, too. `with_unbanded`: those of one that began without a band count, even while it
    is open.
    """
    first = datetime.combine(day - timedelta(days=days), time(), UTC)
    rows = connection.execute(
        text(
            "SELECT m.metric, l.days, l.values FROM unnest(CAST(:metrics AS text[])) AS m(metric) "
            "JOIN dims_metrics s USING (metric) CROSS JOIN LATERAL ("
            "SELECT array_agg(d.n - 1 ORDER BY d.n) AS days, array_agg(h.value::float8 ORDER BY d.n) AS values "
            "FROM generate_series(CAST(:first AS timestamptz), :last, interval '24 hours') WITH ORDINALITY "
            "AS d(day, n) CROSS JOIN LATERAL ("
            "SELECT value FROM dims_metrics_history h WHERE h.metric = m.metric AND h.as_of >= d.day "
            "AND h.as_of < d.day + interval '24 hours' AND h.outcome IN ('accepted', 'approved') AND h.unit = s.unit "
            "AND coalesce(h.as_of >= s.history_since, true) "
            # A number that no double can hold must not make the query fail
            "AND CASE jsonb_typeof(h.value) WHEN 'number' THEN abs(h.value::numeric) < 1e300 END "
            "AND NOT EXISTS (SELECT FROM dims_incidents i WHERE i.metric = m.metric "
            "AND i.kind IN ('drift', 'approval', 'limit') AND h.as_of >= i.first_as_of "
            "AND NOT (:with_unbanded AND i.kind = 'drift' AND i.low IS NULL) "
            "AND NOT (:with_recovered AND i.kind = 'drift' AND i.resolution IS NOT DISTINCT FROM 'recovered') "
            "AND (i.state <> 'closed' OR (h.as_of <= i.as_of "
            "AND i.resolution NOT IN ('expected', 'approved', 'timeout')))) "
            "ORDER BY h.as_of DESC, h.id DESC LIMIT 1) AS h) AS l WHERE l.days IS NOT NULL"
        ),
        {
            "metrics": list(metrics),
            "first": first,
            "last": first + timedelta(days=days - 1),
            "with_recovered": with_recovered,
            "with_unbanded": with_unbanded,
        },
    )
    start = first.date()
    return {
        row.metric: [(start + timedelta(days=n), value) for n, value in zip(row.days, row.values, strict=True)]
        for row in rows
    }


def metrics_with_recoveries(connection: Connection, metrics: Collection[str], day: date, days: int) -> set[str]:
    """Return those of the metrics that had a drift in the last `days` days before `day` and recovered."""
    rows = connection.execute(
        text(
            "SELECT DISTINCT metric FROM dims_incidents WHERE metric = ANY(:metrics) AND kind = 'drift' "
            "AND resolution = 'recovered' AND as_of >= :first"
        ),
        {"metrics": list(metrics), "first": datetime.combine(day - timedelta(days=days), time(), UTC)},
    )
    return {row.metric for row in rows}


@dataclass(frozen=True, slots=True)
class StoredBand:
    """A row of `dims_expectations`. `band` has the fields of an expectation, and is None if there is none."""

    day: date | None
    definition: str
    band: Mapping[str, Any] | None


def read_bands(connection: Connection, metrics: Collection[str]) -> dict[str, StoredBand]:
    """Return the stored bands of these metrics. A band is for one day and one definition."""
    rows = connection.execute(
        text("SELECT metric, day, definition, band::text AS band FROM dims_expectations WHERE metric = ANY(:metrics)"),
        {"metrics": list(metrics)},
    )
    # The edges of a band are floats, so this needs no JSON reader that keeps all digits, which takes much longer
    return {row.metric: StoredBand(row.day, row.definition, json.loads(row.band or "null")) for row in rows}


def save_bands(connection: Connection, day: date, rows: Iterable[Mapping[str, Any]]) -> None:
    """Store bands for a day: metric, definition and band of each."""
    names = ("metric", "definition", "band")
    connection.execute(
        text(
            "INSERT INTO dims_expectations (metric, day, definition, band) SELECT metric, :day, definition, band "
            f'FROM {recordset(expectations, names)} ORDER BY metric COLLATE "C" ON CONFLICT (metric) DO UPDATE SET '
            "day = excluded.day, definition = excluded.definition, band = excluded.band, "
            "computed_at = clock_timestamp()"
        ),
        {"rows": rows_as_json(rows), "day": day},
    )


def discard_bands(connection: Connection, metrics: Collection[str]) -> None:
    """Have the bands of these metrics computed again, because other values teach now."""
    connection.execute(
        text("UPDATE dims_expectations SET day = NULL WHERE metric = ANY(:metrics)"), {"metrics": list(metrics)}
    )
