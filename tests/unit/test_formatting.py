"""Test the formatters, and that no other module formats numbers or times."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dims_worker.config import FilesMetric
from dims_worker.formatting import (
    escape_control,
    format_age,
    format_ago,
    format_band,
    format_bytes,
    format_clock,
    format_day,
    format_day_and_month,
    format_drift,
    format_duration,
    format_elapsed,
    format_exact,
    format_limit,
    format_number,
    format_percent,
    format_remaining,
    format_utc,
    format_utc_compact,
    format_utc_seconds,
    format_utc_short,
    format_value,
    is_number,
    pluralize,
)
from dims_worker.store.events import LoggedEvent
from dims_worker.text.events import format_event
from tests.conftest import REPO

NOW = datetime(2026, 11, 22, 9, tzinfo=UTC)
AGE = FilesMetric(source="p", measure="newest_age")
DAYS = FilesMetric(source="p", measure="newest_age", unit="days")
SIZE = FilesMetric(source="p", measure="bytes", unit="GB", precision=2)


@pytest.mark.parametrize(
    ("value", "precision", "shown"),
    [
        (0, None, "0"),
        (172_726, None, "172,726"),
        (-1234, None, "-1,234"),
        (172_726, 2, "172,726"),
        (3.25, None, "3.25"),
        (3.256789, None, "3.257"),
        (0.5, None, "0.5"),
        (999.96, None, "1,000"),
        (1234.56, None, "1,234.6"),
        (-1234.56, None, "-1,234.6"),
        (3.256, 2, "3.26"),
        (3.0, 2, "3.00"),
        (1234567.891, 2, "1,234,567.89"),
        (2.5, 0, "2"),
        (0.0, None, "0"),
    ],
)
def test_numbers(value: float, precision: int | None, shown: str):
    assert format_number(value, precision) == shown


@pytest.mark.parametrize(
    ("value", "unit", "metric", "shown"),
    [
        (1, "files", None, "1 file"),
        (2, "files", None, "2 files"),
        (0, "files", None, "0 files"),
        (1, "hours", None, "1 hour"),
        (1, "GB", None, "1 GB"),
        (1, "bytes", None, "1 byte"),
        (5, None, None, "5"),
        (5, "", None, "5"),
        (1.5, "GB", SIZE, "1.50 GB"),
        (None, "files", None, "null"),
        (True, "", None, "true"),
        (False, "files", None, "false"),
        ("v1.2", "", None, "v1.2"),
        ("a\x1b[31m\n", "", None, "a\\x1b[31m\\x0a"),
        ("2026-11-22T06:30:00+00:00", "hours", AGE, "2.5 hours"),
        ("2026-11-20T09:00:00+00:00", "days", DAYS, "2.0 days"),
        ("2026-11-22T06:30:00+00:00", "hours", None, "2026-11-22T06:30:00+00:00"),
        ("1970-01-01T00:00:00+00:00", "days", DAYS, "20,779.4 days"),
        ("2026-11-22T09:04:59+00:00", "hours", AGE, "0.0 hours"),
        ("2026-11-22T09:05:01+00:00", "hours", AGE, "in 5.02 minutes"),
        ("2026-11-22T18:00:00", "hours", AGE, "in 9 hours"),
        ("2030-12-24T12:00:00+00:00", "days", DAYS, "in 4.09 years"),
        ("9999-12-31T23:59:59.999999-12:00", "days", DAYS, "in 7,973 years"),
        ("synced", "days", DAYS, "synced"),
    ],
)
def test_values_with_units(value: Any, unit: str | None, metric: FilesMetric | None, shown: str):
    assert format_value(value, unit, metric, NOW) == shown


@pytest.mark.parametrize(
    ("value", "baseline", "drift", "shown"),
    [
        (119, 100, 18.7, "+18.7 %"),
        (97, 100, 3.0, "-3.0 %"),
        (-80, -100, 20.0, "+20.0 %"),
        (5, 5.0, 0.0, "0.0 %"),
        (1, 0, 100.0, "+100.0 %"),
        ("b", "a", 100.0, "100.0 %"),
        (True, False, 100.0, "100.0 %"),
        (None, 1, 100.0, "100.0 %"),
        (1, 2, None, "-"),
        (1, None, None, "-"),
        (10**9, 8, 1e9, "+1,000,000,000.0 %"),
    ],
)
def test_drifts(value: Any, baseline: Any, drift: float | None, shown: str):
    assert format_drift(value, baseline, drift) == shown


def test_ago_and_plurals():
    assert format_ago(NOW - timedelta(minutes=3, seconds=12), NOW) == "3 minutes ago"
    assert format_ago(None, NOW) == "never"
    assert [pluralize(n, "metric") for n in (0, 1, 2, 1234)] == ["0 metrics", "1 metric", "2 metrics", "1,234 metrics"]


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0, "just now"),
        (0.99, "just now"),
        (-0.5, "just now"),
        (1, "1 second ago"),
        (3.93, "3 seconds ago"),
        (59.9, "59 seconds ago"),
        (60, "1 minute ago"),
        (76.8, "1 minute ago"),
        (3599, "59 minutes ago"),
        (7300, "2 hours ago"),
        (87_264, "1 day ago"),
        (86_400 * 1234, "1,234 days ago"),
        (86_400 * 1492.8, "4 years ago"),
        (86_400 * 3_652_500, "10,000 years ago"),
        (-86_400 * 3_652_500, "in 10,000 years"),
        (-7300, "in 2 hours"),
    ],
)
def test_elapsed_times_are_whole_numbers(seconds: float, shown: str):
    assert format_elapsed(timedelta(seconds=seconds)) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0, "0 ms"),
        (0.034, "34 ms"),
        (0.9996, "1.0 s"),
        (3.1, "3.1 s"),
        (59.94, "59.9 s"),
        (59.96, "1 min 0 s"),
        (125, "2 min 5 s"),
        (7325, "122 min 5 s"),
        (36_000, "10 h 0 min"),
        (86_400 * 2 + 3700, "2 days 1 h"),
        (86_400 * 3_652_500, "3,652,500 days 0 h"),
        (-0.5, "an unknown time"),
    ],
)
def test_durations(seconds: float, shown: str):
    assert format_duration(timedelta(seconds=seconds)) == shown


@pytest.mark.parametrize(
    ("hours", "shown"),
    [(0.001, "3.6 seconds"), (0.5, "30 minutes"), (1, "1 hour"), (102, "4.25 days"), (24 * 14, "2 weeks")],
)
def test_ages(hours: float, shown: str):
    assert format_age(timedelta(hours=hours)) == shown


@pytest.mark.parametrize(
    ("days", "shown"),
    [
        (0, "0.0 seconds"),
        (23.999 / 24, "1 day"),
        (100, "14.3 weeks"),
        (365.25, "1 year"),
        (1492.8, "4.09 years"),
        (20_787, "56.9 years"),
        (3_652_500, "10,000 years"),
        (-0.25, "in 6 hours"),
        (-1492.8, "in 4.09 years"),
        (-2_912_109, "in 7,973 years"),
    ],
)
def test_ages_of_years_and_in_the_future(days: float, shown: str):
    assert format_age(timedelta(days=days)) == shown


@pytest.mark.parametrize(
    ("hours", "shown"),
    [
        (48, "2 days"),
        (102, "102 hours"),
        (24, "1 day"),
        (24 * 400, "400 days"),
        (24 * 14, "2 weeks"),
        (1e-4, "0.4 seconds"),
    ],
)
def test_limits_are_exact(hours: float, shown: str):
    assert format_limit(timedelta(hours=hours)) == shown


@pytest.mark.parametrize(("hours", "shown"), [(1.5, "in 1.5 hours"), (0, "now"), (-3, "now")])
def test_remaining_times(hours: float, shown: str):
    assert format_remaining(NOW + timedelta(hours=hours), NOW) == shown


TEN_THOUSAND_YEARS = timedelta(days=3_652_500)


@given(st.timedeltas(-TEN_THOUSAND_YEARS, TEN_THOUSAND_YEARS))
def test_no_duration_has_an_exponent_or_a_minus_sign(span: timedelta):
    for shown in (format_age(span), format_elapsed(span), format_duration(span), format_remaining(NOW, NOW)):
        assert not re.search(r"\de[+-]?\d|-\d|inf|nan", shown), shown


@given(st.datetimes(timezones=st.just(UTC)), st.sampled_from([AGE, DAYS]))
def test_no_age_has_an_exponent_or_a_minus_sign(instant: datetime, metric: FilesMetric):
    shown = format_value(instant.isoformat(), metric.shown_unit, metric, NOW)
    assert not re.search(r"\de[+-]?\d|-", shown), shown
    assert shown.startswith("in ") == (instant - NOW > timedelta(minutes=5))


@pytest.mark.parametrize(
    ("value", "shown"),
    [(172_726, "172,726"), (3.256789, "3.256789"), (5.0, "5"), (1e20, "1e+20"), (1 / 3, "0.3333333333")],
)
def test_exact_numbers(value: float, shown: str):
    assert format_exact(value) == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [(999, "999 B"), (5_300, "5.3 kB"), (999_949, "999.9 kB"), (999_950, "1.0 MB"), (12 * 10**9, "12.0 GB")],
)
def test_bytes(value: int, shown: str):
    assert format_bytes(value) == shown


@pytest.mark.parametrize(
    ("share", "limits", "shown"),
    [
        (14.99, (15,), "14.99 %"),
        (15, (15,), "15.0 %"),
        (0, (), "0.0 %"),
        (0.004, (), "0.004 %"),
        (99.96, (100,), "99.96 %"),
    ],
)
def test_a_percentage_is_not_rounded_across_a_limit(share: float, limits: tuple[float, ...], shown: str):
    assert format_percent(share, *limits) == shown


def test_times_are_in_utc():
    time = datetime(2026, 11, 25, 15, 3, 7, tzinfo=timezone(timedelta(hours=1)))
    assert format_clock(time) == "14:03:07"
    assert format_utc(time) == "2026-11-25 14:03 UTC"
    assert format_utc_short(time) == "2026-11-25 14:03"
    assert format_utc_short(None) == "never"
    assert format_utc_seconds(time) == "2026-11-25 14:03:07"
    assert format_utc_compact(time) == "20261125T140307Z"
    assert format_day(datetime(2026, 11, 25, 0, 30, tzinfo=time.tzinfo)) == "2026-11-24"
    assert format_day_and_month(date(2026, 11, 5)) == "5 Nov"


def test_a_boolean_or_a_text_is_not_a_number():
    assert [is_number(value) for value in (1, 1.5, True, "1", None)] == [True, True, False, False, False]


@given(st.text(st.characters(), max_size=30))
def test_an_escaped_text_is_printable(text: str):
    assert escape_control(text).isprintable()
    if text.isprintable():
        assert escape_control(text) == text


def logged(kind: str | None, subject: str | None = None, outcome: str = "planned", **parts: Any) -> LoggedEvent:
    """Return a row of the event log. Columns that are not given are None."""
    columns: dict[str, Any] = dict.fromkeys(LoggedEvent.__slots__)
    columns |= {"seq": 1, "producer": "git%3Arepo", "event_id": "3f2a9c1d00", "type": kind, "subject": subject}
    columns |= {"outcome": outcome, "received_at": NOW, "rules": (), "metrics": ()}
    return LoggedEvent(**columns | parts)


HOSTILE = "a\x1b]0;x\x07\n\u202e"
WORDS: list[tuple[LoggedEvent, str]] = [
    (
        logged("dims.git.commit", "main", data={"commit": "3f2a9c1d00", "subject": "Fix it", "paths": ["a", "b"]}),
        "commit 3f2a9c1 on main “Fix it”, 2 paths",
    ),
    (logged("dims.git.commit", data={"paths": ["a"]}), "commit 3f2a9c1, 1 path"),
    (logged("dims.git.merge", "main", data={"paths": []}), "merge 3f2a9c1 on main, unknown paths"),
    (logged("dims.git.rewrite", data=None), "rewrite 3f2a9c1, unknown paths"),
    (logged("dims.git.commit", "main", data={"paths": [".git"]}), "commit 3f2a9c1 on main, no paths"),
    (
        logged("com.amazonaws.s3.ObjectCreated:Put", "raw/a.json", data={"bucket": "lake"}),
        "upload of s3://lake/raw/a.json",
    ),
    (logged("com.amazonaws.s3.ObjectRemoved:Delete", "x", data={"bucket": "lake"}), "removal of s3://lake/x"),
    (logged("com.amazonaws.s3.ObjectTagging:Put", "x", data={}), "change of s3://?/x"),
    (logged("dims.files.changed", data={"root": "/r", "paths": ["a", "b", "c"]}), "3 paths changed in /r"),
    (logged("dims.files.changed", data={}), "unknown paths changed in ?"),
    (logged("dims.scraper.complete", "espn"), "dims.scraper.complete about espn from git:repo"),
    (logged("custom", producer=None), "custom from ?"),
    (logged(None, outcome="rejected", reason="is not JSON"), "a rejected event (is not JSON)"),
]


@pytest.mark.parametrize(("event", "shown"), WORDS)
def test_events_in_words(event: LoggedEvent, shown: str):
    assert format_event(event) == shown


@pytest.mark.parametrize(
    "event",
    [
        logged("dims.git.commit", HOSTILE, data={"subject": HOSTILE, "commit": "abc", "paths": [HOSTILE]}),
        logged("dims.git.commit", data={"commit": HOSTILE}),
        logged(f"dims.git.{HOSTILE}"),
        logged("com.amazonaws.s3.ObjectCreated:Put", HOSTILE, data={"bucket": HOSTILE}),
        logged("dims.files.changed", data={"root": HOSTILE}),
        logged(HOSTILE, HOSTILE, producer="%1b%0a" + HOSTILE),
        logged(None, outcome="rejected", reason=HOSTILE),
    ],
)
def test_text_from_outside_is_escaped(event: LoggedEvent):
    assert format_event(event).isprintable()


def formatters(source: str) -> Iterator[str]:
    """Yield the places in a module that format a time or define what a number is."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef) and node.name.strip("_") == "is_number":
            yield f"line {node.lineno}: {node.name}"
        elif isinstance(node, ast.Attribute) and node.attr == "strftime":
            yield f"line {node.lineno}: strftime"
        elif isinstance(node, ast.FormattedValue) and node.format_spec and "%" in _pattern(node.format_spec):
            yield f"line {node.lineno}: {ast.unparse(node)}"


def _pattern(spec: ast.expr) -> str:
    """Return the constant text of a format specification. `{value:.1%}` ends with its only percent sign."""
    parts = [part.value for part in getattr(spec, "values", []) if isinstance(part, ast.Constant)]
    return "".join(str(part) for part in parts).removesuffix("%")


def test_a_module_that_formats_times_is_found():
    assert list(formatters("def _is_number(x): ...")) == ["line 1: _is_number"]
    assert list(formatters("t.strftime('%H')")) == ["line 1: strftime"]
    assert len(list(formatters("f'{time:%Y-%m-%d}'"))) == 1
    assert list(formatters("f'{share:.1%} {count:,} %Y {name}'")) == []


def test_only_the_formatting_module_formats_times_and_defines_numbers():
    """The producers are exempt: they must start fast, so they import nothing of the worker but events and errors."""
    files = [file for file in (REPO / "dims_worker").rglob("*.py") if file.name != "formatting.py"]
    found = {file.relative_to(REPO).as_posix(): list(formatters(file.read_text(encoding="utf-8"))) for file in files}
    assert len(files) > 150
    [defined] = found.pop("dims_worker/numbers.py")  # below the configuration, which needs it too
    assert defined.endswith(": is_number")
    assert {file: places for file, places in found.items() if places} == {}


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (4309.6, 4470.2, "4,310 to 4,470"),
        (0.12, 0.2, "0.12 to 0.2"),
        (-0.0, 7.26, "0 to 7.26"),
        (-5, 12.0, "-5 to 12"),
        (-1e300, 1.7e308, "-1e+300 to 1.7e+308"),
    ],
)
def test_a_band_has_no_decimals_that_mean_nothing(low: float, high: float, expected: str) -> None:
    assert format_band(low, high) == expected
