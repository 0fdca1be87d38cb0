"""Queries on the current state of metrics: their rows, locked, read, and written back together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, text

from dims_worker.store.models import metrics
from dims_worker.store.rows import as_json, recordset


@dataclass(slots=True)
class State:
    """A row of `dims_metrics`. `as_of` None: no good reading yet; `baseline_as_of` None: no baseline."""

    metric: str
    source: str | None
    requested_gen: int = 0
    measured_gen: int = 0
    not_before: datetime | None = None
    failures: int = 0
    error: str | None = None
    failed_at: datetime | None = None
    value: Any = None
    unit: str | None = None
    method: str | None = None
    details: Any = None
    as_of: datetime | None = None
    status: str | None = None
    severity: str | None = None
    drift_pct: float | None = None
    baseline: Any = None
    baseline_as_of: datetime | None = None
    baseline_version: int = 0
    accepted: Any = None
    accepted_as_of: datetime | None = None

    @property
    def due(self) -> bool:
        return self.requested_gen > self.measured_gen

    def accept(self, value: Any, as_of: datetime, *, by_person: bool) -> None:
        """Make a value the baseline. Its version moves when the value does."""
        if self.baseline_as_of is None or self.baseline != value or type(self.baseline) is not type(value):
            self.baseline_version += 1
        self.baseline, self.baseline_as_of = value, as_of
        if by_person:
            self.accepted, self.accepted_as_of = value, as_of


_NAMES = tuple(field.name for field in fields(State))
_WRITTEN = tuple(name for name in _NAMES if name not in ("metric", "source", "requested_gen"))


def register(connection: Connection, rows: Iterable[Mapping[str, Any]]) -> None:
    """Give each configured metric its row, and each source its own.

    Rows: metric, source (None: derived), definition, requested_gen (1: to be measured at the first chance).
    """
    listed = sorted(rows, key=lambda row: str(row["metric"]))
    # The sources first, as a run does that is being recorded: the other way round the two would deadlock
    connection.execute(
        text(
            "INSERT INTO dims_sources (source) SELECT DISTINCT unnest(CAST(:sources AS text[])) "
            "ORDER BY 1 ON CONFLICT DO NOTHING"
        ),
        {"sources": sorted({str(row["source"]) for row in listed if row["source"]})},
    )
    names = ("metric", "source", "definition", "requested_gen")
    connection.execute(
        text(
            f"INSERT INTO dims_metrics ({', '.join(names)}) SELECT * FROM {recordset(metrics, names)} "
            "ON CONFLICT (metric) DO UPDATE SET source = excluded.source "
            "WHERE dims_metrics.source IS DISTINCT FROM excluded.source"
        ),
        {"rows": as_json(listed)},
    )


def lock(connection: Connection, names: Iterable[str]) -> dict[str, State]:
    """The rows of these metrics, locked in the order of their names until the transaction ends."""
    return _select(connection, names, "FOR UPDATE")


def read(connection: Connection, names: Iterable[str]) -> dict[str, State]:
    """The rows of these metrics as they stand."""
    return _select(connection, names, "")


def _select(connection: Connection, names: Iterable[str], suffix: str) -> dict[str, State]:
    found = connection.execute(
        text(
            f"SELECT {', '.join(_NAMES)} FROM dims_metrics WHERE metric = ANY(:names) "
            f'ORDER BY metric COLLATE "C" {suffix}'
        ),
        {"names": list(names)},
    )
    return {row.metric: State(*row) for row in found}


def save(connection: Connection, states: Sequence[State]) -> None:
    """Write locked rows back; `requested_gen` belongs to ingest and is left alone."""
    if not states:
        return
    assignments = ", ".join(f"{name} = r.{name}" for name in _WRITTEN)
    connection.execute(
        text(
            f"UPDATE dims_metrics m SET {assignments} "
            f"FROM {recordset(metrics, ('metric', *_WRITTEN))} WHERE m.metric = r.metric"
        ),
        {"rows": as_json(asdict(state) for state in states)},
    )


def overdue(connection: Connection, names: Sequence[str]) -> list[str]:
    """The sources that have something to measure now: due, not backing off, not leased, not cooling down."""
    found = connection.execute(
        text(
            "SELECT DISTINCT m.source FROM dims_metrics m JOIN dims_sources s USING (source) "
            "WHERE m.requested_gen > m.measured_gen AND m.metric = ANY(:names) "
            "AND coalesce(m.not_before <= clock_timestamp(), true) "
            "AND coalesce(s.lease_until < clock_timestamp(), true) "
            "AND coalesce(s.not_before <= clock_timestamp(), true) ORDER BY 1"
        ),
        {"names": list(names)},
    )
    return [row.source for row in found]
