"""Was a game played? Reads the values of a column `played`. Pure."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

from dims_worker.errors import MeasureError
from dims_worker.probes.ids import id_text

_PLAYED = frozenset(
    (
        *("true", "t", "yes", "y", "final", "fin", "finished", "finish", "completed"),
        *("complete", "played", "closed", "ended", "over", "gameover", "fulltime", "ft", "post"),
        *("statusfinal", "afterovertime", "aot"),
    )
)
_NOT_PLAYED = frozenset(
    (
        *("false", "f", "no", "n", "scheduled", "statusscheduled", "notstarted", "pre", "pregame"),
        *("upcoming", "tbd", "tba", "created", "postponed", "ppd", "statuspostponed", "cancelled", "canceled"),
        *(
            "cancel",
            "statuscanceled",
            "suspended",
            "delayed",
            "rescheduled",
            "unnecessary",
            "ifnecessary",
            "notnecessary",
            "notplayed",
        ),
        *("forfeit", "forfeited", "abandoned", "inprogress", "statusinprogress", "in", "live", "halftime"),
    )
)
_OVERTIME = re.compile(r"(final|finished|completed|f)\d*(st|nd|rd|th)?(ot|overtime)\d*")
_CODES = {0: False, 1: False, 2: False, 3: True, 5: False, 6: False, 7: False, 22: False, 23: False}
"""The status of a game at the NBA (1 scheduled, 2 live, 3 final) and at ESPN (also 5 cancelled, 6 postponed, 7 delayed,
22 end of a period, 23 halftime)."""


def played_reader(values: Iterable[Any]) -> Callable[[Any], bool | None]:
    """Return a function that reads values of the column: played, not played, or None for NULL.

    It knows truth values, words such as `Final` and `Postponed`, and the status numbers of the NBA and ESPN. A column
    holds such numbers if it has any other than 0 and 1. Raises MeasureError for a value that DIMS does not know.
    """
    counts = Counter(_key(value) for value in values)
    numbers = {key for key in counts if isinstance(key, int)}
    codes = _CODES if numbers - {0, 1} else {0: False, 1: True}
    known = {key: _meaning(key, codes) for key in counts if key is not None}
    unknown = sorted(str(key) for key, meaning in known.items() if meaning is None)
    if unknown:
        raise MeasureError(
            f"`games`: the column `played` has {', '.join(map(repr, unknown[:5]))}, which DIMS does not know. "
            "Write a truth value in the query, such as `status = 'Final' AS played`"
        )

    def read(value: Any) -> bool | None:
        key = _key(value)
        return None if key is None else known[key]

    return read


def _key(value: Any) -> str | int | None:
    """Return a truth value, a number, a word in lower case, or None for NULL and NaN."""
    if isinstance(value, bool):
        return "true" if value else "false"
    text = id_text(value)
    if text is None:
        return None
    if text.isdecimal() and len(text) < 9:
        return int(text)
    return text.strip().lower()


def _meaning(key: str | int, codes: dict[int, bool]) -> bool | None:
    if isinstance(key, int):
        return codes.get(key)
    word = re.sub(r"[\W_]+", "", key)
    if word in _PLAYED or _OVERTIME.fullmatch(word):
        return True
    return False if word in _NOT_PLAYED else None
