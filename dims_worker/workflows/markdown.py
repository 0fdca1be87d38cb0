"""Create Markdown from arbitrary names: tables, code spans and text that no name can break."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence

# Line ends, controls, lone surrogates, and characters that change the direction of text
_UNSEEN = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")
_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}
_MARKUP = re.compile(r"([\\`*\[\]<>]|(?<![^\W_])_|_(?![^\W_])|&(?=[\w#]+;)|~(?=~))")
_BLOCK = re.compile(r"^(\s*)(#{1,6}(?=\s|$)|[-+](?=\s|$)|(\d+)([.)])(?=\s|$)|={3,}|-{3,})")
_TICKED = re.compile(r"(?<!`)`{1,2}([^`]+)`{1,2}(?!`)")
_PIPE = re.compile(r"(?<!\\)(\\*+)\|")


def escape_invisible(value: str) -> str:
    r"""Escape invisible characters (line breaks, controls, lone surrogates) as `\n`, `\x1b`, `\u2028`."""
    return _UNSEEN.sub(_escape, value)


def code_span(value: str) -> str:
    """Return a code span with the text, which may contain backticks."""
    seen = escape_invisible(value)
    fence = "`" * (max((len(run) for run in re.findall("`+", seen)), default=0) + 1)
    if len(fence) > 1 or (seen.strip(" ") and seen.startswith(" ") and seen.endswith(" ")) or not seen:
        seen = f" {seen} "  # Markdown removes one space on each side
    return f"{fence}{seen}{fence}"


def escape_markdown(value: str) -> str:
    """Escape all Markdown and HTML markup in a text."""
    escaped = _inline(value)
    return _BLOCK.sub(lambda m: f"{m[1]}{m[3]}\\{m[4]}" if m[3] else f"{m[1]}\\{m[2]}", escaped)


def escape_prose(value: str) -> str:
    """Format the text of a docstring: text between backticks becomes a code span, the rest is escaped."""
    parts = _TICKED.split(value)
    return "".join(code_span(part) if index % 2 else _inline(part) for index, part in enumerate(parts))


def markdown_table(
    headers: Sequence[str], rows: Iterable[Sequence[object]], numbers: Collection[int] = ()
) -> list[str]:
    """Return the lines of a Markdown table, without blank lines around it.

    `numbers` are the indices of right-aligned columns. A cell is Markdown: escape names with `code_span` or
    `escape_markdown`. An int is formatted as `1,230`, and None is empty. `|` and line ends are escaped.
    """
    ruler = ["---:" if index in numbers else "---" for index in range(len(headers))]
    return [_row(headers), _row(ruler), *(_row(row) for row in rows)]


def attention_section(sentences: Iterable[str], bullet: str = "-") -> list[str]:
    """Return the lines of the section with what needs attention. It is empty without sentences."""
    items = [f"{bullet} {escape_markdown(text)}" for text in sentences]
    return ["## Needs attention", "", *items, ""] if items else []


def _inline(value: str) -> str:
    return _MARKUP.sub(r"\\\1", escape_invisible(value))


def _row(cells: Iterable[object]) -> str:
    return f"| {' | '.join(map(_cell, cells))} |"


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    # An odd number of backslashes before a bar already escapes it
    bars = _PIPE.sub(lambda m: m[0] if len(m[1]) % 2 else f"{m[1]}\\|", escape_invisible(str(value)).strip())
    return bars if (len(bars) - len(bars.rstrip("\\"))) % 2 == 0 else f"{bars}\\"


def _escape(match: re.Match[str]) -> str:
    character = match[0]
    number = ord(character)
    return _SHORT.get(character) or (f"\\x{number:02x}" if number < 256 else f"\\u{number:04x}")
