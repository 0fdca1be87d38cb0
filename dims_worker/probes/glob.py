"""Path patterns: `*`, `?` and `[...]` within a name, `**/` for any number of folders, a final `**` for all below.

Patterns mean what they mean in `pathlib.PurePath.full_match` (Python 3.13, case-sensitive, hidden files
included), except that a bracket never matches a `/`. Paths are relative, with `/`, without `.` and `//`.

Every metric tests every file, so speed matters. Most patterns become `str.startswith`, `str.endswith` or a set
lookup. The rest is tested last, see `dims_worker.probes.glob_walk`.

Anyone who may send events chooses the paths, so no test takes long: its steps are at most the length of the path times
`steps_per_character` of the pattern, which is at most the length of the pattern.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from pathlib import PurePosixPath

from dims_worker.probes import glob_walk
from dims_worker.probes.glob_walk import SPECIAL, name_regex

Test = Callable[[str], bool]
"""Returns whether a path matches."""

_STEPS_PER_TEST = 20
"""The steps of a call, however short the path is."""

_STEPS_PER_PLACE = 150
"""The steps for a name of a path with empty names, at one place of a pattern."""


def everything(_path: str) -> bool:
    return True


def nothing(_path: str) -> bool:
    return False


@lru_cache(4096)
def matcher(patterns: tuple[str, ...], exclude: tuple[str, ...] = ()) -> Test:
    """Return the test whether a path matches any of `patterns` and none of `exclude`."""
    wanted = _any_of(patterns)
    if not exclude:
        return wanted
    unwanted = _any_of(exclude)
    return lambda path: wanted(path) and not unwanted(path)


@lru_cache(4096)
def name_matcher(patterns: tuple[str, ...]) -> Test:
    """Return the test of the last part of a path. The patterns have no `/`."""
    kinds = [_literals(pattern) for pattern in patterns]
    if all(kind is not None and kind[0] == "" and kind[1] for kind in kinds):
        ends = tuple(kind[1] for kind in kinds if kind is not None)
        return lambda path: path.endswith(ends)  # `*.csv` has no `/`: testing the whole path gives the same result
    test = matcher(patterns)
    return lambda path: test(path.rpartition("/")[2])


@lru_cache(4096)
def reach(patterns: tuple[str, ...]) -> Test:
    """Return the test of a folder: whether a path below it can match one of the patterns."""
    tests = [_reach(parts(pattern)) for pattern in patterns]
    if everything in tests:
        return everything
    return tests[0] if len(tests) == 1 else lambda folder: any(test(folder) for test in tests)


@lru_cache(4096)
def cover(patterns: tuple[str, ...]) -> Test:
    """Return the test of a folder: whether all paths below it match (`data/**`: `data`, `data/sub`)."""
    heads = []
    for pattern in patterns:
        names = parts(pattern)
        if names[-2:] == ("**", "*"):
            names = names[:-1]
        if names[-1:] == ("**",):
            heads += ["/".join(names[:-1]), "/".join(names)]
    return matcher(tuple(heads)) if heads else nothing


@lru_cache(4096)
def parts(pattern: str) -> tuple[str, ...]:
    """Split a pattern into its names. Several `**` in a row become one."""
    names: list[str] = []
    for name in (str(PurePosixPath(pattern)) if PurePosixPath(pattern).parts else "").split("/"):
        if name != "**" or names[-1:] != ["**"]:
            names.append(name)
    return tuple(names)


@lru_cache(4096)
def steps_per_character(patterns: tuple[str, ...]) -> int:
    """Return a bound of the steps that testing a path takes for each of its characters, for all patterns together."""
    return sum(0 if _is_quick(pattern) else glob_walk.steps_per_character(parts(pattern)) for pattern in patterns)


def steps_of(patterns: tuple[str, ...], paths: tuple[str, ...]) -> int:
    """Return a bound of the steps that testing these paths takes. A step is about 5 ns."""
    steps = _STEPS_PER_TEST * len(patterns) * len(paths)
    if per_character := steps_per_character(patterns):
        characters, names = _sizes(paths)
        steps += per_character * characters
        steps += names and names * _STEPS_PER_PLACE * sum(len(parts(pattern)) for pattern in patterns)
    return steps


@lru_cache(64)
def _sizes(paths: tuple[str, ...]) -> tuple[int, int]:
    """Return the characters of all paths, and the names of the paths that have an empty name."""
    names = sum(path.count("/") + 1 for path in paths if glob_walk.has_empty_name(path))
    return sum(map(len, paths)), names


@lru_cache(4096)
def is_literal(pattern: str) -> bool:
    """Return whether the pattern has no wildcard."""
    return not any(map(_is_wild, parts(pattern)))


@lru_cache(4096)
def folder_of(pattern: str) -> str:
    """Return the folder that contains all matches, up to the first wildcard. "" is the root."""
    names = parts(pattern)[:-1]
    wild = next((index for index, name in enumerate(names) if _is_wild(name)), len(names))
    return "/".join(names[:wild])


@lru_cache(4096)
def folders_of(patterns: tuple[str, ...]) -> frozenset[str]:
    """Return the folders that the patterns name, and those above them, without the root."""
    names = [folder_of(pattern).split("/") for pattern in patterns if folder_of(pattern)]
    return frozenset("/".join(each[:length]) for each in names for length in range(1, len(each) + 1))


def _is_wild(name: str) -> bool:
    # A bracket that is not closed is an ordinary character
    return bool(SPECIAL.search(name)) and name_regex(name) != re.escape(name)


def _literals(name: str) -> tuple[str, str] | None:
    """Return the text before and after the only `*` of a name, or None if it has other wildcards."""
    before, star, after = name.partition("*")
    return (before, after) if star and not SPECIAL.search(before + after) else None


def _is_quick(pattern: str) -> bool:
    """Return whether the test of a pattern is a method of `str` or a lookup."""
    *folders, last = _rest(pattern)
    ends = _literals(last)
    is_suffix = ends is not None and ends[0] == "" and ends[1] != "" and folders in ([], ["**"])
    return is_literal(pattern) or is_suffix or (last == "**" and not folders)


def _rest(pattern: str) -> tuple[str, ...]:
    """Return the names of a pattern below `folder_of(pattern)`."""
    folder = folder_of(pattern)
    return parts(pattern)[folder.count("/") + 1 if folder else 0 :]


def _any_of(patterns: tuple[str, ...]) -> Test:
    """Combine the fast tests, then the tests of the other patterns."""
    exact: set[str] = set()
    starts: list[str] = []
    ends: list[str] = []
    others: list[Test] = []
    slow: list[tuple[str, ...]] = []
    for pattern in patterns:
        folder = folder_of(pattern)
        below = f"{folder}/" if folder else ""
        rest = _rest(pattern)
        end = rest[-1][1:]
        if not _is_quick(pattern):
            slow.append(parts(pattern))
        elif is_literal(pattern):
            exact.add("/".join(parts(pattern)))
        elif rest == ("**",):
            if not folder:
                return everything
            starts.append(below)
        elif rest[:-1] == ("**",):
            others.append(_deep(below, end)) if folder else ends.append(end)
        else:
            others.append(_flat(below, end))
    return _either(
        _quick(exact, tuple(starts), tuple(ends)) + others + ([glob_walk.compile_patterns(slow)] if slow else [])
    )


def _quick(exact: set[str], starts: tuple[str, ...], ends: tuple[str, ...]) -> list[Test]:
    tests: list[Test] = []
    if exact:
        tests.append(exact.__contains__)
    if starts:
        tests.append(lambda path: path.startswith(starts))
    if ends:
        tests.append(lambda path: path.endswith(ends))
    return tests


def _deep(below: str, end: str) -> Test:
    """Test patterns such as `docs/**/*.md`."""
    return lambda path: path.startswith(below) and path.endswith(end)


def _flat(below: str, end: str) -> Test:
    """Test patterns such as `docs/*.md`."""
    length = len(below)
    return lambda path: path.endswith(end) and path.startswith(below) and path.find("/", length) < 0


def _either(tests: list[Test]) -> Test:
    match tests:
        case []:
            return nothing
        case [test]:
            return test
        case [first, second]:
            return lambda path: first(path) or second(path)
    return lambda path: any(test(path) for test in tests)


def _reach(names: tuple[str, ...]) -> Test:
    if names[0] == "**":
        return everything
    tests = [re.compile(rf"(?s:{name_regex(name)})\Z").match for name in names]

    def reaches(folder: str) -> bool:
        for index, name in enumerate(folder.split("/")):
            if names[index] == "**":
                return True
            if index == len(names) - 1 or not tests[index](name):
                return False
        return True

    return reaches
