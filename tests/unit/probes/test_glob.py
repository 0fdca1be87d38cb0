"""Path patterns. The table shows the results of `PurePath.full_match` in Python 3.13."""

from __future__ import annotations

import fnmatch
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dims_worker.probes import glob, glob_walk

TABLE = [
    # pattern, paths that match, paths that do not
    ("**", ["a", "a/b", ".hidden", "a/.b/c"], []),
    ("*", ["a", ".a"], ["a/b"]),
    ("*.py", ["x.py", ".py", ".x.py"], ["a/x.py", "x.pyc", "x.PY"]),
    ("**/*.py", ["x.py", "a/x.py", "a/b/.x.py", ".py", "a/.py"], ["x.pyc", "a/x.py/b", "xpy"]),
    ("**/*", ["a", "a/b"], []),
    ("**/**/*.py", ["x.py", "a/b/x.py"], ("x",)),
    ("docs/**", ["docs/a", "docs/a/b", "docs/.git.md"], ["docs", "docsa/b", "a/docs/b", "adocs/b"]),
    ("docs/**/*.md", ["docs/a.md", "docs/b/c/a.md", "docs/.md"], ["a.md", "docs/a.txt", "docsx/a.md"]),
    ("docs/**/*PLUS_MINUS*.md", ["docs/PLUS_MINUS.md", "docs/x/aPLUS_MINUSb.md"], ["docs/PLUS.md"]),
    ("docs/*.md", ["docs/a.md", "docs/.md"], ["docs/b/a.md", "docs.md"]),
    ("**/test_*.py", ["test_a.py", "a/test_.py"], ["a/test.py", "atest_a.py", "test_a.py/b"]),
    ("**/conftest.py", ["conftest.py", "a/b/conftest.py"], ["aconftest.py"]),
    ("a/**/b", ["a/b", "a/x/b", "a/x/y/b"], ["a/xb", "ab", "a/b/c"]),
    ("**/a/**", ["a/b", "x/a/b", "x/a/b/c"], ["a", "xa/b", "x/ab/c"]),
    ("a/*/b", ["a/x/b"], ["a/b", "a/x/y/b"]),
    ("a?b", ["axb", "a.b"], ["ab", "a/b", "axxb"]),
    ("a**b", ["ab", "axb"], ["a/b"]),
    ("[ab].py", ["a.py", "b.py"], ["c.py", "ab.py"]),
    ("[!ab]", ["c"], ["a", "b"]),
    ("[a-c]*", ["b", "cat"], ["d"]),
    ("[]a]", ["]", "a"], ["b"]),
    ("[!]]", ["a"], ["]"]),
    ("[*]", ["*"], ["a"]),
    ("[z-a]", [], ["a", "z", "-"]),
    ("a[", ["a["], ["a"]),
    ("scripts/ml/a.py", ["scripts/ml/a.py"], ["scripts/ml/a.pyc", "x/scripts/ml/a.py"]),
    ("./docs//a.md", ["docs/a.md"], ["./docs//a.md"]),
    ("a.b", ["a.b"], ["axb"]),
    ("(x)+|^$", ["(x)+|^$"], ("x",)),
    ("*\n*", ["a\nb"], ["ab"]),
    ("é*", ["été", "é"], ["e"]),
    ("\udcff*", ["\udcffa"], ["a"]),
]


@pytest.mark.parametrize(("pattern", "matching", "others"), TABLE, ids=[row[0] for row in TABLE])
def test_the_table(pattern: str, matching: list[str], others: list[str]) -> None:
    test = glob.matcher((pattern,))
    assert [path for path in matching if not test(path)] == []
    assert [path for path in others if test(path)] == []


def test_a_bracket_never_matches_a_slash() -> None:
    assert not glob.matcher(("a[!x]b",))("a/b")  # full_match returns True
    assert not glob.matcher(("a[+-9]b",))("a/b")


def test_several_patterns_and_exclusions() -> None:
    test = glob.matcher(("**/*.py", "a.sql", "lib/**", "docs/*.md", "t_*.c"), ("**/old/**", "lib/x.py"))
    assert [p for p in ("x.py", "a.sql", "lib/y", "docs/a.md", "t_1.c") if not test(p)] == []
    assert [p for p in ("old/x.py", "b/old/c/x.py", "lib/x.py", "docs/b/a.md", "b.sql") if test(p)] == []


NAMES = st.sampled_from(["a", "b", "ab", "x.py", ".py", ".h", "test_a.py", "[", "é", "a\nb"])
PARTS = st.sampled_from(
    ["a", "*", "**", "?", "*.py", "a*", "*b", "[ab]", "[!a]", "[", "test_*.py", "***", ".*", "x.py", "a**b"]
)
PATHS = st.lists(NAMES, min_size=1, max_size=4).map("/".join)
PATTERNS = st.lists(PARTS, min_size=1, max_size=4).map("/".join)


@given(st.lists(PATTERNS, min_size=1, max_size=4).map(tuple), PATHS)
def test_several_patterns_match_what_any_of_them_matches(patterns: tuple[str, ...], path: str) -> None:
    assert glob.matcher(patterns)(path) == any(glob.matcher((pattern,))(path) for pattern in patterns)


@given(PATTERNS, PATHS)
def test_every_folder_above_a_match_is_reached(pattern: str, path: str) -> None:
    if glob.matcher((pattern,))(path):
        folders = [path[:at] for at, char in enumerate(path) if char == "/"]
        assert all(glob.reach((pattern,))(folder) for folder in folders)


@given(PATTERNS, PATHS, NAMES)
def test_everything_below_a_covered_folder_matches(pattern: str, folder: str, name: str) -> None:
    if glob.cover((pattern,))(folder):
        assert glob.matcher((pattern,))(f"{folder}/{name}")


@pytest.mark.parametrize(
    ("pattern", "folder", "literal"),
    [
        ("a/b.py", "a", True),
        ("b.py", "", True),
        ("a[.py", "", True),
        ("docs/**/*.md", "docs", False),
        ("a/b/c*/d", "a/b", False),
        ("**/*.py", "", False),
        ("a/[b]", "a", False),
    ],
)
def test_the_folder_of_a_pattern(pattern: str, folder: str, literal: bool) -> None:
    assert glob.folder_of(pattern) == folder
    assert glob.is_literal(pattern) is literal


def test_patterns_of_names() -> None:
    assert glob.name_matcher(("*.csv",))("a/b.csv")
    assert glob.name_matcher(("2012*.csv", "x.json"))("a/2012-1.csv")
    assert glob.name_matcher(("x.json",))("a/x.json")
    assert not glob.name_matcher(("2012*.csv",))("2012/b.csv")
    assert not glob.name_matcher(())("a")


# --- the same results as with backtracking, in a bounded number of steps -------------------------------


def backtracking_regex(pattern: str) -> re.Pattern[str]:
    """Return the plain translation of a pattern. It gives the same results, but may take for ever."""
    pieces = []
    names = glob.parts(pattern)
    for index, name in enumerate(names):
        last = index == len(names) - 1
        if name == "**":
            pieces.append(".*" if last else "(?:.+/)?")
        else:
            pieces.append(("[^/]+" if name == "*" else plain_name(name)) + ("" if last else "/"))
    return re.compile(f"(?s:{''.join(pieces)})\\Z")


def plain_name(name: str) -> str:
    pieces = []
    for text in re.findall(r"\[!?\]?[^\]]*\]|.", name, re.DOTALL):
        if len(text) > 1:
            pieces.append("(?!/)" + fnmatch.translate(text)[len("(?s:") :].rpartition(")")[0])
        else:
            pieces.append({"*": "[^/]*", "?": "[^/]"}.get(text, re.escape(text)))
    return "".join(pieces)


WILD_NAMES = "a b * ** ? *a a* *a* *b*a [ab] [!a]* [ *** a**b *?b* ?* *[a-b]*a [z-a]* *[!/]b a? *ab*b .* **b []a]*"
WILD = st.sampled_from(tuple(WILD_NAMES.split(" ")))
SHORT = st.sampled_from(["a", "b", "ab", "aab", "", "ba", "aba", "bb", ".a", "[", "a\nb", "]a", "abab"])


@given(st.lists(WILD, min_size=1, max_size=6).map("/".join), st.lists(SHORT, min_size=1, max_size=7).map("/".join))
def test_the_results_are_those_of_a_matcher_that_backtracks(pattern: str, path: str) -> None:
    assert glob.matcher((pattern,))(path) == (backtracking_regex(pattern).match(path) is not None)


HOSTILE = [
    ("data/**/raw/**/2024/*.csv", "data/" + "raw/" * 1000 + "x.csv"),
    ("**/a/" * 12 + "b/*.csv", "a/" * 2000 + "x.csv"),
    ("**/" + "a*/" * 16 + "b/**", "aa/" * 1300),
    ("*a" * 30 + "*b", "a" * 4000),
    ("**/*a*a*a*a*a*a*a*a*b*/x/**", ("a" * 200 + "/") * 20 + "x"),
    ("**/[a-z]*[0-9]*[a-z]*[0-9]*x/**", "a1b2c3d4/" * 400),
]


@pytest.mark.parametrize(("pattern", "path"), HOSTILE, ids=[pattern[:30] for pattern, _ in HOSTILE])
def test_no_path_makes_a_test_go_back(pattern: str, path: str) -> None:
    assert not glob.matcher((pattern,))(path)  # a matcher that goes back does not end
    assert glob_walk.steps_per_character(glob.parts(pattern)) <= len(pattern)


def test_the_names_of_a_path_are_read_once_each(monkeypatch: pytest.MonkeyPatch) -> None:
    """Count the places that the names of a path can be at: one step for each of them and each name."""
    steps = 0
    places_of = glob_walk._places

    def counted(names: tuple[str, ...], at: int, gap: str = "") -> set[tuple[int, str]]:
        nonlocal steps
        steps += 1
        return places_of(names, at, gap)

    monkeypatch.setattr(glob_walk, "_places", counted)
    pattern, path = "**/a/" * 20 + "b*x", "a//" * 300 + "x"
    assert not glob.matcher((pattern,))(path)
    # A `**` is at up to three places: nothing, one `/`, or more of a path so far
    assert 0 < steps <= 3 * len(glob.parts(pattern)) * len(path.split("/"))


@given(st.lists(WILD, min_size=1, max_size=8).map("/".join))
def test_the_bound_of_the_steps_is_at_most_the_length_of_the_pattern(pattern: str) -> None:
    assert glob_walk.steps_per_character(glob.parts(pattern)) <= max(1, len(pattern))


def test_the_expressions_contain_no_repeat_inside_a_repeat() -> None:
    for name in ("*a*b*", "[ab]*?c*", "x", "*", "**", "*.*"):
        assert not re.search(r"[*+]\)[*+{]", glob_walk.name_regex(name))


def test_quick_patterns_cost_a_call_and_others_their_length() -> None:
    assert glob.steps_of(("**/*.py", "docs/**", "a/b.c"), ("x" * 1000,)) == glob.steps_of(("**",), ("x",)) * 3
    assert glob.steps_of(("**/a*b*/c",), ("x" * 1000,)) > 1000
    assert glob.steps_of(("**/a*b*/c",), ("a//b",)) > glob.steps_of(("**/a*b*/c",), ("a/bb",))
