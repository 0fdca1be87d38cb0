"""Completeness: ids from a query or from objects of a schedule."""

from __future__ import annotations

import json
from typing import Any

import pytest

from dims_worker.config import S3Metric, S3Source, SqlSource
from dims_worker.errors import MeasureError
from dims_worker.probes.base import Deadline, Reading, ScanContext
from dims_worker.probes.ids import normalize_id
from dims_worker.probes.json_path import resolve_pointer
from dims_worker.probes.s3 import completeness
from dims_worker.probes.s3.completeness import Expectations, Ids
from dims_worker.probes.s3.listing import Keys

SCHEDULES = {"prefix": "s/", "pointer": "games.*.id"}


def read(
    keys: dict[str, int],
    schedules: dict[str, Any],
    context: ScanContext,
    deadline: Deadline,
    **more: Any,
) -> Reading:
    metric = S3Metric(source="lake", measure="completeness", prefix="p/", **{"expected": SCHEDULES, **more})
    ids = Ids(metric.id, metric.min_size)
    ids.add([{"Key": key, "Size": size} for key, size in keys.items()])
    bodies = {key: body if isinstance(body, bytes) else json.dumps(body).encode() for key, body in schedules.items()}
    results = Keys(10)
    results.add([{"Key": key, "Size": len(body)} for key, body in bodies.items()])
    return completeness.completeness_reading(
        "m", metric, ids, results, Expectations(bodies.__getitem__, context, deadline)
    )


def games(*ids: Any) -> dict[str, Any]:
    return {"games": [{"id": each} for each in ids]}


def test_ids_from_schedules(context: ScanContext, deadline: Deadline) -> None:
    keys = {"p/0041.csv": 9, "p/x/42.csv": 1, "p/43.csv": 0, "p/99.csv": 5, "p/readme": 5, "p/42.json": 5}
    days = {"s/1.json": games("41", "0042"), "s/2.json": games(43, 44.0, None, True), "s/3.json": {"games": []}}
    reading = read(keys, days, context, deadline)
    assert (reading.value, reading.unit) == (50.0, "%")
    assert reading.details == {
        "expected": 4,
        "found": 2,
        "missing": 2,
        "missing_ids": ["43", "44"],
        "unexpected": 1,
        "values_without_id": {"NULL": 1, "True": 1},
        "objects_read": 3,
        "objects_without_ids": 1,
    }


def test_forms_of_ids_and_values_without_an_id(context: ScanContext, deadline: Deadline) -> None:
    keys = {"p/20191022_401160001.json": 9, "p/401160002.0.json": 9, "p/0021900001.json": 9, "p/20191022.json": 9}
    schedule = b'{"games": [{"id": "401160001.0"}, {"id": 401160002.0}, {"id": NaN}, {"id": " 21900001 "}, {"id": ""}]}'
    reading = read(keys, {"s/1.json": schedule}, context, deadline)
    assert (reading.value, reading.details["unexpected"]) == (100.0, 1)
    assert reading.details["values_without_id"] == {"empty": 1, "nan": 1}
    failed = read(keys, {"s/1.json": b'{"games": [{"id": NaN}]}'}, context, deadline)
    assert failed.method == "failed" and "values without an id: nan 1 times" in str(failed.error)


def test_sizes_and_names(context: ScanContext, deadline: Deadline) -> None:
    keys = {"p/41.csv": 9, "p/42.csv": 1}
    reading = read(keys, {"s/1.json": games("0041", "0042", "007")}, context, deadline, min_size=5, names=1)
    assert (reading.value, reading.details["missing_ids"]) == (100 / 3, ["007"])
    whole = read(keys, {"s/1.json": games(41)}, context, deadline, id="^(4.)")
    assert (whole.value, whole.details["unexpected"]) == (100.0, 1)


@pytest.mark.parametrize(
    ("schedules", "text"),
    [
        ({}, "no id is expected: games.*.id in the JSON objects under s/ returned none"),
        ({"s/1.json": games()}, "no id is expected"),
        ({"s/1.json": games(1), "s/2.json": b""}, "s/2.json is not JSON"),
        ({"s/1.json": b"\xff"}, "s/1.json is not JSON"),
        ({f"s/{n}.json": games(n) for n in range(11)}, "11 JSON objects are under s/: DIMS reads at most 10"),
    ],
)
def test_without_expected_ids_the_reading_fails(
    schedules: dict[str, Any], text: str, context: ScanContext, deadline: Deadline
) -> None:
    reading = read({"p/1": 1}, schedules, context, deadline)
    assert reading.method == "failed" and text in str(reading.error)


def test_a_large_object_is_not_read(context: ScanContext, deadline: Deadline) -> None:
    metric = S3Metric(source="lake", measure="completeness", expected=SCHEDULES)
    keys = Keys(10, 1, {"s/1.json": 2**40})
    assert metric.expected is not None
    with pytest.raises(MeasureError, match="reads at most"):
        Expectations(lambda key: b"", context, deadline).of(metric.expected, keys)


def test_ids_from_a_query(context: ScanContext, deadline: Deadline, monkeypatch: pytest.MonkeyPatch) -> None:
    sql = pytest.importorskip("dims_worker.probes.sql.snapshot")
    asked = []

    def query_rows(source: SqlSource, query: str, *_: Any) -> Any:
        asked.append(query)
        if "broken" in query:
            raise MeasureError("the database is down")
        return sql.QueryResult(("id", "name"), (("0041      ", "x"), (42, "x"), (None, "x"), (43, "x")), 4)

    monkeypatch.setattr(sql, "query_rows", query_rows)
    sources = {"db": SqlSource(type="sql", url="sqlite://"), "lake": S3Source(type="s3", bucket="b")}
    here = ScanContext(context.project, context.home, sources)
    keys = {"p/41": 1, "p/42": 1}
    query = {"source": "db", "query": "SELECT id FROM games"}
    reading = read(keys, {}, here, deadline, expected=query)
    assert (reading.value, reading.details["missing_ids"]) == (pytest.approx(200 / 3), ["43"])
    assert "objects_read" not in reading.details
    assert read(keys, {}, here, deadline, expected={**query, "query": "broken"}).error == "the database is down"
    assert "is not a source of type sql" in str(
        read(keys, {}, here, deadline, expected={**query, "source": "lake"}).error
    )
    assert "is not a source of type sql" in str(read(keys, {}, here, deadline, expected={**query, "source": "x"}).error)
    metric = S3Metric(source="lake", measure="completeness", expected=query)
    assert metric.expected is not None
    several = Expectations(lambda key: b"", here, deadline)
    asked.clear()
    assert several.of(metric.expected, None) is several.of(metric.expected, None)
    assert len(asked) == 1


@pytest.mark.parametrize(
    ("way", "results"),
    [
        ("games.*.id", [1, 2]),
        ("games.1.id", [2]),
        ("games.7.id", []),
        ("by.*", [3, 4]),
        ("gone.*.id", []),
        ("games.id", []),
        ("games.*.id.x", []),
    ],
)
def test_pointers_that_skip_missing_values(way: str, results: list[int]) -> None:
    document = {"games": [{"id": 1}, {"id": 2}, {"x": 5}], "by": {"a": 3, "b": 4}}
    assert list(resolve_pointer(document, way, skip_missing=True)) == results


def test_ids_are_normalized() -> None:
    given = ["0041", 41, 41.0, "41", " 41 ", "000", "0a1", "x-07"]
    assert list(map(normalize_id, given)) == ["41", "41", "41", "41", "41", "0", "0A1", "X-07"]
