"""The test of path patterns with wildcards in several places. It never backtracks. See `dims_worker.probes.glob`.

The names between two `**` are a group, which matches names in a row. The group before the first `**` matches at the
start. The group after the last `**` has a fixed number of names, so it can match only at the end. Each group between
takes the first place where it matches, because a later place leaves less for the rest. Inside a name, the texts
between two `*` take the first place in the same way. So no choice is ever made twice.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache

SPECIAL = re.compile(r"[*?\[]")
"""Finds a character that may be a wildcard."""


def compile_patterns(patterns: Sequence[tuple[str, ...]]) -> Callable[[str], bool]:
    """Return the test whether a path matches any pattern. Each has its names, with at most one `**` in a row."""
    match = re.compile(rf"(?s:{'|'.join(map(_pattern_regex, patterns))})\Z").match
    ends = tuple(_literal_end(names[-1]) for names in patterns)

    def test(path: str) -> bool:
        if not path.endswith(ends):  # fast, and excludes most paths (`test_*.py`)
            return False
        if has_empty_name(path):
            return any(matches_with_empty_names(names, path) for names in patterns)
        return match(path) is not None

    return test


def _pattern_regex(names: tuple[str, ...]) -> str:
    """Return the expression of a pattern, for paths without empty names."""
    head, *middle, tail = _groups(names)
    if "**" not in names:
        return "/".join(map(name_regex, tail))
    found = [f"(?>(?:[^/]++/)*?{''.join(f'{name_regex(name)}/' for name in group)})" for group in middle]
    begin = "".join([*(f"{name_regex(name)}/" for name in head), *found])
    if not tail:
        return f"{begin}.*"
    # Go to the last names of the path, as many as the group has
    last = f"(?:[^/]++/)*?(?=[^/]*+(?:/[^/]*+){{{len(tail) - 1}}}\\Z)" if tail[1:] else "(?:.*/)?"
    return f"{begin}(?>{last}){'/'.join(map(name_regex, tail))}"


def steps_per_character(names: tuple[str, ...]) -> int:
    """Return a bound of the steps of a test for each character of the path. It is at most the length of the pattern.

    A group is tried at most once at each name of the path. A name of the pattern is compared with a name of the path
    once, and a text between two `*` is tried at each character.
    """
    groups = _groups(names)
    anchored = max((_steps_in_name(name) for group in groups for name in group), default=1)
    return max(anchored, len(groups[-1]), *(sum(map(_steps_in_name, group)) for group in groups[1:-1]))


def _steps_in_name(name: str) -> int:
    return 1 + max(map(len, name.split("*")[1:-1]), default=0)


def _groups(names: tuple[str, ...]) -> list[tuple[str, ...]]:
    """Split the names of a pattern at each `**`. Without `**`, the first group is empty and the second has them all."""
    groups: list[tuple[str, ...]] = [()]
    for name in names:
        if name == "**":
            groups.append(())
        else:
            groups[-1] += (name,)
    return groups if len(groups) > 1 else [(), *groups]


def _literal_end(name: str) -> str:
    """Return how every match of a name ends, as far as it has no wildcard."""
    return "" if "[" in name else SPECIAL.split(name)[-1]


def has_empty_name(path: str) -> bool:
    """Return whether a path begins with `/` or has `//`."""
    return "//" in path or path[:1] == "/"


def matches_with_empty_names(names: tuple[str, ...], path: str) -> bool:
    """Return whether a path with empty names (`a//b`, which a key of S3 may have) matches.

    It reads each name of the path once, and keeps every place in the pattern that the names so far can lead to. A `**`
    before the end of the pattern matches any number of names, but not one empty name alone.
    """
    tests = [re.compile(rf"(?s:{name_regex(name)})\Z").match for name in names]
    end = len(names) - 1
    *folders, file = path.split("/")
    places = _places(names, 0)
    for folder in folders:
        after: set[tuple[int, str]] = set()
        for at, gap in places:
            if names[at] == "**":
                after |= _places(names, at, f"{gap}{folder}/"[:2])
            elif at < end and tests[at](folder):
                after |= _places(names, at + 1)
        places = after
    return any(at == end and (names[at] == "**" or tests[at](file) is not None) for at, _ in places)


def _places(names: tuple[str, ...], at: int, gap: str = "") -> set[tuple[int, str]]:
    """Return a place in the pattern, and the next one if it is a `**` that can end here.

    `gap` is what the `**` matches so far: its first two characters.
    """
    ends_here = names[at] == "**" and at < len(names) - 1 and gap != "/"
    return {(at, gap), (at + 1, "")} if ends_here else {(at, gap)}


@lru_cache(4096)
def name_regex(name: str) -> str:
    """Return the expression of one name of a pattern. It does not backtrack.

    The texts around `*` have a fixed length. Each text takes the first place where it matches. The last one ends the
    name, so what follows the expression must be a `/` or the end.
    """
    if name == "*":
        return "[^/]++"
    texts = list(_texts(name))
    first, inner, last = texts[0], texts[1:-1], texts[-1]
    if len(texts) == 1:
        return "".join(first)
    found = "".join(f"(?>[^/]*?{''.join(text)})" for text in inner if text)
    rest = f"[^/]{{{len(last)},}}+(?<={''.join(last)})" if last else "[^/]*+"
    return f"{''.join(first)}{found}{rest}"


def _texts(name: str) -> Iterator[list[str]]:
    """Yield the texts around the `*` of a name, each as a list with one expression per character."""
    text: list[str] = []
    at = 0
    while at < len(name):
        if end := _bracket(name, at):
            # fnmatch implements ranges. Remove what it adds around them: `(?s:…)\Z`
            text.append("(?!/)" + fnmatch.translate(name[at:end])[len("(?s:") :].rpartition(")")[0])
            at = end
            continue
        if name[at] == "*":
            yield text
            text = []
        else:
            text.append("[^/]" if name[at] == "?" else re.escape(name[at]))
        at += 1
    yield text


def _bracket(name: str, at: int) -> int:
    """Return where the bracket that opens at `at` ends. 0 means that none opens there, or that it is not closed."""
    if name[at] != "[":
        return 0
    first = at + 2 if name[at + 1 : at + 2] == "!" else at + 1
    return name.find("]", first + 1) + 1  # a `]` in the first place is a literal
