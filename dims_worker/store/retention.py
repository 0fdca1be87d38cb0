"""Queries of what is done once a day: who does it, how far it has come, and what is forgotten in small lots.

What may go and what is kept for ever is said in the functions of revision 0007: the worker's role has no other right
to delete what happened.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Literal

from sqlalchemy import Connection, text

Kind = Literal["readings", "events", "runs"]
KINDS: tuple[Kind, ...] = ("readings", "events", "runs")
"""In this order: a run goes when none of its readings is left."""
_LOCK = 0x44494D53_0007
"""The advisory lock of whoever keeps house."""


@dataclass(frozen=True, slots=True)
class RetentionRun:
    """A row of `dims_housekeeping`; `finished_at` None: there may be more to forget."""

    day: date
    begun_at: datetime
    finished_at: datetime | None
    readings: int
    events: int
    runs: int


def today(connection: Connection) -> date:
    """The day (UTC) by the database's clock."""
    found: date = connection.execute(text("SELECT (clock_timestamp() AT TIME ZONE 'UTC')::date")).scalar_one()
    return found


def try_retention_lock(connection: Connection) -> bool:
    """Whether nobody else keeps house; so until the transaction ends."""
    return bool(connection.execute(text("SELECT pg_try_advisory_xact_lock(:key)"), {"key": _LOCK}).scalar_one())


def last_retention_run(connection: Connection) -> RetentionRun | None:
    """The newest day's row."""
    row = connection.execute(
        text(f"SELECT {', '.join(RetentionRun.__slots__)} FROM dims_housekeeping ORDER BY day DESC LIMIT 1")
    ).first()
    return RetentionRun(*row) if row else None


def begin_day(connection: Connection, day: date) -> bool:
    """Whether the day had not begun yet."""
    return bool(
        connection.execute(
            text("INSERT INTO dims_housekeeping (day) VALUES (:day) ON CONFLICT DO NOTHING"), {"day": day}
        ).rowcount
    )


def delete_old_rows(connection: Connection, kind: Kind, day: date, keep: timedelta, at_most: int) -> int:
    """Forget so many old rows of a kind, and count them to the day; returns how many."""
    gone: int = connection.execute(
        text(f"SELECT dims_forget_{kind}(clock_timestamp() - :keep, :at_most)"), {"keep": keep, "at_most": at_most}
    ).scalar_one()
    if gone:
        connection.execute(
            text(f"UPDATE dims_housekeeping SET {kind} = {kind} + :gone WHERE day = :day"), {"gone": gone, "day": day}
        )
    return gone


def finish_day(connection: Connection, day: date) -> None:
    """Nothing is left to forget today."""
    connection.execute(
        text("UPDATE dims_housekeeping SET finished_at = clock_timestamp() WHERE day = :day"), {"day": day}
    )
