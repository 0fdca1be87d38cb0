"""Costs, and totals of a bucket by prefix."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from dims_worker.workflows.aws_inventory import costs
from dims_worker.workflows.aws_inventory.lake import PrefixCollector

PRICES = {"s3_gib_month": 0.023, "rds_gib_month": 0.10, "rds_class": {"db.t3.micro": 14.60}}
T0 = datetime(2026, 1, 1, tzinfo=UTC)


def test_the_cost_of_a_month() -> None:
    lines = [costs.lake_line(PRICES, 118 * 2**30), *costs.instance_lines(PRICES, "db", "db.t3.micro", 14.60, 20)]
    estimate = costs.estimate(lines, [])
    assert [line["usd"] for line in estimate["lines"]] == pytest.approx([2.714, 14.60, 2.0])
    assert estimate["sum_usd"] == estimate["known_usd"] == pytest.approx(19.314)


def test_an_unknown_cost_is_not_0() -> None:
    lines = [costs.lake_line({}, 2**30), *costs.instance_lines(PRICES, "db", "db.r9", None, 20)]
    estimate = costs.estimate(lines, ["account"])
    assert (estimate["sum_usd"], estimate["known_usd"]) == (None, 2.0)
    assert (estimate["unpriced"], estimate["missing"]) == (["s3_gib_month", "rds_class.db.r9"], ["account"])


GLACIER = {"class": "GLACIER", "objects": 4, "bytes": 10 * 2**30}
LAKE = {
    "bytes": 12 * 2**30,
    "classes": [GLACIER, {"class": "STANDARD", "objects": 9, "bytes": 2 * 2**30}],
}


def test_each_storage_class_has_its_price() -> None:
    prices = {"s3_gib_month": {"STANDARD": 0.023, "glacier": 0.0036}}
    lines = costs.lake_lines(prices, LAKE)
    assert [(line.what, line.usd) for line in lines] == [
        ("S3 storage: GLACIER", pytest.approx(0.036)),
        ("S3 storage: STANDARD", pytest.approx(0.046)),
    ]
    assert costs.estimate(lines, [])["sum_usd"] == pytest.approx(0.082)
    assert len(costs.lake_notes(prices, LAKE)) == 1


def test_a_storage_class_without_a_price_is_named_and_not_counted() -> None:
    lines = costs.lake_lines({"s3_gib_month": {"STANDARD": 0.023}}, LAKE)
    estimate = costs.estimate(lines, [])
    assert (estimate["sum_usd"], estimate["known_usd"]) == (None, pytest.approx(0.046))
    assert estimate["unpriced"] == ["s3_gib_month.GLACIER"]


def test_one_price_for_several_classes_is_said() -> None:
    (line,) = costs.lake_lines(PRICES, LAKE)
    assert line.usd == pytest.approx(12 * 0.023)
    versions, one = costs.lake_notes(PRICES, LAKE)
    assert "Old versions of objects, unfinished uploads" in versions and "not counted" in versions
    assert "one price for every storage class, also for GLACIER (10,737,418,240 bytes)" in one


def test_an_empty_lake_costs_nothing_and_has_no_lines() -> None:
    assert costs.lake_lines({"s3_gib_month": {"STANDARD": 0.023}}, {"bytes": 0, "classes": []}) == []


def test_an_unknown_storage_of_an_instance_leaves_no_sum() -> None:
    lines = costs.instance_lines(PRICES, "db", "db.t3.micro", 14.60, None)
    estimate = costs.estimate(lines, [], ["the storage of db"])
    assert (estimate["sum_usd"], estimate["known_usd"], estimate["unpriced"]) == (None, 14.60, [])


@pytest.mark.parametrize(
    "depth, key, prefix",
    [
        *((1, "a/b/c.json", "a/"), (2, "a/b/c.json", "a/b/"), (3, "a/b/c.json", "a/b/"), (1, "top", "")),
        *((1, "a/", "a/"), (2, "/x/y", "/x/"), (1, "//", "/"), (4, "a/b/c/d/e", "a/b/c/d/")),
    ],
)
def test_prefix_of(depth: int, key: str, prefix: str) -> None:
    assert PrefixCollector(depth, 0).prefix_of(key) == prefix


def entry(key: str, size: int, hours: int, **more: Any) -> dict[str, Any]:
    return {"Key": key, "Size": size, "LastModified": T0 + timedelta(hours=hours), **more}


def test_the_newest_objects_of_each_prefix_in_any_order() -> None:
    parts = PrefixCollector(1, 2)
    parts.add([entry("a/1", 1, 5), entry("a/2", 2, 9, StorageClass="GLACIER"), entry("b/1", 3, 1)])
    parts.add([entry("a/3", 4, 7), entry("a/4", 5, 9), entry("a/5", 6, 0)])
    totals = parts.to_json()
    assert (totals["objects"], totals["bytes"]) == (6, 21)
    assert totals["classes"] == [
        {"class": "GLACIER", "objects": 1, "bytes": 2},
        {"class": "STANDARD", "objects": 5, "bytes": 19},
    ]
    first, second = totals["prefixes"]
    assert [each["key"] for each in first["newest"]] == ["a/2", "a/4"]
    assert first["classes"] == [
        {"class": "GLACIER", "objects": 1, "bytes": 2},
        {"class": "STANDARD", "objects": 4, "bytes": 16},
    ]
    assert (second["prefix"], second["newest"][0]["uploaded"]) == ("b/", "2026-01-01T01:00:00+00:00")
