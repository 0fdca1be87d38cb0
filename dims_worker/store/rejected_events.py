"""Queries on rejected events, which `dims events replay` sends again (the dead letters)."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, text


def count_rejected(connection: Connection) -> int:
    """Return the number of rejected events that were not replayed."""
    query = "SELECT count(*) FROM dims_event_log WHERE outcome = 'rejected' AND replayed_at IS NULL"
    return int(connection.execute(text(query)).scalar_one())


def mark_replayed(connection: Connection, numbers: Sequence[int]) -> None:
    """Record that these events, by `seq`, were sent again."""
    connection.execute(
        text("UPDATE dims_event_log SET replayed_at = clock_timestamp() WHERE seq = ANY(:numbers)"),
        {"numbers": list(numbers)},
    )
