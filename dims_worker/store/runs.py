"""Queries on runs and on the history of readings."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, insert, text

from dims_worker.store.bulk import recordset, rows_as_json
from dims_worker.store.models import history, runs

AGO = "(SELECT clock_timestamp() - CAST(:span AS interval))"
"""The instant `:span` ago. The subquery reads the clock once; PostgreSQL uses no index with a clock that moves."""

_HISTORY = tuple(column.name for column in history.columns if column.name not in ("id", "recorded_at"))


def insert_run(connection: Connection, row: Mapping[str, Any]) -> tuple[int, datetime]:
    """Insert a run. Return its number and when it finished, which is now by the database's clock."""
    inserted = insert(runs).values(**row).returning(runs.c.run_id, runs.c.finished_at)
    number, finished_at = connection.execute(inserted).one()
    return number, finished_at


def insert_readings(connection: Connection, rows: Iterable[Mapping[str, Any]]) -> None:
    """Insert readings with their verdicts, in one statement."""
    names = ", ".join(_HISTORY)
    connection.execute(
        text(f"INSERT INTO dims_metrics_history ({names}) SELECT {names} FROM {recordset(history, _HISTORY)}"),
        {"rows": rows_as_json({name: row[name] for name in _HISTORY} for row in rows)},
    )


def set_reading_outcome(connection: Connection, metric: str, as_of: datetime, outcome: str) -> None:
    """Set the outcome of a held reading to what a person decided."""
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
    expected_low: float | None
    expected_high: float | None


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
    """Return the newest runs, newest first. The other arguments filter them; `before` and `after` are run numbers.

    There is no index on sources. To find a rare source, limit the search with `after`.
    """
    rows = connection.execute(
        text(
            f"SELECT {_RUN} FROM dims_verification_runs WHERE run_id > :after "
            "AND (CAST(:before AS bigint) IS NULL OR run_id < :before) "
            "AND (CAST(:source AS text) IS NULL OR source = :source) "
            "AND (CAST(:status AS text) IS NULL OR status = :status) ORDER BY run_id DESC LIMIT :limit"
        ),
        {"limit": limit, "after": after, "before": before, "source": source, "status": status},
    )
    return [RunRow(*row) for row in rows]


def last_run(connection: Connection) -> int:
    """Return the number of the newest run, or 0 if there is none."""
    query = "SELECT coalesce(max(run_id), 0) FROM dims_verification_runs"
    return int(connection.execute(text(query)).scalar_one())


def runs_by_number(connection: Connection, run_ids: Sequence[int]) -> list[RunRow]:
    """Return these runs, oldest first."""
    rows = connection.execute(
        text(f"SELECT {_RUN} FROM dims_verification_runs WHERE run_id = ANY(:runs) ORDER BY run_id"),
        {"runs": list(run_ids)},
    )
    return [RunRow(*row) for row in rows]


def api_calls_since(connection: Connection, span: timedelta) -> dict[str | None, int]:
    """Return the API calls of the runs in the last `span`, by source or workflow (None: checks of several sources)."""
    rows = connection.execute(
        text(
            "SELECT source, sum(api_calls) AS made FROM dims_verification_runs "
            f"WHERE started_at > {AGO} GROUP BY source HAVING sum(api_calls) > 0"
        ),
        {"span": span},
    )
    return {row.source: int(row.made) for row in rows}


def last_result(connection: Connection, source: str) -> tuple[RunRow, Mapping[str, Any]] | None:
    """Return the newest run of a workflow (`workflow.gap-analysis`) that was not superseded, and its result."""
    row = connection.execute(
        text(
            f"SELECT {_RUN}, result FROM dims_verification_runs WHERE source = :source AND result IS NOT NULL "
            "AND status <> 'superseded' ORDER BY run_id DESC LIMIT 1"
        ),
        {"source": source},
    ).first()
    return (RunRow(*row[:-1]), row[-1]) if row else None


def runs_of(connection: Connection, source: str, *, limit: int) -> list[RunRow]:
    """Return the newest runs of a workflow (`workflow.gap-analysis`), newest first."""
    rows = connection.execute(
        text(
            f"SELECT {_RUN} FROM dims_verification_runs WHERE source = :source AND result IS NOT NULL "
            "ORDER BY run_id DESC LIMIT :limit"
        ),
        {"source": source, "limit": limit},
    )
    return [RunRow(*row) for row in rows]


def result_of(connection: Connection, run_id: int) -> Mapping[str, Any] | None:
    """Return the whole result of a workflow's run, or None for any other run."""
    result: Mapping[str, Any] | None = connection.execute(
        text("SELECT result FROM dims_verification_runs WHERE run_id = :run"), {"run": run_id}
    ).scalar()
    return result


def readings_of(connection: Connection, run_ids: Sequence[int]) -> list[PastReading]:
    """Return the readings of these runs, in the order in which they were recorded."""
    rows = connection.execute(
        text(f"SELECT {_PAST} FROM dims_metrics_history WHERE run_id = ANY(:runs) ORDER BY id"),
        {"runs": list(run_ids)},
    )
    return [PastReading(*row) for row in rows]


def history_of(connection: Connection, metric: str, span: timedelta) -> list[PastReading]:
    """Return a metric's readings of the last `span`, oldest first."""
    rows = connection.execute(
        text(f"SELECT {_PAST} FROM dims_metrics_history WHERE metric = :metric AND as_of > {AGO} ORDER BY as_of, id"),
        {"metric": metric, "span": span},
    )
    return [PastReading(*row) for row in rows]


def newest_readings(connection: Connection, metric: str, limit: int) -> list[PastReading]:
    """Return a metric's newest readings with any outcome, newest first."""
    rows = connection.execute(
        text(
            f"SELECT {_PAST} FROM dims_metrics_history WHERE metric = :metric ORDER BY as_of DESC, id DESC LIMIT :limit"
        ),
        {"metric": metric, "limit": limit},
    )
    return [PastReading(*row) for row in rows]


def reading_at(connection: Connection, metric: str, as_of: datetime) -> PastReading | None:
    """Return the last judged reading whose measurement began at `as_of`."""
    row = connection.execute(
        text(
            f"SELECT {_PAST} FROM dims_metrics_history WHERE metric = :metric AND as_of = :as_of "
            "AND outcome NOT IN ('superseded', 'provisional', 'failed') ORDER BY id DESC LIMIT 1"
        ),
        {"metric": metric, "as_of": as_of},
    ).first()
    return PastReading(*row) if row else None


def newest_reading(connection: Connection, metric: str) -> PastReading | None:
    """Return the newest reading with any outcome."""
    return next(iter(newest_readings(connection, metric, 1)), None)
