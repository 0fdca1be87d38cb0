"""Queries on snapshots (named points in time) and on the values of metrics at an instant."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, text

from dims_worker.store.history import UNJUDGED


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A row of `dims_snapshots`, and the number of its metrics."""

    id: int
    name: str
    daily: bool
    taken_at: datetime
    note: str | None
    metrics: int


@dataclass(frozen=True, slots=True)
class SnapshotValue:
    """The value of a metric at an instant: its last good reading by then."""

    value: Any
    unit: str
    as_of: datetime


@dataclass(frozen=True, slots=True)
class LatestRequest:
    """The latest approval request of a metric that was opened or decided within a span."""

    request: int
    state: str
    decided_by: str | None
    note: str | None


_SNAPSHOT = (
    "SELECT s.id, s.name, s.daily, s.taken_at, s.note, "
    "(SELECT count(*) FROM dims_snapshot_values v WHERE v.snapshot_id = s.id) AS metrics FROM dims_snapshots s"
)


def take_snapshot(connection: Connection, name: str, *, daily: bool, note: str | None = None) -> int | None:
    """Copy the current values of all metrics except retired ones. Return their number, or None if the name exists."""
    snapshot_id = connection.execute(
        text(
            "INSERT INTO dims_snapshots (name, daily, note) VALUES (:name, :daily, :note) "
            "ON CONFLICT (name) DO NOTHING RETURNING id"
        ),
        {"name": name, "daily": daily, "note": note},
    ).scalar()
    if snapshot_id is None:
        return None
    return connection.execute(
        text(
            "INSERT INTO dims_snapshot_values "
            "(snapshot_id, metric, value, unit, as_of, status, baseline, baseline_as_of) "
            "SELECT :snapshot, metric, value, unit, as_of, status, baseline, baseline_as_of FROM dims_metrics "
            "WHERE as_of IS NOT NULL AND retired_at IS NULL"
        ),
        {"snapshot": snapshot_id},
    ).rowcount


def list_snapshots(connection: Connection) -> list[Snapshot]:
    """Return all snapshots, oldest first."""
    return [Snapshot(*row) for row in connection.execute(text(f"{_SNAPSHOT} ORDER BY s.taken_at, s.id"))]


def find_snapshot(connection: Connection, name: str) -> Snapshot | None:
    """Return the snapshot with this name, or None."""
    row = connection.execute(text(f"{_SNAPSHOT} WHERE s.name = :name"), {"name": name}).first()
    return Snapshot(*row) if row else None


def delete_snapshot(connection: Connection, name: str) -> bool:
    """Delete a snapshot and its values. Return whether it existed."""
    return bool(connection.execute(text("DELETE FROM dims_snapshots WHERE name = :name"), {"name": name}).rowcount)


def delete_daily(connection: Connection, days: int) -> int:
    """Delete the daily snapshots that are older than `days`. Return how many."""
    return connection.execute(
        text("DELETE FROM dims_snapshots WHERE daily AND taken_at < clock_timestamp() - make_interval(days => :days)"),
        {"days": days},
    ).rowcount


def values_in(connection: Connection, snapshot: int) -> dict[str, SnapshotValue]:
    """Return the values in the snapshot with this id, by metric."""
    rows = connection.execute(
        text("SELECT metric, value, unit, as_of FROM dims_snapshot_values WHERE snapshot_id = :snapshot"),
        {"snapshot": snapshot},
    )
    return {row.metric: SnapshotValue(*row[1:]) for row in rows}


def values_at(connection: Connection, instant: datetime) -> dict[str, SnapshotValue]:
    """Return the values known at an instant, by metric. Metrics without a good reading or retired by then are left out.

    A derived reading is as old as its oldest input, so `recorded_at` shows whether it was known. Uses the history's
    index.
    """
    rows = connection.execute(
        text(
            "SELECT m.metric, h.value, h.unit, h.as_of FROM dims_metrics m CROSS JOIN LATERAL ("
            "SELECT value, unit, as_of FROM dims_metrics_history h "
            "WHERE h.metric = m.metric AND h.as_of <= :instant AND h.recorded_at <= :instant "
            "AND h.outcome <> ALL(:unjudged) "
            "ORDER BY h.as_of DESC, h.id DESC LIMIT 1) AS h "
            "WHERE coalesce(m.retired_at > :instant, true)"
        ),
        {"instant": instant, "unjudged": list(UNJUDGED)},
    )
    return {row.metric: SnapshotValue(*row[1:]) for row in rows}


def values_now(connection: Connection) -> dict[str, SnapshotValue]:
    """Return the current values, by metric, without retired metrics."""
    rows = connection.execute(
        text("SELECT metric, value, unit, as_of FROM dims_metrics WHERE as_of IS NOT NULL AND retired_at IS NULL")
    )
    return {row.metric: SnapshotValue(*row[1:]) for row in rows}


def latest_requests(
    connection: Connection, metrics: Collection[str], after: datetime, until: datetime
) -> dict[str, LatestRequest]:
    """Return the latest request of each of these metrics that was opened or decided in (after, until]."""
    rows = connection.execute(
        text(
            "SELECT DISTINCT ON (metric) metric, id, "
            "CASE WHEN decided_at > :until THEN 'open' ELSE state END, "
            "CASE WHEN decided_at <= :until THEN decided_by END, CASE WHEN decided_at <= :until THEN note END "
            "FROM dims_approval_requests WHERE metric = ANY(:metrics) AND opened_at <= :until "
            "AND greatest(opened_at, decided_at) > :after ORDER BY metric, id DESC"
        ),
        {"metrics": list(metrics), "after": after, "until": until},
    )
    return {row.metric: LatestRequest(*row[1:]) for row in rows}
