"""Queries on what became a metric's baseline, one after the other, and by whom."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import Connection, text

from dims_worker.store.rows import dumps

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


# By hand comes from no reading: 0 stands in for its number. JSON's null and SQL's NULL are one here
_ALL = (
    "SELECT h.id, h.value, h.as_of, h.run_id, CASE WHEN h.status = 'new' THEN 'first' "
    "WHEN h.outcome = 'approved' THEN 'approved' ELSE 'policy' END AS how FROM dims_metrics_history h "
    "WHERE h.metric = :metric AND h.outcome IN ('accepted', 'approved') "
    "UNION ALL SELECT 0, nullif(r.value, 'null'), r.as_of, NULL, 'by hand' FROM dims_approval_requests r "
    "WHERE r.metric = :metric AND r.kind = 'baseline' AND r.state = 'approved'"
)


def _one(connection: Connection, chosen: str, parameters: dict[str, Any]) -> Acceptance | None:
    found = connection.execute(
        text(
            f"WITH a AS NOT MATERIALIZED ({_ALL}), chosen AS ({chosen} LIMIT 1) "
            "SELECT c.value, c.as_of, c.how, coalesce(v.started_at, c.as_of), c.run_id, r.id, r.decided_at, "
            "r.decided_by, r.known_by, r.note "
            "FROM chosen c LEFT JOIN dims_verification_runs v USING (run_id) "
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
    person = "AND how <> 'policy'" if by_person else ""
    return _one(
        connection,
        f"SELECT * FROM a WHERE (as_of, id) < (:until, :before) {person} ORDER BY as_of DESC, id DESC",
        {"metric": metric, "until": until, "before": 2**63 - 1 if before is None else before},
    )


def standing_since(connection: Connection, metric: str, value: Any, until: datetime) -> Acceptance | None:
    """The acceptance from which on this value was the baseline without a break, until then."""
    another = "SELECT max(as_of) FROM a WHERE as_of <= :until AND "
    return _one(
        connection,
        "SELECT * FROM a WHERE as_of <= :until AND value IS NOT DISTINCT FROM CAST(:value AS jsonb) "
        f"AND as_of >= coalesce(({another} value IS DISTINCT FROM CAST(:value AS jsonb)), '-infinity') "
        f"AND as_of >= coalesce(({another} how = 'first'), '-infinity') ORDER BY as_of, id",
        {"metric": metric, "value": None if value is None else dumps(value), "until": until},
    )
