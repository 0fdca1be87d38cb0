"""Read seasons, dates and ids from names, and the season of a day. Pure."""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date
from functools import lru_cache

from dims_worker.probes.ids import normalize_id

UNKNOWN = "unknown"
"""The season of a game or file without a season and a date, and the type of a game whose type is unknown."""
_FIRST_YEAR = 46
"""The first NBA season began in 1946, so two digits from 46 on mean the 20th century."""
_TWO_YEARS = re.compile(r"(?<!\d)(\d{4})\D{0,3}(\d{4}|\d\d)(?!\d)", re.ASCII)
_ONE_YEAR = re.compile(r"(?<!\d)(\d{4})(?!\d)", re.ASCII)
_SEASON_ID = re.compile(r"([1-6])(\d{4})", re.ASCII)
_NBA_ID = re.compile(r"00([1-6])(\d\d)\d{5}", re.ASCII)
_NBA_NUMBER = re.compile(r"([1-6])(\d\d)\d{5}", re.ASCII)
_LIKE_A_DATE = re.compile(r"(19|20)\d{6}", re.ASCII)
_YEARS = range(1900, 2101)

NBA_TYPES = {"1": "preseason", "2": "regular", "3": "all-star", "4": "playoffs", "5": "play-in", "6": "cup"}
"""The types of games by the third digit of the NBA's ids. 6 is the final of the NBA Cup."""
_TYPES = {
    **dict.fromkeys(("preseason", "pre", "exhibition"), "preseason"),
    **dict.fromkeys(("regular", "reg"), "regular"),
    **dict.fromkeys(("allstar", "allstargame"), "all-star"),
    **dict.fromkeys(("playoffs", "playoff", "postseason", "post", "finals"), "playoffs"),
    **dict.fromkeys(("playin", "playintournament"), "play-in"),
    **dict.fromkeys(("cup", "nbacup", "inseasontournament"), "cup"),
}


def season_name(year: int) -> str:
    """Return the name of the season that begins in a year: `2012-13`."""
    return f"{year}-{(year + 1) % 100:02d}"


@dataclass(frozen=True, slots=True)
class NamedSeason:
    """What a text says about a season: its first `year`, or `one_year` if the text has a single year, which is the
    first or the last of the season. `type` is the type of games, if the text has it."""

    text: str
    year: int | None = None
    one_year: int | None = None
    type: str | None = None


@lru_cache(4096)
def read_season(text: str) -> NamedSeason:
    """Read a season: `2012-13`, `2012_2013`, `201213`, `2012-13 Regular`, `22012` (the NBA's) or a single year."""
    text = re.sub(r"\.0+$", "", text.strip())
    if (code := _SEASON_ID.fullmatch(text)) and int(code[2]) in _YEARS:
        return NamedSeason(text, int(code[2]), None, NBA_TYPES[code[1]])
    for years in _TWO_YEARS.finditer(text):
        if int(years[1]) in _YEARS and int(years[2][-2:]) == (int(years[1]) + 1) % 100:
            rest = text[: years.start()] + text[years.end() :]
            return NamedSeason(text, int(years[1]), None, _known_type(rest))
    found = _ONE_YEAR.findall(text)
    if len(found) == 1 and int(found[0]) in _YEARS and not re.search(r"\d", text.replace(found[0], "", 1)):
        return NamedSeason(text, None, int(found[0]), _known_type(text.replace(found[0], "", 1)))
    if re.fullmatch(r"\d\d", text, re.ASCII):
        return NamedSeason(text, None, _century(text))
    return NamedSeason(text)


def _century(digits: str) -> int:
    return (1900 if int(digits) >= _FIRST_YEAR else 2000) + int(digits)


@lru_cache(4096)
def season_named(name: str) -> str:
    """Normalize a season in a path: `2012-13`, `2012_2013`, `201213`, `2012` and `12` are all `2012-13`. Return other
    names unchanged. A single year is the first of the season."""
    read = read_season(name)
    year = read.year if read.year is not None else read.one_year
    return name if year is None else season_name(year)


def _known_type(text: str) -> str | None:
    word = re.sub(r"[\W_]+", "", text).lower().removeprefix("nba")
    return _TYPES.get(word) or _TYPES.get(word.removesuffix("season"))


def game_type_of(text: str) -> str | None:
    """Return the type of games that a text names, such as `Regular Season`. Return other texts unchanged, in lower
    case, and None for a text without letters and digits."""
    return _known_type(text) or (re.sub(r"[\s_]+", " ", text).strip().lower() if re.search(r"[^\W_]", text) else None)


@dataclass(frozen=True, slots=True)
class NbaId:
    """What an id of the NBA says: the first year of the season, and the type of the game."""

    year: int
    type: str


def read_nba_id(text: str, *, with_zeros: bool = True) -> NbaId | None:
    """Read an id of the NBA: 00, a digit for the type, two digits for the season, five for the game.

    With `with_zeros`, the text needs the two zeros. Without, it is a number such as 21201048. Return None for other
    ids: those of ESPN and of other leagues say nothing.
    """
    match = _NBA_ID.fullmatch(text) if with_zeros else _NBA_NUMBER.fullmatch(text)
    return NbaId(_century(match[2]), NBA_TYPES[match[1]]) if match else None


@dataclass(frozen=True)
class SeasonCalendar:
    """The seasons by day. A season begins on the day in `starts`, by its first year, otherwise on `month` and `day`.

    `bounds` are the first and last days of seasons whose games are known, by name. They take precedence over the
    starts, if a day is within exactly one of them.
    """

    month: int = 7
    day: int = 1
    starts: Mapping[int, date] = field(default_factory=dict)
    bounds: Mapping[str, tuple[date, date]] = field(default_factory=dict)

    def start_of(self, year: int) -> date:
        """Return the day on which the season of a first year begins."""
        return self.starts.get(year) or date(year, self.month, self.day)

    def year_of(self, day: date) -> int:
        """Return the first year of the season of a day, by the starts."""
        return max(year for year in range(day.year - 2, day.year + 1) if self.start_of(year) <= day)

    def season_of(self, day: date | None) -> str:
        """Return the season of a day, and UNKNOWN for None."""
        if day is None:
            return UNKNOWN
        if self.bounds:
            within = [season for season, (first, last) in self.bounds.items() if first <= day <= last]
            if len(within) == 1:
                return within[0]
        return season_name(self.year_of(day))

    def with_bounds(self, seasons: Iterable[tuple[str, date]]) -> SeasonCalendar:
        """Return a calendar that knows the bounds of seasons from the days of their games."""
        bounds: dict[str, tuple[date, date]] = {}
        for season, day in seasons:
            first, last = bounds.get(season, (day, day))
            bounds[season] = (min(first, day), max(last, day))
        return SeasonCalendar(self.month, self.day, self.starts, bounds)


PLAIN_CALENDAR = SeasonCalendar()
"""Seasons that begin on 1 July."""


def season_of(day: date | None) -> str:
    """Return the season of a day if seasons begin on 1 July: `2012-13` from 2012-07-01 to 2013-06-30."""
    return PLAIN_CALENDAR.season_of(day)


def date_in(pattern: re.Pattern[str], name: str) -> date | None:
    """Return the first date that the pattern matches in a name, or None. The digits of its groups are YYYYMMDD.
    Digits that are not a valid date, such as 20121301, are skipped."""
    for match in pattern.finditer(name):
        digits = re.sub(r"\D", "", "".join(group or "" for group in match.groups()))
        if len(digits) == 8 and digits.isascii() and int(digits[:4]) in _YEARS:
            try:
                return date(int(digits[:4]), int(digits[4:6]), int(digits[6:]))
            except ValueError:
                continue
    return None


def group_of(pattern: re.Pattern[str], name: str) -> str | None:
    """Return the first non-empty group of the pattern, or None if it does not match."""
    match = pattern.search(name)
    return next((group for group in match.groups() if group), None) if match else None


@dataclass(frozen=True, slots=True)
class NameId:
    """The id of a game in a name: its normalized form, and what it says if it is an id of the NBA."""

    id: str
    nba: NbaId | None


def id_in(pattern: re.Pattern[str], name: str, day: date | None, known: Container[str] = ()) -> NameId | None:
    """Return the first id that the pattern matches in a name, or None.

    Eight digits like those of a date are no id, unless they are a `known` id or have the zeros of an id of the NBA:
    such a file has all games of a day, or it is misnamed, such as 20130230.
    """
    for match in pattern.finditer(name):
        text = next((group for group in match.groups() if group), None)
        game = normalize_id(text)
        if text is None or game is None:
            continue
        # The group of the pattern may leave the zeros out
        padded = text if text.startswith("00") else f"00{text}"
        nba = read_nba_id(padded) if _has_number(name, padded) else None
        is_the_day = day is not None and game == day.isoformat().replace("-", "")
        like_a_date = is_the_day or _LIKE_A_DATE.fullmatch(game) is not None
        if not like_a_date or nba is not None or game in known:
            return NameId(game, nba)
    return None


def _has_number(name: str, digits: str) -> bool:
    """Return whether the digits are in a name, and no other digit is beside them."""
    start = name.find(digits)
    end = start + len(digits)
    return start >= 0 and not name[start - 1 : start].isdigit() and not name[end : end + 1].isdigit()
