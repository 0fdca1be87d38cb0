"""The states of a repository: every change that can alter a value alters the state, and reading alters none."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from dims_worker.config import GitMetric, GitSource
from dims_worker.probes.base import Deadline, ScanContext, readings_by_name
from dims_worker.probes.git.probe import GitProbe

PROBE = GitProbe()
Run = Callable[..., str]
States = Callable[[], Mapping[str, str]]


def metric(measure: str = "commits", **more: Any) -> GitMetric:
    return GitMetric(source="repo", measure=measure, **more)


METRICS = {
    "head": metric(),
    "docs": metric(paths=["docs/**"]),
    "ada": metric(author="Ada"),
    "all": metric(all_branches=True),
    "side": metric(branch="side"),
    "remote": metric(branch="origin/main"),
    "age": metric("newest_age"),
    "files": metric("tracked_files"),
    "branches": metric("branches"),
    "size": metric("size"),
}
HEAD = {"head", "docs", "ada", "age"}
COMMITS = HEAD | {"all", "side", "remote"}


@pytest.fixture
def repo(git: Run, tmp_path: Path) -> Path:
    git("init", "-q", "-b", "main")
    git("commit", "-q", "--allow-empty", "-m", "zero")
    (tmp_path / "a").write_text("a")
    git("add", "a")
    git("commit", "-q", "-m", "one")
    git("branch", "side")
    git("update-ref", "refs/remotes/origin/main", "main")
    return tmp_path


@pytest.fixture
def states(repo: Path, context: ScanContext, deadline: Deadline) -> States:
    return lambda: PROBE.states(GitSource(type="git", path="."), METRICS, context, deadline)


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


CHANGES: dict[str, tuple[Callable[[Run, Path], object], set[str]]] = {
    "a commit": (lambda git, repo: git("commit", "-q", "--allow-empty", "-m", "x"), HEAD | {"all", "size"}),
    "a reset": (lambda git, repo: git("reset", "-q", "--hard", "HEAD~1"), HEAD | {"all", "files"}),
    "git add": (lambda git, repo: (write(repo / "b", "b"), git("add", "b")), {"files", "size"}),
    "git rm --cached": (lambda git, repo: git("rm", "-q", "--cached", "a"), {"files"}),
    "a new branch": (lambda git, repo: git("branch", "new"), {"all", "branches"}),
    "a branch of another commit": (lambda git, repo: git("branch", "-f", "side", "main~1"), {"all", "side"}),
    "a renamed branch": (lambda git, repo: git("branch", "-m", "side", "moved"), {"all", "branches", "side"}),
    "a deleted remote branch": (lambda git, repo: git("update-ref", "-d", "refs/remotes/origin/main"), {"remote"}),
    "a checkout": (lambda git, repo: git("checkout", "-q", "--detach", "HEAD~1"), HEAD | {"files"}),
    "packed refs": (lambda git, repo: git("pack-refs", "--all"), set()),
    "git gc": (lambda git, repo: git("gc", "-q"), {"size"}),
    "a stash": (lambda git, repo: (write(repo / "a", "b"), git("stash", "-q")), {"size", "files"}),
    "a mailmap": (lambda git, repo: write(repo / ".mailmap", "A <a@x> <b@x>\n"), {"ada"}),
    "a mailmap's setting": (lambda git, repo: git("config", "mailmap.file", "other"), COMMITS),
    "a replaced commit": (
        lambda git, repo: git("replace", "--graft", "HEAD"),
        COMMITS | {"size"},
    ),
    "grafts": (lambda git, repo: write(repo / ".git/info/grafts", f"{git('rev-parse', 'HEAD').strip()}\n"), COMMITS),
    "a depth": (lambda git, repo: write(repo / ".git/shallow", f"{git('rev-parse', 'HEAD').strip()}\n"), COMMITS),
    "a bisect": (lambda git, repo: git("bisect", "start"), HEAD | {"files"}),
    "a saved file": (lambda git, repo: write(repo / "a", "changed"), set()),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_alters_the_states_of_what_it_concerns(states: States, git: Run, repo: Path, name: str) -> None:
    before = states()
    assert set(before) == set(METRICS)
    change, concerned = CHANGES[name]
    change(git, repo)
    after = states()
    changed = {name for name in METRICS if before[name] != after.get(name)}
    # git refreshes the index when it resets, which costs one more measurement
    assert concerned <= changed <= concerned | {"files"}, changed ^ concerned


def test_the_content_of_the_files_that_settings_name(states: States, git: Run, repo: Path, tmp_path: Path) -> None:
    git("config", "mailmap.file", str(tmp_path / "elsewhere"))
    git("config", "mailmap.blob", "side:a")
    before = states()
    write(tmp_path / "elsewhere", "Ada <a@x> <b@x>\n")
    middle = states()
    assert {name for name in METRICS if before[name] != middle[name]} == {"ada"}
    write(repo / "a", "Ada <a@x> <c@x>\n")
    git("checkout", "-q", "side")
    git("commit", "-q", "-a", "-m", "mailmap")
    git("checkout", "-q", "main")
    assert states()["ada"] != middle["ada"] and states()["head"] == middle["head"]


def test_an_index_without_a_checksum_and_a_split_index(states: States, git: Run, repo: Path) -> None:
    index = repo / ".git/index"
    index.write_bytes(index.read_bytes()[:-20] + bytes(20))
    before = states()["files"]
    content = index.read_bytes()
    index.write_bytes(content.replace(b"\x01a\0", b"\x01b\0"))
    assert states()["files"] != before
    index.write_bytes(content)
    assert states()["files"] == before
    git("update-index", "--split-index")
    split = states()["files"]
    write(repo / "b", "b")
    git("add", "b")
    assert states()["files"] not in (before, split)


def test_what_cannot_be_measured_has_no_state(states: States, git: Run, repo: Path) -> None:
    git("symbolic-ref", "HEAD", "refs/heads/gone")
    (repo / ".git/index").unlink()
    assert set(states()) == {"all", "side", "remote", "branches", "size"}
    (repo / ".git/refs/heads/torn").write_text("")
    assert set(states()) == {"size"}
    (repo / ".git/HEAD").unlink()
    assert states() == {}
    repo.rename(repo.with_name("gone"))
    assert states() == {}
    repo.with_name("gone").rename(repo)


def test_equal_states_and_linked_worktrees(git: Run, repo: Path, context: ScanContext, deadline: Deadline) -> None:
    git("worktree", "add", "-q", "-b", "there", "linked")
    source = GitSource(type="git", path="linked")
    before = PROBE.states(source, METRICS, context, deadline)
    git("commit", "-q", "--allow-empty", "-m", "in the main worktree")
    after = PROBE.states(source, METRICS, context, deadline)
    assert {name for name in METRICS if before[name] != after[name]} == {"all", "size"}
    git("commit", "-q", "--allow-empty", "-m", "in the linked one", at="linked")
    last = PROBE.states(source, METRICS, context, deadline)
    assert {name for name in METRICS if last[name] != after[name]} == HEAD | {"all", "size"}


def test_reading_changes_no_file_of_the_repository(
    states: States, git: Run, repo: Path, context: ScanContext, deadline: Deadline
) -> None:
    (repo / "a").write_text("dirty, so that git would refresh the index")
    before = {path: path.stat().st_mtime_ns for path in (repo / ".git").rglob("*")}
    first = states()
    readings_by_name(PROBE.scan(GitSource(type="git", path="."), METRICS, context, deadline).readings)
    assert states() == first
    assert {path: path.stat().st_mtime_ns for path in (repo / ".git").rglob("*")} == before
