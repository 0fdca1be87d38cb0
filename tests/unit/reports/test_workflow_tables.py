"""A workflow's result as figures and tables."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from dims_worker.reports.workflow_tables import Table, cell_value, figures, tables

HEAD: dict[str, Any] = {
    "workflow": "local-inventory",
    "generated_at": "2026-11-26T02:05:59+00:00",
    "quick": False,
    "unreached": {},
    "summary": [],
    "attention": [],
}


def test_single_values_are_figures_with_their_paths() -> None:
    result = {**HEAD, "games": {"all": {"games": 3, "first": "2019-10-22"}}, "database": None, "undated": []}
    assert figures(result) == [
        ("games.all.games", 3),
        ("games.all.first", datetime(2019, 10, 22, tzinfo=UTC)),
        ("database", None),
    ]
    assert tables(result) == []


def test_lists_within_rows_are_tables_that_name_their_row() -> None:
    seasons = [{"few": False, "games": 2, "season": "2019-20"}, {"few": True, "games": 1, "season": "2020-21"}]
    folder = {"files": 3, "name": "espn", "lake": {"bytes": 9, "objects": 3}, "seasons": seasons, "large": []}
    assert tables({**HEAD, "folders": [folder, {"files": None, "name": "gone", "seasons": []}]}) == [
        Table(
            "folders",
            ("name", "files", "lake.bytes", "lake.objects", "large"),
            (("espn", 3, 9, 3, ""), ("gone", None, None, None, None)),
        ),
        Table(
            "folders.seasons",
            ("of name", "season", "few", "games"),
            (("espn", "2019-20", False, 2), ("espn", "2020-21", True, 1)),
        ),
    ]


def test_mappings_of_rows_and_plain_lists_are_tables() -> None:
    result = {**HEAD, "kinds": {"python": {"files": 1}, "sql": {"files": 2}}, "commands": ["aws s3 sync", "=1+1"]}
    assert tables(result) == [
        Table("kinds", ("name", "files"), (("python", 1), ("sql", 2))),
        Table("commands", ("name",), (("aws s3 sync",), ("=1+1",))),
    ]


def test_unreached_sources_come_first_and_sections_are_left_out() -> None:
    result = {
        **HEAD,
        "unreached": {"lake": "no answer"},
        "attention": ["look"],
        "summary": [["gap-analysis", "ok"]],
        "sections": [{"workflow": "gap-analysis", "games": [{"id": "1"}]}],
    }
    assert tables(result) == [
        Table("not reached", ("source", "why"), (("lake", "no answer"),)),
        Table("needs attention", ("what",), (("look",),)),
        Table("summary", ("what", "figure"), (("gap-analysis", "ok"),)),
    ]


def test_days_and_times_become_datetimes_and_similar_texts_stay_texts() -> None:
    assert cell_value("2020-03-19") == datetime(2020, 3, 19, tzinfo=UTC)
    assert cell_value("2026-11-26T02:05:59+01:00") == datetime(2026, 11, 26, 1, 5, 59, tzinfo=UTC)
    for text in ("2020-13-45", "2019-20", "0021900001", "2020-03-19 was a day", ""):
        assert cell_value(text) == text
    assert (cell_value(["a", "b"]), cell_value([]), cell_value(5), cell_value(None), cell_value(True)) == (
        "a, b",
        "",
        5,
        None,
        True,
    )
