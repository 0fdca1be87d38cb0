"""When rules tick: cron in the rule's time zone, daylight saving time as in Debian's cron, and missed ticks."""

from __future__ import annotations

import pickle
from datetime import UTC, datetime, timedelta

import pytest

from dims_worker.config import Rule
from dims_worker.domain.schedule import TICK_GRACE, last_tick, missed_ticks, next_tick, tick_event
from dims_worker.events import SCHEDULE_TICK
from dims_worker.worker.beat import RuleSchedule


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def rule(schedule: str, timezone: str = "UTC", *, catch_up: bool = True) -> Rule:
    return Rule(schedule=schedule, timezone=timezone, catch_up=catch_up)


@pytest.mark.parametrize(
    ("schedule", "timezone", "now", "last", "next_"),
    [
        ("0 9 * * *", "UTC", "2026-11-22 08:59:59", "2026-11-21 09:00", "2026-11-22 09:00"),
        ("0 9 * * *", "UTC", "2026-11-22 09:00:00", "2026-11-22 09:00", "2026-11-23 09:00"),
        ("0 9 * * *", "UTC", "2026-11-22 09:00:00.5", "2026-11-22 09:00", "2026-11-23 09:00"),
        ("0 0 1 * *", "UTC", "2026-12-31 23:00", "2026-12-01 00:00", "2027-01-01 00:00"),
        ("0 0 29 2 *", "UTC", "2026-01-01 00:00", "2024-02-29 00:00", "2028-02-29 00:00"),
        # 9:00 in New York is another hour in UTC in summer
        ("0 9 * * *", "America/New_York", "2026-07-01 12:00", "2026-06-30 13:00", "2026-07-01 13:00"),
        ("0 9 * * *", "America/New_York", "2026-12-01 12:00", "2026-11-30 14:00", "2026-12-01 14:00"),
        # 02:30 on 2026-03-29 does not exist in Berlin: one tick right after the gap
        ("30 2 * * *", "Europe/Berlin", "2026-03-29 00:59", "2026-03-28 01:30", "2026-03-29 01:00"),
        ("30 2 * * *", "Europe/Berlin", "2026-03-29 01:00", "2026-03-29 01:00", "2026-03-30 00:30"),
        # 02:30 on 2026-10-25 comes twice: one tick, at the first
        ("30 2 * * *", "Europe/Berlin", "2026-10-25 00:00", "2026-10-24 00:30", "2026-10-25 00:30"),
        ("30 2 * * *", "Europe/Berlin", "2026-10-25 01:45", "2026-10-25 00:30", "2026-10-26 01:30"),
        # an hourly rule ticks in every hour that passes
        ("0 * * * *", "Europe/Berlin", "2026-10-25 00:30", "2026-10-25 00:00", "2026-10-25 01:00"),
        ("0 * * * *", "Europe/Berlin", "2026-03-29 00:30", "2026-03-29 00:00", "2026-03-29 01:00"),
    ],
)
def test_last_and_next_tick(schedule: str, timezone: str, now: str, last: str, next_: str) -> None:
    one = rule(schedule, timezone)
    assert last_tick(one, utc(now)) == utc(last)
    assert next_tick(one, utc(now)) == utc(next_)


def test_a_year_of_ticks_is_the_same_forwards_and_backwards() -> None:
    """Going from tick to tick, the last tick at each time is the current one."""
    one = rule("30 2 * * *", "Europe/Berlin")
    now, seen = utc("2026-01-01"), []
    while now < utc("2027-01-01"):
        now = next_tick(one, now)
        seen.append(now)
        assert last_tick(one, now) == now
        assert last_tick(one, now + timedelta(minutes=1)) == now
    assert len(seen) == len(set(seen)) == 366


def test_a_ticks_event_is_named_by_the_tick() -> None:
    event = tick_event("daily_sync_check", utc("2026-11-22 09:00"))
    assert (event.id, event.type, event.subject) == (
        "daily_sync_check@2026-11-22T09:00Z",
        SCHEDULE_TICK,
        "daily_sync_check",
    )
    assert event == tick_event("daily_sync_check", utc("2026-11-22 09:00"))


DAILY = rule("0 9 * * *")
TICK = utc("2026-11-22 09:00")


def missed_ids(seen: datetime | None, now: datetime, one: Rule = DAILY) -> list[str]:
    return [event.id for event in missed_ticks({"daily": one}, {"daily": seen} if seen else {}, now)]


def test_only_the_latest_missed_tick_is_made_up_for() -> None:
    assert missed_ids(TICK - timedelta(days=5), TICK + timedelta(hours=1)) == ["daily@2026-11-22T09:00Z"]
    assert missed_ids(TICK, TICK + timedelta(hours=1)) == []


def test_a_tick_is_missed_only_after_a_grace() -> None:
    before = TICK - timedelta(days=1)
    assert missed_ids(before, TICK + TICK_GRACE - timedelta(seconds=1)) == []
    assert missed_ids(before, TICK + TICK_GRACE) == ["daily@2026-11-22T09:00Z"]


def test_a_tick_before_the_rule_was_first_seen_was_not_missed() -> None:
    assert missed_ids(TICK + timedelta(minutes=1), TICK + timedelta(hours=1)) == []
    assert missed_ids(None, TICK + timedelta(hours=1)) == []


def test_who_does_not_want_to_catch_up_misses_nothing() -> None:
    late = TICK + timedelta(hours=1)
    assert missed_ids(TICK - timedelta(days=5), late, rule("0 9 * * *", catch_up=False)) == []
    assert missed_ticks({"on": Rule(on=("x",))}, {"on": TICK}, late) == []


# --- how beat uses it --------------------------------------------------------------------------------------


def due(now: datetime, ran: datetime) -> tuple[bool, float]:
    state = RuleSchedule(DAILY, lambda: now).is_due(ran)
    return state.is_due, state.next


def test_beat_gets_a_tick_once_and_the_seconds_until_the_next() -> None:
    assert due(TICK - timedelta(seconds=5), TICK - timedelta(days=1)) == (False, 5.0)
    assert due(TICK, TICK - timedelta(days=1)) == (True, 86_400.0)
    assert due(TICK + timedelta(seconds=1), TICK) == (False, 86_399.0)


def test_beat_does_not_get_a_tick_that_was_missed() -> None:
    assert due(TICK + TICK_GRACE, TICK - timedelta(days=3))[0] is False


def test_beat_knows_a_schedule_again_from_its_file() -> None:
    again = pickle.loads(pickle.dumps(RuleSchedule(DAILY)))
    assert again == RuleSchedule(DAILY) != RuleSchedule(rule("1 9 * * *"))
    assert hash(again) == hash(RuleSchedule(DAILY))
