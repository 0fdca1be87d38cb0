"""Days in the folders of keys, as Hive, Spark and others write them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from datetime import date
from urllib.parse import unquote

_ISO = re.compile(r"([0-9]{4}-[0-9]{2}-[0-9]{2})(?:[T _-].*)?")
"""A day, or an instant: `2026-11-28`, `2026-11-28 10:00:00`, `2026-11-28-10`."""
_COMPACT = re.compile(r"([0-9]{8})(?:[T _-]?[0-9]{2}(?:[0-9]{2}){0,2}Z?)?")
_COMPACT_NAME = re.compile(r"(?:.*date|.*day|.*dt|ds|d|partition|dateint)", re.IGNORECASE)
"""Partitions whose values of 8 digits are days. `game_id=20131104` is not one."""
_YEAR_MONTH_DAY = re.compile(r"(?:^|/)((?:19|20)[0-9]{2})/([0-9]{2})/([0-9]{2})(?=/|$)")
_PARTS = {"year": 0, "yyyy": 0, "y": 0, "month": 1, "mm": 1, "m": 1, "day": 2, "dd": 2, "d": 2}
_SMALL_NUMBER = re.compile(r"[0-9]{1,4}")


def day_of_partitions(folders: str) -> date | None:
    """Return the day of `dt=2026-11-28` or `year=2026/month=11/day=28`. None without a day, and with several ones."""
    if "=" not in folders:
        return None
    return _only(_partition_days(folders))


def day_of_folders(folders: str) -> date | None:
    """Return the day of folders such as `2026-11-28` or `2026/11/28`. None without a day, and with several ones."""
    days = [_date(*match.groups()) for match in _YEAR_MONTH_DAY.finditer(folders)]
    iso = (_ISO.fullmatch(folder) for folder in folders.split("/"))
    return _only([*days, *(_date(*match[1].split("-")) for match in iso if match)])


def day_of_compact_folders(folders: str) -> date | None:
    """Return the day of a folder such as `20261128`. None without a day, and with several ones."""
    return _only(_compact_day(folder) for folder in folders.split("/"))


def _partition_days(folders: str) -> Iterator[date | None]:
    parts: dict[int, str] = {}
    for folder in folders.split("/"):
        name, equals, text = folder.partition("=")
        if not equals:
            continue
        value = unquote(text)
        if match := _ISO.fullmatch(value):
            yield _date(*match[1].split("-"))
        elif _COMPACT_NAME.fullmatch(name):
            yield _compact_day(value)
        if (part := _PARTS.get(name.lower())) is not None and _SMALL_NUMBER.fullmatch(value):
            parts[part] = value
    if len(parts) == len(set(_PARTS.values())):
        yield _date(parts[0], parts[1], parts[2])


def _compact_day(text: str) -> date | None:
    match = _COMPACT.fullmatch(text)
    return _date(match[1][:4], match[1][4:6], match[1][6:]) if match else None


def _date(year: str, month: str, day: str) -> date | None:
    try:
        return date(int(year), int(month), int(day))
    except ValueError:
        return None


def _only(days: Iterable[date | None]) -> date | None:
    """Return the day if all are the same one. Which of several days is meant is unknown."""
    known = {day for day in days if day is not None}
    return known.pop() if len(known) == 1 else None
