"""Seasons, dates and games as names tell them. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import date
from functools import lru_cache

_FIRST_MONTH = 7
"""A season runs from July to June."""
_FIRST_YEAR = 46
"""The NBA's first season began in 1946: two digits from 46 on are of the last century."""
_SPELLED = re.compile(r"(\d{4})\D?(?:\d{2}|\d{4})")
_YEARS = range(1900, 2101)


@lru_cache(4096)
def season_of(day: date) -> str:
    """The season of a day: `2012-13` from 2012-07-01 to 2013-06-30."""
    return _season(day.year if day.month >= _FIRST_MONTH else day.year - 1)


@lru_cache(4096)
def season_named(name: str) -> str:
    """A season as it is written in a path, in its usual form: `2012-13`, `2012_2013`, `201213`, its first year
    `2012`, and that year's last digits `12` are all 2012-13. What is none of these stays as it is."""
    if re.fullmatch(r"\d\d", name):
        return _season((1900 if int(name) >= _FIRST_YEAR else 2000) + int(name))
    if re.fullmatch(r"\d{4}", name) and int(name) in _YEARS:
        return _season(int(name))
    spelled = _SPELLED.fullmatch(name)
    if spelled and int(spelled[1]) in _YEARS and name.endswith(f"{(int(spelled[1]) + 1) % 100:02d}"):
        return _season(int(spelled[1]))
    return name


def _season(first: int) -> str:
    return f"{first}-{(first + 1) % 100:02d}"


def date_in(pattern: re.Pattern[str], name: str) -> date | None:
    """The first date that the pattern finds in a name: the digits of its groups are YYYYMMDD. None where there
    is none; digits that are no day of any calendar, such as 20121301, are no date."""
    for match in pattern.finditer(name):
        digits = re.sub(r"\D", "", "".join(group or "" for group in match.groups()))
        if len(digits) == 8 and digits.isascii() and int(digits[:4]) in _YEARS:
            try:
                return date(int(digits[:4]), int(digits[4:6]), int(digits[6:]))
            except ValueError:
                continue
    return None


def group_of(pattern: re.Pattern[str], name: str) -> str | None:
    """What the first group that took part holds; None where the pattern is not found."""
    match = pattern.search(name)
    return next((group for group in match.groups() if group), None) if match else None


def expected_of(season: str, expected: Mapping[str, int]) -> int | None:
    """How many games a season should have; None where neither it nor a default is configured."""
    return expected.get(season, expected.get("default"))


def completeness(games: int, expected: int | None) -> float | None:
    """The percentage of the expected games, never above 100; None where nobody said what to expect."""
    return min(100.0, 100 * games / expected) if expected else None
