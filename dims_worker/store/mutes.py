"""Queries on mutes: for which metrics people asked for silence, until when and why."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, text


@dataclass(frozen=True, slots=True)
class MuteRow:
    """A row of `dims_mutes`. `pattern` is a pattern of metric names, or `source:NAME`."""

    id: int
    pattern: str
    reason: str
    muted_by: str
    known_by: str
    created_at: datetime
    until: datetime
    ended_at: datetime | None

    def is_active(self, now: datetime) -> bool:
        """Return whether it mutes at `now`."""
        return self.ended_at is None and self.until > now


_COLUMNS = ", ".join(MuteRow.__slots__)


def insert_mute(
    connection: Connection, pattern: str, *, reason: str, muted_by: str, known_by: str, now: datetime, until: datetime
) -> MuteRow:
    """Begin a mute. Return its row."""
    row = connection.execute(
        text(
            "INSERT INTO dims_mutes (pattern, reason, muted_by, known_by, created_at, until) "
            f"VALUES (:pattern, :reason, :muted_by, :known_by, :now, :until) RETURNING {_COLUMNS}"
        ),
        {
            "pattern": pattern,
            "reason": reason,
            "muted_by": muted_by,
            "known_by": known_by,
            "now": now,
            "until": until,
        },
    ).one()
    return MuteRow(*row)


def active_mutes(connection: Connection, now: datetime) -> list[MuteRow]:
    """Return the mutes that are active at `now`, the oldest first."""
    rows = connection.execute(
        text(f"SELECT {_COLUMNS} FROM dims_mutes WHERE ended_at IS NULL AND until > :now ORDER BY id"), {"now": now}
    )
    return [MuteRow(*row) for row in rows]


def list_mutes(connection: Connection, *, limit: int) -> list[MuteRow]:
    """Return the latest mutes, ended ones included, the newest first."""
    rows = connection.execute(
        text(f"SELECT {_COLUMNS} FROM dims_mutes ORDER BY id DESC LIMIT :limit"), {"limit": limit}
    )
    return [MuteRow(*row) for row in rows]


def end_mute(connection: Connection, number: int, now: datetime) -> MuteRow | None:
    """End a mute, unless it has ended. Return its row as it was before, or None if there is none of this number."""
    row = connection.execute(
        text(f"SELECT {_COLUMNS} FROM dims_mutes WHERE id = :number FOR UPDATE"), {"number": number}
    ).first()
    if row is None:
        return None
    before = MuteRow(*row)
    if before.is_active(now):
        connection.execute(
            text("UPDATE dims_mutes SET ended_at = :now WHERE id = :number"), {"now": now, "number": number}
        )
    return before
