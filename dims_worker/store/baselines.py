"""Queries on what became a metric's baseline, one after the other, and by whom."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import Connection, text

from dims_worker.store.bulk import dumps

How = Literal["first", "policy", "approved", "by hand"]
"""The first good reading; accepted by policy; a request that a person approved; set by a person."""


@dataclass(frozen=True, slots=True)
class Acceptance:
    """A value that became the baseline. `as_of`: when its measurement began, or when it was set by hand.

    `begun`: when its run began. A derived reading is as old as its oldest input, and its run is that of the newest.
    `run_id` of a reading; the rest of what a person did: the request in the log, when, who, how that is known, why.
    """

    value: Any
    as_of: datetime
    how: How
    begun: datetime
    run_id: int | None = None
    request: int | None = None
    decided_at: datetime | None = None
    decided_by: str | None = None
    known_by: str | None = None
    note: str | None = None


_READINGS = (
    "SELECT id, value, as_of, run_id, CASE WHEN status = 'new' THEN 'first' WHEN outcome = 'approved' THEN 'approved' "
    "ELSE 'policy' END AS how FROM dims_metrics_history "
    "WHERE metric = :metric AND outcome IN ('accepted', 'approved') AND as_of <= :until"
)
# Of no reading: 0 stands in for its number. JSON's null and SQL's NULL are one here
_BY_HAND = (
    "SELECT 0 AS id, nullif(value, 'null') AS value, as_of, CAST(NULL AS bigint) AS run_id, 'by hand' AS how "
    "FROM dims_approval_requests "
    "WHERE metric = :metric AND kind = 'baseline' AND state = 'approved' AND as_of <= :until"
)


def _first(condition: str, way: Literal["ASC", "DESC"]) -> str:
    """The first acceptance in this order: the first of each kind is looked up, by the index of the history."""
    order = f"ORDER BY as_of {way}, id {way} LIMIT 1"
    each = (f"(SELECT * FROM ({kind}) a WHERE {condition} {order})" for kind in (_READINGS, _BY_HAND))
    return f"SELECT * FROM ({' UNION ALL '.join(each)}) a {order}"


def _one(connection: Connection, chosen: str, parameters: dict[str, Any]) -> Acceptance | None:
    found = connection.execute(
        text(
            "SELECT c.value, c.as_of, c.how, coalesce(v.started_at, c.as_of), c.run_id, r.id, r.decided_at, "
            f"r.decided_by, r.known_by, r.note FROM ({chosen}) c "
            "LEFT JOIN dims_verification_runs v USING (run_id) "
            "LEFT JOIN LATERAL (SELECT * FROM dims_approval_requests r WHERE r.metric = :metric "
            "AND r.as_of = c.as_of AND r.state = 'approved' AND c.how IN ('approved', 'by hand') "
            "ORDER BY r.id DESC LIMIT 1) r ON true"
        ),
        parameters,
    ).first()
    return Acceptance(*found) if found else None


def last_accepted(
    connection: Connection, metric: str, until: datetime, *, before: int | None = None, by_person: bool = False
) -> Acceptance | None:
    """The newest acceptance until then; of those before the reading `before`, which began then, where it is named.

    `by_person`: of those that a person made, for whom the first reading stands in.
    """
    person = " AND how <> 'policy'" if by_person else ""
    return _one(
        connection,
        _first(f"(as_of, id) < (:until, :before){person}", "DESC"),
        {"metric": metric, "until": until, "before": 2**63 - 1 if before is None else before},
    )


def accepted_since(connection: Connection, metric: str, value: Any, until: datetime) -> Acceptance | None:
    """The acceptance from which on this value was the baseline without a break, until then."""
    another = _first("value IS DISTINCT FROM CAST(:value AS jsonb) OR how = 'first'", "DESC")
    same = "value IS NOT DISTINCT FROM CAST(:value AS jsonb)"
    return _one(
        connection,
        _first(f"{same} AND as_of >= coalesce((SELECT as_of FROM ({another}) b), '-infinity')", "ASC"),
        {"metric": metric, "value": None if value is None else dumps(value), "until": until},
    )
