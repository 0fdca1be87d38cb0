"""Values, drifts, ages and events as people read them."""

from __future__ import annotations

from dataclasses import fields
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dims_worker.config import FilesMetric
from dims_worker.formatting import (
    escape_control,
    format_ago,
    format_drift,
    format_duration,
    format_elapsed,
    format_number,
    format_value,
    pluralize,
)
from dims_worker.store.events import LoggedEvent
from dims_worker.text.events import format_event

NOW = datetime(2026, 11, 22, 9, tzinfo=UTC)
AGE = FilesMetric(source="p", measure="newest_age")
DAYS = FilesMetric(source="p", measure="newest_age", unit="days")
SIZE = FilesMetric(source="p", measure="bytes", unit="GB", precision=2)


@pytest.mark.parametrize(
    ("value", "precision", "shown"),
    [
        (0, None, "0"), (172_726, None, "172,726"), (-1234, None, "-1,234"), (172_726, 2, "172,726"),
        (3.25, None, "3.25"), (3.256789, None, "3.257"), (0.5, None, "0.5"), (999.96, None, "1,000"),
        (1234.56, None, "1,234.6"), (-1234.56, None, "-1,234.6"), (3.256, 2, "3.26"), (3.0, 2, "3.00"),
        (1234567.891, 2, "1,234,567.89"), (2.5, 0, "2"), (0.0, None, "0"),
    ],
)  # fmt: skip
def test_number(value: float, precision: int | None, shown: str):
    assert format_number(value, precision) == shown


@pytest.mark.parametrize(
    ("value", "unit", "metric", "shown"),
    [
        (1, "files", None, "1 file"), (2, "files", None, "2 files"), (0, "files", None, "0 files"),
        (1, "hours", None, "1 hour"), (1, "GB", None, "1 GB"), (1, "bytes", None, "1 byte"),
        (5, None, None, "5"), (5, "", None, "5"), (1.5, "GB", SIZE, "1.50 GB"),
        (None, "files", None, "null"), (True, "", None, "true"), (False, "files", None, "false"),
        ("v1.2", "", None, "v1.2"), ("a\x1b[31m\n", "", None, "a\\x1b[31m\\x0a"),
        ("2026-11-22T06:30:00+00:00", "hours", AGE, "2.5 hours"),
        ("2026-11-20T09:00:00+00:00", "days", DAYS, "2.0 days"),
        ("2026-11-22T06:30:00+00:00", "hours", None, "2026-11-22T06:30:00+00:00"),
    ],
)  # fmt: skip
def test_value_text(value: Any, unit: str | None, metric: FilesMetric | None, shown: str):
    assert format_value(value, unit, metric, NOW) == shown


@pytest.mark.parametrize(
    ("value", "baseline", "drift", "shown"),
    [
        (119, 100, 18.7, "+18.7 %"), (97, 100, 3.0, "-3.0 %"), (-80, -100, 20.0, "+20.0 %"),
        (5, 5.0, 0.0, "0.0 %"), (1, 0, 100.0, "+100.0 %"), ("b", "a", 100.0, "100.0 %"),
        (True, False, 100.0, "100.0 %"), (None, 1, 100.0, "100.0 %"), (1, 2, None, "-"), (1, None, None, "-"),
        (10**9, 8, 1e9, "+1,000,000,000.0 %"),
    ],
)  # fmt: skip
def test_drift_text(value: Any, baseline: Any, drift: float | None, shown: str):
    assert format_drift(value, baseline, drift) == shown


def test_ago_and_count():
    assert format_ago(NOW - timedelta(minutes=3, seconds=12), NOW) == "3 minutes ago"
    assert format_ago(None, NOW) == "never"
    assert [pluralize(n, "metric") for n in (0, 1, 2, 1234)] == ["0 metrics", "1 metric", "2 metrics", "1,234 metrics"]


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0, "just now"), (0.99, "just now"), (-0.5, "just now"), (1, "1 second ago"), (3.93, "3 seconds ago"),
        (59.9, "59 seconds ago"), (60, "1 minute ago"), (76.8, "1 minute ago"), (3599, "59 minutes ago"),
        (7300, "2 hours ago"), (87_264, "1 day ago"), (86_400 * 1234, "1,234 days ago"), (-7300, "in 2 hours"),
    ],
)  # fmt: skip
def test_an_age_is_told_in_whole_numbers(seconds: float, shown: str):
    assert format_elapsed(timedelta(seconds=seconds)) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0, "0 ms"), (0.034, "34 ms"), (0.9996, "1.0 s"), (3.1, "3.1 s"), (59.94, "59.9 s"), (59.96, "1 min 0 s"),
        (125, "2 min 5 s"), (7325, "122 min 5 s"),
    ],
)  # fmt: skip
def test_how_long_something_took(seconds: float, shown: str):
    assert format_duration(timedelta(seconds=seconds)) == shown


@given(st.text(st.characters(), max_size=30))
def test_a_clean_text_is_printable(text: str):
    assert escape_control(text).isprintable()
    if text.isprintable():
        assert escape_control(text) == text


def logged(kind: str | None, subject: str | None = None, outcome: str = "planned", **parts: Any) -> LoggedEvent:
    """A row of the event log; what is not said is None."""
    given_: dict[str, Any] = {
        **dict.fromkeys(field.name for field in fields(LoggedEvent)),
        **{"seq": 1, "producer": "git%3Arepo", "event_id": "3f2a9c1d00", "type": kind, "subject": subject},
        **{"outcome": outcome, "received_at": NOW, "rules": (), "metrics": (), **parts},
    }
    return LoggedEvent(**given_)


EVIL = "a\x1b]0;x\x07\n\u202e"
# fmt: off
WORDS: list[tuple[LoggedEvent, str]] = [
    (logged("dims.git.commit", "main", data={"commit": "3f2a9c1d00", "subject": "Fix it", "paths": ["a", "b"]}),
     "commit 3f2a9c1 on main “Fix it”, 2 paths"),
    (logged("dims.git.commit", data={"paths": ["a"]}), "commit 3f2a9c1, 1 path"),
    (logged("dims.git.merge", "main", data={"paths": []}), "merge 3f2a9c1 on main, unknown paths"),
    (logged("dims.git.rewrite", data=None), "rewrite 3f2a9c1, unknown paths"),
    (logged("dims.git.commit", "main", data={"paths": [".git"]}), "commit 3f2a9c1 on main, no paths"),
    (logged("com.amazonaws.s3.ObjectCreated:Put", "raw/a.json", data={"bucket": "lake"}), "upload of s3://lake/raw/a.json"),
    (logged("com.amazonaws.s3.ObjectRemoved:Delete", "x", data={"bucket": "lake"}), "removal of s3://lake/x"),
    (logged("com.amazonaws.s3.ObjectTagging:Put", "x", data={}), "change of s3://?/x"),
    (logged("dims.files.changed", data={"root": "/r", "paths": ["a", "b", "c"]}), "3 paths changed in /r"),
    (logged("dims.files.changed", data={}), "unknown paths changed in ?"),
    (logged("dims.scraper.complete", "espn"), "dims.scraper.complete about espn from git:repo"),
    (logged("custom", producer=None), "custom from ?"),
    (logged(None, outcome="rejected", reason="is not JSON"), "a rejected event (is not JSON)"),
]
# fmt: on


@pytest.mark.parametrize(("event", "shown"), WORDS)
def test_event_words(event: LoggedEvent, shown: str):
    assert format_event(event) == shown


@pytest.mark.parametrize(
    "event",
    [
        logged("dims.git.commit", EVIL, data={"subject": EVIL, "commit": "abc", "paths": [EVIL]}),
        logged("dims.git.commit", data={"commit": EVIL}),
        logged(f"dims.git.{EVIL}"),
        logged("com.amazonaws.s3.ObjectCreated:Put", EVIL, data={"bucket": EVIL}),
        logged("dims.files.changed", data={"root": EVIL}),
        logged(EVIL, EVIL, producer="%1b%0a" + EVIL),
        logged(None, outcome="rejected", reason=EVIL),
    ],
)
def test_what_comes_from_outside_moves_no_cursor(event: LoggedEvent):
    assert format_event(event).isprintable()
