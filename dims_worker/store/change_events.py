"""Queries on what the events between two instants told of some metrics."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, text

from dims_worker.store.events import LoggedEvent

NEWEST = 3
"""So many keys of a folder are named."""

CREATED = "com.amazonaws.s3.ObjectCreated:"
REMOVED = ("com.amazonaws.s3.ObjectRemoved:", "com.amazonaws.s3.LifecycleExpiration:")
"""S3 tells other things of an object, too (tags, storage classes): these make it, or take it away."""
_BETWEEN = "received_at > :after AND received_at <= :until AND metrics && CAST(:metrics AS text[])"


@dataclass(frozen=True, slots=True)
class EventSpan:
    """The events that concerned any of these metrics and were received in (after, until]."""

    metrics: Sequence[str]
    after: datetime
    until: datetime

    @property
    def bound(self) -> dict[str, Any]:
        return {"metrics": list(self.metrics), "after": self.after, "until": self.until}


@dataclass(frozen=True, slots=True)
class Folder:
    """Objects of one folder of a bucket by the last thing that was told of each; the newest keys first."""

    bucket: str
    folder: str
    created: int
    removed: int
    newest: tuple[str, ...]
    last: int


def count_by_type(connection: Connection, span: EventSpan) -> dict[str, int]:
    """How many events of which type."""
    found = connection.execute(
        text(f"SELECT type, count(*) AS n FROM dims_event_log WHERE {_BETWEEN} GROUP BY type ORDER BY type"),
        span.bound,
    )
    return {row.type: row.n for row in found}


def commits(connection: Connection, span: EventSpan, limit: int) -> list[LoggedEvent]:
    """The newest events of repositories, newest first."""
    found = connection.execute(
        text(
            f"SELECT {', '.join(LoggedEvent.__slots__)} FROM dims_event_log "
            f"WHERE {_BETWEEN} AND type LIKE 'dims.git.%' ORDER BY seq DESC LIMIT :limit"
        ),
        {**span.bound, "limit": limit},
    )
    return [LoggedEvent(*row) for row in found]


def folders(connection: Connection, span: EventSpan) -> list[Folder]:
    """What S3 told of objects, by folder: a key counts once, as created or as removed, whichever came last."""
    found = connection.execute(
        text(
            "WITH told AS (SELECT DISTINCT ON (bucket, key) * FROM ("
            "  SELECT coalesce(data ->> 'bucket', '') AS bucket, coalesce(data ->> 'key', subject, '') AS key, seq, "
            "  event_time, starts_with(type, :created) AS created FROM dims_event_log "
            f"  WHERE {_BETWEEN} AND type LIKE ANY(:changes)"
            ") e ORDER BY bucket, key, event_time DESC, seq DESC) "
            "SELECT bucket, coalesce(substring(key FROM '^.*/'), '') AS folder, count(*) FILTER (WHERE created), "
            "count(*) FILTER (WHERE NOT created), (array_agg(key ORDER BY seq DESC))[1:CAST(:newest AS int)], max(seq) "
            "FROM told GROUP BY 1, 2 ORDER BY max(seq) DESC"
        ),
        {**span.bound, "newest": NEWEST, "created": CREATED, "changes": [f"{one}%" for one in (CREATED, *REMOVED)]},
    )
    return [Folder(row[0], row[1], row[2], row[3], tuple(row[4]), row[5]) for row in found]
