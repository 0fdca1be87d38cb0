"""Compute when rules with a schedule tick. Pure: rules and the time in, instants and events out.

cronsim reads the five fields of cron and treats daylight saving time as Debian's cron(8) does: a tick in a skipped
hour comes right after that hour, and a tick in a repeated hour comes once.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from cronsim import CronSim

from dims_worker.config import Rule
from dims_worker.events import SCHEDULE_TICK, Event

TICK_GRACE = timedelta(seconds=30)
"""A tick that is not stored this long after its time was missed."""


def next_tick(rule: Rule, now: datetime) -> datetime:
    """Return the first tick after `now`, in UTC. The rule must have a schedule."""
    assert rule.schedule is not None
    return next_time(rule.schedule, rule.timezone, now)


def last_tick(rule: Rule, now: datetime) -> datetime:
    """Return the latest tick at `now` or before, in UTC. The rule must have a schedule."""
    assert rule.schedule is not None
    return last_time(rule.schedule, rule.timezone, now)


def next_time(cron: str, timezone: str, now: datetime) -> datetime:
    """Return the first time after `now` that a cron schedule names, in UTC."""
    return next(CronSim(cron, now.astimezone(ZoneInfo(timezone)))).astimezone(UTC)


def last_time(cron: str, timezone: str, now: datetime) -> datetime:
    """Return the latest time at `now` or before that a cron schedule names, in UTC."""
    start = now.replace(microsecond=0) + timedelta(seconds=1)
    return next(CronSim(cron, start.astimezone(ZoneInfo(timezone)), reverse=True)).astimezone(UTC)


def tick_event(name: str, tick: datetime) -> Event:
    """Return the event of a rule's tick. The tick gives its id, so two beat processes create the same event."""
    id = f"{name}@{tick.isoformat(timespec='minutes').replace('+00:00', 'Z')}"
    return Event.new(SCHEDULE_TICK, "dims:beat", now=tick, subject=name, data={"rule": name}, id=id)


def missed_ticks(rules: Mapping[str, Rule], seen: Mapping[str, datetime], now: datetime) -> list[Event]:
    """Return the event of the latest missed tick of each rule with `catch_up`.

    If a rule missed several ticks, only the latest counts. `seen` holds each rule's last stored tick or, before the
    first tick, when the rule was first seen.
    """
    events = []
    for name, rule in rules.items():
        if rule.schedule is None or not rule.catch_up or name not in seen:
            continue
        tick = last_tick(rule, now - TICK_GRACE)
        if tick > seen[name]:
            events.append(tick_event(name, tick))
    return events
