"""Our own regular expressions take linear time on any text, because the text comes from outside.

An expression can take longer if a repeat contains another one, or if two repeats that can match the same character
follow each other. The test finds both in the parsed expression. Possessive repeats
(`*+`) and atomic groups never go back, so use them.
"""

from __future__ import annotations

import ast
import re
import string
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

# The parser of `re`. It has no public name.
from re import _constants as constants  # type: ignore[attr-defined]  # isort: skip
from re import _parser as parser  # type: ignore[attr-defined]  # isort: skip

ROOT = Path(__file__).parents[2]
FUNCTIONS = {"compile", "match", "search", "fullmatch", "sub", "split", "findall", "finditer"}
SAMPLE = string.printable + "é\u2028\0"


def expressions() -> Iterator[tuple[str, str]]:
    """Yield the file and each literal expression of the program."""
    for folder in ("dims_worker", "producers"):
        for file in sorted((ROOT / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(file.read_text())):
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in FUNCTIONS:
                    owner = node.func.value
                    first = node.args[0] if node.args else None
                    if isinstance(owner, ast.Name) and owner.id == "re" and isinstance(first, ast.Constant):
                        text = first.value
                        yield f"{file.relative_to(ROOT)}", text.decode("latin-1") if isinstance(text, bytes) else text


def problems(expression: str) -> list[str]:
    flags = re.VERBOSE if "\n" in expression else 0
    return list(_problems(list(parser.parse(expression, flags))))


REPEATS = (constants.MAX_REPEAT, constants.MIN_REPEAT)
"""The repeats that can go back. A possessive one cannot."""


def _problems(items: list[Any]) -> Iterator[str]:
    """Yield what can take more than linear time in a sequence of parsed items."""
    before: set[str] = set()  # what the repeats just before can match
    for item in items:
        for part in _parts(item):
            yield from _problems(part)
        if _is_unbounded(item) and _edge(_parts(item)[0][::-1]) & _starts(_parts(item)[0]):
            yield "a repeat contains a repeat that can match its beginning"
        if _edge([item]) & before:
            yield "two repeats in a row match the same character"
        before = (before if _least([item]) == 0 else set()) | _edge([item], backwards=True)


def _is_unbounded(item: Any) -> bool:
    return item[0] in REPEATS and item[1][1] == constants.MAXREPEAT


def _parts(item: Any) -> list[list[Any]]:
    """Return the sequences inside an item."""
    op, argument = item
    if op in (*REPEATS, constants.POSSESSIVE_REPEAT):
        return [list(argument[2])]
    if op is constants.SUBPATTERN:
        return [list(argument[3])]
    if op is constants.BRANCH:
        return [list(part) for part in argument[1]]
    return [list(argument[1])] if op in (constants.ASSERT, constants.ASSERT_NOT) else []


def _edge(items: list[Any], *, backwards: bool = False) -> set[str]:
    """Return what the repeats at the beginning of a sequence can match. `backwards`: at the end of its items."""
    found: set[str] = set()
    for item in items:
        if item[0] in (constants.ASSERT, constants.ASSERT_NOT, constants.POSSESSIVE_REPEAT):
            continue
        for part in _parts(item):
            found |= _edge(part[::-1] if backwards else part, backwards=backwards)
        if _is_unbounded(item):
            found |= _starts(_parts(item)[0])
        if _least([item]):
            break
    return found


def _least(items: list[Any]) -> int:
    """Return the fewest characters that a sequence matches."""
    total = 0
    for op, argument in items:
        if op in (*REPEATS, constants.POSSESSIVE_REPEAT):
            total += argument[0] * _least(list(argument[2]))
        elif op is constants.SUBPATTERN:
            total += _least(list(argument[3]))
        elif op is constants.BRANCH:
            total += min(_least(list(part)) for part in argument[1])
        elif op not in (constants.AT, constants.ASSERT, constants.ASSERT_NOT, constants.GROUPREF):
            total += 1
    return total


def _starts(items: list[Any]) -> set[str]:
    """Return the characters of the sample that a sequence can start with."""
    found: set[str] = set()
    for op, argument in items:
        if op is constants.LITERAL:
            found.add(chr(argument))
        elif op is constants.NOT_LITERAL:
            found |= set(SAMPLE) - {chr(argument)}
        elif op is constants.ANY:
            found |= set(SAMPLE)
        elif op is constants.IN:
            found |= {char for char in SAMPLE if _is_in(argument, char)}
        elif op not in (constants.ASSERT, constants.ASSERT_NOT):
            for part in _parts((op, argument)):
                found |= _starts(part)
        if _least([(op, argument)]):
            break
    return found


_CATEGORIES = {
    constants.CATEGORY_DIGIT: r"\d",
    constants.CATEGORY_NOT_DIGIT: r"\D",
    constants.CATEGORY_SPACE: r"\s",
    constants.CATEGORY_NOT_SPACE: r"\S",
    constants.CATEGORY_WORD: r"\w",
    constants.CATEGORY_NOT_WORD: r"\W",
}


def _is_in(choices: list[Any], char: str) -> bool:
    negated = bool(choices) and choices[0][0] is constants.NEGATE
    for op, argument in choices:
        if op is constants.LITERAL and chr(argument) == char:
            return not negated
        if op is constants.RANGE and argument[0] <= ord(char) <= argument[1]:
            return not negated
        if op is constants.CATEGORY and re.match(_CATEGORIES[argument], char):
            return not negated
    return negated


@pytest.mark.parametrize(
    "expression",
    [r"(a+)+$", r"0*(\d+)\.\w+$", r"(.*?)\s*#*$", r"(\w*)*x", r"\s*(,\s*)*\s*", r"(a|b+)*c", r"^0*(\d{5,}|x)(?!\d)"],
)
def test_the_check_finds_what_can_take_long(expression: str) -> None:
    assert problems(expression)


@pytest.mark.parametrize(
    "expression", [r"\d+(\.\d+)?", r"(?<!\d)0*(0|[1-9]\d*)\.\w+$", r"a(\.\w+)+", r'"[^"\\]*+(?:\\.[^"\\]*+)*+"']
)
def test_the_check_accepts_what_is_linear(expression: str) -> None:
    assert not problems(expression)


def test_our_expressions_take_linear_time() -> None:
    found = {text: (file, problems(text)) for file, text in expressions()}
    assert len(found) > 60
    assert {text: where for text, where in found.items() if where[1]} == {}
