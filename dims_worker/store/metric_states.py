"""Queries on the current state of metrics: lock, read and save their rows."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, text

from dims_worker.store.bulk import recordset, rows_as_json
from dims_worker.store.models import metrics

DRIFTED = ("moderate", "major", "extreme")
"""The statuses of a reading that drifted."""


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
    state: str | None = None
    history_since: datetime | None = None
    expected_low: float | None = None
    expected_high: float | None = None

    @property
    def due(self) -> bool:
        return self.requested_gen > self.measured_gen

    @property
    def drifted(self) -> bool:
        """Whether the last good reading drifted. An approval resets the status, so an approved value has not."""
        return self.status in DRIFTED

    def changed(self, definition: str) -> bool:
        """Return whether this row belongs to another definition, or to a retired metric."""
        return self.retired_at is not None or self.definition not in ("", definition)

    def accept(self, value: Any, as_of: datetime, *, by_person: bool) -> None:
        """Make a value the baseline. A new value raises the version. A rejected value may need approval again."""
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
    """Create the missing rows of metrics and sources. Return the metrics that are new, redefined or back.

    `rows` hold metric, source (None: derived), definition and requested_gen (1: measure as soon as possible). A
    redefined metric is due and loses its baseline, so its next reading has status new. An empty definition in the
    table counts as the configured one.
    """
    listed = {str(row["metric"]): row for row in sorted(rows, key=lambda row: str(row["metric"]))}
    connection.execute(  # sources first, in the order in which a record locks them, so that the two cannot deadlock
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
            # Failures belong to the old definition
            "failures = 0, attempts = 0, not_before = NULL, error = NULL, failed_at = NULL, state = NULL "
            f"FROM {recordset(metrics, names)} WHERE m.metric = r.metric"
        ),
        {"rows": rows_as_json(listed[name] for name in changed if name in known)},
    )
    return changed


def retire_others(connection: Connection, names: Sequence[str]) -> list[str]:
    """Retire every metric that is not among these names, so that it is no longer due. Return the newly retired ones."""
    rows = connection.execute(
        text(
            "UPDATE dims_metrics SET retired_at = clock_timestamp(), measured_gen = requested_gen, due_since = NULL "
            "WHERE metric IN (SELECT metric FROM dims_metrics WHERE retired_at IS NULL AND NOT metric = ANY(:names) "
            'ORDER BY metric COLLATE "C" FOR UPDATE) RETURNING metric'
        ),
        {"names": list(names)},
    )
    return sorted(row.metric for row in rows)


def missing_derived(connection: Connection, definitions: Mapping[str, str]) -> list[str]:
    """Lock and return those of these derived metrics that have no baseline and no error under this definition.

    Rows that another transaction has locked are left out.
    """
    rows = connection.execute(
        text(
            "SELECT metric FROM dims_metrics WHERE baseline_as_of IS NULL AND error IS NULL AND retired_at IS NULL "
            "AND definition = (CAST(:definitions AS jsonb) ->> metric) "
            'ORDER BY metric COLLATE "C" FOR UPDATE SKIP LOCKED'
        ),
        {"definitions": json.dumps(dict(definitions))},
    )
    return [row.metric for row in rows]


def lock_states(connection: Connection, names: Iterable[str]) -> dict[str, MetricState]:
    """Return the rows of these metrics, locked in order of their names until the transaction ends."""
    return _select(connection, names, "FOR UPDATE")


def read_states(connection: Connection, names: Iterable[str]) -> dict[str, MetricState]:
    """Return the rows of these metrics, without a lock."""
    return _select(connection, names, "")


def states_of(connection: Connection, names: Iterable[str]) -> dict[str, MetricState]:
    """Return the states of these metrics. One that has no row yet gets the state of a metric never measured."""
    return {name: MetricState(name, None) for name in names} | read_states(connection, names)


def _select(connection: Connection, names: Iterable[str], suffix: str) -> dict[str, MetricState]:
    listed = list(names)
    if not listed:
        return {}
    rows = connection.execute(
        text(
            f"SELECT {', '.join(_NAMES)} FROM dims_metrics WHERE metric = ANY(:names) "
            f'ORDER BY metric COLLATE "C" {suffix}'
        ),
        {"names": listed},
    )
    return {row.metric: MetricState(*row) for row in rows}


def save_states(connection: Connection, states: Sequence[MetricState]) -> None:
    """Save locked rows. Only ingest changes `requested_gen`, so it is not saved."""
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
    """Return how many of these metrics have been ready to measure for longer than `patience`, and since when.

    The answer is 0 if a worker is measuring or has recorded a run within `patience`.
    """
    row = connection.execute(
        text(
            "SELECT count(*), min(since) FROM ("
            # Back-off, cooldown and a lost lease are reasons to wait
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


@dataclass(frozen=True, slots=True)
class DueSource:
    """A source with due metrics that no worker scans now. `delay`: seconds until its cooldown or back-off ends.

    `scan_seconds` is how long its last scan took, and None before its first.
    """

    source: str
    delay: float
    scan_seconds: float | None


def due_sources(connection: Connection, names: Sequence[str]) -> list[DueSource]:
    """Return the sources for which some of these metrics are due. One that a worker scans now is left out."""
    rows = connection.execute(
        text(
            "SELECT m.source, greatest(0, extract(epoch FROM greatest("
            "  s.not_before, min(coalesce(m.not_before, 'epoch'))) - clock_timestamp())) AS delay, s.scan_seconds "
            "FROM dims_metrics m JOIN dims_sources s USING (source) "
            "WHERE m.requested_gen > m.measured_gen AND m.metric = ANY(:names) "
            "AND coalesce(s.lease_until < clock_timestamp(), true) GROUP BY m.source, s.source ORDER BY m.source"
        ),
        {"names": list(names)},
    )
    return [DueSource(row.source, float(row.delay), row.scan_seconds) for row in rows]
