"""The games table: seasons and their years, days in a time zone, status words, several rows, and ids of the NBA."""

from __future__ import annotations

import itertools
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from dims_worker.config.workflows import DEFAULT_STARTS, GapAnalysisConfig
from dims_worker.errors import MeasureError
from dims_worker.workflows.games_table import (
    GamesTable,
    TableGame,
    read_day,
    read_games_table,
    table_attention,
    table_document,
)
from dims_worker.workflows.seasons import read_nba_id, read_season
from dims_worker.workflows.warehouse_games import calendar_of

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
NEW_YORK = ZoneInfo("America/New_York")
CALENDAR = calendar_of(DEFAULT_STARTS)


def table(*rows: Any, zone: Any = UTC, **columns: str) -> GamesTable:
    """Read a table of rows (id, date) and of further columns in the order of `columns`."""
    named = [dict(zip(("game_id", "game_date", *columns.values()), row, strict=True)) for row in rows]
    return read_games_table(named, CALENDAR, zone, NOW)


def only(read: GamesTable) -> TableGame:
    (game,) = read.games
    return game


# --- days ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "day"),
    [
        (datetime(2025, 11, 15, 3, 30, tzinfo=UTC), date(2025, 11, 14)),
        ("2025-11-15T03:30Z", date(2025, 11, 14)),
        ("2025-11-15 03:30:00+00", date(2025, 11, 14)),
        ("2025-11-15 03:30:00 UTC", date(2025, 11, 14)),
        (datetime(2025, 11, 15, 3, 30), date(2025, 11, 15)),  # noqa: DTZ001 - a time without a zone stays as it is
        (20251115, date(2025, 11, 15)),
        (Decimal("20251115.00"), date(2025, 11, 15)),
        (date(2025, 11, 15), date(2025, 11, 15)),
    ],
)
def test_days_are_in_the_time_zone(value: Any, day: date) -> None:
    assert read_day(value, NEW_YORK) == day


@pytest.mark.parametrize(
    "value",
    [
        *(date.max, date.min, datetime.max.replace(tzinfo=UTC), datetime.min.replace(tzinfo=UTC)),
        *("11/14/2025", "14.11.2025", "2023-02-29", "20230229", "Nov 14, 2025", "2025-11-14 late", "infinity", ""),
        *(1763177400, 45975, 45975.5, "25-11-14", "2025-11", None, float("nan"), True),
    ],
)
def test_other_dates_are_no_days(value: Any) -> None:
    assert read_day(value, NEW_YORK) is None


def test_games_without_a_readable_date_are_named() -> None:
    read = table(("1", "11/14/2025"), ("2", "2023-02-29"), ("3", date.max), ("4", None))
    assert {game.season for game in read.games} == {"unknown"}
    assert {game.id: game.played for game in read.games} == {"1": False, "2": False, "3": False, "4": True}
    (sentence,) = [text for text in table_attention(table_document(read)) if "readable" in text]
    assert "has 4 games without a readable date, such as 1 (11/14/2025), 2 (2023-02-29)" in sentence


# --- seasons ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("day", "season"),
    [
        *(("2020-03-11", "2019-20"), ("2020-10-11", "2019-20"), ("2020-12-11", "2020-21")),
        *(("2021-07-20", "2020-21"), ("2021-10-03", "2021-22"), ("2019-06-30", "2018-19"), ("1999-02-05", "1998-99")),
    ],
)
def test_seasons_that_do_not_begin_in_july(day: str, season: str) -> None:
    assert only(table(("1", day))).season == season


@pytest.mark.parametrize(
    ("text", "season", "kind"),
    [
        *(("2025-26 Regular", "2025-26", "regular"), ("22025", "2025-26", "regular"), (22025, "2025-26", "regular")),
        *(("42025", "2025-26", "playoffs"), ("2025/26", "2025-26", "unknown"), ("2025-2026", "2025-26", "unknown")),
        *(("Playoffs 2025-26", "2025-26", "playoffs"), (2026, "2025-26", "unknown"), ("2026.0", "2025-26", "unknown")),
        *(("2025 - 26", "2025-26", "unknown"), ("2026 Regular Season", "2025-26", "regular")),
        *(("Spring", "Spring", "unknown"), (None, "2025-26", "unknown"), (Decimal("2026.00"), "2025-26", "unknown")),
    ],
)
def test_forms_of_a_season(text: Any, season: str, kind: str) -> None:
    game = only(table(("1", "2025-11-14", text), third="season"))
    assert (game.season, game.type) == (season, kind)


def test_the_dates_show_which_year_a_column_names_and_who_contradicts() -> None:
    rows = [("1", "2025-11-14", 2026), ("2", "2026-03-01", 2026), ("3", "2025-11-15", 2025), ("4", "2024-11-15", 2025)]
    read = table(*rows, third="season")
    assert read.convention == "last year"
    assert {game.id: game.season for game in read.games} == {
        "1": "2025-26",
        "2": "2025-26",
        "3": "2024-25",
        "4": "2024-25",
    }
    (contradiction,) = read.contradictions
    assert contradiction["id"] == "3"
    assert contradiction["reason"] == ("its column `season` says 2024-25, its day 2025-11-15 lies in 2025-26")
    assert "has 1 contradiction, such as 3: its column" in str(table_attention(table_document(read)))
    first = table(*[(name, day, year - 1) for name, day, year in rows[:2]], third="season")
    assert (first.convention, first.games[0].season) == ("first year", "2025-26")


def test_a_single_year_without_dates_is_not_guessed() -> None:
    read = table(("1", None, 2026), third="season")
    assert (read.convention, only(read).season) == ("unclear", "2026")
    assert "write both years" in str(table_attention(table_document(read)))


def test_bounds_of_seasons_come_from_the_games() -> None:
    read = table(("1", "2022-05-06", "2022-23"), ("2", "2023-04-01", "2022-23"), third="season")
    # May 2022 contradicts the season by the calendar, so it does not move its bounds
    assert [each["id"] for each in read.contradictions] == ["1"]
    assert read.calendar.season_of(date(2022, 5, 7)) == "2021-22"
    assert read.calendar.season_of(date(2023, 4, 1)) == "2022-23"


# --- ids of the NBA --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "season", "kind"),
    [
        *(("0021201048", "2012-13", "regular"), ("0041200101", "2012-13", "playoffs")),
        *(("0029901048", "1999-00", "regular"), ("0011200001", "2012-13", "preseason")),
        *(
            ("0052100101", "2021-22", "play-in"),
            ("0062300001", "2023-24", "cup"),
            ("0031200001", "2012-13", "all-star"),
        ),
    ],
)
def test_an_id_of_the_nba_says_season_and_type(name: str, season: str, kind: str) -> None:
    game = only(table((name, None)))
    assert (game.season, game.type) == (season, kind)


@pytest.mark.parametrize("name", ["401160001", "400278394", "1021200001", "0071200001", "201303160BOS", "20130316"])
def test_other_ids_say_nothing(name: str) -> None:
    game = only(table((name, "2013-03-16")))
    assert (game.season, game.type) == ("2012-13", "unknown")


def test_numbers_are_ids_of_the_nba_if_their_dates_agree() -> None:
    read = table((21201048, "2013-03-16"), (41200101, "2013-04-20"), (21201049, None))
    assert {game.id: (game.season, game.type) for game in read.games} == {
        "21201048": ("2012-13", "regular"),
        "41200101": ("2012-13", "playoffs"),
        "21201049": ("2012-13", "regular"),
    }
    assert {game.type for game in table((21201048, "2020-01-01"), (41200101, "2021-01-01")).games} == {"unknown"}


def test_an_id_that_contradicts_its_date_is_named() -> None:
    read = table(("0021201048", "2014-03-16"))
    assert (only(read).season, [each["id"] for each in read.contradictions]) == ("2012-13", ["0021201048"])


def test_read_nba_id_needs_its_zeros() -> None:
    assert read_nba_id("21201048") is None and read_nba_id("21201048", with_zeros=False) is not None


# --- played ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "played"),
    [
        *(("Final", True), ("Final/OT", True), ("FINAL/2OT", True), ("STATUS_FINAL", True), ("t", True), ("1", True)),
        *(("Postponed", False), ("0", False), ("f", False), ("If Necessary", False), ("Canceled", False), (0.0, False)),
        *((None, False), (Decimal("1.00"), True), (1, True), ("Scheduled", False), (float("nan"), False)),
    ],
)
def test_words_of_played(value: Any, played: bool) -> None:
    read = table(("1", "2025-11-14", value), third="played")
    assert only(read).played is played
    assert bool(read.played_unknown) == (value is None or value != value)


def test_status_numbers_of_the_nba() -> None:
    rows = [("1", "2025-11-14", 1), ("2", "2025-11-14", 2), ("3", "2025-11-14", 3), ("4", "2025-11-14", 6)]
    assert [game.played for game in table(*rows, third="played").games] == [False, False, True, False]


@pytest.mark.parametrize("value", ["Maybe", "x", 9, 1.5, "Final?!x", "played not"])
def test_an_unknown_word_is_refused(value: Any) -> None:
    with pytest.raises(MeasureError, match=r"`games`: the column `played` has .*Write a truth value"):
        table(("1", "2025-11-14", value), third="played")


def test_a_game_that_was_played_in_the_future_is_named() -> None:
    read = table(("1", "2031-11-14", True), third="played")
    assert "is in the future" in read.contradictions[0]["reason"]


def test_several_rows_of_a_game_are_resolved_in_any_order() -> None:
    rows = [
        ("1", "2021-01-10", "Postponed"),
        ("1.0", "2021-03-05", "Final"),
        ("001", "2021-02-01", None),
        ("2", "2021-01-10", "Final"),
    ]
    for order in itertools.permutations(rows):
        read = table(*order, third="played")
        first, second = sorted(read.games, key=lambda game: game.key)
        assert (first.day, first.played, second.day) == (date(2021, 3, 5), True, date(2021, 1, 10))
        assert len(read.several_rows) == 1
    without_status = table(("1", "2021-03-05"), ("1", "2021-01-10"))
    assert only(without_status).day == date(2021, 3, 5)


def test_letter_case_of_columns_does_not_matter() -> None:
    game = only(table(("1", "2025-11-14", 2026, "Postponed"), third="Season", fourth="PLAYED"))
    assert (game.season, game.played) == ("2025-26", False)


def test_rows_without_an_id_are_counted() -> None:
    read = table((None, "2021-03-05"), (float("nan"), "2021-03-05"), ("", "2021-03-05"), ("1", "2021-03-05"))
    assert [game.id for game in read.games] == ["1"]
    assert "3 rows without an id: NULL (1), empty (1), nan (1)" in table_attention(table_document(read))[0]


# --- configuration ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("starts", "text"),
    [
        ({"default": "13-01"}, "is not a day"),
        ({"default": "02-29"}, "is not a day"),
        ({"default": "2020-07-01"}, "write a month and a day"),
        ({"2020": "2020-12-01"}, "is not a season"),
        ({"2020-22": "2020-12-01"}, "is not a season"),
        ({"2020-21": "2025-12-01"}, "write a day in 2020 or in the year after it"),
        ({"2020-21": "12-01"}, "write a day in 2020"),
        ({"2020-21": "2021-08-01", "2021-22": "2021-08-01"}, "is not between"),
    ],
)
def test_season_starts_are_checked(starts: dict[str, str], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        GapAnalysisConfig(season_starts=starts)


def test_season_starts_of_another_league() -> None:
    config = GapAnalysisConfig.model_validate({"season_starts": {"default": "10-01", "2012-13": date(2013, 1, 5)}})
    calendar = calendar_of(config.season_starts)
    assert [calendar.season_of(date.fromisoformat(day)) for day in ("2012-12-01", "2013-01-05", "2013-09-30")] == [
        *("2011-12", "2012-13", "2012-13"),
    ]


def test_a_time_zone_is_checked() -> None:
    with pytest.raises(ValueError, match="is not a time zone"):
        GapAnalysisConfig(timezone="Mars")


def test_a_name_that_is_no_season_stays_as_it_is() -> None:
    assert [read_season(text).year for text in ("playoffs", "2012-15", "1812")] == [None, None, None]
