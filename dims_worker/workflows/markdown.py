"""Markdown out of names that nobody chose: tables, code spans and plain words that no name can break."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence

# What ends a line somewhere, is no text (lone surrogates, controls), or turns the writing's direction round
_UNSEEN = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")
_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}
_MARKUP = re.compile(r"([\\`*\[\]<>]|(?<![^\W_])_|_(?![^\W_])|&(?=[\w#]+;)|~(?=~))")
_BLOCK = re.compile(r"^(\s*)(#{1,6}(?=\s|$)|[-+](?=\s|$)|(\d+)([.)])(?=\s|$)|={3,}|-{3,})")
_TICKED = re.compile(r"(?<!`)`{1,2}([^`]+)`{1,2}(?!`)")
_PIPE = re.compile(r"(\\*)\|")


def escape_invisible(value: str) -> str:
    r"""On one line: what is not to be seen (line breaks, controls, lone surrogates) as `\n`, `\x1b`, `\u2028`."""
    return _UNSEEN.sub(_escape, value)


def code_span(value: str) -> str:
    """A code span that holds the text, whatever backticks are in it."""
    seen = escape_invisible(value)
    fence = "`" * (max((len(run) for run in re.findall("`+", seen)), default=0) + 1)
    if len(fence) > 1 or (seen.strip(" ") and seen.startswith(" ") and seen.endswith(" ")) or not seen:
        seen = f" {seen} "  # one space on each side is taken off by the reader
    return f"{fence}{seen}{fence}"


def escape_markdown(value: str) -> str:
    """Plain words: no character of it is markup, HTML included."""
    escaped = _inline(value)
    return _BLOCK.sub(lambda m: f"{m[1]}{m[3]}\\{m[4]}" if m[3] else f"{m[1]}\\{m[2]}", escaped)


def escape_prose(value: str) -> str:
    """Words as a docstring has them: what stands between backticks is a code span, the rest plain words."""
    parts = _TICKED.split(value)
    return "".join(code_span(part) if index % 2 else _inline(part) for index, part in enumerate(parts))


def format_bytes(number: int) -> str:
    """Bytes as people read them, in powers of 1,000: `999 B`, `5.3 kB`, `12.0 GB`."""
    value = float(number)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 999.95 or (unit == "B" and number < 1000):
            return f"{number:,} B" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:,.1f} TB"


def markdown_table(
    headers: Sequence[str], rows: Iterable[Sequence[object]], numbers: Collection[int] = ()
) -> list[str]:
    """The lines of a Markdown table, without blank lines around it.

    `numbers` are the indices of the columns that stand to the right. A cell is Markdown: names in it go through
    `code` or `text`. An int is written with thousands (`1,230`), None as nothing; every `|` and all that would
    end the line is escaped.
    """
    ruler = ["---:" if index in numbers else "---" for index in range(len(headers))]
    return [_row(headers), _row(ruler), *(_row(row) for row in rows)]


def _inline(value: str) -> str:
    return _MARKUP.sub(r"\\\1", escape_invisible(value))


def _row(cells: Iterable[object]) -> str:
    return f"| {' | '.join(map(_cell, cells))} |"


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    # An odd number of backslashes escapes the bar; an even one is itself escaped
    bars = _PIPE.sub(lambda m: m[0] if len(m[1]) % 2 else f"{m[1]}\\|", escape_invisible(str(value)).strip())
    return bars if (len(bars) - len(bars.rstrip("\\"))) % 2 == 0 else f"{bars}\\"


def _escape(match: re.Match[str]) -> str:
    character = match[0]
    number = ord(character)
    return _SHORT.get(character) or (f"\\x{number:02x}" if number < 256 else f"\\u{number:04x}")
