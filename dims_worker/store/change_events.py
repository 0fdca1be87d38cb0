"""Queries on the changes that the events between two instants reported about some metrics."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, text

from dims_worker.events import GIT_REFS_CHANGED
from dims_worker.store.events import LoggedEvent

MAX_NAMED_KEYS = 3
"""The number of keys named per folder."""

CREATED = "com.amazonaws.s3.ObjectCreated:"
REMOVED = ("com.amazonaws.s3.ObjectRemoved:", "com.amazonaws.s3.LifecycleExpiration:")
"""Other S3 events report tags or storage classes. Only these create or remove an object."""
_BETWEEN = "received_at > :after AND received_at <= :until AND metrics && CAST(:metrics AS text[])"


@dataclass(frozen=True, slots=True)
class EventSpan:
    """The events that concerned any of these metrics and were received in (after, until]."""

    metrics: Sequence[str]
    after: datetime
    until: datetime

    @property
    def parameters(self) -> dict[str, Any]:
        return {"metrics": list(self.metrics), "after": self.after, "until": self.until}


@dataclass(frozen=True, slots=True)
class Folder:
    """The objects of a folder of a bucket by the latest event about each. `newest` holds keys, newest first."""

    bucket: str
    folder: str
    created: int
    removed: int
    newest: tuple[str, ...]
    last: int


def count_by_type(connection: Connection, span: EventSpan) -> dict[str, int]:
    """Return the number of events by type."""
    rows = connection.execute(
        text(f"SELECT type, count(*) AS n FROM dims_event_log WHERE {_BETWEEN} GROUP BY type ORDER BY type"),
        span.parameters,
    )
    return {row.type: row.n for row in rows}


def commits(connection: Connection, span: EventSpan, limit: int) -> list[LoggedEvent]:
    """Return the newest git events that name a commit, newest first."""
    rows = connection.execute(
        text(
            f"SELECT {', '.join(LoggedEvent.__slots__)} FROM dims_event_log "
            f"WHERE {_BETWEEN} AND type LIKE 'dims.git.%' AND type <> :refs ORDER BY seq DESC LIMIT :limit"
        ),
        {**span.parameters, "limit": limit, "refs": GIT_REFS_CHANGED},
    )
    return [LoggedEvent(*row) for row in rows]


def folders(connection: Connection, span: EventSpan) -> list[Folder]:
    """Return the S3 changes by folder. A key counts once, as created or removed, whichever came last."""
    rows = connection.execute(
        text(
            "WITH latest AS (SELECT DISTINCT ON (bucket, key) * FROM ("
            "  SELECT coalesce(data ->> 'bucket', '') AS bucket, coalesce(data ->> 'key', subject, '') AS key, seq, "
            "  event_time, starts_with(type, :created) AS created FROM dims_event_log "
            f"  WHERE {_BETWEEN} AND type LIKE ANY(:changes)"
            ") e ORDER BY bucket, key, event_time DESC, seq DESC) "
            "SELECT bucket, coalesce(substring(key FROM '^.*/'), '') AS folder, count(*) FILTER (WHERE created), "
            "count(*) FILTER (WHERE NOT created), (array_agg(key ORDER BY seq DESC))[1:CAST(:newest AS int)], max(seq) "
            "FROM latest GROUP BY 1, 2 ORDER BY max(seq) DESC"
        ),
        span.parameters
        | {"newest": MAX_NAMED_KEYS, "created": CREATED, "changes": [f"{prefix}%" for prefix in (CREATED, *REMOVED)]},
    )
    return [Folder(row[0], row[1], row[2], row[3], tuple(row[4]), row[5]) for row in rows]
