"""Allow only one statement that reads. Lexed as in PostgreSQL (manual, chapter 4.1)."""

from __future__ import annotations

import re

from dims_worker.errors import MeasureError

_READING = ("SELECT", "WITH", "VALUES", "TABLE", "SHOW", "EXPLAIN", "DESCRIBE")
_NOT_CODE = re.compile(
    r"""
      --[^\n]*                                              # a comment
    | /\*.*?\*/                                             # the rest of nested ones counts as code: refused
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
    code = _NOT_CODE.sub(" ", query).strip().rstrip("; \t\r\n")
    if ";" in code:
        raise MeasureError("the query has more than one statement: write one, without `;`")
    word = re.match(r"[\s(]*(\w*)", code)
    assert word is not None
    if word[1].upper() not in _READING:
        raise MeasureError(f"the query starts with {word[1] or 'nothing'}: use one of {', '.join(_READING)}")
