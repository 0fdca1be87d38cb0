"""Find rules that are silent: no event, or no tick, came for too long. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from dims_worker.config import Rule
from dims_worker.domain.schedule import next_tick
from dims_worker.formatting import format_limit, format_utc
from dims_worker.store.schedules import ScheduleState

TICK_PATIENCE = timedelta(minutes=10)
"""A schedule is silent this long after a tick that was not stored. A sweep makes up for a tick much earlier."""


@dataclass(frozen=True, slots=True)
class Silence:
    """A rule that is silent since a time, and why it counts as silent."""

    rule: str
    since: datetime
    reason: str


def silent_rules(
    rules: Mapping[str, Rule], states: Mapping[str, ScheduleState], now: datetime, up_since: datetime
) -> list[Silence]:
    """Return the rules that are silent at `now`. DIMS itself runs since `up_since`: until it has run for ten minutes,
    what producers kept meanwhile may still come, so no rule is silent."""
    if now - up_since < TICK_PATIENCE:
        return []
    silences = (_silence(name, rule, states[name], now) for name, rule in rules.items() if name in states)
    return [silence for silence in silences if silence]


def _silence(name: str, rule: Rule, state: ScheduleState, now: datetime) -> Silence | None:
    if rule.silent_after is not None:
        heard = state.last_event_at or state.first_seen_at
        if now - heard > rule.silent_after:
            limit = format_limit(rule.silent_after)
            last = f"since {format_utc(heard)}" if state.last_event_at else "yet"
            return Silence(name, heard, f"no event has matched the rule {name} {last}, longer than {limit}")
    if rule.schedule is not None:
        seen = state.last_tick or state.first_seen_at
        expected = next_tick(rule, seen)
        if now - expected > TICK_PATIENCE:
            return Silence(name, seen, f"the schedule {name} has had no tick since {format_utc(expected)}")
    return None
