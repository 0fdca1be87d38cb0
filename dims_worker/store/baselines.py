"""Queries on the values that became a metric's baseline, when, and by whose decision."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import Connection, text

from dims_worker.store.bulk import dumps

AcceptedBy = Literal["first", "policy", "approved", "by hand"]
"""The first good reading, accepted by policy, approved by a person, or set by a person."""


@dataclass(frozen=True, slots=True)
class Acceptance:
    """A value that became the baseline. `as_of`: when its measurement began, or when it was set by hand.

    `begun`: when its run began. A derived reading is as old as its oldest input, and its run is that of the newest.
    `run_id` is None for a value set by hand. `request` and the fields after it are set if a person decided.
    """

    value: Any
    as_of: datetime
    how: AcceptedBy
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
# There is no reading, so its id is 0. JSON's null becomes SQL's NULL
_BY_HAND = (
    "SELECT 0 AS id, nullif(value, 'null') AS value, as_of, CAST(NULL AS bigint) AS run_id, 'by hand' AS how "
    "FROM dims_approval_requests "
    "WHERE metric = :metric AND kind = 'baseline' AND state = 'approved' AND as_of <= :until"
)


def _first(condition: str, way: Literal["ASC", "DESC"]) -> str:
    """Return a query for the first acceptance in this order. It finds the first of each kind by the history's index."""
    order = f"ORDER BY as_of {way}, id {way} LIMIT 1"
    each = (f"(SELECT * FROM ({kind}) a WHERE {condition} {order})" for kind in (_READINGS, _BY_HAND))
    return f"SELECT * FROM ({' UNION ALL '.join(each)}) a {order}"


def _fetch(connection: Connection, chosen: str, parameters: dict[str, Any]) -> Acceptance | None:
    row = connection.execute(
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
    return Acceptance(*row) if row else None


def change_span(
    connection: Connection, metric: str, baseline_as_of: datetime, measured: datetime
) -> tuple[datetime, datetime]:
    """Return the span in which a value changed: from the run that accepted the baseline to the run that `measured`
    another value. A derived reading is older than its run, by as much as its oldest input."""
    against = last_accepted(connection, metric, baseline_as_of)
    known = against is not None and against.begun < measured  # exclude the reading itself, if it was approved
    return (against.begun if against and known else baseline_as_of), measured


def last_accepted(
    connection: Connection, metric: str, until: datetime, *, before: int | None = None, by_person: bool = False
) -> Acceptance | None:
    """Return the newest acceptance up to `until`, or None.

    `before` is the id of a reading at `until`: only acceptances before it count. `by_person` leaves out those by
    policy; the first reading counts as accepted by a person.
    """
    person = " AND how <> 'policy'" if by_person else ""
    return _fetch(
        connection,
        _first(f"(as_of, id) < (:until, :before){person}", "DESC"),
        {"metric": metric, "until": until, "before": 2**63 - 1 if before is None else before},
    )


def accepted_since(connection: Connection, metric: str, value: Any, until: datetime) -> Acceptance | None:
    """Return the acceptance since which this value was the baseline without a break, up to `until`."""
    another = _first("value IS DISTINCT FROM CAST(:value AS jsonb) OR how = 'first'", "DESC")
    same = "value IS NOT DISTINCT FROM CAST(:value AS jsonb)"
    return _fetch(
        connection,
        _first(f"{same} AND as_of >= coalesce((SELECT as_of FROM ({another}) b), '-infinity')", "ASC"),
        {"metric": metric, "value": None if value is None else dumps(value), "until": until},
    )
