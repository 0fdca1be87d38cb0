"""Queries on incidents: the periods in which a metric, or what reports to DIMS, is not healthy."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import Connection, text

from dims_worker.store.approval_requests import ApprovalRequest
from dims_worker.store.bulk import recordset, rows_as_json
from dims_worker.store.expectations import discard_bands
from dims_worker.store.models import incidents

Kind = Literal["drift", "failing", "limit", "stale", "approval", "silence"]
KINDS: tuple[Kind, ...] = ("failing", "approval", "limit", "drift", "stale", "silence")
"""The kinds of incidents, the most urgent first."""
Resolution = Literal["recovered", "expected", "approved", "rejected", "expired", "timeout", "retired"]
RULE = "rule:"
"""The prefix of the name that a silence has instead of a metric: `rule:nightly`."""


@dataclass(frozen=True, slots=True)
class Incident:
    """A row of `dims_incidents`. `value` is the latest value of the incident, `anchor` the value before it."""

    id: int
    story: int
    metric: str
    kind: Kind
    state: Literal["open", "acknowledged", "closed"]
    version: int
    severity: str
    reason: str
    value: Any
    unit: str | None
    as_of: datetime | None
    first_as_of: datetime | None
    anchor: Any
    anchor_as_of: datetime | None
    low: float | None
    high: float | None
    run_id: int | None
    request: int | None
    opened_at: datetime
    updated_at: datetime
    flaps: int
    flapping_until: datetime | None
    calm_at: datetime | None
    acknowledged_at: datetime | None
    acknowledged_by: str | None
    note: str | None
    closed_at: datetime | None
    closed_by: str | None
    known_by: str | None
    resolution: Resolution | None
    closing_reason: str | None
    over_at: datetime | None

    @property
    def active(self) -> bool:
        """Whether it is open or acknowledged."""
        return self.state != "closed"

    @property
    def calm(self) -> bool:
        """Whether it flaps and its condition is over for now. It closes once it has been calm for the quiet period."""
        return self.active and self.calm_at is not None

    @property
    def flapping(self) -> bool:
        """Whether it came back within the quiet period, and has not been calm for that long since."""
        return self.active and self.flapping_until is not None

    @property
    def since(self) -> datetime:
        """Since when its condition lasts: the reading that opened it, or else when DIMS noticed it.

        A silence lasts since the last event or tick of its rule, which is its anchor.
        """
        silent = self.anchor_as_of if self.kind == "silence" else None
        return self.first_as_of or silent or self.opened_at

    @property
    def ended_at(self) -> datetime | None:
        """When it was closed, or when its condition was over, if that was earlier. None while it is active."""
        ends = [end for end in (self.closed_at, self.over_at) if end is not None]
        return min(ends) if ends and not self.active else None

    def lasted_at(self, instant: datetime) -> bool:
        """Return whether it lasted at an instant."""
        return self.since <= instant and (self.ended_at is None or instant < self.ended_at)

    @property
    def rule(self) -> str | None:
        """The rule that no event matched for too long, or whose schedule was missed. None unless it is a silence."""
        return self.metric.removeprefix(RULE) if self.kind == "silence" else None


_COLUMNS = ", ".join(Incident.__slots__)
_GIVEN = tuple(name for name in Incident.__slots__ if name not in ("id", "story", "version"))


def open_incidents(connection: Connection, metrics: Collection[str] | None = None) -> list[Incident]:
    """Return the incidents that are open or acknowledged, oldest first. Without `metrics`: of all metrics."""
    rows = connection.execute(
        text(
            f"SELECT {_COLUMNS} FROM dims_incidents WHERE state <> 'closed' "
            "AND (CAST(:metrics AS text[]) IS NULL OR metric = ANY(:metrics)) ORDER BY id"
        ),
        {"metrics": None if metrics is None else list(metrics)},
    )
    return [Incident(*row) for row in rows]


def lasting_incidents(
    connection: Connection, metrics: Collection[str] | None, recovered_after: datetime, *, lock: bool = True
) -> list[Incident]:
    """Return what a new reading of these metrics can change, oldest first and locked: the incidents that are not
    closed, those that a person closed while their condition lasts, and those that recovered after that time.

    None: of everything, for the sweep. Without `lock`, to find out whether there is anything to do.
    """
    rows = connection.execute(
        text(
            f"SELECT {_COLUMNS} FROM dims_incidents WHERE (CAST(:metrics AS text[]) IS NULL OR metric = ANY(:metrics)) "
            "AND (over_at IS NULL OR state <> 'closed' OR (resolution = 'recovered' AND closed_at > :after)) "
            f"ORDER BY id {'FOR UPDATE' if lock else ''}"
        ),
        {"metrics": None if metrics is None else list(metrics), "after": recovered_after},
    )
    return [Incident(*row) for row in rows]


def find_incident(connection: Connection, number: int, *, lock: bool = False) -> Incident | None:
    """Return the incident with this number, or None."""
    row = connection.execute(
        text(f"SELECT {_COLUMNS} FROM dims_incidents WHERE id = :id {'FOR UPDATE' if lock else ''}"), {"id": number}
    ).first()
    return Incident(*row) if row else None


def incidents_by_number(connection: Connection, numbers: Iterable[int]) -> dict[int, Incident]:
    """Return the incidents with these numbers, by number."""
    rows = connection.execute(
        text(f"SELECT {_COLUMNS} FROM dims_incidents WHERE id = ANY(:numbers)"), {"numbers": list(numbers)}
    )
    return {row.id: Incident(*row) for row in rows}


def list_incidents(
    connection: Connection,
    *,
    limit: int,
    state: Literal["active", "open", "acknowledged", "closed", "all"] = "active",
    kind: Kind | None = None,
    metrics: Collection[str] | None = None,
    category: str | None = None,
    since: datetime | None = None,
    before: int | None = None,
) -> list[Incident]:
    """Return the newest incidents, newest first. `active`: open or acknowledged. `since`: changed then or later.

    `category` is the first part of a metric's name. `before` is the number of the last incident that you have already
    seen.
    """
    rows = connection.execute(
        text(
            f"SELECT {_COLUMNS} FROM dims_incidents "
            "WHERE (:state = 'all' OR state = :state OR (:state = 'active' AND state <> 'closed')) "
            "AND (CAST(:kind AS text) IS NULL OR kind = :kind) "
            "AND (CAST(:metrics AS text[]) IS NULL OR metric = ANY(:metrics)) "
            "AND (CAST(:category AS text) IS NULL OR starts_with(metric, :category || '.')) "
            "AND (CAST(:since AS timestamptz) IS NULL OR updated_at >= :since) "
            "AND (CAST(:before AS bigint) IS NULL OR id < :before) ORDER BY id DESC LIMIT :limit"
        ),
        {
            "state": state,
            "kind": kind,
            "metrics": None if metrics is None else list(metrics),
            "category": category,
            "since": since,
            "before": before,
            "limit": limit,
        },
    )
    return [Incident(*row) for row in rows]


def insert_incidents(connection: Connection, rows: Sequence[Mapping[str, Any]]) -> list[Incident]:
    """Insert incidents that open in one run or sweep, so that they are one story. Return them.

    Rows need metric, kind, severity, reason, opened_at and updated_at. One that is open already stays as it is.
    """
    if not rows:
        return []
    given = [{"state": "open", "flaps": 0} | dict(row) for row in rows]
    names = ", ".join(_GIVEN)
    inserted = connection.execute(
        text(
            f"INSERT INTO dims_incidents (story, {names}) SELECT 0, {names} "
            f"FROM {recordset(incidents, _GIVEN)} ON CONFLICT DO NOTHING RETURNING id"
        ),
        {"rows": rows_as_json(given)},
    )
    numbers = sorted(row.id for row in inserted)
    rows_inserted = connection.execute(
        text(f"UPDATE dims_incidents SET story = :story WHERE id = ANY(:ids) RETURNING {_COLUMNS}"),
        {"story": numbers[0] if numbers else 0, "ids": numbers},
    )
    return sorted((Incident(*row) for row in rows_inserted), key=lambda incident: incident.id)


@dataclass(frozen=True, slots=True)
class IncidentUpdate:
    """Columns to set of a locked incident. `new_version` says that people see something else than before."""

    number: int
    changes: Mapping[str, Any]
    new_version: bool


def update_incidents(connection: Connection, updates: Iterable[IncidentUpdate]) -> None:
    """Set columns of locked incidents: one statement for all that set the same columns."""
    groups: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for update in updates:
        row = {**update.changes, "id": update.number, "version": int(update.new_version)}
        groups.setdefault(tuple(sorted(update.changes)), []).append(row)
    for names, rows in groups.items():
        assignments = ", ".join(f"{name} = r.{name}" for name in names)
        connection.execute(
            text(
                f"UPDATE dims_incidents i SET {assignments}, version = i.version + r.version "
                f"FROM {recordset(incidents, ('id', 'version', *names))} WHERE i.id = r.id"
            ),
            {"rows": rows_as_json(rows)},
        )


def update_incident(connection: Connection, number: int, changes: Mapping[str, Any], *, new_version: bool) -> None:
    """Set columns of one locked incident."""
    update_incidents(connection, [IncidentUpdate(number, changes, new_version)])


def close_incident_row(
    connection: Connection, number: int, resolution: Resolution, now: datetime, *, over: bool, **person: str | None
) -> None:
    """Close an incident. `over`: its condition has ended. `person`: closed_by, known_by and closing_reason."""
    changes = closed_columns(resolution, now, over=over) | person
    update_incident(connection, number, changes, new_version=True)


def closed_columns(resolution: Resolution, now: datetime, *, over: bool) -> dict[str, Any]:
    """Return the columns to set of an incident that ends."""
    ended = {"state": "closed", "resolution": resolution, "closed_at": now, "updated_at": now}
    return ended | ({"over_at": now} if over else {})


def settle_incidents(
    connection: Connection, metric: str, resolution: Resolution, now: datetime, **person: str | None
) -> None:
    """Close the drift and approval incidents of a metric after a person's decision. Their values teach from now on.

    `person`: closed_by, known_by and closing_reason.
    """
    for incident in open_incidents(connection, [metric]):
        if incident.kind in ("drift", "approval"):
            close_incident_row(connection, incident.id, resolution, now, over=True, **person)
    discard_bands(connection, [metric])


def keep_as_drift(
    connection: Connection,
    request: ApprovalRequest,
    resolution: Literal["rejected", "expired"],
    now: datetime,
    **person: str | None,
) -> None:
    """Close the approval incident of a request that ended without approval, and keep its loss visible as a drift.

    The drift is acknowledged if a person rejected the request. `person`: closed_by, known_by and closing_reason.
    """
    kept = {each.kind: each for each in open_incidents(connection, [request.metric])}
    if "approval" in kept:
        close_incident_row(connection, kept["approval"].id, resolution, now, over=True, **person)
    facts: dict[str, Any] = {
        "severity": request.severity,
        "reason": request.reason,
        "value": request.value,
        "unit": request.unit,
        "as_of": request.as_of,
        "updated_at": now,
    }
    if by := person.get("closed_by"):
        facts |= {"state": "acknowledged", "acknowledged_at": now, "acknowledged_by": by}
        facts |= {"known_by": person.get("known_by"), "note": person.get("closing_reason")}
    if "drift" in kept:
        update_incident(connection, kept["drift"].id, facts, new_version=True)
        return
    anchor = {"anchor": request.compared_with, "anchor_as_of": request.baseline_as_of}
    row = {"metric": request.metric, "kind": "drift", "first_as_of": request.as_of, "opened_at": now, **anchor, **facts}
    insert_incidents(connection, [row])


def retired_metrics(connection: Connection, metrics: Collection[str]) -> set[str]:
    """Return those of these metrics that are no longer configured."""
    if not metrics:
        return set()
    rows = connection.execute(
        text("SELECT metric FROM dims_metrics WHERE retired_at IS NOT NULL AND metric = ANY(:metrics)"),
        {"metrics": list(metrics)},
    )
    return {row.metric for row in rows}


def count_open(connection: Connection) -> dict[tuple[str, str], int]:
    """Return how many incidents are open or acknowledged, by kind and severity."""
    rows = connection.execute(
        text("SELECT kind, severity, count(*) AS n FROM dims_incidents WHERE state <> 'closed' GROUP BY kind, severity")
    )
    return {(row.kind, row.severity): int(row.n) for row in rows}


def count_story_metrics(connection: Connection, stories: Collection[int]) -> dict[int, int]:
    """Return how many metrics each of these stories affects: incidents that opened in one run are one story."""
    if not stories:
        return {}
    rows = connection.execute(
        text(
            "SELECT story, count(DISTINCT metric) AS n FROM dims_incidents WHERE story = ANY(:stories) GROUP BY story"
        ),
        {"stories": list(stories)},
    )
    return {row.story: int(row.n) for row in rows}


def incidents_of_story(connection: Connection, story: int) -> list[Incident]:
    """Return the incidents that opened in one run or sweep, oldest first, closed ones included."""
    rows = connection.execute(
        text(f"SELECT {_COLUMNS} FROM dims_incidents WHERE story = :story ORDER BY id"), {"story": story}
    )
    return [Incident(*row) for row in rows]


def story_sizes(connection: Connection, stories: Collection[int]) -> dict[int, int]:
    """Return how many incidents each story has, closed ones included."""
    rows = connection.execute(
        text("SELECT story, count(*) AS n FROM dims_incidents WHERE story = ANY(:stories) GROUP BY story"),
        {"stories": list(stories)},
    )
    return {row.story: int(row.n) for row in rows}


def incident_metrics(connection: Connection) -> set[str]:
    """Return the metrics and rules that have or had an incident."""
    return {row.metric for row in connection.execute(text("SELECT DISTINCT metric FROM dims_incidents"))}


def active_stages(connection: Connection) -> dict[int, tuple[str, str, int]]:
    """Return the state, severity and number of flaps of each incident that is open or acknowledged, by number."""
    rows = connection.execute(text("SELECT id, state, severity, flaps FROM dims_incidents WHERE state <> 'closed'"))
    return {row.id: (row.state, row.severity, row.flaps) for row in rows}


def incidents_after(connection: Connection, number: int, limit: int) -> list[Incident]:
    """Return the newest incidents with a higher number, oldest first, closed ones included."""
    rows = connection.execute(
        text(f"SELECT {_COLUMNS} FROM dims_incidents WHERE id > :number ORDER BY id DESC LIMIT :limit"),
        {"number": number, "limit": limit},
    )
    return [Incident(*row) for row in rows][::-1]


def incidents_since(connection: Connection, metric: str, since: datetime) -> list[Incident]:
    """Return the incidents of a metric that lasted at that time or later, oldest first."""
    rows = connection.execute(
        text(
            f"SELECT {_COLUMNS} FROM dims_incidents WHERE metric = :metric "
            "AND (state <> 'closed' OR coalesce(over_at, closed_at) > :since) ORDER BY id"
        ),
        {"metric": metric, "since": since},
    )
    return [Incident(*row) for row in rows]
