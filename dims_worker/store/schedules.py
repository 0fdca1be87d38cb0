"""Queries on rules with a schedule: when each rule was first seen, and its last stored tick."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, text


@dataclass(frozen=True, slots=True)
class ScheduleState:
    """A row of `dims_schedules`. `last_tick` is None until the first tick is stored."""

    first_seen_at: datetime
    last_tick: datetime | None


def register_schedules(connection: Connection, rules: Sequence[str]) -> None:
    """Insert the missing rows of rules with a schedule, and delete the rows of all other rules."""
    connection.execute(
        text(
            "WITH gone AS (DELETE FROM dims_schedules WHERE NOT rule = ANY(:rules)) "
            "INSERT INTO dims_schedules (rule) SELECT unnest(CAST(:rules AS text[])) ORDER BY 1 ON CONFLICT DO NOTHING"
        ),
        {"rules": list(rules)},
    )


def record_ticks(connection: Connection, ticks: Mapping[str, datetime]) -> None:
    """Record stored ticks by rule. A tick that is older than the last one, or in the future, changes nothing."""
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
    """Return the states of all rules with a schedule."""
    rows = connection.execute(text("SELECT rule, first_seen_at, last_tick FROM dims_schedules"))
    return {row.rule: ScheduleState(row.first_seen_at, row.last_tick) for row in rows}


def missed_since(schedules: Mapping[str, ScheduleState]) -> dict[str, datetime]:
    """Return the time by rule after which a tick that is not stored counts as missed."""
    return {rule: state.last_tick or state.first_seen_at for rule, state in schedules.items()}
