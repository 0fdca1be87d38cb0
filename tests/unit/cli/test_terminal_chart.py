"""The trend of a metric in characters."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from dims_worker.cli.terminal_chart import MARKS, ChartPoint, draw_chart

NOW = datetime(2026, 11, 26, tzinfo=UTC)
SINCE = NOW - timedelta(days=30)


def drawn(dots: list[ChartPoint], width: int = 60, *, plain: bool = False) -> list[str]:
    def label(one: object) -> str:
        return one if isinstance(one, str) else f"{one:,.6g} files"

    return [line.plain for line in draw_chart(dots, SINCE, NOW, width, label, plain=plain)]


def dot(day: float, outcome: str, value: float | str | None, baseline: float | str | None = None) -> ChartPoint:
    return ChartPoint(SINCE + timedelta(days=day), outcome, value, baseline)


def places(lines: list[str], sign: str) -> list[tuple[int, int]]:
    return [(row, column) for row, line in enumerate(lines[:-1]) for column, one in enumerate(line) if one == sign]


def test_larger_is_higher_and_later_is_further_right() -> None:
    lines = drawn([dot(1, "accepted", 100), dot(15, "held", 250), dot(29, "rejected", 400)])
    (low,), (middle,), (high,) = (places(lines, MARKS[one].sign) for one in ("accepted", "held", "rejected"))
    assert low[0] > middle[0] > high[0] == 0
    assert low[1] < middle[1] < high[1]
    assert lines[0].startswith("400 files ┤")
    assert lines[11].startswith("100 files ┤")
    assert lines[-2].split() == ["2026-10-27", "2026-11-11", "2026-11-26"]
    assert lines[-1] == "● 1 accepted   ✕ 1 rejected   ◆ 1 held"


def test_each_outcome_has_a_sign_of_its_own_in_either_alphabet() -> None:
    for alphabet in ("sign", "plain"):
        signs = [getattr(mark, alphabet) for mark in MARKS.values()]
        assert len(set(signs)) == len(signs)
    plain = "\n".join(drawn([dot(n, outcome, n, 3) for n, outcome in enumerate(MARKS) if n], plain=True))
    assert plain.isascii()


def test_a_failure_is_a_gap_in_the_values_and_a_sign_below_them() -> None:
    lines = drawn([dot(1, "accepted", 5), dot(15, "failed", None), dot(29, "accepted", 9)])
    row = next(line for line in lines if line.strip().startswith("failed"))
    column = row.index("!")
    assert 25 < column < 50
    assert not any(line[column].strip() for line in lines[:12])
    assert "! 1 failed" in lines[-1]


def test_the_baseline_is_seen_where_a_reading_leaves_it() -> None:
    lines = drawn([dot(5, "accepted", 100), dot(20, "held", 200, 100)])
    (held,) = places(lines, "◆")
    assert (11, held[1]) in places(lines, "─")
    assert lines[-1].startswith("─ baseline")


def test_what_needs_people_is_seen_before_what_does_not() -> None:
    lines = drawn([dot(10, "held", 7), dot(10.01, "accepted", 7), dot(10.02, "looked", 7)])
    assert places(lines, "◆")
    assert not places(lines, "●") + places(lines, "○")


@pytest.mark.parametrize("values", [[5], [5, 5, 5], [0.0, 0.0]])
def test_one_point_and_equal_ones_are_a_line_of_one_height(values: list[float]) -> None:
    lines = drawn([dot(n * 9 + 1, "accepted", value) for n, value in enumerate(values)])
    assert len(places(lines, "●")) == len(values)
    assert {row for row, _ in places(lines, "●")} == {0}
    assert lines[0].startswith(f"{values[0]:g} files ┤")


def test_failures_alone_are_drawn() -> None:
    assert any("!" in line for line in drawn([dot(3, "failed", None), dot(4, "failed", None)]))


def test_texts_have_a_row_for_each_state_the_newest_on_top() -> None:
    lines = drawn([dot(1, "accepted", "synced"), dot(15, "accepted", "behind"), dot(29, "accepted", "synced")])
    assert [line.split(" ┤")[0].strip() for line in lines[:2]] == ["synced", "behind"]
    assert [row for row, _ in places(lines, "●")] == [0, 0, 1]


@pytest.mark.parametrize("width", [24, 40, 80, 200])
def test_no_line_of_the_picture_is_wider_than_the_terminal(width: int) -> None:
    lines = drawn([dot(n, "accepted", n * 7) for n in range(30)], width)
    assert max(len(line) for line in lines[:-1]) == width


def test_what_is_too_narrow_for_labels_keeps_a_picture() -> None:
    assert all(len(line) <= 9 + 3 + 10 for line in drawn([dot(3, "accepted", 100)], 5)[:-1])


def test_the_ends_of_what_a_float_can_hold_are_drawn() -> None:
    lines = drawn([dot(1, "accepted", -1.7e308), dot(20, "accepted", 1.7e308)])
    assert [row for row, _ in places(lines, "●")] == [0, 11]
