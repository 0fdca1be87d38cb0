"""Queries on approval requests."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Text, cast, insert, literal, text, update
from sqlalchemy.dialects.postgresql import JSONB

from dims_worker.store.bulk import dumps
from dims_worker.store.models import approval_requests

COMPARED = "compared_with"
"""The key of the evidence that has the value which a person last accepted, if the drift from it holds the request."""


@dataclass(frozen=True, slots=True)
class ApprovalRequest:
    """A row of `dims_approval_requests`: a value that waits for approval, or that a person decided on."""

    id: int
    metric: str
    kind: str
    state: str
    version: int
    value: Any
    unit: str
    as_of: datetime
    anchor: Any
    baseline: Any
    baseline_as_of: datetime | None
    baseline_version: int
    drift_pct: float | None
    severity: str
    reason: str
    evidence: Mapping[str, Any] | None
    run_id: int | None
    opened_at: datetime
    updated_at: datetime
    expires_at: datetime | None
    decided_at: datetime | None
    decided_by: str | None
    known_by: str | None
    note: str | None

    @property
    def from_person(self) -> bool:
        """Whether `drift_pct` is the drift from the value that a person last accepted, and not from the baseline."""
        return COMPARED in (self.evidence or {})

    @property
    def compared_with(self) -> Any:
        """The value that `drift_pct` is the drift from."""
        return (self.evidence or {}).get(COMPARED, self.baseline)


_COLUMNS = ", ".join(ApprovalRequest.__slots__)


def open_requests(connection: Connection, metrics: Iterable[str] | None = None) -> dict[str, ApprovalRequest]:
    """Return the open requests by metric. Without `metrics`: of all metrics."""
    rows = connection.execute(
        text(
            f"SELECT {_COLUMNS} FROM dims_approval_requests WHERE state = 'open' "
            "AND (CAST(:metrics AS text[]) IS NULL OR metric = ANY(:metrics)) ORDER BY id"
        ),
        {"metrics": None if metrics is None else list(metrics)},
    )
    return {row.metric: ApprovalRequest(*row) for row in rows}


@dataclass(frozen=True, slots=True)
class RequestVersion:
    """The columns of a request that show whether it has changed."""

    id: int
    metric: str
    state: str
    version: int
    updated_at: datetime


def request_versions(connection: Connection) -> list[RequestVersion]:
    """Return the versions of the open requests and of the newest one, which may already be decided."""
    names = ", ".join(RequestVersion.__slots__)
    rows = connection.execute(
        text(
            f"SELECT {names} FROM dims_approval_requests WHERE state = 'open' "
            f"UNION (SELECT {names} FROM dims_approval_requests ORDER BY id DESC LIMIT 1)"
        )
    )
    return [RequestVersion(*row) for row in rows]


def list_requests(
    connection: Connection,
    *,
    limit: int,
    metric: str | None = None,
    state: str | None = None,
    before: int | None = None,
) -> list[ApprovalRequest]:
    """Return the newest requests, newest first. The other arguments filter them; `before` is a request number."""
    rows = connection.execute(
        text(
            f"SELECT {_COLUMNS} FROM dims_approval_requests "
            "WHERE (CAST(:metric AS text) IS NULL OR metric = :metric) "
            "AND (CAST(:state AS text) IS NULL OR state = :state) "
            "AND (CAST(:before AS bigint) IS NULL OR id < :before) ORDER BY id DESC LIMIT :limit"
        ),
        {"limit": limit, "metric": metric, "state": state, "before": before},
    )
    return [ApprovalRequest(*row) for row in rows]


def decided_requests(connection: Connection, *, limit: int, before: int | None = None) -> list[ApprovalRequest]:
    """Return the closed requests, latest decision first. `before` is the number of the last request already seen."""
    rows = connection.execute(
        text(
            f"SELECT {_COLUMNS} FROM dims_approval_requests WHERE state <> 'open' "
            "AND (CAST(:before AS bigint) IS NULL OR (decided_at, id) < "
            "(SELECT decided_at, id FROM dims_approval_requests WHERE id = :before)) "
            "ORDER BY decided_at DESC, id DESC LIMIT :limit"
        ),
        {"limit": limit, "before": before},
    )
    return [ApprovalRequest(*row) for row in rows]


def approved_since(connection: Connection, since: datetime) -> list[ApprovalRequest]:
    """Return what people accepted after that time, oldest first: approved requests, and baselines set by hand."""
    rows = connection.execute(
        text(
            f"SELECT {_COLUMNS} FROM dims_approval_requests "
            "WHERE state = 'approved' AND decided_at > :since ORDER BY id"
        ),
        {"since": since},
    )
    return [ApprovalRequest(*row) for row in rows]


def find_request(connection: Connection, name: str, *, lock: bool = False) -> ApprovalRequest | None:
    """Return the request with this number, or the open (else the newest) request of the metric with this name."""
    row = connection.execute(
        text(
            f"SELECT {_COLUMNS} FROM dims_approval_requests "
            "WHERE id::text = :name OR metric = :name "
            f"ORDER BY (state = 'open') DESC, id DESC LIMIT 1 {'FOR UPDATE' if lock else ''}"
        ),
        {"name": name},
    ).first()
    return ApprovalRequest(*row) if row else None


def requests_of_run(connection: Connection, run_id: int) -> dict[str, ApprovalRequest]:
    """Return the requests that a run opened or updated last, by metric."""
    rows = connection.execute(
        text(f"SELECT {_COLUMNS} FROM dims_approval_requests WHERE run_id = :run ORDER BY id"), {"run": run_id}
    )
    return {row.metric: ApprovalRequest(*row) for row in rows}


def requests_by_number(connection: Connection, numbers: Iterable[int]) -> dict[int, ApprovalRequest]:
    """Return the requests with these numbers, by number."""
    rows = connection.execute(
        text(f"SELECT {_COLUMNS} FROM dims_approval_requests WHERE id = ANY(:numbers)"), {"numbers": list(numbers)}
    )
    return {row.id: ApprovalRequest(*row) for row in rows}


def _typed(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return the facts with their JSON columns as JSON in which numbers keep their type."""
    values = ("value", "anchor", "baseline", "evidence")
    return {name: cast(literal(dumps(f), Text), JSONB) if name in values else f for name, f in facts.items()}


def insert_request(connection: Connection, facts: Mapping[str, Any]) -> int:
    """Insert a request, open unless `facts` sets `state`, with its value as the anchor. Return its number."""
    values = _typed({"state": "open", "anchor": facts["value"], **facts})
    return int(
        connection.execute(insert(approval_requests).values(**values).returning(approval_requests.c.id)).scalar_one()
    )


def update_request(connection: Connection, number: int, facts: Mapping[str, Any], *, changed: bool) -> None:
    """Update an open request with the latest facts. If its value or baseline `changed`, raise its version."""
    connection.execute(
        update(approval_requests)
        .where(approval_requests.c.id == number, approval_requests.c.state == "open")
        .values(
            **_typed(facts), version=approval_requests.c.version + int(changed), updated_at=text("clock_timestamp()")
        )
    )


def close_request(connection: Connection, number: int, state: str, **decided: str | None) -> None:
    """Close an open request as approved, rejected, superseded, withdrawn or expired.

    `decided`: `decided_by`, `known_by` and `note`, if a person decided.
    """
    connection.execute(
        update(approval_requests)
        .where(approval_requests.c.id == number, approval_requests.c.state == "open")
        .values(state=state, decided_at=text("clock_timestamp()"), **decided)
    )


def expire_requests(connection: Connection) -> list[str]:
    """Close the open requests whose time is over as expired. Return their metrics."""
    rows = connection.execute(
        text(
            "UPDATE dims_approval_requests SET state = 'expired', decided_at = clock_timestamp() "
            "WHERE state = 'open' AND expires_at < clock_timestamp() RETURNING metric"
        )
    )
    return [row.metric for row in rows]
