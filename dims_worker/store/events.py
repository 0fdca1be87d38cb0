"""Queries on the event log and its ingest batches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, text

from dims_worker.store.bulk import recordset, rows_as_json
from dims_worker.store.models import events

_GENERATED = ("seq", "received_at", "replayed_at")
_COLUMNS = tuple(column.name for column in events.columns if column.name not in _GENERATED)


def next_batch(connection: Connection) -> int:
    """Return a new batch id."""
    return int(connection.execute(text("SELECT nextval('dims_batch_ids')")).scalar_one())


def next_batch_for(connection: Connection, names: Sequence[str]) -> tuple[int, bool]:
    """Return a new batch id, and whether every one of these metrics has a row."""
    row = connection.execute(
        text(
            "SELECT nextval('dims_batch_ids'), "
            "(SELECT count(*) FROM dims_metrics WHERE metric = ANY(:names)) = cardinality(CAST(:names AS text[]))"
        ),
        {"names": list(names)},
    ).one()
    return int(row[0]), bool(row[1])


def insert_events(connection: Connection, rows: Sequence[Mapping[str, Any]]) -> set[tuple[str, str, str, str]]:
    """Insert the new events. Return (stream id, producer, id, digest) of the inserted rows, with '' for NULL."""
    if not rows:
        return set()
    names = ", ".join(_COLUMNS)
    inserted = connection.execute(
        text(
            # Numbered in order of arrival, but inserted in order of their keys, so that two batches cannot deadlock
            f"INSERT INTO dims_event_log (seq, {names}) SELECT seq, {names} FROM ("
            # A subquery looks up the sequence once instead of for every row
            "  SELECT nextval((SELECT CAST(pg_get_serial_sequence('dims_event_log', 'seq') AS regclass))) AS seq, r.* "
            f" FROM {recordset(events, _COLUMNS)} OFFSET 0) AS arrived "
            "ORDER BY digest, stream_id "
            "ON CONFLICT DO NOTHING "
            "RETURNING coalesce(stream_id, ''), coalesce(producer, ''), coalesce(event_id, ''), digest"
        ),
        {"rows": rows_as_json(rows)},
    )
    return {(row[0], row[1], row[2], row[3]) for row in inserted}


def raise_generations(
    connection: Connection, names: Sequence[str], batch_id: int, compared: Sequence[str] = ()
) -> dict[str, int]:
    """Raise the generation of each metric by one, and record it under the batch. Locks rows in order of their names.

    The metrics in `compared` become due too, but no event names them. They need a reading only if their state differs
    from the one that they were measured from.
    Returns the new generations of `names` by metric, without retired metrics and those that have no row.
    """
    raised = connection.execute(
        text(
            "WITH locked AS MATERIALIZED ("
            "  SELECT metric, metric = ANY(:names) AS is_named FROM dims_metrics "
            '  WHERE metric = ANY(:names) OR metric = ANY(:compared) ORDER BY metric COLLATE "C" FOR UPDATE'
            "), raised AS (UPDATE dims_metrics m SET requested_gen = m.requested_gen + 1, "
            "reading_gen = CASE WHEN locked.is_named THEN m.requested_gen + 1 ELSE m.reading_gen END, "
            "due_since = CASE WHEN m.requested_gen > m.measured_gen THEN m.due_since ELSE clock_timestamp() END "
            "FROM locked WHERE m.metric = locked.metric AND m.retired_at IS NULL "
            "RETURNING m.metric, m.requested_gen, locked.is_named), "
            "recorded AS (INSERT INTO dims_ingest_batches (batch_id, metric, generation) "
            "SELECT :batch, metric, requested_gen FROM raised) "
            "SELECT metric, requested_gen AS generation FROM raised WHERE is_named"
        ),
        {"names": list(names), "compared": list(compared), "batch": batch_id},
    )
    return {row.metric: row.generation for row in raised}


@dataclass(frozen=True, slots=True)
class LoggedEvent:
    """A row of `dims_event_log`."""

    seq: int
    producer: str | None
    event_id: str | None
    digest: str
    type: str | None
    subject: str | None
    event_time: datetime | None
    received_at: datetime
    stream_id: str | None
    outcome: str
    reason: str | None
    data: Mapping[str, Any] | None
    payload: str | None
    rules: Sequence[str]
    metrics: Sequence[str]
    batch_id: int
    replayed_at: datetime | None


_LOGGED = ", ".join(LoggedEvent.__slots__)


def list_events(
    connection: Connection,
    *,
    limit: int,
    outcome: str | None = None,
    replayed: bool | None = None,
    type: str | None = None,
    before: int | None = None,
    after: int = 0,
) -> list[LoggedEvent]:
    """Return the newest events, newest first. The other arguments filter them; `before` and `after` are `seq`.

    There is no index on types. To find a rare type, limit the search with `after`.
    """
    rows = connection.execute(
        text(
            f"SELECT {_LOGGED} FROM dims_event_log WHERE (CAST(:outcome AS text) IS NULL OR outcome = :outcome) "
            "AND (CAST(:replayed AS boolean) IS NULL OR (replayed_at IS NOT NULL) = :replayed) "
            "AND (CAST(:type AS text) IS NULL OR type = :type) "
            "AND (CAST(:before AS bigint) IS NULL OR seq < :before) AND seq > :after "
            "ORDER BY seq DESC LIMIT :limit"
        ),
        {
            "limit": limit,
            "outcome": outcome,
            "replayed": replayed,
            "type": type,
            "before": before,
            "after": after,
        },
    )
    return [LoggedEvent(*row) for row in rows]


def event_at(connection: Connection, seq: int) -> LoggedEvent | None:
    """Return the event with this `seq`."""
    row = connection.execute(text(f"SELECT {_LOGGED} FROM dims_event_log WHERE seq = :seq"), {"seq": seq}).first()
    return LoggedEvent(*row) if row else None


def batches_after(connection: Connection, batch_id: int) -> list[int]:
    """Return the later batches that stored events."""
    rows = connection.execute(
        text("SELECT DISTINCT batch_id FROM dims_event_log WHERE batch_id > :batch ORDER BY 1"), {"batch": batch_id}
    )
    return [row.batch_id for row in rows]


def events_of_batches(connection: Connection, batch_ids: Sequence[int]) -> list[LoggedEvent]:
    """Return the events that these batches stored, in order of arrival."""
    if not batch_ids:
        return []
    rows = connection.execute(
        text(f"SELECT {_LOGGED} FROM dims_event_log WHERE batch_id = ANY(:batches) ORDER BY seq"),
        {"batches": list(batch_ids)},
    )
    return [LoggedEvent(*row) for row in rows]


def _prefix(name: str) -> str:
    """Return a LIKE pattern for texts that begin with `name`. The index holds only the first 100 characters."""
    escaped = name[:100].replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    return escaped if len(name) >= 100 else f"{escaped}%"


def find_events(connection: Connection, name: str) -> list[LoggedEvent]:
    """Return the events whose id begins with `name` or whose `seq` is `name`. An exact id comes first."""
    rows = connection.execute(
        text(
            f"SELECT {_LOGGED} FROM dims_event_log "
            "WHERE (left(event_id, 100) LIKE :pattern AND starts_with(event_id, :name)) OR seq = :seq "
            "ORDER BY (event_id = :name) DESC, seq DESC LIMIT 20"
        ),
        {"name": name, "pattern": _prefix(name), "seq": int(name) if name.isdecimal() and len(name) < 19 else None},
    )
    return [LoggedEvent(*row) for row in rows]


@dataclass(frozen=True, slots=True)
class ServedMetric:
    """A metric that an event concerned, and its reading. If `run_id` is None, the metric is still due."""

    metric: str
    generation: int
    run_id: int | None
    value: Any
    unit: str | None
    baseline: Any
    drift_pct: float | None
    status: str | None
    severity: str | None
    tier: str | None
    outcome: str | None
    reason: str | None
    error: str | None
    as_of: datetime | None
    recorded_at: datetime | None


def served_metrics(connection: Connection, event: LoggedEvent) -> list[ServedMetric]:
    """Return for each metric that the event concerned the first good reading that serves it, else the last failure."""
    rows = connection.execute(
        text(
            "SELECT k.metric, k.generation, h.run_id, h.value, h.unit, h.baseline, h.drift_pct, h.status, "
            "h.severity, h.tier, h.outcome, h.reason, h.error, h.as_of, h.recorded_at "
            "FROM dims_ingest_batches k LEFT JOIN LATERAL ("
            "  SELECT * FROM dims_metrics_history h WHERE h.metric = k.metric "
            "  AND h.generation >= k.generation AND h.outcome <> 'superseded' "
            "  ORDER BY (h.method = 'failed'), CASE WHEN h.method = 'failed' THEN -h.id ELSE h.id END LIMIT 1"
            ") h ON true "
            "WHERE k.batch_id = :batch AND k.metric = ANY(:metrics) ORDER BY k.metric"
        ),
        {"batch": event.batch_id, "metrics": list(event.metrics)},
    )
    return [ServedMetric(*row) for row in rows]


@dataclass(frozen=True, slots=True)
class RunRequest:
    """How an event wants a workflow to run. All but the type are as the event has them, in any form."""

    type: str
    options: Any
    quick: Any
    check: Any = None


def waiting_requests(connection: Connection, metric: str) -> list[RunRequest]:
    """Return the different requests of the events that a due metric of a workflow waits to serve."""
    rows = connection.execute(
        text(
            "SELECT DISTINCT e.type, e.data -> 'options', e.data -> 'quick', e.data -> 'check' FROM dims_metrics m "
            # One transaction stores an event and then sets `due_since`, so the event can be a little older
            "JOIN dims_event_log e ON e.received_at >= m.due_since - interval '10 minutes' "
            "AND e.metrics @> ARRAY[m.metric] "
            "JOIN dims_ingest_batches k ON k.batch_id = e.batch_id AND k.metric = m.metric "
            "AND k.generation > m.measured_gen WHERE m.metric = :metric"
        ),
        {"metric": metric},
    )
    return [RunRequest(*row) for row in rows]


_SEARCH_LIMIT = 5000
"""The number of events before the end of a run among which DIMS looks for those that the run served."""


def events_served_by(connection: Connection, run_id: int, limit: int) -> list[LoggedEvent]:
    """Return the newest events that this run was the first to serve, newest first.

    An earlier good reading of the metric served all earlier batches. The search covers the last events before the end
    of the run.
    """
    rows = connection.execute(
        text(
            "WITH served_here AS MATERIALIZED ("
            "  SELECT h.metric, h.generation, coalesce(former.generation, 0) AS served, v.finished_at"
            "  FROM dims_verification_runs v JOIN dims_metrics_history h ON h.run_id = v.run_id LEFT JOIN LATERAL ("
            "    SELECT p.generation FROM dims_metrics_history p WHERE p.metric = h.metric AND p.as_of < h.as_of"
            "    AND p.method <> 'failed' AND p.outcome <> 'superseded' AND p.generation IS NOT NULL"
            "    ORDER BY p.as_of DESC, p.id DESC LIMIT 1) former ON true"
            "  WHERE v.run_id = :run AND h.method <> 'failed' AND h.outcome <> 'superseded'"
            "  AND h.generation IS NOT NULL"
            "), near AS MATERIALIZED ("
            "  SELECT e.seq, e.batch_id, e.metrics FROM dims_event_log e"
            "  WHERE e.received_at <= (SELECT max(finished_at) FROM served_here) AND e.metrics <> '{}'"
            "  ORDER BY e.received_at DESC LIMIT :search_limit"
            f") SELECT {_LOGGED} FROM dims_event_log WHERE seq IN ("
            "  SELECT n.seq FROM near n JOIN served_here m ON m.metric = ANY(n.metrics)"
            "  JOIN dims_ingest_batches k ON k.batch_id = n.batch_id AND k.metric = m.metric"
            "  AND k.generation > m.served AND k.generation <= m.generation"
            ") ORDER BY seq DESC LIMIT :limit"
        ),
        {"run": run_id, "search_limit": _SEARCH_LIMIT, "limit": limit},
    )
    return [LoggedEvent(*row) for row in rows]


def last_event(connection: Connection) -> int:
    """Return the `seq` of the newest event, or 0 if there is none."""
    return int(connection.execute(text("SELECT coalesce(max(seq), 0) FROM dims_event_log")).scalar_one())


def last_batch(connection: Connection) -> int:
    """Return the id of the newest batch, or 0 if there is none."""
    return int(connection.execute(text("SELECT coalesce(max(batch_id), 0) FROM dims_event_log")).scalar_one())


def event_by_id(connection: Connection, event_id: str) -> LoggedEvent | None:
    """Return the newest event with exactly this id."""
    row = connection.execute(
        text(
            f"SELECT {_LOGGED} FROM dims_event_log WHERE left(event_id, 100) LIKE :pattern AND event_id = :id "
            "ORDER BY seq DESC LIMIT 1"
        ),
        {"id": event_id, "pattern": _prefix(event_id)},
    ).first()
    return LoggedEvent(*row) if row else None


def events_between(
    connection: Connection, metrics: Sequence[str], after: datetime, until: datetime, limit: int
) -> tuple[int, list[LoggedEvent]]:
    """Return the number of events received in (after, until] that concerned these metrics, and the newest of them."""
    rows = connection.execute(
        text(
            f"SELECT {_LOGGED}, count(*) OVER () FROM dims_event_log WHERE received_at > :after "
            "AND received_at <= :until AND metrics && CAST(:metrics AS text[]) ORDER BY seq DESC LIMIT :limit"
        ),
        {"metrics": list(metrics), "after": after, "until": until, "limit": limit},
    ).fetchall()
    return (int(rows[0][-1]), [LoggedEvent(*row[:-1]) for row in rows]) if rows else (0, [])
