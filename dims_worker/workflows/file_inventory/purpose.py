"""Find the purpose of a file that is not Python, and the names that it defines."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator

from dims_worker.workflows.file_inventory.kinds import FileKind
from dims_worker.workflows.markdown import escape_invisible

MAX_LENGTH = 120
"""The most characters of a purpose."""
_HEAD = 200
_WIDTH = 400
"""The number of lines, and of characters in a line, that are searched, so that no file takes long."""

_LICENCE = re.compile(r"copyright|\(c\)|SPDX-|licen[cs]ed? |all rights reserved|permission is hereby", re.IGNORECASE)
_FOR_TOOLS = re.compile(
    r"!|-\*-|(en)?coding[:=]|vim?:|shellcheck |syntax=|yaml-language-server|frozen_string_literal|eslint|@ts-|noqa"
)
_BLOCK_START = re.compile(r"\s*/\*+!?")
_FENCE = re.compile(r"\s*(```|~~~)")
_HEADING = re.compile(r"(?:#{1,6}|=)\s++(.*)")
_UNDERLINE = re.compile(r"([=\-~^\"*+#])\1{2,}\s*")
_LINK = re.compile(r"!\[[^\]]*\]\([^)]*\)|\[([^\]]*)\]\([^)]*\)|<[^>]*>")
_DESCRIPTION = re.compile(r"^ {0,4}\"?(?:description|name|title)\"?\s*[:=]\s*+[\"']?([^\"'\n]+)", re.MULTILINE)

_SQL_COMMENT = re.compile(r"--[^\n]*|/\*.*?(?:\*/|\Z)", re.DOTALL)
_SQL_NAME = r'((?:"[^"\n]+"|\w+)(?:\s*\.\s*(?:"[^"\n]+"|\w+))*)'
_SQL_DEFINED = re.compile(
    r"\bcreate\s+(?:or\s+replace\s+)?(?:(?:global|local|temp|temporary|unlogged|materialized|foreign|recursive)\s+)*"
    rf"(table|view|function|procedure)\s+(?:if\s+not\s+exists\s+)?{_SQL_NAME}",
    re.IGNORECASE,
)
_DOTTED = re.compile(r"\s*\.\s*")
_SHELL_DEFINED = re.compile(
    r"^[ \t]*+(?:function[ \t]++([\w:.-]++)[ \t]*+(?:\([ \t]*+\))?|([\w:.-]++)[ \t]*+\([ \t]*+\))[ \t]*+(?:[{(]|$)",
    re.MULTILINE,
)


def find_purpose(kind: FileKind, name: str, content: str) -> str | None:
    """Return the purpose of a file on one line, quoted from its content, or None if it has none."""
    find = _BY_KIND.get(kind.name)
    purpose = find(content) if find else None
    if not purpose and kind.comment:
        purpose = first_comment(content, kind.comment, name)
    if not purpose and kind.name in ("TOML", "JSON", "YAML"):
        purpose = _description(content)
    return shorten(purpose) if purpose else None


def shorten(text: str) -> str | None:
    """Return the first paragraph on one line of at most MAX_LENGTH characters."""
    paragraph = re.split(r"\n\s*\n", text[: _HEAD * _WIDTH].strip(), maxsplit=1)[0]
    line = escape_invisible(" ".join(paragraph.split()))
    if len(line) > MAX_LENGTH:
        line = line[: MAX_LENGTH - 1].rsplit(" ", 1)[0].rstrip(" ,;:-") + "…"
    return line or None


def defined_names(kind: FileKind, content: str) -> list[str]:
    """Return the tables, views and functions of SQL, or the functions of a shell script, each once."""
    if kind.name == "SQL":
        definitions = _SQL_DEFINED.findall(_SQL_COMMENT.sub(" ", content))
        names = [f"{kind_of.lower()} {_DOTTED.sub('.', name)}" for kind_of, name in definitions]
    elif kind.name == "shell":
        names = [f"{with_keyword or plain}()" for with_keyword, plain in _SHELL_DEFINED.findall(content)]
    else:
        return []
    return list(dict.fromkeys(map(escape_invisible, names)))


def first_comment(content: str, comment: str, name: str = "") -> str | None:
    """Return the first paragraph of the comments at the start that is not a licence or for tools."""
    for paragraph in _paragraphs(_comments(content, comment)):
        if not _LICENCE.search(paragraph) and paragraph.rstrip(":. ") not in ("", name):
            return paragraph
    return None


def _comments(content: str, comment: str) -> Iterator[str]:
    """Yield the lines of the comments at the start of a file, without the comment characters."""
    inside = False
    for line in _head(content):
        bare = line.strip()
        if inside or (comment != "#" and bare.startswith("/*")):
            inside = "*/" not in bare
            yield re.sub(r"^\*+(?!/)", "", _BLOCK_START.sub("", bare, count=1).partition("*/")[0].strip()).strip()
        elif bare.startswith(comment):
            text = bare.lstrip(comment[0]).strip()
            yield "" if _FOR_TOOLS.match(text) else text
        elif bare and bare not in ("@echo off", "'use strict';", '"use strict";'):
            return
        else:
            yield ""


def _head(content: str) -> list[str]:
    return [line[:_WIDTH] for line in content.split("\n", _HEAD)[:_HEAD]]


def _paragraphs(lines: Iterator[str]) -> Iterator[str]:
    paragraph: list[str] = []
    for line in lines:
        if re.search(r"\w", line):
            paragraph.append(line)
        elif paragraph:
            yield " ".join(paragraph)
            paragraph = []
    if paragraph:
        yield " ".join(paragraph)


def _first_heading(content: str) -> str | None:
    """Return the first heading of a document, otherwise its first line."""
    lines = _without_front_matter(content)
    first = None
    fenced = False
    for index, line in enumerate(lines):
        if _FENCE.match(line):
            fenced = not fenced
        if fenced:
            continue
        bare = _plain(line)
        below = lines[index + 1] if index + 1 < len(lines) else ""
        if (heading := _HEADING.match(line)) and (title := _plain(heading[1].rstrip("#").rstrip())):
            return title
        if bare and not _UNDERLINE.fullmatch(bare):
            if _UNDERLINE.fullmatch(below):
                return bare
            first = first or bare
    return first


def _without_front_matter(content: str) -> list[str]:
    lines = [line.rstrip() for line in _head(content)]
    if lines[:1] == ["---"] and "---" in lines[1:]:
        return lines[lines.index("---", 1) + 1 :]
    return lines


def _plain(line: str) -> str:
    """Remove links, images and tags."""
    return _LINK.sub(lambda m: m[1] or "", line).strip(" \t*_`")


def _notebook(content: str) -> str | None:
    try:
        cells = json.loads(content)["cells"]
        for cell in cells:
            source = cell["source"]
            if cell["cell_type"] == "markdown":
                return _first_heading(source if isinstance(source, str) else "".join(source))
    except (ValueError, KeyError, TypeError, RecursionError):
        return None  # not a notebook
    return None


def _description(content: str) -> str | None:
    match = _DESCRIPTION.search("\n".join(_head(content)))
    return match[1] if match else None


_BY_KIND: dict[str, Callable[[str], str | None]] = {
    **dict.fromkeys(("Markdown", "reStructuredText", "text", "AsciiDoc"), _first_heading),
    "notebook": _notebook,
}
