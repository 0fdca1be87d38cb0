"""Test the chart of a metric in the terminal."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from dims_worker.cli.terminal_chart import MARKERS, ChartPoint, draw_chart

NOW = datetime(2026, 11, 26, tzinfo=UTC)
SINCE = NOW - timedelta(days=30)


def draw(points: list[ChartPoint], width: int = 60, *, plain: bool = False) -> list[str]:
    def label(value: object) -> str:
        return value if isinstance(value, str) else f"{value:,.6g} files"

    return [line.plain for line in draw_chart(points, SINCE, NOW, width, label, plain=plain)]


def point(day: float, outcome: str, value: float | str | None, baseline: float | str | None = None) -> ChartPoint:
    return ChartPoint(SINCE + timedelta(days=day), outcome, value, baseline)


def positions(lines: list[str], sign: str) -> list[tuple[int, int]]:
    return [
        (row, column)
        for row, line in enumerate(lines[:-1])
        for column, character in enumerate(line)
        if character == sign
    ]


def test_a_larger_value_is_higher_and_a_later_one_further_right() -> None:
    lines = draw([point(1, "accepted", 100), point(15, "held", 250), point(29, "rejected", 400)])
    (low,), (middle,), (high,) = (positions(lines, MARKERS[name].sign) for name in ("accepted", "held", "rejected"))
    assert low[0] > middle[0] > high[0] == 0
    assert low[1] < middle[1] < high[1]
    assert lines[0].startswith("400 files ┤")
    assert lines[11].startswith("100 files ┤")
    assert lines[-2].split() == ["2026-10-27", "2026-11-11", "2026-11-26"]
    assert lines[-1] == "● 1 accepted   ✕ 1 rejected   ◆ 1 held"


def test_each_outcome_has_its_own_sign_in_both_alphabets() -> None:
    for alphabet in ("sign", "plain"):
        signs = [getattr(marker, alphabet) for marker in MARKERS.values()]
        assert len(set(signs)) == len(signs)
    plain = "\n".join(draw([point(n, outcome, n, 3) for n, outcome in enumerate(MARKERS) if n], plain=True))
    assert plain.isascii()


def test_a_failure_is_a_gap_in_the_values_and_a_sign_below_them() -> None:
    lines = draw([point(1, "accepted", 5), point(15, "failed", None), point(29, "accepted", 9)])
    row = next(line for line in lines if line.strip().startswith("failed"))
    column = row.index("!")
    assert 25 < column < 50
    assert not any(line[column].strip() for line in lines[:12])
    assert "! 1 failed" in lines[-1]


def test_the_baseline_is_drawn_where_a_reading_differs_from_it() -> None:
    lines = draw([point(5, "accepted", 100), point(20, "held", 200, 100)])
    (held,) = positions(lines, "◆")
    assert (11, held[1]) in positions(lines, "─")
    assert lines[-1].startswith("─ baseline")


def test_an_outcome_that_needs_a_decision_covers_the_others() -> None:
    lines = draw([point(10, "held", 7), point(10.01, "accepted", 7), point(10.02, "looked", 7)])
    assert positions(lines, "◆")
    assert not positions(lines, "●") + positions(lines, "○")


@pytest.mark.parametrize("values", [[5], [5, 5, 5], [0.0, 0.0]])
def test_equal_values_are_drawn_in_one_row(values: list[float]) -> None:
    lines = draw([point(n * 9 + 1, "accepted", value) for n, value in enumerate(values)])
    assert len(positions(lines, "●")) == len(values)
    assert {row for row, _ in positions(lines, "●")} == {0}
    assert lines[0].startswith(f"{values[0]:g} files ┤")


def test_a_chart_of_failures_only_is_drawn() -> None:
    assert any("!" in line for line in draw([point(3, "failed", None), point(4, "failed", None)]))


def test_each_text_has_a_row_with_the_newest_on_top() -> None:
    lines = draw([point(1, "accepted", "synced"), point(15, "accepted", "behind"), point(29, "accepted", "synced")])
    assert [line.split(" ┤")[0].strip() for line in lines[:2]] == ["synced", "behind"]
    assert [row for row, _ in positions(lines, "●")] == [0, 0, 1]


@pytest.mark.parametrize("width", [24, 40, 80, 200])
def test_no_line_of_the_chart_is_wider_than_the_terminal(width: int) -> None:
    lines = draw([point(n, "accepted", n * 7) for n in range(30)], width)
    assert max(len(line) for line in lines[:-1]) == width


def test_a_terminal_too_narrow_for_labels_still_has_a_plot() -> None:
    assert all(len(line) <= 9 + 3 + 10 for line in draw([point(3, "accepted", 100)], 5)[:-1])


def test_the_largest_floats_are_drawn() -> None:
    lines = draw([point(1, "accepted", -1.7e308), point(20, "accepted", 1.7e308)])
    assert [row for row, _ in positions(lines, "●")] == [0, 11]


# --- the expected band


def banded(day: float, outcome: str, value: float, low: float, high: float) -> ChartPoint:
    return ChartPoint(SINCE + timedelta(days=day), outcome, value, None, (low, high))


def test_the_band_is_shaded_behind_the_values() -> None:
    lines = draw([banded(day, "accepted", 100 + day, 95 + day, 130 + day) for day in range(1, 30)])
    assert len(positions(lines, "●")) == 29
    shaded = {row for row, _ in positions(lines, "░")}
    assert len(shaded) > 8
    assert all(lines[row][column] != "░" for row, column in positions(lines, "●"))
    assert lines[-1] == "░ expected   ● 29 accepted"


def test_a_value_outside_the_band_has_its_own_sign_off_the_shade() -> None:
    lines = draw([banded(1, "accepted", 100, 90, 110), banded(15, "outside", 20, 90, 110)])
    ((row, column),) = positions(lines, "■")
    assert row == 11
    assert (row, column) not in positions(lines, "░")
    assert {shaded for shaded, _ in positions(lines, "░")} <= set(range(4))
    assert lines[-1] == "░ expected   ● 1 accepted   ■ 1 outside"


@pytest.mark.parametrize(("low", "high"), [(0, 1e9), (-1.7e308, 1.7e308), (5000, 9000), (-9000, -5000)])
def test_a_wide_or_far_band_does_not_flatten_the_values(low: float, high: float) -> None:
    lines = draw([banded(1, "accepted", 100, low, high), banded(20, "accepted", 200, low, high)])
    (first, _), (last, _) = sorted(positions(lines, "●"), key=lambda place: place[1])
    assert first - last >= 3


def test_without_a_band_the_chart_and_its_legend_are_as_before() -> None:
    assert "expected" not in draw([point(1, "accepted", 100)])[-1]
