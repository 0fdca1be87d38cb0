"""The sparkline of a metric's days."""

from __future__ import annotations

import re

import pytest

from dims_worker.reports.svg_charts import sparkline_svg
from dims_worker.store.history import DailyLine


def places(svg: str) -> list[tuple[float, float]]:
    drawn = re.search(r'd="M([^"]*)"', svg)
    assert drawn
    return [(float(x), float(y)) for x, y in (point.split() for point in drawn[1].split("L"))]


def test_a_line_fills_the_height_and_each_day_has_its_place() -> None:
    svg = sparkline_svg(DailyLine([0, 15, 30], [10.0, 30.0, 20.0]), 31)
    assert places(svg) == [(2, 25), (60, 3), (118, 14)]
    assert '<circle cx="118" cy="14.0"' in svg
    assert 'aria-label="3 days, from 10 to 30"' in svg


@pytest.mark.parametrize(
    ("line", "days", "expected"),
    [
        (DailyLine([3], [7.0]), 30, [(14, 14)]),
        (DailyLine([0], [7.0]), 1, [(60, 14)]),
        (DailyLine([0, 1], [5.0, 5.0]), 2, [(2, 14), (118, 14)]),
        (DailyLine([0, 1], [1e15, 1e15 + 1]), 2, [(2, 25), (118, 3)]),
        (DailyLine([0, 1], [-9e299, 9e299]), 2, [(2, 25), (118, 3)]),
        (DailyLine([0, 1], [0.0, 5e-324]), 2, [(2, 25), (118, 3)]),
    ],
    ids=["one point", "one day", "level", "large", "far apart", "close to zero"],
)
def test_any_numbers_fit_into_the_chart(line: DailyLine, days: int, expected: list[tuple[float, float]]) -> None:
    assert places(sparkline_svg(line, days)) == expected


def test_a_line_without_days_is_empty() -> None:
    assert sparkline_svg(DailyLine(), 30) == ""
