"""Ids: other forms of an id are equal, other ids are not, and values that are no id are counted."""

from __future__ import annotations

import math
from decimal import Decimal
from typing import Any

import pytest

from dims_worker.probes.ids import IdValues, id_sort_key, id_text, normalize_id


@pytest.mark.parametrize(
    ("value", "text", "normalized"),
    [
        ("401584893.0", "401584893", "401584893"),
        ("401584893.00", "401584893", "401584893"),
        (Decimal("401584893.00"), "401584893", "401584893"),
        (401584893.0, "401584893", "401584893"),
        ("4.01584893e+08", "401584893", "401584893"),
        (b"401584893", "401584893", "401584893"),
        (Decimal("4.01584893E+8"), "401584893", "401584893"),
        ("0021200979", "0021200979", "21200979"),
        (" 0021200979\u00a0", "0021200979", "21200979"),
        ("201303160bos", "201303160bos", "201303160BOS"),
        ("0", "0", "0"),
        (0, "0", "0"),
        (-5, "-5", "-5"),
    ],
)
def test_forms_of_an_id_are_equal(value: Any, text: str, normalized: str) -> None:
    assert (id_text(value), normalize_id(value)) == (text, normalized)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("401584893.5", "401584893"),
        (Decimal("401584893.50"), Decimal("401584893.00")),
        ("4015848930", "401584893.0"),
        ("4.0158E+08", "401580000"),  # digits are lost
        ("12E3", "12000"),
        ("1-401584893", "401584893"),
        ("1021200979", "0021200979"),  # another league
    ],
)
def test_different_ids_stay_different(first: Any, second: Any) -> None:
    assert normalize_id(first) != normalize_id(second)


@pytest.mark.parametrize(
    "value",
    [
        *(None, math.nan, math.inf, Decimal("NaN"), "NaN", "nan", " ", "", "null", "None", "<NA>"),
        *(True, [], {}, 2.0**53),  # a float this large has lost digits
    ],
)
def test_values_without_an_id(value: Any) -> None:
    assert id_text(value) is None and normalize_id(value) is None
    values = IdValues.of([value, "1"])
    assert (values.ids, values.rows_without_id) == ({"1": "1"}, 1)


def test_values_without_an_id_are_counted_by_value() -> None:
    values = IdValues.of([None, None, math.nan, "", "0041", 41])
    assert (values.ids, values.to_json()) == ({"41": "0041"}, {"NULL": 2, "empty": 1, "nan": 1})


def test_ids_are_sorted_by_value() -> None:
    assert sorted(["x", "10", "9", "9" * 5000, "0041"], key=id_sort_key) == ["9", "10", "0041", "9" * 5000, "x"]
