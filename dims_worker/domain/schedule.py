"""When rules with a schedule tick. Pure: a configuration and the time in, instants and events out.

Cron's five fields are read by cronsim, which keeps DST as Debian's cron does (cron(8)): a tick in the hour that is
skipped comes right after it, one in the hour that comes twice comes once.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from cronsim import CronSim

from dims_worker.config import Rule
from dims_worker.events import SCHEDULE_TICK, Event

GRACE = timedelta(seconds=30)
"""A tick that is not stored so long after its time was missed."""


def next_tick(rule: Rule, now: datetime) -> datetime:
    """The first tick after `now`, in UTC. The rule has a schedule."""
    return _first(rule, now, reverse=False)


def last_tick(rule: Rule, now: datetime) -> datetime:
    """The latest tick at `now` or before, in UTC."""
    return _first(rule, now.replace(microsecond=0) + timedelta(seconds=1), reverse=True)


def _first(rule: Rule, start: datetime, *, reverse: bool) -> datetime:
    assert rule.schedule is not None
    return next(CronSim(rule.schedule, start.astimezone(ZoneInfo(rule.timezone)), reverse)).astimezone(UTC)


def tick_event(name: str, tick: datetime) -> Event:
    """The event of a rule's tick, named by it: two beats, or a beat and a late catch-up, make one."""
    id = f"{name}@{tick.isoformat(timespec='minutes').replace('+00:00', 'Z')}"
    return Event.new(SCHEDULE_TICK, "dims:beat", now=tick, subject=name, data={"rule": name}, id=id)


def missed(rules: Mapping[str, Rule], seen: Mapping[str, datetime], now: datetime) -> list[Event]:
    """The latest tick of each rule that nobody published, where the rule asks to catch up: once, however many
    were missed. `seen` is each rule's last stored tick or, before the first, when it was first seen."""
    found = []
    for name, rule in rules.items():
        if rule.schedule is None or not rule.catch_up or name not in seen:
            continue
        tick = last_tick(rule, now - GRACE)
        if tick > seen[name]:
            found.append(tick_event(name, tick))
    return found
