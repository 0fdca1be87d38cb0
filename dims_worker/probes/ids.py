"""Ids from databases, JSON and names of files in one form, so that DIMS can compare them."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

_NO_ID = frozenset({"", "nan", "none", "null", "<na>", "nat", "n/a", "\\n"})
"""Texts that programs write where there is no value, in lower case."""
_EXACT_FLOAT = 2**53
"""Above this, floating point numbers do not keep all digits, so different ids become equal."""
_DECIMALS = re.compile(r"(\d+)\.0+", re.ASCII)
_EXPONENT = re.compile(r"(\d)\.(\d+)[eE]\+?(\d{1,3})", re.ASCII)
_PLAIN_DIGITS = re.compile(r"\d+", re.ASCII)


def id_text(value: Any) -> str | None:
    """Return the text of an id for people: a number without decimals, a text without spaces around it.

    Leading zeros and letter case stay. None if the value is no id: NULL, NaN, infinity, an empty text, a truth value,
    a list, an object, or a floating point number that is too large to be exact.
    """
    if value is None or isinstance(value, bool | list | dict | set | tuple):
        return None
    if isinstance(value, float):
        if not math.isfinite(value) or abs(value) >= _EXACT_FLOAT:
            return None
        return str(int(value)) if value.is_integer() else repr(value)
    if isinstance(value, Decimal):
        if not value.is_finite():
            return None
        return format(value.to_integral_value() if value == value.to_integral_value() else value.normalize(), "f")
    if isinstance(value, bytes | bytearray | memoryview):
        value = bytes(value).decode("utf-8", "backslashreplace")
    return _text_of(str(value))


def _text_of(text: str) -> str | None:
    text = text.strip(" \t\r\n\v\f\0\u00a0\u200b\ufeff")
    if text.lower() in _NO_ID:
        return None
    if decimals := _DECIMALS.fullmatch(text):
        return decimals[1]
    power = _EXPONENT.fullmatch(text)
    # 4.01584893e+08 has all its digits. 4.01585E+08 has lost some, so it stays as it is
    return power[1] + power[2] if power and len(power[2]) == int(power[3]) else text


def normalize_id(value: Any) -> str | None:
    """Return the form in which DIMS compares ids, or None if the value is no id (see `id_text`).

    A number has no leading zeros and no decimals, and a text is in upper case: `0041200101`, 41200101, 41200101.0
    and `41200101.00` are the same id.
    """
    text = id_text(value)
    if text is None:
        return None
    return text.lstrip("0") or "0" if _PLAIN_DIGITS.fullmatch(text) else text.upper()


def id_sort_key(text: str) -> tuple[bool, int, str]:
    """Sort ids that are numbers by value, before texts."""
    is_number = _PLAIN_DIGITS.fullmatch(text) is not None
    digits = text.lstrip("0")
    return (False, len(digits), digits) if is_number else (True, 0, text)


@dataclass(slots=True)
class IdValues:
    """The ids among some values, from their normalized form to the text for people, and the values without an id."""

    ids: dict[str, str] = field(default_factory=dict)
    without: Counter[str] = field(default_factory=Counter)
    """How often a value occurs that is no id, by its text, such as `NULL` or `nan`."""

    @classmethod
    def of(cls, values: Iterable[Any]) -> IdValues:
        read = cls()
        for value in values:
            read.add(value)
        return read

    def add(self, value: Any) -> str | None:
        """Add a value. Return its normalized id, or None."""
        name = normalize_id(value)
        if name is None:
            self.without[no_id_text(value)] += 1
        else:
            self.ids.setdefault(name, id_text(value) or name)
        return name

    @property
    def rows_without_id(self) -> int:
        return self.without.total()

    def to_json(self) -> dict[str, int]:
        """Return the values without an id and their numbers, the most frequent first."""
        return dict(sorted(self.without.items(), key=lambda item: (-item[1], item[0]))[:20])


def no_id_text(value: Any) -> str:
    """Return how to call a value that is no id: `NULL`, `empty`, or its text."""
    if value is None:
        return "NULL"
    text = str(value).strip()
    return text[:40] if text else "empty"
