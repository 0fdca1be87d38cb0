"""Queries on the current state of metrics: their rows, locked, read, and written back together."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, text

from dims_worker.store.bulk import recordset, rows_as_json
from dims_worker.store.models import metrics


@dataclass(slots=True)
class MetricState:
    """A row of `dims_metrics`. `as_of` None: no good reading yet; `baseline_as_of` None: no baseline."""

    metric: str
    source: str | None
    definition: str = ""
    retired_at: datetime | None = None
    requested_gen: int = 0
    measured_gen: int = 0
    not_before: datetime | None = None
    failures: int = 0
    attempts: int = 0
    due_since: datetime | None = None
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
    rejected: Any = None
    rejected_as_of: datetime | None = None

    @property
    def due(self) -> bool:
        return self.requested_gen > self.measured_gen

    @property
    def drifted(self) -> bool:
        """Whether the last good reading drifted; what a person approved meanwhile is judged anew, and did not."""
        return self.status in ("moderate", "major", "extreme")

    def changed(self, definition: str) -> bool:
        """Whether what is configured as `definition` is not what this row speaks of."""
        return self.retired_at is not None or self.definition not in ("", definition)

    def accept(self, value: Any, as_of: datetime, *, by_person: bool) -> None:
        """Make a value the baseline. Its version moves when the value does; what was rejected may be asked again."""
        if self.baseline_as_of is None or self.baseline != value or type(self.baseline) is not type(value):
            self.baseline_version += 1
        self.baseline, self.baseline_as_of = value, as_of
        self.rejected = self.rejected_as_of = None
        if by_person:
            self.accepted, self.accepted_as_of = value, as_of


_NAMES = tuple(field.name for field in fields(MetricState))
_REGISTERED = ("metric", "source", "definition", "retired_at", "requested_gen")
_WRITTEN = tuple(name for name in _NAMES if name not in _REGISTERED)


def register_metrics(connection: Connection, rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """Give each configured metric its row, and each source its own. Returns the metrics that are new, measure
    something else now, or are back.

    Rows: metric, source (None: derived), definition, requested_gen (1: to be measured at the first chance). What
    measures something else is due, and its baseline is gone: its next reading is new. An empty definition in the
    table is taken for what is configured.
    """
    listed = {str(row["metric"]): row for row in sorted(rows, key=lambda row: str(row["metric"]))}
    connection.execute(  # sources before metrics, as a record locks them: else the two could wait for each other
        text(
            "INSERT INTO dims_sources (source) SELECT DISTINCT unnest(CAST(:sources AS text[])) "
            "ORDER BY 1 ON CONFLICT DO NOTHING"
        ),
        {"sources": sorted({str(row["source"]) for row in listed.values() if row["source"]})},
    )
    known = lock_states(connection, listed)
    changed = [name for name, row in listed.items() if name not in known or known[name].changed(row["definition"])]
    names = ("metric", "source", "definition", "requested_gen")
    connection.execute(
        text(
            f"INSERT INTO dims_metrics AS m ({', '.join(names)}, due_since) "
            "SELECT r.*, CASE WHEN r.requested_gen > 0 THEN clock_timestamp() END "
            f"FROM {recordset(metrics, names)} "
            "ON CONFLICT (metric) DO UPDATE SET source = excluded.source, definition = excluded.definition"
        ),
        {"rows": rows_as_json(listed.values())},
    )
    connection.execute(
        text(
            "UPDATE dims_metrics m SET retired_at = NULL, requested_gen = m.requested_gen + r.requested_gen, "
            "measured_gen = CASE WHEN r.source IS NULL THEN m.requested_gen ELSE m.measured_gen END, "
            "due_since = CASE WHEN r.requested_gen > 0 THEN coalesce(due_since, clock_timestamp()) END, "
            "baseline = NULL, baseline_as_of = NULL, accepted = NULL, accepted_as_of = NULL, "
            "rejected = NULL, rejected_as_of = NULL, "
            # What went wrong was measured otherwise
            "failures = 0, attempts = 0, not_before = NULL, error = NULL, failed_at = NULL "
            f"FROM {recordset(metrics, names)} WHERE m.metric = r.metric"
        ),
        {"rows": rows_as_json(listed[name] for name in changed if name in known)},
    )
    return changed


def retire_others(connection: Connection, names: Sequence[str]) -> list[str]:
    """Every metric that is none of these is no longer configured, and no longer due. Returns those it ends."""
    found = connection.execute(
        text(
            "UPDATE dims_metrics SET retired_at = clock_timestamp(), measured_gen = requested_gen, due_since = NULL "
            "WHERE metric IN (SELECT metric FROM dims_metrics WHERE retired_at IS NULL AND NOT metric = ANY(:names) "
            'ORDER BY metric COLLATE "C" FOR UPDATE) RETURNING metric'
        ),
        {"names": list(names)},
    )
    return sorted(row.metric for row in found)


def missing_derived(connection: Connection, definitions: Mapping[str, str]) -> list[str]:
    """Of these derived metrics those that have neither a baseline nor an error since they are defined so. They are
    locked; what somebody else has locked is somebody else's."""
    found = connection.execute(
        text(
            "SELECT metric FROM dims_metrics WHERE baseline_as_of IS NULL AND error IS NULL AND retired_at IS NULL "
            "AND definition = (CAST(:definitions AS jsonb) ->> metric) "
            'ORDER BY metric COLLATE "C" FOR UPDATE SKIP LOCKED'
        ),
        {"definitions": json.dumps(dict(definitions))},
    )
    return [row.metric for row in found]


def lock_states(connection: Connection, names: Iterable[str]) -> dict[str, MetricState]:
    """The rows of these metrics, locked in the order of their names until the transaction ends."""
    return _select(connection, names, "FOR UPDATE")


def read_states(connection: Connection, names: Iterable[str]) -> dict[str, MetricState]:
    """The rows of these metrics as they stand."""
    return _select(connection, names, "")


def states_of(connection: Connection, names: Iterable[str]) -> dict[str, MetricState]:
    """The same for people who look: what has no row yet was never measured."""
    return {name: MetricState(name, None) for name in names} | read_states(connection, names)


def _select(connection: Connection, names: Iterable[str], suffix: str) -> dict[str, MetricState]:
    listed = list(names)
    if not listed:
        return {}
    found = connection.execute(
        text(
            f"SELECT {', '.join(_NAMES)} FROM dims_metrics WHERE metric = ANY(:names) "
            f'ORDER BY metric COLLATE "C" {suffix}'
        ),
        {"names": listed},
    )
    return {row.metric: MetricState(*row) for row in found}


def save_states(connection: Connection, states: Sequence[MetricState]) -> None:
    """Write locked rows back; `requested_gen` belongs to ingest and is left alone."""
    if not states:
        return
    assignments = ", ".join(f"{name} = r.{name}" for name in _WRITTEN)
    connection.execute(
        text(
            f"UPDATE dims_metrics m SET {assignments} "
            f"FROM {recordset(metrics, ('metric', *_WRITTEN))} WHERE m.metric = r.metric"
        ),
        {"rows": rows_as_json(asdict(state) for state in states)},
    )


def unclaimed_due(connection: Connection, names: Sequence[str], patience: timedelta) -> tuple[int, datetime | None]:
    """How many of these metrics could have been measured for longer than `patience`, and since when; none where
    somebody measures, or has recorded a run within it."""
    row = connection.execute(
        text(
            "SELECT count(*), min(since) FROM ("
            # What backs off, cools down or was lost with its worker is nobody's fault until then
            "  SELECT greatest(m.due_since, m.not_before, s.not_before, s.lease_until) AS since"
            "  FROM dims_metrics m JOIN dims_sources s USING (source)"
            "  WHERE m.requested_gen > m.measured_gen AND m.metric = ANY(:names)"
            ") AS due WHERE since < clock_timestamp() - :patience "
            "AND NOT EXISTS (SELECT FROM dims_sources WHERE lease_until >= clock_timestamp()) "
            "AND coalesce((SELECT finished_at FROM dims_verification_runs ORDER BY run_id DESC LIMIT 1)"
            "  < clock_timestamp() - :patience, true)"
        ),
        {"names": list(names), "patience": patience},
    ).one()
    return int(row[0]), row[1]


def due_sources(connection: Connection, names: Sequence[str]) -> list[str]:
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
