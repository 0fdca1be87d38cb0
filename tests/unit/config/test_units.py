"""Durations, sizes, and their formatted texts."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dims_worker.config.units import duration_as_config, parse_duration, parse_size
from dims_worker.formatting import format_age, format_percent


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        ("90s", 90),
        ("250ms", 0.25),
        ("5m", 300),
        ("48h", 172_800),
        ("7d", 604_800),
        ("2w", 1_209_600),
        ("1.5 h", 5400),
        ("  60s ", 60),
        ("0s", 0),
        (timedelta(minutes=1), 60),
    ],
)
def test_durations(written: Any, seconds: float):
    assert parse_duration(written) == timedelta(seconds=seconds)


@pytest.mark.parametrize("wrong", [60, 1.5, None, True, "", "60", "s", "-5s", "1y", "5 M", "1h30m", "1e3s", "1,5h"])
def test_invalid_durations_are_refused(wrong: Any):
    with pytest.raises(ValueError, match="write a number and one of ms, s, m, h, d, w, such as 60s"):
        parse_duration(wrong)


def test_a_duration_that_is_too_long_is_refused():
    with pytest.raises(ValueError, match="is too long; write a shorter duration"):
        parse_duration("99999999999999w")


@pytest.mark.parametrize(
    ("written", "number"),
    [
        (0, 0),
        (1024, 1024),
        ("1KiB", 1024),
        ("1kB", 1000),
        ("1KB", 1000),
        ("10 MB", 10_000_000),
        ("1MiB", 2**20),
        ("2 GB", 2 * 10**9),
        ("1GiB", 2**30),
        ("1TB", 10**12),
        ("1TiB", 2**40),
        ("1.5 KiB", 1536),
        ("7B", 7),
        ("7 bytes", 7),
    ],
)
def test_sizes(written: Any, number: int):
    assert parse_size(written) == number
    assert type(parse_size(written)) is int


@pytest.mark.parametrize("wrong", [-1, 1.5, True, None, "1024", "1 Gb", "1 KIB", "", "GB"])
def test_invalid_sizes_are_refused(wrong: Any):
    with pytest.raises(ValueError, match="write a number and one of bytes, B, kB"):
        parse_size(wrong)


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0, "0.0 seconds"),
        (0.04, "0.0 seconds"),
        (1, "1 second"),
        (59.9, "59.9 seconds"),
        (60, "1 minute"),
        (5400, "1.5 hours"),
        (362_880, "4.2 days"),
        (1_209_600, "2 weeks"),
        (-7200, "in 2 hours"),
    ],
)
def test_words(seconds: float, shown: str):
    assert format_age(timedelta(seconds=seconds)) == shown


@given(st.integers(0, 10**5))
def test_a_formatted_duration_can_be_parsed(seconds: int):
    assert parse_duration(duration_as_config(timedelta(seconds=seconds))) == timedelta(seconds=seconds)


@given(st.floats(0, 1e6), st.lists(st.floats(0.1, 100).map(lambda limit: round(limit, 2)), max_size=4))
def test_a_formatted_percentage_is_on_the_right_side_of_each_limit(drift: float, limits: list[float]) -> None:
    shown = float(format_percent(drift, *limits).removesuffix(" %").replace(",", ""))
    near = any(abs(drift - limit) < 1e-8 for limit in (*limits, 0.0))
    assert near or [shown >= limit for limit in limits] == [drift >= limit for limit in limits]
    assert shown == pytest.approx(drift, abs=0.0500001)


@pytest.mark.parametrize(
    ("seconds", "written"),
    [
        (60, "60s"),
        (0.25, "0.25s"),
        (0.000001, "0.000001s"),
        (1_234_567, "1234567s"),
        (315_576_000_000, "315576000000s"),
    ],
)
def test_a_duration_is_written_with_all_its_digits(seconds: float, written: str):
    span = timedelta(seconds=seconds)
    assert duration_as_config(span) == written
    assert parse_duration(written) == span
