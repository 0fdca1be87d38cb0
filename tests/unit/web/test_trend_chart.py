"""The data and the SVG of a metric's chart."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from dims_worker.config.metrics import FilesMetric
from dims_worker.reports.svg_charts import ChartMarker, ChartSize, TrendData, legend_html, trend_svg
from dims_worker.store.history import Point
from dims_worker.store.metric_states import MetricState
from dims_worker.web.trend_chart import trend_data

NOW = datetime(2026, 11, 26, 9, tzinfo=UTC)
FIRST = NOW - timedelta(days=30)
HOSTILE = "<b>\"'&\u202e"


def point(days: float, value: Any, outcome: str = "accepted", **more: Any) -> Point:
    facts: dict[str, Any] = {"unit": "files", "status": "ok", "severity": "none", "drift_pct": 0.0, "baseline": None}
    facts |= {"error": None, "run_id": 1, **more}
    return Point(as_of=NOW - timedelta(days=days), value=value, outcome=outcome, **facts)


def make_trend(
    *points: Point, marks: tuple[Point, ...] = (), metric: FilesMetric | None = None, **state: Any
) -> TrendData:
    return trend_data(metric, MetricState("m.c", "one", unit="files", **state), points, marks, (FIRST, NOW))


def test_the_baseline_is_a_step_line_until_now() -> None:
    trend = make_trend(
        point(9, 5, baseline=4),
        point(8, 5, baseline=4),
        point(7, 6, baseline=5),
        baseline=7,
        baseline_as_of=NOW - timedelta(days=3),
    )
    assert [((NOW - at).days, value) for at, value in trend.steps] == [(9, 4), (7, 5), (3, 7), (0, 7)]
    assert [value for _, value in trend.line] == [5, 5, 6]


def test_an_older_baseline_begins_at_the_edge_of_the_chart() -> None:
    trend = make_trend(baseline=7, baseline_as_of=NOW - timedelta(days=300))
    assert trend.steps == [(FIRST, 7), (NOW, 7)]


def test_only_numbers_are_points() -> None:
    trend = make_trend(
        point(9, "synced"),
        point(8, True),
        point(7, None),
        point(6, 10**400),
        point(5, 0),
        baseline="synced",
        baseline_as_of=NOW,
    )
    assert [value for _, value in trend.line] == [0]
    assert trend.steps == []


def test_readings_in_another_unit_are_left_out() -> None:
    held = point(4, 9000, "held", unit="lines")
    trend = make_trend(point(9, 5000, unit="lines", baseline=4000), point(8, 5, baseline=5), marks=(held,))
    assert [value for _, value in trend.line] == [5]
    assert [value for _, value in trend.steps] == [5, 5] and not trend.markers


def test_an_age_is_drawn_as_it_was_then_without_a_baseline() -> None:
    metric = FilesMetric(source="one", measure="newest_age", unit="days")  # measured in hours
    then = (NOW - timedelta(days=10)).isoformat()
    trend = make_trend(
        point(8, then, baseline=then, unit="hours"),
        point(1, then, unit="hours"),
        metric=metric,
        baseline=then,
        baseline_as_of=NOW,
    )
    assert [value for _, value in trend.line] == [2, 9]
    assert trend.steps == []


def test_each_marker_has_a_title_and_a_failure_has_no_value() -> None:
    held = point(2, 150, "held", baseline=100, drift_pct=50.0)
    failed = point(1, None, "failed", error=HOSTILE)
    trend = make_trend(point(9, 5), marks=(held, failed, point(1, "text", "held")))
    assert [(mark.outcome, mark.value) for mark in trend.markers] == [("held", 150), ("failed", None)]
    assert trend.markers[0].title == "2026-11-24 09:00, held: 150 files (+50.0 %)"
    assert "1 value from 5 to 5 files, 1 held, 1 failed" in trend.description


def test_a_chart_escapes_text_and_has_its_size() -> None:
    trend = make_trend(point(29, 5), point(1, 9), marks=(point(2, None, "failed", error=HOSTILE),))
    svg = trend_svg(trend, ChartSize(1000, 300, "wide"))
    assert 'viewBox="0 0 1000 300"' in svg
    assert svg.count('class="dot"') == 2
    assert "<b>" not in svg
    assert "\u202e" not in svg
    assert "&lt;b&gt;&quot;&#x27;&amp;" in svg


def test_many_values_are_a_line_without_dots_and_no_values_are_no_chart() -> None:
    many = make_trend(*(point(29 - n / 10, n) for n in range(100)))
    assert 'class="dot"' not in trend_svg(many, ChartSize(360, 150))
    assert (
        trend_svg(TrendData(FIRST, NOW, [], [], [ChartMarker(NOW, "failed", None, "x")], "x"), ChartSize(360, 150))
        == ""
    )


# --- the expected band


def banded(
    days: float, value: Any, low: float = 90, high: float = 110, outcome: str = "accepted", **more: Any
) -> Point:
    return point(days, value, outcome, expected_low=low, expected_high=high, **more)


def areas(svg: str) -> list[list[tuple[float, float]]]:
    """Return the corners of each area of the band, as far as a path of H and V steps names them."""
    found = re.search(r'<path class="expected" d="([^"]*)"', svg)
    if not found:
        return []
    corners = []
    for path in found[1].split("M")[1:]:
        x, y = (float(number) for number in re.match(r"([\d.]+) ([\d.]+)", path).groups())  # type: ignore[union-attr]
        corners.append([(x, y)])
        for axis, number in re.findall(r"([HV])([\d.]+)", path):
            x, y = (float(number), y) if axis == "H" else (x, float(number))
            corners[-1].append((x, y))
    return corners


def test_the_band_of_each_day_is_an_area_behind_the_line() -> None:
    trend = make_trend(banded(3, 100), banded(2, 101, 95, 115), banded(1, 102, 96, 116))
    assert [(each.low, each.high) for each in trend.band] == [(90, 110), (95, 115), (96, 116)]
    assert all(each.day.hour == 0 for each in trend.band)  # type: ignore[attr-defined]
    svg = trend_svg(trend, ChartSize(1000, 300))
    assert svg.index('class="expected"') < svg.index('class="line"')
    (area,) = areas(svg)
    days = sorted({x for x, _ in area})
    width = (1000 - 46 - 8) / 30
    assert len(days) == 4
    assert days[1] - days[0] == pytest.approx(width, abs=0.11)
    assert days[-1] - days[0] == pytest.approx(3 * width, abs=0.11)


def test_the_last_band_of_a_day_counts_and_a_held_value_has_one_too() -> None:
    held = banded(1.1, 200, 97, 117, "held", severity="urgent")
    trend = make_trend(banded(1.3, 100), banded(1.2, 100, 96, 116), marks=(held,))
    assert [(each.low, each.high) for each in trend.band] == [(97, 117)]
    assert trend.markers[0].title == "2026-11-25 06:36, held: 200 files (0.0 %), expected 97 to 117"


def test_a_long_time_without_a_band_is_a_gap_in_the_area() -> None:
    trend = make_trend(banded(20, 100), point(15, 100), banded(5, 100), banded(2, 100))
    assert len(areas(trend_svg(trend, ChartSize(1000, 300)))) == 2


def test_a_chart_without_a_band_looks_as_before() -> None:
    trend = make_trend(point(9, 5, baseline=4), point(8, 5, baseline=4))
    assert trend.band == []
    assert "expected" not in trend_svg(trend, ChartSize(1000, 300)) + legend_html(expected=False)


def test_an_accepted_value_outside_the_band_has_its_own_sign() -> None:
    low = banded(2, 40, severity="urgent", baseline=100, drift_pct=60.0)
    trend = make_trend(banded(3, 100), low, marks=(low,))
    assert [(mark.outcome, mark.value) for mark in trend.markers] == [("outside", 40)]
    assert trend.markers[0].title == "2026-11-24 09:00, outside: 40 files (-60.0 %), expected 90 to 110"
    assert 'class="outside"' in trend_svg(trend, ChartSize(1000, 300))
    assert "1 outside" in trend.description


@pytest.mark.parametrize(
    ("reading", "reason"),
    [
        (banded(2, 105, severity="high"), "it is inside"),
        (banded(2, 110, severity="high"), "the edge is inside"),
        (banded(2, 140, severity="none"), "policy watches only losses"),
        (banded(2, "text", severity="urgent"), "a text is not outside"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_no_other_value_stands_out(reading: Point, reason: str) -> None:
    assert make_trend(banded(3, 100), reading, marks=(reading,)).markers == []


def test_an_approved_value_outside_the_band_keeps_its_sign() -> None:
    approved = banded(2, 140, outcome="approved", severity="high")
    assert [mark.outcome for mark in make_trend(approved, marks=(approved,)).markers] == ["approved"]


@pytest.mark.parametrize(("low", "high"), [(0, 1e9), (-1e300, 1e300), (-1.7e308, 1.7e308), (5000, 9000)])
def test_a_wide_or_far_band_does_not_flatten_the_values(low: float, high: float) -> None:
    trend = make_trend(banded(3, 100, low, high), banded(2, 120, low, high))
    svg = trend_svg(trend, ChartSize(1000, 300))
    (line,) = re.findall(r'class="line" d="([^"]*)"', svg)
    heights = [float(y) for y in re.findall(r"[\d.]+ ([\d.]+)", line.replace("M", " ").replace("L", " "))]
    assert abs(heights[0] - heights[1]) > 0.2 * 272
    assert all(8 <= y <= 280 for area in areas(svg) for _, y in area)
    assert all(46 <= x <= 992 for area in areas(svg) for x, _ in area)


def test_the_band_of_a_constant_value_is_visible() -> None:
    svg = trend_svg(make_trend(banded(3, 100), banded(2, 100)), ChartSize(1000, 300))
    (area,) = areas(svg)
    heights = {y for _, y in area}
    assert max(heights) - min(heights) > 0.3 * 272
