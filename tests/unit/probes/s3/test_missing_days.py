"""Days in keys: valid days, missing days, names without a day."""

from __future__ import annotations

from datetime import date
from typing import Any

import pytest

from dims_worker.config import S3Metric
from dims_worker.probes.base import Reading
from dims_worker.probes.s3 import missing_days
from dims_worker.probes.s3.missing_days import Days, missing_between, read_day


def read(*keys: str, **more: Any) -> Reading:
    metric = S3Metric(source="lake", measure="missing_days", prefix="s/", **more)
    halves = [Days(metric.date, metric.names), Days(metric.date, metric.names)]
    for number, key in enumerate(keys):
        halves[number % 2].add([{"Key": key}])
    halves[0].merge(halves[1])
    return missing_days.missing_days_reading("m", metric, halves[0], "s/")


@pytest.mark.parametrize(
    ("text", "day"),
    [
        ("20130316", date(2013, 3, 16)),
        ("2013-03-16", date(2013, 3, 16)),
        ("20131332", None),
        ("20130229", None),
        ("20120229", date(2012, 2, 29)),
        ("2013-W01-1", None),
        ("00000101", None),
        ("2013", None),
        ("\u0662\u0660\u0661\u0663\u0660\u0663\u0661\u0666", None),
        (None, None),
    ],
)
def test_which_texts_are_days(text: str | None, day: date | None) -> None:
    assert read_day(text) == day


def test_missing_days_between_the_first_and_the_last() -> None:
    reading = read("s/20130101.json", "s/20130105.json", "s/a/20130103.json", "s/20130103 copy.json", names=1)
    assert (reading.value, reading.unit, reading.method) == (2, "days", "exact")
    assert reading.details == {
        "first": "2013-01-01",
        "last": "2013-01-05",
        "days": 3,
        "missing": ["2013-01-02"],
        "unreadable": 0,
        "unreadable_names": [],
    }


def test_names_without_a_day_are_not_an_error() -> None:
    strange = ["s/171031017.json", "s/20131332.json", "s/20130101/index.json", "s/"]
    reading = read("s/20130101.json", *strange, "s/20130102.json", names=3)
    assert reading.value == 0
    assert reading.details["unreadable"] == 4
    assert reading.details["unreadable_names"] == sorted(strange)[:3]


def test_a_custom_pattern() -> None:
    assert read("s/201304080ATL.html", "s/201304100BOS.html", date=r"^(\d{8})0[A-Z]{3}").value == 1
    assert read("s/x.json", date="x(y)?").error


def test_keys_without_any_day_fail() -> None:
    assert read().error == "no object under s/ has a day in its name"
    assert "(2 names have none)" in str(read("s/a", "s/b").error)
    assert (read("s/a", absent=None).value, read("s/a", absent=0).value) == (None, 0)


def test_days_far_apart() -> None:
    assert missing_between({date(1, 1, 1), date(9999, 12, 31)}, 2) == (3652057, ["0001-01-02", "0001-01-03"])
