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
    metric = S3Metric(source="lake", measure="missing_days", **{"prefix": "s/", **more})
    halves = [Days(metric.date, metric.names, metric.prefix) for _ in range(2)]
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


@pytest.mark.parametrize("prefix", ["s/", "s/dt=", "s", ""])
def test_days_in_hive_partitions(prefix: str) -> None:
    keys = [f"s/dt=2026-11-{day}/part-{n}-2026112{n}.parquet" for day in ("26", "28", "30") for n in range(3)]
    reading = read(*keys, "s/dt=__HIVE_DEFAULT_PARTITION__/part-0.parquet", prefix=prefix)
    assert (reading.value, reading.details["days"]) == (2, 3)
    assert reading.details["missing"] == ["2026-11-27", "2026-11-29"]
    assert reading.details["unreadable_names"] == ["s/dt=__HIVE_DEFAULT_PARTITION__/part-0.parquet"]


@pytest.mark.parametrize(
    ("folder", "pattern"),
    [
        ("dt=2026-11-{:02}", None),
        ("dt=202611{:02}", None),
        ("ds=2026-11-{:02}/hour=10", None),
        ("game_date=202611{:02}", None),
        ("region=eu/date=2026-11-{:02}/source=20011231", None),
        ("dt=2026-11-{:02} 10%3A00%3A00", None),
        ("dt=2026-11-{:02}T10", None),
        ("dt=2026-11-{:02}-10", None),
        ("dt=202611{:02}10", None),
        ("year=2026/month=11/day={:02}", None),
        ("year=2026/month=11/day={}", None),
        ("Year=2026/Month=11/Day={:02}/hour=3", None),
        ("year=2026/month=11/day=2026-11-{:02}", None),
        ("2026-11-{:02}", None),
        ("202611{:02}", None),
        ("2026/11/{:02}", None),
        ("2026/11/{:02}/10", None),
        ("logs/2026/11/{:02}", None),
        ("dt=2026-11-{:02}", r"(\d{4}-\d\d-\d\d)"),
        ("2026-11-{:02}", r"(\d{4}-\d\d-\d\d)"),
        ("dt=2026-11-{:02}", r"dt=(\d{4}-\d\d-\d\d)/"),
        ("ingest_date=2026-12-01/event_date=2026-11-{:02}", r"event_date=(\d{4}-\d\d-\d\d)"),
        ("dt=2026-11-{:02}", r"(\d{8})_batch"),
    ],
)
def test_days_in_folders(folder: str, pattern: str | None) -> None:
    keys = [f"s/{folder.format(day)}/part-{n}.parquet" for day in (4, 5, 7) for n in range(2)]
    reading = read(*keys, **({"date": pattern} if pattern else {}))
    assert (reading.value, reading.error) == (1, None)
    assert reading.details["missing"] == ["2026-11-06"]
    assert (reading.details["days"], reading.details["unreadable"]) == (3, 0)


@pytest.mark.parametrize(
    "folder",
    [
        "ingest_date=2026-12-01/event_date=2026-11-28",
        "game_id=20131104",
        "year=2026/month=11",
        "year=2026/month=13/day=1",
        "dt=2026-02-30",
        "2026/11",
        "20261332",
    ],
)
def test_folders_without_one_day(folder: str) -> None:
    assert "(1 names have none)" in str(read(f"s/{folder}/part.parquet").error)


def test_folders_above_the_prefix_have_no_day() -> None:
    assert read("s-2020-01-01/2026/a", prefix="s-2020-01-01/").error
    keys = ["x/dt=2020-01-01/dt=2026-11-28/a", "x/dt=2020-01-01/dt=2026-11-29/a"]
    assert read(*keys, prefix="x/dt=2020-01-01/").value == 0


def test_a_folder_of_8_digits_is_a_day_only_if_no_key_has_another() -> None:
    reading = read("s/20010101/a", "s/2026-11-28/a", "s/2026-11-30/a")
    assert (reading.value, reading.details["unreadable_names"]) == (1, ["s/20010101/a"])


def test_folder_markers_are_no_days() -> None:
    reading = read("s/dt=2026-11-28/a", "s/dt=2026-11-29/", "s/dt=2026-11-29_$folder$", "s/dt=2026-11-30/a")
    assert (reading.value, reading.details["missing"], reading.details["unreadable"]) == (1, ["2026-11-29"], 2)


def test_a_number_before_the_day() -> None:
    assert read("s/99999999-20130101.json", "s/99999999-20130103.json").details["missing"] == ["2013-01-02"]


def test_keys_without_any_day_fail() -> None:
    assert read().error == "no object under s/ has a day in its name"
    assert "(2 names have none)" in str(read("s/a", "s/b").error)
    assert (read("s/a", absent=None).value, read("s/a", absent=0).value) == (None, 0)


def test_days_far_apart() -> None:
    assert missing_between({date(1, 1, 1), date(9999, 12, 31)}, 2) == (3652057, ["0001-01-02", "0001-01-03"])
