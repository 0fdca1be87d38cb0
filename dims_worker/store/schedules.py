"""Queries on rules with a schedule: when each was first seen, and its last stored tick."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, text


@dataclass(frozen=True, slots=True)
class ScheduleState:
    """A row of `dims_schedules`. `last_tick` None: none was stored yet."""

    first_seen_at: datetime
    last_tick: datetime | None


def register_schedules(connection: Connection, rules: Sequence[str]) -> None:
    """Give each rule with a schedule its row, and end the rows of others: one that comes back begins anew."""
    connection.execute(
        text(
            "WITH gone AS (DELETE FROM dims_schedules WHERE NOT rule = ANY(:rules)) "
            "INSERT INTO dims_schedules (rule) SELECT unnest(CAST(:rules AS text[])) ORDER BY 1 ON CONFLICT DO NOTHING"
        ),
        {"rules": list(rules)},
    )


def record_ticks(connection: Connection, ticks: Mapping[str, datetime]) -> None:
    """Ticks that were stored, by rule. An older one than the last changes nothing, nor one that is yet to come."""
    connection.execute(
        text(
            "UPDATE dims_schedules s SET last_tick = t.tick "
            "FROM unnest(CAST(:rules AS text[]), CAST(:ticks AS timestamptz[])) AS t(rule, tick) "
            "WHERE s.rule = t.rule AND coalesce(s.last_tick < t.tick, true) "
            "AND t.tick <= clock_timestamp()"
        ),
        {"rules": sorted(ticks), "ticks": [ticks[rule] for rule in sorted(ticks)]},
    )


def schedule_states(connection: Connection) -> dict[str, ScheduleState]:
    """Every rule with a schedule."""
    found = connection.execute(text("SELECT rule, first_seen_at, last_tick FROM dims_schedules"))
    return {row.rule: ScheduleState(row.first_seen_at, row.last_tick) for row in found}


def missed_since(schedules: Mapping[str, ScheduleState]) -> dict[str, datetime]:
    """From when on a tick of each rule that was not stored was missed."""
    return {rule: one.last_tick or one.first_seen_at for rule, one in schedules.items()}
