"""A rule is silent if no event, or no tick, came for too long."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from dims_worker.config import Rule
from dims_worker.domain.silence import silent_rules
from dims_worker.store.schedules import ScheduleState

NOW = datetime(2026, 11, 30, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
UP = NOW - 24 * HOUR
NIGHTLY = Rule.model_validate({"on": ["x"], "silent_after": "26h"})
HOURLY = Rule.model_validate({"schedule": "0 * * * *"})


def silent(rule: Rule, state: ScheduleState, up_since: datetime = UP) -> list[str]:
    return [silence.reason for silence in silent_rules({"r": rule}, {"r": state}, NOW, up_since)]


@pytest.mark.parametrize(("hours", "count"), [(25, 0), (26, 0), (27, 1)])
def test_a_rule_is_silent_longer_than_silent_after(hours: int, count: int) -> None:
    heard = ScheduleState(NOW - 100 * HOUR, None, NOW - hours * HOUR)
    assert len(silent(NIGHTLY, heard)) == count


def test_a_rule_that_never_heard_counts_from_when_it_was_configured() -> None:
    assert silent(NIGHTLY, ScheduleState(NOW - HOUR, None)) == []
    assert silent(NIGHTLY, ScheduleState(NOW - 27 * HOUR, None)) == [
        "no event has matched the rule r yet, longer than 26 hours"
    ]


@pytest.mark.parametrize(("minutes", "count"), [(60, 0), (69, 0), (71, 1)])
def test_a_schedule_is_silent_ten_minutes_after_a_tick_that_was_not_stored(minutes: int, count: int) -> None:
    last = NOW - timedelta(minutes=minutes)
    hour = Rule.model_validate({"schedule": f"{last.minute} * * * *"})
    assert len(silent(hour, ScheduleState(NOW - 100 * HOUR, last))) == count


def test_no_rule_is_silent_while_dims_has_just_started() -> None:
    state = ScheduleState(NOW - 100 * HOUR, NOW - 50 * HOUR, NOW - 50 * HOUR)
    assert silent(HOURLY, state, NOW - timedelta(minutes=9)) == []
    assert len(silent(HOURLY, state, NOW - timedelta(minutes=10))) == 1


def test_a_rule_that_is_not_registered_yet_is_not_silent() -> None:
    assert silent_rules({"r": NIGHTLY}, {}, NOW, UP) == []
