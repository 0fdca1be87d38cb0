"""Files with `ignore: gitignore`: repositories inside the tree, what git leaves out, and what a pattern names."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dims_worker.config import FilesMetric, FilesSource
from dims_worker.errors import MeasureError
from dims_worker.probes.base import Deadline, Reading, ScanContext, readings_by_name
from dims_worker.probes.files.probe import FilesProbe

Run = Callable[..., str]
Scan = Callable[..., dict[str, Reading]]


def metric(measure: str, *paths: str, **more: Any) -> FilesMetric:
    return FilesMetric(source="here", measure=measure, paths=paths, **more)


@pytest.fixture
def scan(context: ScanContext, deadline: Deadline) -> Scan:
    """Scans a folder with `ignore: gitignore`."""

    def run(path: str = ".", *, exclude: tuple[str, ...] = (), **metrics: FilesMetric) -> dict[str, Reading]:
        source = FilesSource(type="files", path=path, ignore="gitignore", exclude=exclude)
        return readings_by_name(FilesProbe().scan(source, metrics, context, deadline).readings)

    return run


@pytest.fixture
def repository(git: Run, tmp_path: Path) -> Callable[..., Path]:
    """Creates a repository with committed files."""

    def make(folder: str = "", files: dict[str, str] | None = None) -> Path:
        write(tmp_path / folder, files or {})
        git("init", "-q", "-b", "main", at=folder)
        git("add", "-A", at=folder)
        git("commit", "-q", "--allow-empty", "-m", "first", at=folder)
        return tmp_path / folder

    return make


def write(folder: Path, files: dict[str, str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)


def add_submodule(git: Run, origin: Path, name: str) -> None:
    git("-c", "protocol.file.allow=always", "submodule", "-q", "add", str(origin), name, at="outer")


def found_by_find(folder: Path, ending: str = ".py") -> int:
    names = ["find", str(folder), "-name", ".git", "-prune", "-o", "-type", "f", "-name", f"*{ending}", "-print"]
    return len(subprocess.run(names, check=True, capture_output=True, text=True).stdout.splitlines())


# --- repositories in the tree ------------------------------------------------------------------------


def test_files_of_clones_submodules_and_worktrees_count(
    scan: Scan, repository: Callable[..., Path], git: Run, tmp_path: Path
) -> None:
    origin = repository("origin", {"s.py": "1\n2\n", "deep/t.py": "3\n", ".gitignore": "*.log\n"})
    outer = repository("outer", {"a.py": "1\n", ".gitignore": "ignored/\n"})
    add_submodule(git, origin, "sub")
    repository("outer/nested", {"n.py": "1\n2\n3\n", ".gitignore": "*.tmp\n"})
    repository("outer/nested/inner", {"i.py": "1\n"})
    repository("outer/ignored/clone", {"x.txt": "1\n"})
    write(outer, {"nested/new.py": "1\n", "nested/x.tmp": "1\n", "sub/x.log": "1\n", "unborn/u.py": "1\n"})
    git("init", "-q", at="outer/unborn")
    git("worktree", "add", "-q", "tree", at="outer")
    results = scan(
        "outer",
        py=metric("count", "**/*.py"),
        nested=metric("lines", "nested/**/*.py"),
        sub=metric("count", "sub/**"),
        ignored=metric("count", "**/*.tmp", "**/*.log", "**/*.txt"),
        top=metric("count", "*.py"),
    )
    assert results["py"].value == found_by_find(outer) == 8
    assert results["py"].details["nested_repositories"] == ["nested", "nested/inner", "sub", "tree", "unborn"]
    assert (results["nested"].value, results["sub"].value, results["ignored"].value) == (5, 3, 0)
    assert (results["top"].value, results["top"].details) == (1, {})


def test_a_repository_with_a_name_that_is_not_utf8(scan: Scan, repository: Callable[..., Path], git: Run) -> None:
    outer = repository("outer", {"a.py": ""})
    inner = outer / os.fsdecode(b"caf\xe9")
    write(inner, {"b.py": "1\n"})
    subprocess.run(["git", "-C", inner, "init", "-q"], check=True)
    results = scan("outer", py=metric("lines", "**/*.py"))
    assert (results["py"].value, results["py"].details) == (1, {"nested_repositories": ["caf\\xe9"]})


def test_a_repository_that_the_source_excludes_is_not_listed(scan: Scan, repository: Callable[..., Path]) -> None:
    repository("outer", {"a.py": ""})
    repository("outer/nested", {"n.py": ""})
    results = scan("outer", exclude=("nested/**",), py=metric("count", "**/*.py"))
    assert (results["py"].value, results["py"].details) == (1, {})


def test_a_submodule_without_files_is_named_and_is_never_zero(
    scan: Scan, repository: Callable[..., Path], git: Run, tmp_path: Path
) -> None:
    origin = repository("origin", {"s.py": "1\n"})
    repository("outer", {"a.py": "1\n"})
    add_submodule(git, origin, "sub")
    git("commit", "-qm", "sub", at="outer")
    git("submodule", "-q", "deinit", "-f", "sub", at="outer")
    metrics = {
        "py": metric("count", "**/*.py"),
        "sub": metric("count", "sub/**"),
        "file": metric("lines", "sub/s.py"),
        "null": metric("count", "sub/**", absent=None),
    }
    results = scan("outer", **metrics)
    assert (results["py"].value, results["py"].details["submodules_not_initialized"]) == (1, ["sub"])
    assert results["sub"].error == "sub: is a submodule that is not initialized. Run git submodule update --init"
    assert "sub/s.py: No such file" in str(results["file"].error)
    assert (results["null"].value, results["null"].method) == (None, "exact")
    assert "not initialized" in results["null"].details["absent"]
    shutil.rmtree(tmp_path / "outer" / "sub")
    assert "not initialized" in str(scan("outer", **metrics)["sub"].error)
    write(tmp_path / "outer", {"sub/copied.py": ""})  # files without a repository: git cannot list them
    results = scan("outer", **metrics)
    assert "not initialized" in str(results["py"].error)


def test_a_submodule_of_a_linked_worktree(scan: Scan, repository: Callable[..., Path], git: Run) -> None:
    origin = repository("origin", {"s.py": "1\n"})
    repository("outer", {"a.py": "1\n"})
    add_submodule(git, origin, "sub")
    git("commit", "-qm", "sub", at="outer")
    git("worktree", "add", "-q", "../linked", at="outer")
    names = {"py": metric("count", "**/*.py"), "sub": metric("count", "sub/**")}
    assert "not initialized" in str(scan("linked", **names)["sub"].error)
    git("-c", "protocol.file.allow=always", "submodule", "-q", "update", "--init", at="linked")
    assert [reading.value for reading in scan("linked", **names).values()] == [2, 1]


def test_a_broken_repository_fails_only_what_could_be_in_it(
    scan: Scan, repository: Callable[..., Path], tmp_path: Path
) -> None:
    repository("outer", {"a.py": "", "docs/a.md": ""})
    write(tmp_path / "outer", {"moved/b.py": "", "moved/.git": "gitdir: /nowhere/at/all\n"})
    assert scan("outer", py=metric("count", "**/*.py"))["py"].value == 2  # git sees an ordinary folder
    repository("outer/broken", {"c.py": ""})
    write(tmp_path / "outer", {"broken/.git/index": "no index"})
    results = scan("outer", py=metric("count", "**/*.py"), docs=metric("count", "docs/**"))
    assert "broken" in str(results["py"].error)
    assert results["docs"].value == 1


# --- what git leaves out -----------------------------------------------------------------------------


def test_every_list_of_ignored_files_counts(
    scan: Scan, repository: Callable[..., Path], git: Run, tmp_path: Path
) -> None:
    outer = repository("outer", {"kept.py": "", "forced.own": "", "sub/.gitignore": "local.py\n"})
    write(tmp_path, {"global": "*.global\n"})
    write(outer, {".git/info/exclude": "*.own\n", "a.global": "", "b.own": "", "sub/local.py": "", "sub/other.py": ""})
    git("config", "core.excludesFile", str(tmp_path / "global"), at="outer")
    git("update-index", "--assume-unchanged", "kept.py", at="outer")
    write(outer, {"kept.py": "1\n2\n"})
    results = scan("outer", n=metric("count", "**"), kept=metric("lines", "kept.py"))
    assert results["n"].value == 4  # kept.py, the tracked forced.own, sub/.gitignore, sub/other.py
    assert results["kept"].value == 2


def test_files_that_a_sparse_checkout_leaves_out_are_named(
    scan: Scan, repository: Callable[..., Path], git: Run
) -> None:
    repository("outer", {"a/x.py": "", "b/y.py": "", "b/z.py": "", "b/n.md": ""})
    git("sparse-checkout", "set", "a", at="outer")
    results = scan("outer", py=metric("count", "**/*.py"), b=metric("count", "b/**"), a=metric("count", "a/**"))
    assert (results["py"].value, results["py"].details) == (1, {"not_checked_out": 2})
    assert results["b"].error == "b: No such file or directory"
    assert (results["a"].value, results["a"].details) == (1, {})


def test_an_ignored_file_that_a_pattern_names_counts(
    scan: Scan, repository: Callable[..., Path], tmp_path: Path
) -> None:
    outer = repository("outer", {"a.md": "", ".gitignore": "/FILE_INVENTORY.md\nbuild/\n"})
    names = {
        "entries": metric("entries", "FILE_INVENTORY.md", entry="^- `", absent=None),
        "age": metric("newest_age", "FILE_INVENTORY.md", absent=None),
        "deep": metric("count", "build/out/list.txt", absent=None),
        "all": metric("count", "**"),
        "excluded": metric("count", "**/*.md", exclude=("FILE_INVENTORY.md",)),
    }
    results = scan("outer", **names)
    assert (results["entries"].value, results["entries"].method) == (None, "exact")
    write(outer, {"FILE_INVENTORY.md": "- `a`\n- `b`\n", "build/out/list.txt": ""})
    results = scan("outer", **names)
    assert results["entries"].value == 2
    assert results["entries"].details == {"ignored_by_git": ["FILE_INVENTORY.md (.gitignore:1: /FILE_INVENTORY.md)"]}
    assert results["age"].value is not None
    assert results["deep"].details == {"ignored_by_git": ["build/out/list.txt (.gitignore:2: build/)"]}
    assert (results["all"].value, results["excluded"].value) == (2, 1)
    results = scan("outer", exclude=("*.md",), entries=names["entries"])
    assert "excluded" in str(results["entries"].error)


def test_a_folder_that_git_ignores_is_an_error_and_not_zero(scan: Scan, repository: Callable[..., Path]) -> None:
    outer = repository("outer", {"a.py": "", ".gitignore": "build/\n/sql/*.sql\n"})
    write(outer, {"build/x.py": "", "build/sub/y.py": "", "sql/a.sql": ""})
    results = scan(
        "outer",
        build=metric("count", "build/**/*.py"),
        sub=metric("count", "build/sub/*.py", absent=0),
        sql=metric("count", "sql/**/*.sql"),
        none=metric("count", "**/*.zip"),
    )
    assert results["build"].error == (
        "build: git ignores it (.gitignore:1: build/). Remove this rule, or `ignore: gitignore`"
    )
    assert "git ignores it" in str(results["sub"].error)
    assert (results["sql"].value, results["none"].value) == (0, 0)  # each file is ignored, not the folder
    assert (results["sql"].details, results["none"].details) == ({"ignored_matches": 1}, {})
    assert "git ignores it" in str(scan("outer/build", n=metric("count", "**"))["n"].error)


def test_a_repository_in_an_ignored_folder_is_an_error_too(scan: Scan, repository: Callable[..., Path]) -> None:
    repository("outer", {"a.py": "", ".gitignore": "nested/\n"})
    repository("outer/nested", {"docs/b.py": "", ".gitignore": ""})
    results = scan(
        "outer",
        py=metric("count", "**/*.py"),
        nested=metric("count", "nested/**"),
        deep=metric("count", "nested/docs/*.py"),
    )
    assert results["py"].value == 1
    assert results["nested"].error == (
        "nested: git ignores it (.gitignore:1: nested/). Remove this rule, or `ignore: gitignore`"
    )
    assert "git ignores it (.gitignore:1: nested/)" in str(results["deep"].error)


def test_a_repository_that_ignores_all_but_some_files(scan: Scan, repository: Callable[..., Path]) -> None:
    outer = repository("outer", {".gitignore": "*\n!*.md\n"})
    names = {"md": metric("count", "**/*.md"), "sub": metric("count", "sub/**")}
    assert scan("outer", md=names["md"])["md"].value == 0
    write(outer, {"a.md": "", "a.txt": "", "sub/b.md": ""})
    results = scan("outer", **names)
    assert results["md"].value == 1
    assert "sub: git ignores it (.gitignore:1: *)" in str(results["sub"].error)


def test_a_missing_index_is_an_error(scan: Scan, repository: Callable[..., Path], git: Run) -> None:
    outer = repository("outer", {"a.log": "", ".gitignore": ""})
    write(outer, {".gitignore": "*.log\n"})
    assert scan("outer", n=metric("count", "**"))["n"].value == 2
    (outer / ".git" / "index").unlink()
    assert "index of git is missing" in str(scan("outer", n=metric("count", "**"))["n"].error)
    git("rm", "-rq", "--cached", "--ignore-unmatch", ".", at="outer")
    with pytest.raises(MeasureError, match="gitignore"):
        scan(".", n=metric("count", "**"))
