"""Queries for the daily retention run: which process does it, how far it is, and deleting old rows in small batches.

The functions in `schema/sql/retention.sql` define what is deleted and what is kept for ever. The worker's role
has no other right to delete these rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Literal

from sqlalchemy import Connection, text

Kind = Literal["readings", "events", "runs"]
KINDS: tuple[Kind, ...] = ("readings", "events", "runs")
"""In this order: a run is deleted once none of its readings is left."""
_LOCK = 0x44494D53_0007
"""The advisory lock of the process that does the retention run."""


@dataclass(frozen=True, slots=True)
class RetentionRun:
    """A row of `dims_retention_runs`; `finished_at` None: there may be more to delete."""

    day: date
    started_at: datetime
    finished_at: datetime | None
    readings: int
    events: int
    runs: int


def today(connection: Connection) -> date:
    """Return the current day (UTC) by the database's clock."""
    day: date = connection.execute(text("SELECT (clock_timestamp() AT TIME ZONE 'UTC')::date")).scalar_one()
    return day


def try_retention_lock(connection: Connection) -> bool:
    """Return whether no other process does the retention run. The lock lasts until the transaction ends."""
    return bool(connection.execute(text("SELECT pg_try_advisory_xact_lock(:key)"), {"key": _LOCK}).scalar_one())


def last_retention_run(connection: Connection) -> RetentionRun | None:
    """Return the row of the newest day."""
    row = connection.execute(
        text(f"SELECT {', '.join(RetentionRun.__slots__)} FROM dims_retention_runs ORDER BY day DESC LIMIT 1")
    ).first()
    return RetentionRun(*row) if row else None


def begin_day(connection: Connection, day: date) -> bool:
    """Insert the row of a day. Return False if there is one already."""
    return bool(
        connection.execute(
            text("INSERT INTO dims_retention_runs (day) VALUES (:day) ON CONFLICT DO NOTHING"), {"day": day}
        ).rowcount
    )


def delete_old_rows(connection: Connection, kind: Kind, day: date, keep: timedelta, at_most: int) -> int:
    """Delete at most so many old rows of a kind, and add them to the day's count. Returns how many."""
    deleted: int = connection.execute(
        text(f"SELECT dims_prune_{kind}(clock_timestamp() - :keep, :at_most)"), {"keep": keep, "at_most": at_most}
    ).scalar_one()
    if deleted:
        connection.execute(
            text(f"UPDATE dims_retention_runs SET {kind} = {kind} + :deleted WHERE day = :day"),
            {"deleted": deleted, "day": day},
        )
    return deleted


def finish_day(connection: Connection, day: date) -> None:
    """Record that nothing is left to delete today."""
    connection.execute(
        text("UPDATE dims_retention_runs SET finished_at = clock_timestamp() WHERE day = :day"), {"day": day}
    )
