"""The data and the SVG of a metric's chart."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from dims_worker.config.metrics import FilesMetric
from dims_worker.reports.svg_charts import ChartMarker, ChartSize, TrendData, trend_svg
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
