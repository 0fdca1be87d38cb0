"""What may be asked of a database: one statement that reads. Lexed as PostgreSQL does (manual, chapter 4.1)."""

from __future__ import annotations

import re

from dims_worker.errors import MeasureError

_READING = ("SELECT", "WITH", "VALUES", "TABLE", "SHOW", "EXPLAIN", "DESCRIBE")
_ASIDE = re.compile(
    r"""
      --[^\n]*                                              # a comment
    | /\*.*?\*/                                             # where they nest, the rest is taken for code: refused
    | \b[eE]'(?:[^'\\]|\\.|'')*'                            # with escapes
    | '(?:[^']|'')*'
    | "(?:[^"]|"")*"
    | (?<![\w$])\$(?P<tag>(?:[^\W\d]\w*)?)\$.*?\$(?P=tag)\$ # between dollars
    """,
    re.DOTALL | re.VERBOSE,
)


def check_reads(query: str) -> None:
    """Raises MeasureError where the query is more than one statement, or none that reads.

    It keeps mistakes and a stray `COMMIT` out; that nothing is written is for the transaction to see to.
    """
    code = _ASIDE.sub(" ", query).strip().rstrip("; \t\r\n")
    if ";" in code:
        raise MeasureError("a query is one statement; this one has more, parted by `;`")
    word = re.match(r"[\s(]*(\w*)", code)
    assert word is not None
    if word[1].upper() not in _READING:
        raise MeasureError(f"a query starts with {', '.join(_READING)}; this one with {word[1] or 'nothing'}")
