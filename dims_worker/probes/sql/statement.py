"""Allow only one statement that reads. Lexed as in PostgreSQL (manual, chapter 4.1)."""

from __future__ import annotations

import re

from dims_worker.errors import MeasureError

_READING = ("SELECT", "WITH", "VALUES", "TABLE", "SHOW", "EXPLAIN", "DESCRIBE")
_IN_SUBQUERY = ("SELECT", "WITH", "VALUES", "TABLE")
_NOT_CODE = re.compile(
    r"""
      (?P<comment>--[^\n]*|/\*.*?\*/)                       # the rest of nested ones counts as code: refused
    | \b[eE]'(?:[^'\\]|\\.|'')*'                            # with escapes
    | '(?:[^']|'')*'
    | "(?:[^"]|"")*"
    | (?<![\w$])\$(?P<tag>(?:[^\W\d]\w*)?)\$.*?\$(?P=tag)\$ # between dollars
    """,
    re.DOTALL | re.VERBOSE,
)


def check_read_only(query: str) -> None:
    """Raise MeasureError if the query has more than one statement, or does not read.

    This prevents mistakes and a stray `COMMIT`. The read-only transaction ensures that nothing is written.
    """
    code = _code(query)
    if ";" in code:
        raise MeasureError("the query has more than one statement: write one, without `;`")
    word = _first_word(code)
    if word.upper() not in _READING:
        raise MeasureError(f"the query starts with {word or 'nothing'}: use one of {', '.join(_READING)}")


def as_subquery(query: str) -> str | None:
    """Return the query without a `;` and comments at its end, or None if it cannot be in a FROM clause."""
    code = _code(query)
    return query[: len(code)] if _first_word(code).upper() in _IN_SUBQUERY else None


def _code(query: str) -> str:
    """Return the query up to its last character that counts, with comments blank and `'` in place of each literal."""
    masked = _NOT_CODE.sub(lambda match: (" " if match["comment"] else "'") * len(match[0]), query)
    return masked.rstrip("; \t\r\n")


def _first_word(code: str) -> str:
    word = re.match(r"[\s(]*(\w*)", code)
    assert word is not None
    return word[1]
