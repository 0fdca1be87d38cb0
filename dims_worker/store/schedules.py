"""Queries on rules with a schedule or `silent_after`: when each was first seen, its last tick and its last event."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, text


@dataclass(frozen=True, slots=True)
class ScheduleState:
    """A row of `dims_schedules`. `last_tick` and `last_event_at` are None until the first one is stored."""

    first_seen_at: datetime
    last_tick: datetime | None
    last_event_at: datetime | None = None


def register_schedules(connection: Connection, rules: Sequence[str]) -> None:
    """Insert the missing rows of these rules, and delete the rows of all other rules."""
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


def record_events(connection: Connection, rules: Collection[str]) -> None:
    """Record that an event which matches these rules was stored now."""
    connection.execute(
        text(
            "UPDATE dims_schedules SET last_event_at = clock_timestamp() "
            "WHERE rule IN (SELECT rule FROM dims_schedules WHERE rule = ANY(:rules) ORDER BY rule FOR UPDATE)"
        ),
        {"rules": sorted(rules)},
    )


def schedule_states(connection: Connection) -> dict[str, ScheduleState]:
    """Return the states of all rules with a schedule or `silent_after`."""
    rows = connection.execute(text("SELECT rule, first_seen_at, last_tick, last_event_at FROM dims_schedules"))
    return {row.rule: ScheduleState(row.first_seen_at, row.last_tick, row.last_event_at) for row in rows}


def missed_since(schedules: Mapping[str, ScheduleState]) -> dict[str, datetime]:
    """Return the time by rule after which a tick that is not stored counts as missed."""
    return {rule: state.last_tick or state.first_seen_at for rule, state in schedules.items()}
