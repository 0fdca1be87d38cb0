"""When maintenance windows are open: cron in their time zone, their length, and the days when clocks change."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from dims_worker.config import MaintenanceWindow
from dims_worker.domain.maintenance import begin_of_next_window, end_of_window, open_windows


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def window(cron: str, length: str, timezone: str = "UTC") -> MaintenanceWindow:
    return MaintenanceWindow(cron=cron, length=length, timezone=timezone)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("cron", "length", "timezone", "now", "end"),
    [
        ("0 2 * * *", "2h", "UTC", "2026-11-22 01:59:59", None),
        ("0 2 * * *", "2h", "UTC", "2026-11-22 02:00:00", "2026-11-22 04:00"),
        ("0 2 * * *", "2h", "UTC", "2026-11-22 03:59:59.9", "2026-11-22 04:00"),
        ("0 2 * * *", "2h", "UTC", "2026-11-22 04:00:00", None),
        ("0 23 * * 6", "5h", "UTC", "2026-11-22 03:00", "2026-11-22 04:00"),  # from Saturday to Sunday
        ("0 0 1 * *", "36h", "UTC", "2027-01-02 11:00", "2027-01-02 12:00"),
        # 02:00 in New York is another hour in UTC in summer
        ("0 2 * * *", "1h", "America/New_York", "2026-07-01 06:30", "2026-07-01 07:00"),
        ("0 2 * * *", "1h", "America/New_York", "2026-12-01 06:30", None),
        ("0 2 * * *", "1h", "America/New_York", "2026-12-01 07:30", "2026-12-01 08:00"),
        # 02:30 on 2026-03-29 does not exist in Berlin: the window begins at 03:00, and still lasts an hour
        ("30 2 * * *", "1h", "Europe/Berlin", "2026-03-29 00:59", None),
        ("30 2 * * *", "1h", "Europe/Berlin", "2026-03-29 01:00", "2026-03-29 02:00"),
        ("30 2 * * *", "1h", "Europe/Berlin", "2026-03-29 02:00", None),
        # 02:30 on 2026-10-25 comes twice: one window, at the first
        ("30 2 * * *", "1h", "Europe/Berlin", "2026-10-25 00:30", "2026-10-25 01:30"),
        ("30 2 * * *", "1h", "Europe/Berlin", "2026-10-25 01:30", None),
        # 4 hours of time, whatever the clock shows at the end
        ("0 0 * * *", "4h", "Europe/Berlin", "2026-03-29 02:30", "2026-03-29 03:00"),
        ("0 0 * * *", "4h", "Europe/Berlin", "2026-10-25 01:30", "2026-10-25 02:00"),
        # windows that overlap, or follow each other without a gap, are one
        ("0 1,2,3 * * *", "90m", "UTC", "2026-11-22 01:30", "2026-11-22 04:30"),
        ("0 1-3 * * *", "1h", "UTC", "2026-11-22 01:30", "2026-11-22 04:00"),
        ("0 0 * * 1-5", "1d", "UTC", "2026-11-25 12:00", "2026-11-28 00:00"),
    ],
)
def test_a_window_is_open_from_its_tick_for_its_length(
    cron: str, length: str, timezone: str, now: str, end: str | None
) -> None:
    assert end_of_window(window(cron, length, timezone), utc(now)) == (utc(end) if end else None)


@given(st.integers(0, 366 * 86_400))
def test_a_window_ends_when_it_says_and_not_before(seconds: int) -> None:
    one = window("30 2 * * *", "3h", "Europe/Berlin")
    now = utc("2026-01-01") + timedelta(seconds=seconds)
    end = end_of_window(one, now)
    if end is None:
        assert end_of_window(one, begin_of_next_window(one, now)) is not None
    else:
        assert now < end <= now + timedelta(hours=3)
        assert end_of_window(one, end - timedelta(microseconds=1)) == end
        assert end_of_window(one, end) is None


def test_open_windows_have_their_ends() -> None:
    windows = {"night": window("0 2 * * *", "2h"), "noon": window("0 12 * * *", "1h")}
    assert open_windows(windows, utc("2026-11-22 03:00")) == {"night": utc("2026-11-22 04:00")}


@pytest.mark.parametrize(("cron", "length"), [("0 2 * * *", "24h"), ("* * * * *", "1m"), ("0 0 1 1 *", "370d")])
def test_a_window_that_never_ends_is_refused(cron: str, length: str) -> None:
    with pytest.raises(ValidationError, match="the window never ends"):
        window(cron, length)


@pytest.mark.parametrize(("cron", "length"), [("0 2 * * *", "23h"), ("* 0-22 * * *", "1h"), ("0 0 29 2 *", "30d")])
def test_a_window_that_ends_is_accepted(cron: str, length: str) -> None:
    assert window(cron, length)


@pytest.mark.parametrize(
    ("cron", "length", "problem"),
    [
        ("0 2 * *", "1h", "cron must have five fields"),
        ("0 25 * * *", "1h", "cron '0 25 \\* \\* \\*' is not valid cron"),
        ("0 2 * * *", "0s", "greater than 0"),
        ("0 2 * * *", "2 hours", "write a number and one of"),
    ],
)
def test_a_wrong_window_is_refused_with_the_reason(cron: str, length: str, problem: str) -> None:
    with pytest.raises(ValidationError, match=problem):
        window(cron, length)
