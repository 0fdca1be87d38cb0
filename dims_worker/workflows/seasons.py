"""Read seasons, dates and ids from names. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import date
from functools import lru_cache

UNKNOWN = "unknown"
"""The season of a game or file without a season and a date."""
_FIRST_MONTH = 7
"""A season runs from July to June."""
_FIRST_YEAR = 46
"""The first NBA season began in 1946, so two digits from 46 on mean the 20th century."""
_TWO_YEARS = re.compile(r"(\d{4})\D?(?:\d{2}|\d{4})")
_YEARS = range(1900, 2101)


@lru_cache(4096)
def season_of(day: date | None) -> str:
    """Return the season of a day: `2012-13` from 2012-07-01 to 2013-06-30, and UNKNOWN for None."""
    if day is None:
        return UNKNOWN
    return _season(day.year if day.month >= _FIRST_MONTH else day.year - 1)


@lru_cache(4096)
def season_named(name: str) -> str:
    """Normalize a season: `2012-13`, `2012_2013`, `201213`, `2012` and `12` are all `2012-13`. Return other names
    unchanged."""
    if re.fullmatch(r"\d\d", name):
        return _season((1900 if int(name) >= _FIRST_YEAR else 2000) + int(name))
    if re.fullmatch(r"\d{4}", name) and int(name) in _YEARS:
        return _season(int(name))
    years = _TWO_YEARS.fullmatch(name)
    if years and int(years[1]) in _YEARS and name.endswith(f"{(int(years[1]) + 1) % 100:02d}"):
        return _season(int(years[1]))
    return name


def _season(first: int) -> str:
    return f"{first}-{(first + 1) % 100:02d}"


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


def expected_of(season: str, expected: Mapping[str, int]) -> int | None:
    """Return how many games a season should have, or None if neither it nor a default is configured."""
    return expected.get(season, expected.get("default"))


def completeness(games: int, expected: int | None) -> float | None:
    """Return the percentage of the expected games, at most 100, or None if no number is expected."""
    return min(100.0, 100 * games / expected) if expected else None
