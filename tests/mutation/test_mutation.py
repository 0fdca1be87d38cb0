"""The mutation tool finds the places to change, runs the tests of each change in a copy, and names the survivors."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.mutation.mutants import find_mutants
from tests.mutation.mutation_run import TESTS, FailingBaseline, choose, run

REPO = Path(__file__).parents[2]
TOY = "def is_larger(a: int, b: int) -> bool:\n    return a > b\n"
TOY_TESTS = {"toy.py": ("test_toy.py",)}


@pytest.mark.parametrize(
    ("code", "changes"),
    [
        ("x = a < b", ["(a <= b)"]),
        ("x = a and not b", ["(a or not b)", "(b)"]),
        ("x = a + 1", ["(a - 1)", "2"]),
        ("x = b if a else c", ["(b)", "(c)"]),
        ("def f():\n    return True", ["return None", "False"]),
        ("def f():\n    a.b = c\n    g()", ["pass", "pass"]),
        ('"""Text with a < b AND c."""', []),
        ("x: int | None = None\nassert a < b\nraise ValueError(a + b)", []),
        ("é = a < b", ["(a <= b)"]),
    ],
)
def test_each_kind_of_code_has_its_changes(code: str, changes: list[str]) -> None:
    source = f"{code}\n"
    found = find_mutants(source)
    assert sorted(mutant.after for mutant in found) == sorted(changes)
    assert all(mutant.source != source for mutant in found)


def test_sql_changes_by_its_operators() -> None:
    source = 'x = f"WHERE a < {b} AND c"\n'
    assert {mutant.source for mutant in find_mutants(source)} == {
        'x = f"WHERE a <= {b} AND c"\n',
        'x = f"WHERE a < {b} OR c"\n',
    }


def test_a_mutant_differs_in_one_place_of_its_line() -> None:
    (mutant,) = [mutant for mutant in find_mutants(TOY) if mutant.kind == "comparison"]
    assert (mutant.line, mutant.before, mutant.after) == (2, "a > b", "(a >= b)")
    assert mutant.source == TOY.replace("a > b", "(a >= b)")


def test_the_same_seed_chooses_the_same_mutants_and_no_more_than_asked() -> None:
    first, second, other = (choose(REPO, TESTS, seed, 10) for seed in (3, 3, 4))
    assert first == second != other
    assert len(first) == 10
    assert {sample.file for sample in choose(REPO, TESTS, 3, 10, "dims_worker/store")} == {
        "dims_worker/store/leases.py"
    }


def toy_project(folder: Path, test: str) -> Path:
    (folder / "toy.py").write_text(TOY)
    (folder / "test_toy.py").write_text(f"from toy import is_larger\n\n\ndef test_toy():\n    {test}\n")
    subprocess.run(["git", "init", "-q", str(folder)], check=True)
    return folder


def test_a_change_that_no_test_notices_survives(tmp_path: Path) -> None:
    root = toy_project(tmp_path, "assert is_larger(2, 1) and not is_larger(1, 2)")
    lines: list[str] = []
    survivors = run(root, choose(root, TOY_TESTS, 1, 10), lines.append)
    assert [str(sample) for sample in survivors] == ["toy.py:2  comparison  a > b  ->  (a >= b)"]
    assert [line.split()[1] for line in lines[1:]].count("killed") == 1
    assert (root / "toy.py").read_text() == TOY


def test_tests_that_fail_without_a_mutant_are_an_error(tmp_path: Path) -> None:
    root = toy_project(tmp_path, "assert is_larger(1, 2)")
    with pytest.raises(FailingBaseline, match=r"the tests fail without a mutant: test_toy\.py"):
        run(root, choose(root, TOY_TESTS, 1, 10), lambda line: None)
