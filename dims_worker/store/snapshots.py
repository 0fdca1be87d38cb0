"""Queries on snapshots, points in time with a name, and on what metrics were at an instant."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, text

from dims_worker.store.history import UNJUDGED


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A row of `dims_snapshots`, and how many metrics it holds."""

    id: int
    name: str
    daily: bool
    taken_at: datetime
    note: str | None
    metrics: int


@dataclass(frozen=True, slots=True)
class SnapshotValue:
    """What a metric was at an instant: its last good reading then."""

    value: Any
    unit: str
    as_of: datetime


@dataclass(frozen=True, slots=True)
class LatestRequest:
    """The latest request of a metric that was opened or decided within a span."""

    request: int
    state: str
    decided_by: str | None
    note: str | None


_SNAPSHOT = (
    "SELECT s.id, s.name, s.daily, s.taken_at, s.note, "
    "(SELECT count(*) FROM dims_snapshot_values v WHERE v.snapshot_id = s.id) AS metrics FROM dims_snapshots s"
)


def take_snapshot(connection: Connection, name: str, *, daily: bool, note: str | None = None) -> int | None:
    """Copy what every metric is now, retired ones left out. Returns how many; None where the name is taken."""
    made = connection.execute(
        text(
            "INSERT INTO dims_snapshots (name, daily, note) VALUES (:name, :daily, :note) "
            "ON CONFLICT (name) DO NOTHING RETURNING id"
        ),
        {"name": name, "daily": daily, "note": note},
    ).scalar()
    if made is None:
        return None
    return connection.execute(
        text(
            "INSERT INTO dims_snapshot_values (snapshot_id, metric, value, unit, as_of, status, baseline, baseline_as_of) "
            "SELECT :made, metric, value, unit, as_of, status, baseline, baseline_as_of FROM dims_metrics "
            "WHERE as_of IS NOT NULL AND retired_at IS NULL"
        ),
        {"made": made},
    ).rowcount


def list_snapshots(connection: Connection) -> list[Snapshot]:
    """Every snapshot, oldest first."""
    return [Snapshot(*row) for row in connection.execute(text(f"{_SNAPSHOT} ORDER BY s.taken_at, s.id"))]


def find_snapshot(connection: Connection, name: str) -> Snapshot | None:
    """The snapshot of this name."""
    row = connection.execute(text(f"{_SNAPSHOT} WHERE s.name = :name"), {"name": name}).first()
    return Snapshot(*row) if row else None


def delete_snapshot(connection: Connection, name: str) -> bool:
    """Whether there was one of this name; its values go with it."""
    return bool(connection.execute(text("DELETE FROM dims_snapshots WHERE name = :name"), {"name": name}).rowcount)


def delete_daily(connection: Connection, days: int) -> int:
    """Drop the daily snapshots that are older than so many days; returns how many."""
    return connection.execute(
        text("DELETE FROM dims_snapshots WHERE daily AND taken_at < clock_timestamp() - make_interval(days => :days)"),
        {"days": days},
    ).rowcount


def values_in(connection: Connection, snapshot: int) -> dict[str, SnapshotValue]:
    """What each metric was at a snapshot, by its number."""
    found = connection.execute(
        text("SELECT metric, value, unit, as_of FROM dims_snapshot_values WHERE snapshot_id = :snapshot"),
        {"snapshot": snapshot},
    )
    return {row.metric: SnapshotValue(*row[1:]) for row in found}


def values_at(connection: Connection, instant: datetime) -> dict[str, SnapshotValue]:
    """What was known of each metric at an instant, by the index of the history; one that had no good reading yet is
    not there, nor one that was retired by then. A derived reading is as old as its oldest input: when it was recorded
    tells whether it was known."""
    found = connection.execute(
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
    return {row.metric: SnapshotValue(*row[1:]) for row in found}


def values_now(connection: Connection) -> dict[str, SnapshotValue]:
    """What each metric is, retired ones left out."""
    found = connection.execute(
        text("SELECT metric, value, unit, as_of FROM dims_metrics WHERE as_of IS NOT NULL AND retired_at IS NULL")
    )
    return {row.metric: SnapshotValue(*row[1:]) for row in found}


def latest_requests(
    connection: Connection, metrics: Collection[str], after: datetime, until: datetime
) -> dict[str, LatestRequest]:
    """Of each of these metrics the latest request that was opened or decided in (after, until]."""
    found = connection.execute(
        text(
            "SELECT DISTINCT ON (metric) metric, id, "
            "CASE WHEN decided_at > :until THEN 'open' ELSE state END, "
            "CASE WHEN decided_at <= :until THEN decided_by END, CASE WHEN decided_at <= :until THEN note END "
            "FROM dims_approval_requests WHERE metric = ANY(:metrics) AND opened_at <= :until "
            "AND greatest(opened_at, decided_at) > :after ORDER BY metric, id DESC"
        ),
        {"metrics": list(metrics), "after": after, "until": until},
    )
    return {row.metric: LatestRequest(*row[1:]) for row in found}
