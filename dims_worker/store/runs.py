"""Queries on runs and the history of readings."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, insert, text

from dims_worker.store.bulk import recordset, rows_as_json
from dims_worker.store.models import history, runs

AGO = "(SELECT clock_timestamp() - CAST(:span AS interval))"
"""`:span` ago, asked once: beside the bare clock, which moves while a query runs, no index helps."""

_HISTORY = (
    *("run_id", "metric", "value", "unit", "method", "as_of", "generation", "baseline", "drift_pct"),
    *("status", "severity", "tier", "outcome", "reason", "error", "details"),
)


def insert_run(connection: Connection, row: Mapping[str, Any]) -> tuple[int, datetime]:
    """A run's row; returns its number, and when it finished: now, by the database's clock."""
    inserted = insert(runs).values(**row).returning(runs.c.run_id, runs.c.finished_at)
    number, finished_at = connection.execute(inserted).one()
    return number, finished_at


def insert_readings(connection: Connection, rows: Iterable[Mapping[str, Any]]) -> None:
    """Readings with their verdicts, in one statement."""
    names = ", ".join(_HISTORY)
    connection.execute(
        text(f"INSERT INTO dims_metrics_history ({names}) SELECT {names} FROM {recordset(history, _HISTORY)}"),
        {"rows": rows_as_json({name: row[name] for name in _HISTORY} for row in rows)},
    )


def set_reading_outcome(connection: Connection, metric: str, as_of: datetime, outcome: str) -> None:
    """What a person decided of a held reading."""
    connection.execute(
        text(
            "UPDATE dims_metrics_history SET outcome = :outcome "
            "WHERE metric = :metric AND as_of = :as_of AND outcome = 'held'"
        ),
        {"metric": metric, "as_of": as_of, "outcome": outcome},
    )


@dataclass(frozen=True, slots=True)
class RunRow:
    """A row of `dims_verification_runs`."""

    run_id: int
    trigger: str
    source: str | None
    status: str
    started_at: datetime
    finished_at: datetime
    worker: str | None
    readings: int
    failed: int
    held: int
    api_calls: int


@dataclass(frozen=True, slots=True)
class PastReading:
    """A row of `dims_metrics_history`."""

    id: int
    run_id: int
    metric: str
    value: Any
    unit: str
    method: str
    as_of: datetime
    recorded_at: datetime
    baseline: Any
    drift_pct: float | None
    status: str | None
    severity: str | None
    tier: str | None
    outcome: str
    reason: str | None
    error: str | None
    details: Mapping[str, Any] | None


_RUN = ", ".join(RunRow.__slots__)
_PAST = ", ".join(PastReading.__slots__)


def list_runs(
    connection: Connection,
    *,
    limit: int,
    after: int = 0,
    before: int | None = None,
    source: str | None = None,
    status: str | None = None,
) -> list[RunRow]:
    """The newest runs, newest first; those `before` and `after` a number, of one source, of one status, where that is
    asked. No index knows sources: who asks for a rare one says how far back to look (`after`)."""
    found = connection.execute(
        text(
            f"SELECT {_RUN} FROM dims_verification_runs WHERE run_id > :after "
            "AND (CAST(:before AS bigint) IS NULL OR run_id < :before) "
            "AND (CAST(:source AS text) IS NULL OR source = :source) "
            "AND (CAST(:status AS text) IS NULL OR status = :status) ORDER BY run_id DESC LIMIT :limit"
        ),
        {"limit": limit, "after": after, "before": before, "source": source, "status": status},
    )
    return [RunRow(*row) for row in found]


def last_run(connection: Connection) -> int:
    """The newest run's number; 0 where there is none."""
    query = "SELECT coalesce(max(run_id), 0) FROM dims_verification_runs"
    return int(connection.execute(text(query)).scalar_one())


def runs_by_number(connection: Connection, run_ids: Sequence[int]) -> list[RunRow]:
    """These runs, oldest first."""
    found = connection.execute(
        text(f"SELECT {_RUN} FROM dims_verification_runs WHERE run_id = ANY(:runs) ORDER BY run_id"),
        {"runs": list(run_ids)},
    )
    return [RunRow(*row) for row in found]


def api_calls_since(connection: Connection, span: timedelta) -> dict[str | None, int]:
    """The requests that runs made in the last `span`, by source (None: looks at several, workflows by name)."""
    found = connection.execute(
        text(
            "SELECT source, sum(api_calls) AS made FROM dims_verification_runs "
            f"WHERE started_at > {AGO} GROUP BY source HAVING sum(api_calls) > 0"
        ),
        {"span": span},
    )
    return {row.source: int(row.made) for row in found}


def last_result(connection: Connection, source: str) -> tuple[RunRow, Mapping[str, Any]] | None:
    """The newest run of a workflow (`workflow.gap-analysis`) that stands, and what it found; None: never run."""
    found = connection.execute(
        text(
            f"SELECT {_RUN}, result FROM dims_verification_runs WHERE source = :source AND result IS NOT NULL "
            "AND status <> 'superseded' ORDER BY run_id DESC LIMIT 1"
        ),
        {"source": source},
    ).first()
    return (RunRow(*found[:-1]), found[-1]) if found else None


def runs_of(connection: Connection, source: str, *, limit: int) -> list[RunRow]:
    """The newest runs of a workflow (`workflow.gap-analysis`), newest first."""
    found = connection.execute(
        text(
            f"SELECT {_RUN} FROM dims_verification_runs WHERE source = :source AND result IS NOT NULL "
            "ORDER BY run_id DESC LIMIT :limit"
        ),
        {"source": source, "limit": limit},
    )
    return [RunRow(*row) for row in found]


def result_of(connection: Connection, run_id: int) -> Mapping[str, Any] | None:
    """What a workflow's run found, whole; None for any other run."""
    found: Mapping[str, Any] | None = connection.execute(
        text("SELECT result FROM dims_verification_runs WHERE run_id = :run"), {"run": run_id}
    ).scalar()
    return found


def readings_of(connection: Connection, run_ids: Sequence[int]) -> list[PastReading]:
    """The readings of some runs, in the order they were recorded in."""
    found = connection.execute(
        text(f"SELECT {_PAST} FROM dims_metrics_history WHERE run_id = ANY(:runs) ORDER BY id"),
        {"runs": list(run_ids)},
    )
    return [PastReading(*row) for row in found]


def history_of(connection: Connection, metric: str, span: timedelta) -> list[PastReading]:
    """A metric's readings of the last `span`, oldest first."""
    found = connection.execute(
        text(f"SELECT {_PAST} FROM dims_metrics_history WHERE metric = :metric AND as_of > {AGO} ORDER BY as_of, id"),
        {"metric": metric, "span": span},
    )
    return [PastReading(*row) for row in found]


def newest_readings(connection: Connection, metric: str, limit: int) -> list[PastReading]:
    """A metric's newest readings of any kind, newest first."""
    found = connection.execute(
        text(
            f"SELECT {_PAST} FROM dims_metrics_history WHERE metric = :metric ORDER BY as_of DESC, id DESC LIMIT :limit"
        ),
        {"metric": metric, "limit": limit},
    )
    return [PastReading(*row) for row in found]


def reading_at(connection: Connection, metric: str, as_of: datetime) -> PastReading | None:
    """The last good reading that was begun then and judged."""
    found = connection.execute(
        text(
            f"SELECT {_PAST} FROM dims_metrics_history WHERE metric = :metric AND as_of = :as_of "
            "AND outcome NOT IN ('superseded', 'provisional', 'failed') ORDER BY id DESC LIMIT 1"
        ),
        {"metric": metric, "as_of": as_of},
    ).first()
    return PastReading(*found) if found else None


def newest_reading(connection: Connection, metric: str) -> PastReading | None:
    """The newest reading of any kind."""
    return next(iter(newest_readings(connection, metric, 1)), None)
