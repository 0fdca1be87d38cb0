"""GitProbe: authors, changed paths, branches, size, the newest commit, each compared with the output of git."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from dims_worker.config import GitMetric, GitSource
from dims_worker.probes.base import Deadline, PathsChanged, Reading, ScanContext, readings_by_name
from dims_worker.probes.git import command as git_command
from dims_worker.probes.git.probe import GitProbe

PROBE = GitProbe()
Run = Callable[..., str]
Scan = Callable[..., dict[str, Reading]]


def metric(measure: str = "commits", **more: Any) -> GitMetric:
    return GitMetric(source="repo", measure=measure, **more)


@pytest.fixture
def scan(context: ScanContext, deadline: Deadline) -> Scan:
    def run(path: str = ".", **metrics: GitMetric) -> dict[str, Reading]:
        return readings_by_name(PROBE.scan(GitSource(type="git", path=path), metrics, context, deadline).readings)

    return run


def save(git: Run, root: Path, message: str, *paths: str, author: str = "Ada <ada@x.org>", date: str = "") -> None:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        with (root / path).open("a") as file:
            file.write(f"{message}\n")
    git("add", "-A")
    git("commit", "-q", "--allow-empty", "-m", message, "--author", author, date=date or "2025-10-02T12:00:00Z")


@pytest.fixture
def repo(git: Run, tmp_path: Path) -> Path:
    git("init", "-q", "-b", "main")
    save(git, tmp_path, "first", "a.py", "docs/a b.md")
    save(git, tmp_path, "second", "sub/x.py", author="Bob <bob@x.org>", date="2025-12-01T00:00:00Z")
    save(git, tmp_path, "empty", author="ada Two <two@x.org>", date="2025-11-01T00:00:00+02:00")
    git("checkout", "-q", "-b", "side")
    save(git, tmp_path, "side", "sub/:colon.py", "docs/\n.md", author="Ünï <u@x.org>")
    git("mv", "a.py", "sub/moved.py")
    save(git, tmp_path, "a move")
    git("checkout", "-q", "main")
    save(git, tmp_path, "on main", "docs/c.md")
    git("merge", "-q", "--no-ff", "--no-commit", "side")
    save(git, tmp_path, "a merge that adds", "merged.py", date="2025-10-05T00:00:00Z")
    return tmp_path


def test_authors(scan: Scan, repo: Path) -> None:
    results = scan(
        ada=metric(author="^Ada "),
        any_case=metric(author="^ada ", ignore_case=True),
        mail=metric(author="<bob@x.org>$"),
        unicode=metric(author="Ünï"),
        both=metric(author="Ada", message="merge"),
        no_match=metric(author="committer"),
    )
    values = {name: reading.value for name, reading in results.items()}
    assert values == {"ada": 4, "any_case": 5, "mail": 1, "unicode": 1, "both": 1, "no_match": 0}


def test_changed_paths(scan: Scan, repo: Path, git: Run) -> None:
    for key, value in {"log.showRoot": "false", "diff.renames": "copies", "diff.relative": "true"}.items():
        git("config", key, value)
    results = scan(
        docs=metric(paths=["docs/**"]),
        py=metric(paths=["**/*.py"]),
        old=metric(paths=["a.py"]),
        colon=metric(paths=["sub/:colon.py"]),
        merged=metric(paths=["merged.py"]),
        side=metric(paths=["docs/**"], branch="side"),
        files=metric(paths=["**/*"]),
        all=metric(),
        none=metric(paths=["gone/**"]),
    )
    assert {name: reading.value for name, reading in results.items()} == {
        "docs": 3,
        "py": 5,
        "old": 2,
        "colon": 1,
        "merged": 1,
        "side": 2,
        "files": 6,
        "all": 7,
        "none": 0,
    }
    log = git("rev-list", "--no-merges", "HEAD", "--", "docs")
    assert results["docs"].value == len(log.split())


def test_changed_paths_are_relative_to_the_folder_of_the_source(scan: Scan, repo: Path) -> None:
    results = scan("sub", py=metric(paths=["*.py"]), docs=metric(paths=["docs/**"]), all=metric())
    assert [results[name].value for name in ("py", "docs", "all")] == [3, 0, 7]


def test_one_stream_and_paths_only_when_needed(scan: Scan, repo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[str, ...]] = []
    real = git_command.Git.records

    def records(self: git_command.Git, *args: str) -> Iterator[bytes]:
        calls.append(args)
        return real(self, *args)

    monkeypatch.setattr(git_command.Git, "records", records)
    scan(a=metric(), b=metric(author="x"), c=metric("newest_age"))
    assert [("--raw" in args) for args in calls if args[0] == "log"] == [False]
    calls.clear()
    scan(a=metric(), b=metric(paths=["a"]), c=metric("newest_age", paths=["b"]), d=metric("branches"), e=metric("size"))
    assert sorted(args[0] for args in calls) == ["count-objects", "for-each-ref", "log", "rev-parse"]
    assert [("--raw" in args) for args in calls if args[0] == "log"] == [True]


def test_the_newest_commit(scan: Scan, repo: Path) -> None:
    results = scan(
        any=metric("newest_age", unit="days"),  # not the last one made
        ada=metric("newest_age", author="^Ada"),
        early=metric("newest_age", until=date(2025, 11, 1)),
        move=metric("newest_age", message="^a move$"),
        docs=metric("newest_age", paths=["docs/**"]),
        none=metric("newest_age", author="stranger"),
        null=metric("newest_age", author="stranger", absent=None),
    )
    assert results["any"].value == "2025-12-01T00:00:00+00:00"
    assert results["any"].unit == "days"
    assert results["ada"].value == "2025-10-05T00:00:00+00:00"
    assert results["early"].value == "2025-10-31T22:00:00+00:00"
    assert results["move"].value == results["docs"].value == "2025-10-02T12:00:00+00:00"
    assert "no commit that matches" in str(results["none"].error)
    assert (results["null"].method, results["null"].value) == ("exact", None)


def test_branches(scan: Scan, repo: Path, git: Run) -> None:
    git("branch", "a/b")
    git("tag", "v1")
    git("update-ref", "refs/remotes/origin/x", "main")
    assert scan(n=metric("branches"))["n"].value == 3
    (repo / ".git" / "refs" / "heads" / "torn").write_text("")
    assert "broken branch" in str(scan(n=metric("branches"))["n"].error)


def test_size(scan: Scan, repo: Path, git: Run) -> None:
    def text() -> int:
        lines = dict(line.split(": ") for line in git("count-objects", "-v").splitlines())
        return 1024 * (int(lines["size"]) + int(lines["size-pack"]) + int(lines["size-garbage"]))

    loose = scan(n=metric("size"))["n"]
    assert (loose.value, loose.unit) == (text(), "bytes")
    assert type(loose.value) is int and loose.value > 0
    objects = [path for path in (repo / ".git" / "objects").rglob("*") if path.is_file()]
    on_disk = int(subprocess.check_output(["du", "-sB1", "--total", *objects]).split()[-2])
    assert loose.value == pytest.approx(on_disk, abs=1024)
    git("gc", "-q")
    packed = scan(n=metric("size"), mb=metric("size", unit="MB"))
    assert 0 < int(str(packed["n"].value)) == text() < loose.value
    assert packed["mb"].value == text() / 10**6


def test_no_commits_yet(scan: Scan, git: Run) -> None:
    git("init", "-q", "-b", "main")
    results = scan(
        branches=metric("branches"),
        size=metric("size"),
        paths=metric(paths=["a"]),
        age=metric("newest_age"),
        null=metric("newest_age", absent=None),
    )
    assert [results[name].value for name in ("branches", "size", "paths", "null")] == [0, 0, 0, None]
    assert results["age"].method == "failed"


def test_a_shallow_clone(scan: Scan, repo: Path, git: Run) -> None:
    git("clone", "-q", "--depth", "1", f"file://{repo}", "shallow")
    results = scan("shallow", age=metric("newest_age"), paths=metric(paths=["a.py"]), size=metric("size"))
    assert [results[name].method for name in ("age", "paths", "size")] == ["failed", "failed", "exact"]


def test_only_a_change_of_history_touches_commits(context: ScanContext, repo: Path) -> None:
    source = GitSource(type="git", path=".")
    for each in (metric("branches"), metric("size"), metric("newest_age"), metric(paths=["docs/**"])):
        history = PathsChanged(str(repo), ("docs/a.md",), history=True)
        assert PROBE.touched(source, each, history, context) == "the history changed"
        assert PROBE.touched(source, each, PathsChanged(str(repo), ("docs/a.md",)), context) is None


def test_a_change_in_another_worktree_touches_what_all_worktrees_share(context: ScanContext, repo: Path) -> None:
    source = GitSource(type="git", path=".")
    change = PathsChanged("/elsewhere", ("a.py",), history=True, worktrees=(str(repo),))
    shared = [metric("branches"), metric("size"), metric(all_branches=True), metric("newest_age", branch="main")]
    own = [metric(), metric("newest_age"), metric(paths=["a.py"]), metric("tracked_files")]
    reasons = [PROBE.touched(source, each, change, context) for each in (*shared, *own)]
    assert reasons == ["the history changed in another worktree"] * 4 + [None] * 4
    assert PROBE.is_related(source, change, context)
    other = PathsChanged("/elsewhere", history=True, worktrees=(f"{repo}-other",))
    assert not PROBE.is_related(source, other, context)
    below = GitSource(type="git", path="sub")
    assert PROBE.touched(below, shared[0], change, context) == reasons[0]
