"""What a metric's picture is drawn from, and what it becomes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from dims_worker.config.metrics import FilesMetric
from dims_worker.reports.svg_charts import ChartMarker, ChartSize, TrendData, trend_svg
from dims_worker.store.history import Point
from dims_worker.store.metric_states import MetricState
from dims_worker.web.trend_chart import course

NOW = datetime(2026, 11, 26, 9, tzinfo=UTC)
FIRST = NOW - timedelta(days=30)
HOSTILE = "<b>\"'&\u202e"


def point(days: float, value: Any, outcome: str = "accepted", **more: Any) -> Point:
    facts: dict[str, Any] = {"unit": "files", "status": "ok", "severity": "none", "drift_pct": 0.0, "baseline": None}
    facts |= {"error": None, "run_id": 1, **more}
    return Point(as_of=NOW - timedelta(days=days), value=value, outcome=outcome, **facts)


def made(*points: Point, marks: tuple[Point, ...] = (), metric: FilesMetric | None = None, **state: Any) -> TrendData:
    return course(metric, MetricState("m.c", "one", unit="files", **state), points, marks, (FIRST, NOW))


def test_the_baseline_is_a_step_where_it_moved_and_goes_on_until_now() -> None:
    found = made(point(9, 5, baseline=4), point(8, 5, baseline=4), point(7, 6, baseline=5), baseline=7,
                 baseline_as_of=NOW - timedelta(days=3))  # fmt: skip
    assert [((NOW - at).days, value) for at, value in found.steps] == [(9, 4), (7, 5), (3, 7), (0, 7)]
    assert [value for _, value in found.line] == [5, 5, 6]


def test_a_baseline_older_than_the_picture_begins_at_its_edge() -> None:
    found = made(baseline=7, baseline_as_of=NOW - timedelta(days=300))
    assert found.steps == [(FIRST, 7), (NOW, 7)]


def test_what_is_no_number_is_no_point() -> None:
    found = made(point(9, "synced"), point(8, True), point(7, None), point(6, 10**400), point(5, 0), baseline="synced",
                 baseline_as_of=NOW)  # fmt: skip
    assert [value for _, value in found.line] == [0]
    assert found.steps == []


def test_what_has_another_unit_than_the_value_is_no_point_of_its_line() -> None:
    held = point(4, 9000, "held", unit="lines")
    found = made(point(9, 5000, unit="lines", baseline=4000), point(8, 5, baseline=5), marks=(held,))
    assert [value for _, value in found.line] == [5]
    assert [value for _, value in found.steps] == [5, 5] and not found.markers


def test_an_age_is_as_long_as_it_was_then_and_has_no_baseline() -> None:
    metric = FilesMetric(source="one", measure="newest_age", unit="days")  # hours, when it was measured
    then = (NOW - timedelta(days=10)).isoformat()
    found = made(
        point(8, then, baseline=then, unit="hours"),
        point(1, then, unit="hours"),
        metric=metric,
        baseline=then,
        baseline_as_of=NOW,
    )
    assert [value for _, value in found.line] == [2, 9]
    assert found.steps == []


def test_marks_have_a_title_each_and_a_failure_has_no_value() -> None:
    held = point(2, 150, "held", baseline=100, drift_pct=50.0)
    failed = point(1, None, "failed", error=HOSTILE)
    found = made(point(9, 5), marks=(held, failed, point(1, "text", "held")))
    assert [(mark.outcome, mark.value) for mark in found.markers] == [("held", 150), ("failed", None)]
    assert found.markers[0].title == "2026-11-24 09:00, held: 150 files (+50.0 %)"
    assert "1 value from 5 to 5 files, 1 held, 1 failed" in found.description


def test_a_picture_escapes_and_stands_within_its_frame() -> None:
    found = made(point(29, 5), point(1, 9), marks=(point(2, None, "failed", error=HOSTILE),))
    svg = trend_svg(found, ChartSize(1000, 300, "wide"))
    assert 'viewBox="0 0 1000 300"' in svg
    assert svg.count('class="dot"') == 2
    assert "<b>" not in svg
    assert "\u202e" not in svg
    assert "&lt;b&gt;&quot;&#x27;&amp;" in svg


def test_many_values_are_a_line_without_points_and_none_is_no_picture() -> None:
    many = made(*(point(29 - n / 10, n) for n in range(100)))
    assert 'class="dot"' not in trend_svg(many, ChartSize(360, 150))
    assert (
        trend_svg(TrendData(FIRST, NOW, [], [], [ChartMarker(NOW, "failed", None, "x")], "x"), ChartSize(360, 150))
        == ""
    )
