"""Queries on the event log and its ingest batches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, text

from dims_worker.store.bulk import recordset, rows_as_json
from dims_worker.store.models import events

_COLUMNS = (
    *("producer", "event_id", "digest", "type", "subject", "event_time", "stream_id", "outcome"),
    *("reason", "data", "payload", "rules", "metrics", "batch_id"),
)


def next_batch(connection: Connection) -> int:
    return int(connection.execute(text("SELECT nextval('dims_batch_ids')")).scalar_one())


def next_batch_for(connection: Connection, names: Sequence[str]) -> tuple[int, bool]:
    """A new batch id, and whether every named metric has a row."""
    row = connection.execute(
        text(
            "SELECT nextval('dims_batch_ids'), "
            "(SELECT count(*) FROM dims_metrics WHERE metric = ANY(:names)) = cardinality(CAST(:names AS text[]))"
        ),
        {"names": list(names)},
    ).one()
    return int(row[0]), bool(row[1])


def insert_events(connection: Connection, rows: Sequence[Mapping[str, Any]]) -> set[tuple[str, str, str, str]]:
    """Insert what is new. Returns (stream id, producer, id, digest) of the rows really inserted; '' for NULL."""
    if not rows:
        return set()
    names = ", ".join(_COLUMNS)
    inserted = connection.execute(
        text(
            # Numbered in the order of arrival, inserted in that of their keys: two batches cannot deadlock
            f"INSERT INTO dims_event_log (seq, {names}) SELECT seq, {names} FROM ("
            # The sequence is looked up once, in a query of its own, and not for every row
            "  SELECT nextval((SELECT CAST(pg_get_serial_sequence('dims_event_log', 'seq') AS regclass))) AS seq, r.* "
            f" FROM {recordset(events, _COLUMNS)} OFFSET 0) AS arrived "
            "ORDER BY digest, stream_id "
            "ON CONFLICT DO NOTHING "
            "RETURNING coalesce(stream_id, ''), coalesce(producer, ''), coalesce(event_id, ''), digest"
        ),
        {"rows": rows_as_json(rows)},
    )
    return {(row[0], row[1], row[2], row[3]) for row in inserted}


def raise_generations(connection: Connection, names: Sequence[str], batch_id: int) -> dict[str, int]:
    """One generation more for each named metric, its row locked in the order of the names, under the batch.

    Returns the new generations; a name without a row, or of a retired metric, is missing from them.
    """
    raised = connection.execute(
        text(
            "WITH locked AS MATERIALIZED ("
            '  SELECT metric FROM dims_metrics WHERE metric = ANY(:names) ORDER BY metric COLLATE "C" FOR UPDATE'
            "), raised AS (UPDATE dims_metrics m SET requested_gen = m.requested_gen + 1, "
            "due_since = CASE WHEN m.requested_gen > m.measured_gen THEN m.due_since ELSE clock_timestamp() END "
            "FROM locked WHERE m.metric = locked.metric AND m.retired_at IS NULL RETURNING m.metric, m.requested_gen) "
            "INSERT INTO dims_ingest_batches (batch_id, metric, generation) "
            "SELECT :batch, metric, requested_gen FROM raised RETURNING metric, generation"
        ),
        {"names": list(names), "batch": batch_id},
    )
    return {row.metric: row.generation for row in raised}


@dataclass(frozen=True, slots=True)
class LoggedEvent:
    """An event as the log keeps it."""

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
    """The newest events, newest first; of one outcome, those that were replayed, or not, of one type, and those
    `before` and `after` a place in the log, where that is asked.

    No index knows types: who asks for a rare one says how far back to look (`after`).
    """
    found = connection.execute(
        text(
            f"SELECT {_LOGGED} FROM dims_event_log WHERE (CAST(:outcome AS text) IS NULL OR outcome = :outcome) "
            "AND (CAST(:replayed AS boolean) IS NULL OR (replayed_at IS NOT NULL) = :replayed) "
            "AND (CAST(:type AS text) IS NULL OR type = :type) "
            "AND (CAST(:before AS bigint) IS NULL OR seq < :before) AND seq > :after "
            "ORDER BY seq DESC LIMIT :limit"
        ),
        {
            **{"limit": limit, "outcome": outcome, "replayed": replayed, "type": type},
            **{"before": before, "after": after},
        },
    )
    return [LoggedEvent(*row) for row in found]


def event_at(connection: Connection, seq: int) -> LoggedEvent | None:
    """The event at a place in the log."""
    row = connection.execute(text(f"SELECT {_LOGGED} FROM dims_event_log WHERE seq = :seq"), {"seq": seq}).first()
    return LoggedEvent(*row) if row else None


def count_rejected(connection: Connection) -> int:
    """The rejected events that were not replayed."""
    query = "SELECT count(*) FROM dims_event_log WHERE outcome = 'rejected' AND replayed_at IS NULL"
    return int(connection.execute(text(query)).scalar_one())


def mark_replayed(connection: Connection, numbers: Sequence[int]) -> None:
    """Note that these events, by their places in the log, were sent again."""
    connection.execute(
        text("UPDATE dims_event_log SET replayed_at = clock_timestamp() WHERE seq = ANY(:numbers)"),
        {"numbers": list(numbers)},
    )


def batches_after(connection: Connection, batch_id: int) -> list[int]:
    """The batches that were numbered after this one and that stored something."""
    found = connection.execute(
        text("SELECT DISTINCT batch_id FROM dims_event_log WHERE batch_id > :batch ORDER BY 1"), {"batch": batch_id}
    )
    return [row.batch_id for row in found]


def events_of_batches(connection: Connection, batch_ids: Sequence[int]) -> list[LoggedEvent]:
    """The events that these batches stored, in the order of their arrival."""
    if not batch_ids:
        return []
    found = connection.execute(
        text(f"SELECT {_LOGGED} FROM dims_event_log WHERE batch_id = ANY(:batches) ORDER BY seq"),
        {"batches": list(batch_ids)},
    )
    return [LoggedEvent(*row) for row in found]


def _prefix(name: str) -> str:
    """The LIKE pattern of what begins so, as far as the index goes."""
    escaped = name[:100].replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    return escaped if len(name) >= 100 else f"{escaped}%"


def find_events(connection: Connection, name: str) -> list[LoggedEvent]:
    """The events with an id, with an id that begins so, or with a place in the log written as a number."""
    found = connection.execute(
        text(
            f"SELECT {_LOGGED} FROM dims_event_log "
            "WHERE (left(event_id, 100) LIKE :pattern AND starts_with(event_id, :name)) OR seq = :seq "
            "ORDER BY (event_id = :name) DESC, seq DESC LIMIT 20"
        ),
        {"name": name, "pattern": _prefix(name), "seq": int(name) if name.isdecimal() and len(name) < 19 else None},
    )
    return [LoggedEvent(*row) for row in found]


@dataclass(frozen=True, slots=True)
class ServedMetric:
    """What became of a metric that an event concerned; without a reading (`run_id` None) it is still due."""

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
    """For each metric the event concerned: the first good reading that serves it, else the last failed."""
    found = connection.execute(
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
    return [ServedMetric(*row) for row in found]


_REACH = 5000
"""So many events before a run are looked through for those that it served."""


def events_served_by(connection: Connection, run_id: int, limit: int) -> list[LoggedEvent]:
    """The newest events that a run's readings were the first to serve, newest first: those whose batches are later than
    what each metric's reading before served. Looked for among the last events before the run's end."""
    found = connection.execute(
        text(
            "WITH mine AS MATERIALIZED ("
            "  SELECT h.metric, h.generation, coalesce(former.generation, 0) AS served, v.finished_at"
            "  FROM dims_verification_runs v JOIN dims_metrics_history h ON h.run_id = v.run_id LEFT JOIN LATERAL ("
            "    SELECT p.generation FROM dims_metrics_history p WHERE p.metric = h.metric AND p.as_of < h.as_of"
            "    AND p.method <> 'failed' AND p.outcome <> 'superseded' AND p.generation IS NOT NULL"
            "    ORDER BY p.as_of DESC, p.id DESC LIMIT 1) former ON true"
            "  WHERE v.run_id = :run AND h.method <> 'failed' AND h.outcome <> 'superseded'"
            "  AND h.generation IS NOT NULL"
            "), near AS MATERIALIZED ("
            "  SELECT e.seq, e.batch_id, e.metrics FROM dims_event_log e"
            "  WHERE e.received_at <= (SELECT max(finished_at) FROM mine) AND e.metrics <> '{}'"
            "  ORDER BY e.received_at DESC LIMIT :reach"
            f") SELECT {_LOGGED} FROM dims_event_log WHERE seq IN ("
            "  SELECT n.seq FROM near n JOIN mine m ON m.metric = ANY(n.metrics)"
            "  JOIN dims_ingest_batches k ON k.batch_id = n.batch_id AND k.metric = m.metric"
            "  AND k.generation > m.served AND k.generation <= m.generation"
            ") ORDER BY seq DESC LIMIT :limit"
        ),
        {"run": run_id, "reach": _REACH, "limit": limit},
    )
    return [LoggedEvent(*row) for row in found]


def last_event(connection: Connection) -> int:
    """The newest event's place in the log; 0 where there is none."""
    return int(connection.execute(text("SELECT coalesce(max(seq), 0) FROM dims_event_log")).scalar_one())


def last_batch(connection: Connection) -> int:
    """The newest batch; 0 where there is none."""
    return int(connection.execute(text("SELECT coalesce(max(batch_id), 0) FROM dims_event_log")).scalar_one())


def event_by_id(connection: Connection, event_id: str) -> LoggedEvent | None:
    """The newest event with exactly this id."""
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
    """The events that concerned any of these metrics and were received in (after, until]: how many, and the newest of
    them, newest first."""
    found = connection.execute(
        text(
            f"SELECT {_LOGGED}, count(*) OVER () FROM dims_event_log WHERE received_at > :after "
            "AND received_at <= :until AND metrics && CAST(:metrics AS text[]) ORDER BY seq DESC LIMIT :limit"
        ),
        {"metrics": list(metrics), "after": after, "until": until, "limit": limit},
    ).fetchall()
    return (int(found[0][-1]), [LoggedEvent(*row[:-1]) for row in found]) if found else (0, [])
