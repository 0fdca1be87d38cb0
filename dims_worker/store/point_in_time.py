"""Queries that look at many metrics at once: what they were at an instant, what differed, what stood out.

Each goes metric by metric through the history's index, so that it costs what it returns, however long that is.
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
"""Statuses of readings that differed from what they were judged against."""
STOOD_OUT = ("held", "approved", "rejected", "failed")
"""Outcomes of readings that no line of accepted values tells."""
_EACH = "FROM unnest(CAST(:metrics AS text[])) WITH ORDINALITY AS m(metric, n) CROSS JOIN LATERAL "


@dataclass(frozen=True, slots=True)
class PastValue:
    """What a metric was: its last judged reading until an instant that no person rejected."""

    value: Any
    unit: str
    as_of: datetime


def begin_read_only(connection: Connection) -> None:
    """Have all that this transaction reads be of one moment; it can write nothing. Before any other statement."""
    connection.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"))


def newest_reading_time(connection: Connection, metrics: Collection[str]) -> datetime | None:
    """When the newest of the good readings that stand was begun."""
    found: datetime | None = connection.execute(
        text("SELECT max(as_of) FROM dims_metrics WHERE metric = ANY(:metrics)"), {"metrics": list(metrics)}
    ).scalar_one()
    return found


def values_at(connection: Connection, metrics: Collection[str], instant: datetime) -> dict[str, PastValue]:
    """What each metric was then; one that had no such reading yet is not there."""
    found = connection.execute(
        text(
            f"SELECT m.metric, h.* {_EACH} (SELECT value, unit, as_of FROM dims_metrics_history h "
            # A derived reading is as old as its oldest input: what was recorded later was not known then
            "WHERE h.metric = m.metric AND h.as_of <= :instant AND h.recorded_at <= :instant "
            "AND h.outcome <> ALL(:besides) "
            "ORDER BY h.as_of DESC, h.id DESC LIMIT 1) AS h"
        ),
        {"metrics": list(metrics), "instant": instant, "besides": [*UNJUDGED, "rejected"]},
    )
    return {row.metric: PastValue(*row[1:]) for row in found}


def notable_readings(
    connection: Connection, metrics: Collection[str], since: datetime, limit: int
) -> dict[str, list[Point]]:
    """The newest `limit` held, approved, rejected and failed readings of each metric since then, oldest first."""
    found = connection.execute(
        text(
            f"SELECT m.metric, h.* {_EACH} (SELECT {_POINT} FROM dims_metrics_history h "
            "WHERE h.metric = m.metric AND h.as_of > :since AND h.outcome = ANY(:outcomes) "
            "ORDER BY h.as_of DESC, h.id DESC LIMIT :limit) AS h ORDER BY m.n, h.as_of"
        ),
        {"metrics": list(metrics), "since": since, "outcomes": list(STOOD_OUT), "limit": limit},
    )
    points: dict[str, list[Point]] = {metric: [] for metric in metrics}
    for row in found:
        points[row.metric].append(Point(*row[1:]))
    return points


def recent_drifts(connection: Connection, metrics: Collection[str], since: datetime, limit: int) -> list[PastReading]:
    """The newest readings since then that differed from what they were judged against, newest first."""
    found = connection.execute(
        text(
            f"SELECT h.* {_EACH} (SELECT {_PAST} FROM dims_metrics_history h "
            "WHERE h.metric = m.metric AND h.as_of > :since AND h.status = ANY(:statuses) "
            "AND h.outcome <> ALL(:unjudged) ORDER BY h.as_of DESC, h.id DESC LIMIT :limit) AS h "
            "ORDER BY h.as_of DESC, m.n, h.id DESC LIMIT :limit"
        ),
        {
            **{"metrics": list(metrics), "since": since, "limit": limit},
            **{"statuses": list(DRIFTED), "unjudged": list(UNJUDGED)},
        },
    )
    return [PastReading(*row) for row in found]


def readings_since(
    connection: Connection, metrics: Collection[str], since: datetime, limit: int
) -> Iterator[PastReading]:
    """The newest `limit` readings of each metric since then, metric by metric, newest first: a row at a time from
    the server, so that the memory it takes does not grow with them."""
    found = connection.execute(
        text(
            f"SELECT h.* {_EACH} (SELECT {_PAST} FROM dims_metrics_history h "
            "WHERE h.metric = m.metric AND h.as_of > :since ORDER BY h.as_of DESC, h.id DESC LIMIT :limit) AS h "
            "ORDER BY m.n, h.as_of DESC, h.id DESC"
        ),
        {"metrics": list(metrics), "since": since, "limit": limit},
        execution_options={"stream_results": True, "yield_per": 1000},
    )
    for row in found:
        yield PastReading(*row)


def last_results(connection: Connection, sources: Collection[str]) -> dict[str, tuple[RunRow, Mapping[str, Any]]]:
    """The newest run of each workflow (`workflow.gap-analysis`) that stands, and what it found; one that was never
    run is not there."""
    found = connection.execute(
        text(
            "SELECT r.* FROM unnest(CAST(:sources AS text[])) AS s(name) CROSS JOIN LATERAL ("
            f"SELECT {_RUN}, result FROM dims_verification_runs r WHERE r.source = s.name AND r.result IS NOT NULL "
            "AND r.status <> 'superseded' ORDER BY r.run_id DESC LIMIT 1) AS r"
        ),
        {"sources": list(sources)},
    )
    return {row.source: (RunRow(*row[:-1]), row.result) for row in found}


def events_since(connection: Connection, since: datetime) -> dict[str, int]:
    """How many events were received since then, by outcome."""
    found = connection.execute(
        text("SELECT outcome, count(*) AS n FROM dims_event_log WHERE received_at > :since GROUP BY 1 ORDER BY 1"),
        {"since": since},
    )
    return {row.outcome: row.n for row in found}
