"""Holdings of feeds from sample listings, and reports with odd names."""

from __future__ import annotations

import json
from datetime import date
from typing import Any

from dims_worker.config import Feed
from dims_worker.workflows.gap_analysis import report as gap_analysis_report
from dims_worker.workflows.gap_analysis.games import GapRule, date_gaps
from dims_worker.workflows.gap_analysis.lake import NAMES, FeedHoldings, compare

FEED = Feed(prefixes={"pbp": "pbp/", "schedule": "schedule/"})


def page(**sizes: int) -> list[dict[str, Any]]:
    return [{"Key": key, "Size": size} for key, size in sizes.items()]


def test_objects_ids_days_and_seasons() -> None:
    holdings = FeedHoldings({"espn": FEED}, {"1": "2012-13"})
    holdings.add(page(**{"pbp/0001.csv": 5, "pbp/2.csv": 0, "pbp/3-20130316.csv": 7, "pbp/x.csv": 1, "pbp/": 0}))
    holdings.add(page(**{"schedule/20130316.json": 2, "schedule/171031017.json": 2, "schedule/20131301.json": 2}))
    holdings.add(page(**{"other/1.csv": 9, "schedul": 1}))
    pbp, schedule = holdings.to_json()
    assert (pbp["objects"], pbp["bytes"], pbp["empty"], pbp["games"], pbp["unreadable_names"]) == (
        *(4, 13, 1, 2),
        ["pbp/x.csv"],
    )
    assert pbp["seasons"] == [
        {"season": "2012-13", "objects": 2, "games": 2},
        {"season": "unknown", "objects": 2, "games": 0},
    ]
    assert (schedule["objects"], schedule["games"], schedule["days"], schedule["unreadable"]) == (3, 0, 1, 2)
    assert schedule["unreadable_names"] == ["schedule/171031017.json", "schedule/20131301.json"]
    assert holdings.ids("pbp") == {"1", "3"}


def test_the_season_in_a_key_and_the_longest_prefix_take_precedence() -> None:
    feeds = {
        "all": Feed(prefixes={"pbp": "a/"}),
        "seasons": Feed(prefixes={"pbp": "a/by_season/"}, season=r"/(\d{4}-\d\d)/"),
    }
    holdings = FeedHoldings(feeds, {"1": "1999-00"})
    holdings.add(page(**{"a/1.csv": 1, "a/by_season/2012-13/1.csv": 1}))
    assert [holding["seasons"][0]["season"] for holding in holdings.to_json()] == ["1999-00", "2012-13"]


def test_the_number_of_unreadable_names_is_limited() -> None:
    holdings = FeedHoldings({"espn": FEED}, {})
    holdings.add(page(**{f"pbp/x{n}.csv": 1 for n in range(NAMES + 5)}))
    assert (holdings.all[0].unreadable, len(holdings.all[0].unreadable_names)) == (NAMES + 5, NAMES)


def test_compare_uses_the_original_ids_of_games() -> None:
    holdings = FeedHoldings({"espn": FEED}, {})
    holdings.add(page(**{"pbp/0001.csv": 1, "pbp/0002.csv": 1, "pbp/0009.csv": 1}))
    assert compare(holdings.all[0], {"1": "1", "3": "0003"}, "play-by-play", {"2": "0002", "3": "0003"}) == {
        "lake": "espn pbp",
        "database": "play-by-play",
        "both": 1,
        "only_lake": ["0002", "9"],
        "only_database": ["0003"],
    }


def test_a_report_is_stable_for_odd_names_and_any_order_of_keys() -> None:
    name = "a|b`c`\n# x\u2028<b>"
    result: dict[str, Any] = {
        "games": {
            "all": _counts(),
            "seasons": [{"season": name, **_counts()}],
            "missing": [{"id": name, "date": None, "season": name, "lacks": ["play-by-play"], "played": True}],
            "types": [{"season": name, "type": name, **_counts()}],
            "undated": [name],
        },
        "games_table": {
            "rows_without_id": 1,
            "values_without_id": {name: 1},
            "season_column": "last year",
            "contradictions": [{"id": name, "reason": name}],
            "several_rows": [name],
            "played_unknown": [name],
        },
        "lake": None,
        "date_gaps": [],
        "lake_and_database": [],
        "targets": [],
        "plan": [{"priority": 1, "title": "t", "reason": "r", "seasons": [], "games": [name]}],
        "missing_ids": None,
        "attention": [name],
    }
    text = gap_analysis_report.markdown(result)
    assert "\u2028" not in text and "\n# x" not in text and r"\<b\>" in text
    backwards = json.loads(json.dumps(result, sort_keys=True))
    assert gap_analysis_report.markdown(backwards) == text
    table = [line for line in text.split("\n") if line.startswith("|") and "| play-by-play |" in line and "\\n" in line]
    assert len(table) == 1
    of_an_earlier_version = {key: value for key, value in result.items() if key != "games_table"}
    of_an_earlier_version["games"] = {key: value for key, value in result["games"].items() if key != "types"}
    assert "# Missing games" in gap_analysis_report.markdown(of_an_earlier_version)


def _counts() -> dict[str, Any]:
    return {
        "games": 1,
        "not_played": 0,
        "without_box_score": 0,
        "without_play_by_play": 1,
        "missing_pct": 0.0,
        "coverage_pct": 0.0,
        "first": None,
        "last": None,
    }


def test_misnamed_keys_are_named_and_create_no_day_and_no_season() -> None:
    holdings = FeedHoldings({"espn": FEED}, {}, latest=date(2027, 1, 1))
    holdings.add(page(**{f"pbp/40116{n:04}.json": 9 for n in range(50)}))
    wrong = ["pbp/20190101.json", "pbp/notes_20190301.json", "pbp/readme.txt"]
    holdings.add(page(**dict.fromkeys(wrong, 9)))
    holdings.add(page(**{"schedule/20130316.json": 2, "schedule/20130317.json": 2}))
    typos = ["schedule/20130230.json", "schedule/20991231.json", "schedule/401160001.json"]
    holdings.add(page(**dict.fromkeys(typos, 2)))
    pbp, schedule = holdings.to_json()
    assert (pbp["games"], pbp["days"], pbp["unreadable"], pbp["unreadable_names"]) == (50, 0, 3, wrong)
    assert [season["season"] for season in pbp["seasons"]] == ["unknown"]
    assert (schedule["days"], schedule["last"], schedule["unreadable_names"]) == (2, "2013-03-17", typos)
    assert [season["season"] for season in schedule["seasons"]] == ["2012-13", "unknown"]


def test_an_id_beside_a_day_and_small_objects() -> None:
    feed = Feed.model_validate({"prefixes": {"pbp": "pbp/"}, "min_size": 5})
    holdings = FeedHoldings({"espn": feed}, {})
    holdings.add(page(**{"pbp/20191022_401160001.json": 9, "pbp/401160002-20191023.json": 9}))
    holdings.add(page(**{"pbp/20191024_401160003.json": 4, "pbp/0021900001.json": 9}))
    (pbp,) = holdings.to_json()
    assert holdings.ids("pbp") == {"401160001", "401160002", "21900001"}
    assert (pbp["empty"], pbp["days"], [season["season"] for season in pbp["seasons"]]) == (1, 3, ["2019-20"])


def test_a_gap_of_a_feed_has_games() -> None:
    rule = GapRule(7, 5, frozenset({10, 11, 12, 1, 2, 3, 4}))
    days = [date(2013, 1, 1), date(2013, 1, 31), date(2013, 2, 28)]
    (gap,) = date_gaps(days, rule, game_days={date(2013, 2, 10), date(2013, 2, 11), date(2013, 5, 1)})
    assert (gap["first"], gap["game_days"]) == ("2013-02-01", 2)
