"""Games, seasons, gaps and the plan."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any

import pytest

from dims_worker.probes.ids import normalize_id
from dims_worker.workflows.coverage import share
from dims_worker.workflows.games_table import read_day, read_games_table
from dims_worker.workflows.gap_analysis.games import (
    Game,
    GapRule,
    by_season,
    date_gaps,
    download_plan,
    totals,
    with_data,
)
from dims_worker.workflows.gap_analysis.report import format_share, summary, target_value
from dims_worker.workflows.seasons import PLAIN_CALENDAR, UNKNOWN, season_of

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
RULE = GapRule(7, 5, frozenset({10, 11, 12, 1, 2, 3, 4}))


@pytest.mark.parametrize(
    "name, expected",
    [
        *(("0021201048", "21201048"), (21201048, "21201048"), (21201048.0, "21201048"), (" 007 ", "7")),
        *(("000", "0"), ("201303160BOS", "201303160BOS"), ("00x1", "00X1"), ("", None)),
    ],
)
def test_ids_are_normalized(name: Any, expected: str | None) -> None:
    assert normalize_id(name) == expected


@pytest.mark.parametrize(
    "day, season",
    [
        *((date(2013, 6, 30), "2012-13"), (date(2012, 7, 1), "2012-13"), (date(2012, 12, 31), "2012-13")),
        *((date(1999, 10, 1), "1999-00"), (date(2000, 3, 1), "1999-00"), (None, UNKNOWN)),
    ],
)
def test_season_of(day: date | None, season: str) -> None:
    assert season_of(day) == season


@pytest.mark.parametrize(
    "value, day",
    [
        *((date(2013, 3, 16), date(2013, 3, 16)), (datetime(2013, 3, 16, 23, tzinfo=UTC), date(2013, 3, 16))),
        *(("2013-03-16T19:00", date(2013, 3, 16)), ("20130316", date(2013, 3, 16)), ("2013-13-16", None)),
        *((None, None), ("soon", None), (0, None)),
    ],
)
def test_the_day_of_a_value(value: Any, day: date | None) -> None:
    assert read_day(value, UTC) == day


def test_games_and_what_they_lack() -> None:
    rows = [
        {"game_id": "0002", "game_date": "2013-03-17"},
        {"game_id": 1, "game_date": date(2013, 3, 16)},
        {"game_id": "0001", "game_date": "2013-03-15"},  # the same game again, with an earlier day
        {"game_id": None, "game_date": "2013-03-18"},
        {"game_id": "3", "game_date": None},
        {"game_id": "4", "game_date": "2026-11-22"},  # today, so not over
    ]
    games = with_data(read_games_table(rows, PLAIN_CALENDAR, UTC, NOW).games, {"1", "X"}, {"2", "1"})
    assert [(g.id, g.season, g.played, g.lacks) for g in games] == [
        ("1", "2012-13", True, ()),
        ("0002", "2012-13", True, ("box score content",)),
        ("4", "2026-27", False, ("box score content", "play-by-play")),
        ("3", UNKNOWN, True, ("box score content", "play-by-play")),
    ]


@pytest.mark.parametrize(
    "played, expected", [(True, True), (False, False), (0, False), (3, True), ("f", False), ("True", True)]
)
def test_columns_season_and_played_are_used(played: Any, expected: bool) -> None:
    row = {"id": "1", "day": "2013-03-16", "season": "2011_2012", "played": played}
    (game,) = read_games_table([row], PLAIN_CALENDAR, UTC, NOW).games
    assert (game.season, game.played) == ("2011-12", expected)


def game(name: str, day: str, *, played: bool = True, box: bool = True, play_by_play: bool = True) -> Game:
    when = date.fromisoformat(day)
    return Game(name, when, season_of(when), played, box, play_by_play)


def test_counts_by_season() -> None:
    games = [
        game("a", "2012-11-01"),
        game("b", "2012-11-02", play_by_play=False),
        game("c", "2013-01-01", box=False, play_by_play=False, played=False),
        game("d", "2013-11-01", box=False),
    ]
    assert totals(games) == {
        "games": 4,
        "not_played": 1,
        "without_box_score": 2,
        "without_play_by_play": 2,
        "missing_pct": 50.0,
        "coverage_pct": 50.0,
        "first": "2012-11-01",
        "last": "2013-11-01",
    }
    first, second = by_season(games)
    assert (first["season"], first["games"], first["coverage_pct"]) == ("2012-13", 3, pytest.approx(100 / 3))
    assert (second["season"], second["missing_pct"], second["coverage_pct"]) == ("2013-14", 100.0, 100.0)
    assert totals([])["coverage_pct"] is None and share(0, 0) is None


@pytest.mark.parametrize(
    "days, expected",
    [
        ([], []),
        (["2013-01-01"], []),
        (["2013-01-01", "2013-01-01", "2013-01-02"], []),
        (["2013-01-01", "2013-01-07"], []),  # five days: not over the limit in season
        (["2013-01-01", "2013-01-08"], [("2013-01-02", "2013-01-07", 6, "in season")]),
        (["2013-05-01", "2013-05-09"], []),  # seven, out of season
        (["2013-05-01", "2013-05-10"], [("2013-05-02", "2013-05-09", 8, "out of season")]),
        (["2013-04-28", "2013-05-05"], []),  # touches May
        (["2013-06-20", "2013-10-29"], [("2013-06-21", "2013-10-28", 130, "between seasons")]),
        (["2012-12-30", "2013-12-31"], [("2012-12-31", "2013-12-30", 365, "between seasons")]),
        (["2012-12-28", "2013-01-05"], [("2012-12-29", "2013-01-04", 7, "in season")]),  # across New Year
    ],
)
def test_gaps(days: list[str], expected: list[tuple[str, str, int, str]]) -> None:
    actual = date_gaps(map(date.fromisoformat, days), RULE)
    assert [(gap["first"], gap["last"], gap["days"], gap["when"]) for gap in actual] == expected


def test_a_missing_game_has_one_priority() -> None:
    games = [
        game("whole", "2013-11-01"),
        game("new", "2013-11-02", play_by_play=False),
        game("loadable", "2013-11-03", play_by_play=False),
        game("older", "2012-11-02", box=False),
        game("oldest", "2011-11-02", box=False),
        game("cancelled", "2013-11-04", box=False, play_by_play=False, played=False),
        Game("undated", None, UNKNOWN, True, False, False),
    ]
    steps = download_plan(games, lambda game: game.id in ("loadable", "cancelled"))
    assert [(step["priority"], step["games"]) for step in steps] == [
        *((1, ["loadable"]), (2, ["new"]), (3, ["older", "oldest", "undated"]), (4, ["cancelled"])),
    ]
    assert [each["season"] for each in steps[2]["seasons"]] == ["2012-13", "2011-12", UNKNOWN]


def test_a_summary_without_sources_counts_no_gaps() -> None:
    nothing = {"games": None, "lake": None, "date_gaps": [], "targets": None}
    assert summary(nothing) == []


@pytest.mark.parametrize(
    ("value", "text"),
    [(8 / 73.8, "0.11 %"), (0.1, "0.1 %"), (0.096, "0.096 %"), (0.10004, "0.10004 %"), (0.0, "0.0 %"), (None, "-")],
)
def test_a_narrowly_missed_target_is_not_rounded_to_it(value: float | None, text: str) -> None:
    assert target_value({"aim_pct": 0.1, "value_pct": value}) == text


def test_all_except_one_is_not_100_percent() -> None:
    assert format_share(100 * 7379 / 7380) == "99.99 %"
    assert format_share(100.0) == "100.0 %"
    assert format_share(100 / 7380) == "0.01 %"
