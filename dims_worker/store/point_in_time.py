"""Queries on many metrics at once: their values at an instant, their drifts, and their notable readings.

Each goes metric by metric through the history's index, so its cost depends only on what it returns.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, text

from dims_worker.store.history import _POINT, UNJUDGED, Point
from dims_worker.store.runs import _PAST, _RUN, PastReading, RunRow

DRIFTED = ("minor", "moderate", "major", "extreme")
"""Statuses of readings that differ from the value they were judged against."""
NOTABLE_OUTCOMES = ("held", "approved", "rejected", "failed")
"""Outcomes that a line of accepted values does not show."""
_EACH = "FROM unnest(CAST(:metrics AS text[])) WITH ORDINALITY AS m(metric, n) CROSS JOIN LATERAL "


@dataclass(frozen=True, slots=True)
class PastValue:
    """The value of a metric at an instant: its last judged reading by then that no person rejected."""

    value: Any
    unit: str
    as_of: datetime


def begin_read_only(connection: Connection) -> None:
    """Make this transaction read-only, with one snapshot for all its queries. Call it before any other statement."""
    connection.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"))


def newest_reading_time(connection: Connection, metrics: Collection[str]) -> datetime | None:
    """Return the time of the newest good reading of these metrics, or None."""
    newest: datetime | None = connection.execute(
        text("SELECT max(as_of) FROM dims_metrics WHERE metric = ANY(:metrics)"), {"metrics": list(metrics)}
    ).scalar_one()
    return newest


def values_at(connection: Connection, metrics: Collection[str], instant: datetime) -> dict[str, PastValue]:
    """Return the value of each metric at an instant, without the metrics that had none."""
    rows = connection.execute(
        text(
            f"SELECT m.metric, h.* {_EACH} (SELECT value, unit, as_of FROM dims_metrics_history h "
            # A derived reading is as old as its oldest input, so recorded_at shows whether it was known then
            "WHERE h.metric = m.metric AND h.as_of <= :instant AND h.recorded_at <= :instant "
            "AND h.outcome <> ALL(:ignored) "
            "ORDER BY h.as_of DESC, h.id DESC LIMIT 1) AS h"
        ),
        {"metrics": list(metrics), "instant": instant, "ignored": [*UNJUDGED, "rejected"]},
    )
    return {row.metric: PastValue(*row[1:]) for row in rows}


def notable_readings(
    connection: Connection, metrics: Collection[str], since: datetime, limit: int
) -> dict[str, list[Point]]:
    """Return the newest `limit` held, approved, rejected and failed readings of each metric, oldest first."""
    rows = connection.execute(
        text(
            f"SELECT m.metric, h.* {_EACH} (SELECT {_POINT} FROM dims_metrics_history h "
            "WHERE h.metric = m.metric AND h.as_of > :since AND h.outcome = ANY(:outcomes) "
            "ORDER BY h.as_of DESC, h.id DESC LIMIT :limit) AS h ORDER BY m.n, h.as_of"
        ),
        {"metrics": list(metrics), "since": since, "outcomes": list(NOTABLE_OUTCOMES), "limit": limit},
    )
    points: dict[str, list[Point]] = {metric: [] for metric in metrics}
    for row in rows:
        points[row.metric].append(Point(*row[1:]))
    return points


def recent_drifts(connection: Connection, metrics: Collection[str], since: datetime, limit: int) -> list[PastReading]:
    """Return the newest readings that differ from the value they were judged against, newest first."""
    rows = connection.execute(
        text(
            f"SELECT h.* {_EACH} (SELECT {_PAST} FROM dims_metrics_history h "
            "WHERE h.metric = m.metric AND h.as_of > :since AND h.status = ANY(:statuses) "
            "AND h.outcome <> ALL(:unjudged) ORDER BY h.as_of DESC, h.id DESC LIMIT :limit) AS h "
            "ORDER BY h.as_of DESC, m.n, h.id DESC LIMIT :limit"
        ),
        {
            "metrics": list(metrics),
            "since": since,
            "limit": limit,
            "statuses": list(DRIFTED),
            "unjudged": list(UNJUDGED),
        },
    )
    return [PastReading(*row) for row in rows]


def accepted_drifts(connection: Connection, since: datetime) -> Iterator[PastReading]:
    """Yield the readings since then that differ notably from the baseline and were accepted by policy.

    Notably: their status is moderate or worse, or they have a severity. The server sends the rows in parts. They come
    run by run, because a derived reading can be much older than the run that computed it.
    """
    columns = ", ".join(f"h.{name}" for name in PastReading.__slots__)
    rows = connection.execute(
        text(
            f"SELECT {columns} FROM dims_verification_runs r JOIN dims_metrics_history h USING (run_id) "
            "WHERE r.started_at > :since AND h.outcome = 'accepted' AND h.status <> 'new' "
            "AND (h.status = ANY(:statuses) OR h.severity <> 'none')"
        ),
        {"since": since, "statuses": [status for status in DRIFTED if status != "minor"]},
        execution_options={"stream_results": True, "yield_per": 1000},
    )
    for row in rows:
        yield PastReading(*row)


def readings_of_requests(connection: Connection, numbers: Collection[int]) -> dict[int, PastReading]:
    """Return the readings whose values these approved requests accepted, by the number of the request.

    A baseline that a person set by hand has none.
    """
    columns = ", ".join(f"h.{name}" for name in PastReading.__slots__)
    rows = connection.execute(
        text(
            f"SELECT q.id AS request, {columns} FROM dims_approval_requests q JOIN dims_metrics_history h "
            "ON h.metric = q.metric AND h.as_of = q.as_of AND h.outcome = 'approved' "
            "WHERE q.id = ANY(:numbers) ORDER BY h.id"
        ),
        {"numbers": list(numbers)},
    )
    return {row.request: PastReading(*row[1:]) for row in rows}


def readings_since(
    connection: Connection, metrics: Collection[str], since: datetime, limit: int
) -> Iterator[PastReading]:
    """Yield the newest `limit` readings of each metric since then, metric by metric, newest first.

    The server sends the rows in parts, so the memory in use does not grow with their number.
    """
    rows = connection.execute(
        text(
            f"SELECT h.* {_EACH} (SELECT {_PAST} FROM dims_metrics_history h "
            "WHERE h.metric = m.metric AND h.as_of > :since ORDER BY h.as_of DESC, h.id DESC LIMIT :limit) AS h "
            "ORDER BY m.n, h.as_of DESC, h.id DESC"
        ),
        {"metrics": list(metrics), "since": since, "limit": limit},
        execution_options={"stream_results": True, "yield_per": 1000},
    )
    for row in rows:
        yield PastReading(*row)


def last_results(connection: Connection, sources: Collection[str]) -> dict[str, tuple[RunRow, Mapping[str, Any]]]:
    """Return the newest run of each workflow (`workflow.gap-analysis`) that was not superseded, and its result.

    Workflows that never ran are left out.
    """
    rows = connection.execute(
        text(
            "SELECT r.* FROM unnest(CAST(:sources AS text[])) AS s(name) CROSS JOIN LATERAL ("
            f"SELECT {_RUN}, result FROM dims_verification_runs r WHERE r.source = s.name AND r.result IS NOT NULL "
            "AND r.status <> 'superseded' ORDER BY r.run_id DESC LIMIT 1) AS r"
        ),
        {"sources": list(sources)},
    )
    return {row.source: (RunRow(*row[:-1]), row.result) for row in rows}


def events_since(connection: Connection, since: datetime) -> dict[str, int]:
    """Return the number of events received since then, by outcome."""
    rows = connection.execute(
        text("SELECT outcome, count(*) AS n FROM dims_event_log WHERE received_at > :since GROUP BY 1 ORDER BY 1"),
        {"since": since},
    )
    return {row.outcome: row.n for row in rows}
