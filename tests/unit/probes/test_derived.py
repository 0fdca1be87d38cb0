"""Derived readings."""

from __future__ import annotations

import pytest

from dims_worker.config import DerivedMetric
from dims_worker.probes.base import Reading, Value
from dims_worker.probes.derived import derive_reading
from dims_worker.probes.reading_notes import reading_doubts


def good(name: str, value: Value) -> Reading:
    return Reading(name, value, "", "exact")


def of(text: str, **values: Value) -> Reading:
    inputs = {f"m.{name}": good(f"m.{name}", value) for name, value in values.items()}
    return derive_reading("d.x", DerivedMetric(derive=text, unit="lines"), inputs)


@pytest.mark.parametrize(
    ("text", "values", "expected"),
    [
        ("m.a + m.b", {"a": 2, "b": 3}, 5),
        ("m.a / m.b", {"a": 1, "b": 4}, 0.25),
        ("max(m.a, m.b) * 2", {"a": 2, "b": 3}, 6),
        ("100 * m.a / m.b if m.b else 0", {"a": 2, "b": 0}, 0),
    ],
)
def test_a_value_keeps_its_type(text: str, values: dict[str, Value], expected: float) -> None:
    reading = of(text, **values)
    assert (reading.metric, reading.value, reading.unit, reading.method) == ("d.x", expected, "lines", "derived")
    assert type(reading.value) is type(expected)


def test_every_unusable_input_is_named() -> None:
    inputs = {
        "m.a": Reading.failed("m.a", "", "the bucket is gone"),
        "m.b": good("m.b", None),
        "m.c": good("m.c", "2025-01-01T00:00:00+00:00"),
        "m.d": good("m.d", True),
        "m.f": good("m.f", 1),
    }
    error = derive_reading("d.x", DerivedMetric(derive="m.a + m.b + m.c + m.d + m.e + m.f"), inputs).error
    assert error is not None
    for part in ("m.a: the bucket is gone", "m.b is null: it has no value", "m.c: '2025", "m.d: True", "m.e: has no"):
        assert part in error
    assert "m.f" not in error


@pytest.mark.parametrize(
    ("text", "values"),
    [("m.a / m.b", {"a": 1, "b": 0}), ("m.a * m.b", {"a": 1e308, "b": 1e308}), ("m.a ** m.b", {"a": -1, "b": 0.5})],
)
def test_a_result_that_is_not_a_number_fails(text: str, values: dict[str, Value]) -> None:
    reading = of(text, **values)
    assert reading.method == "failed" and reading.error


def test_a_formula_inherits_the_doubts_about_its_inputs():
    metric = DerivedMetric(derive="m.a + m.b + m.c")
    inputs = {
        "m.a": Reading("m.a", 1, "files", "approximate", None, {"changed_while_measured": True}),
        "m.b": Reading("m.b", 2, "files", "exact", None, {"in_progress": "a rebase is in progress"}),
        "m.c": Reading("m.c", 0, "files", "exact", None, {"absent": "the folder does not exist"}),
    }
    reading = derive_reading("m.sum", metric, inputs)
    assert (reading.value, reading.method) == (3, "derived")
    assert reading_doubts(reading.method, reading.details) == [
        "approximate: the source changed while DIMS measured it",
        "measured while a rebase is in progress",
        "absent: m.c: the folder does not exist",
    ]
    exact = {name: Reading(name, 1, "files", "exact") for name in inputs}
    assert derive_reading("m.sum", metric, exact).details == {}


def test_a_null_input_fails_with_its_reason():
    inputs = {"m.a": Reading("m.a", None, "files", "exact", None, {"absent": "the folder does not exist"})}
    reading = derive_reading("m.twice", DerivedMetric(derive="2 * m.a"), inputs)
    assert (reading.method, reading.error) == ("failed", "m.a is null: the folder does not exist")
