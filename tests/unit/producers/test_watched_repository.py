"""What the watcher notices in a repository: HEAD, refs, the index, and operations that begin and end."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from dims_producers.repository_paths import find_repository
from dims_producers.watched_repository import WatchedRepository
from tests.unit.producers.conftest import Git, commit

Change = Callable[[Git, Path], object]


class Clock:
    """A repository that is looked at once a second."""

    def __init__(self, folder: Path) -> None:
        self.repository = WatchedRepository(folder)
        self.now = 0.0

    def looks(self, times: int = 1) -> list[bool]:
        """Return what each of the next looks says, and record what they report."""
        said = []
        for _ in range(times):
            self.now += 1
            said.append(self.repository.changed(self.now))
            if said[-1]:
                self.repository.reports([self.repository.root])
        return said


@pytest.fixture
def made(repo: Path, git: Git) -> Path:
    for name in ("a", "b"):
        commit(git, repo, name)
    git(repo, "checkout", "-q", "-b", "side", "HEAD~1")
    commit(git, repo, "b")
    git(repo, "checkout", "-q", "main")
    return repo


def merge_that_stops(git: Git, repo: Path) -> None:
    with pytest.raises(subprocess.CalledProcessError):
        git(repo, "merge", "-q", "side")


CHANGES: dict[str, Change] = {
    "reset": lambda git, repo: git(repo, "reset", "-q", "--hard", "HEAD~1"),
    "reset --soft": lambda git, repo: git(repo, "reset", "-q", "--soft", "HEAD~1"),
    "add": lambda git, repo: ((repo / "new").touch(), git(repo, "add", "new")),
    "rm --cached": lambda git, repo: git(repo, "rm", "-q", "--cached", "a"),
    "checkout": lambda git, repo: git(repo, "checkout", "-q", "side"),
    "checkout -b": lambda git, repo: git(repo, "checkout", "-q", "-b", "deep/er/new"),
    "branch -D": lambda git, repo: git(repo, "branch", "-q", "-D", "side"),
    "branch -m": lambda git, repo: git(repo, "branch", "-m", "side", "other"),
    "pack-refs": lambda git, repo: git(repo, "pack-refs", "--all"),
    "tag": lambda git, repo: git(repo, "tag", "v1"),
    "a remote branch": lambda git, repo: git(repo, "update-ref", "refs/remotes/origin/x", "main"),
    "a merge that stops": merge_that_stops,
    "a bisect": lambda git, repo: git(repo, "bisect", "start"),
    "a lost index": lambda git, repo: (repo / ".git/index").unlink(),
    "a lost repository": lambda git, repo: (repo / ".git").rename(repo / "moved"),
}


@pytest.mark.parametrize("name", CHANGES)
@pytest.mark.parametrize("where", ["main", "linked"])
def test_a_change_is_reported_once_when_it_is_at_rest(
    made: Path, git: Git, tmp_path: Path, name: str, where: str
) -> None:
    place = made
    if where == "linked":
        if name.startswith("a lost"):
            pytest.skip("the index and the repository are elsewhere")
        place = tmp_path / "linked"
        git(made, "checkout", "-q", "--detach")
        git(made, "worktree", "add", "-q", str(place), "main")
    clock = Clock(place)
    assert clock.looks(3) == [True, False, False]  # what happened before is unknown
    CHANGES[name](git, place)
    assert clock.looks(5) == [False, False, True, False, False]
    assert clock.repository.root == str(place)


def test_reading_a_repository_is_no_change(made: Path, git: Git) -> None:
    clock = Clock(made / "..")
    assert clock.looks(2) == [False, False]  # no repository
    clock = Clock(made)
    clock.looks()
    git(made, "log")
    git(made, "for-each-ref")
    (made / ".git/index.lock").touch()
    (made / ".git/refs/heads/main.lock").touch()
    (made / "a").write_text("a saved file is no change of the index")
    assert clock.looks(3) == [False, False, False]


def test_what_happened_before_may_be_reported_by_another_event(made: Path, git: Git) -> None:
    clock = Clock(made)
    clock.repository = WatchedRepository(made, known=True)
    assert clock.looks(3) == [False, False, False]
    git(made, "tag", "v1")
    assert clock.looks(3) == [False, False, True]


def test_changes_without_an_end_are_reported_too(made: Path, git: Git) -> None:
    clock = Clock(made)
    clock.looks()
    said = []
    for number in range(8):
        git(made, "tag", f"v{number}")
        said += clock.looks()
    assert said.count(True) == 1


def test_what_a_hook_reports_is_not_reported_again(made: Path, git: Git) -> None:
    clock = Clock(made)
    clock.looks()
    commit(git, made, "c")
    clock.repository.reports([str(made)])
    assert clock.looks(3) == [False, False, False]
    commit(git, made, "d")
    clock.looks()
    clock.repository.reports(["/elsewhere"])
    assert clock.looks(3) == [False, True, False]


def test_a_repository_that_is_created_later(tmp_path: Path, git: Git) -> None:
    folder = tmp_path / "later"
    folder.mkdir()
    clock = Clock(folder / "data")
    assert clock.looks(2) == [False, False]
    git(folder, "init", "-q")
    assert any(clock.looks(3)) and clock.repository.root == str(folder)


def test_all_worktrees_of_a_repository_are_found(made: Path, git: Git, tmp_path: Path) -> None:
    linked = tmp_path / "linked tree"
    git(made, "worktree", "add", "-q", "-b", "there", str(linked))
    for place in (made, linked, made / ".git/.."):
        found = find_repository(place)
        assert found is not None and set(found.worktrees()) == {made, linked}
    git(made, "clone", "-q", "--bare", ".", str(tmp_path / "bare"))
    bare = find_repository(tmp_path / "bare")
    assert bare is not None and bare.worktrees() == []
    git(tmp_path / "bare", "worktree", "add", "-q", str(tmp_path / "of bare"), "main")
    found = find_repository(tmp_path / "of bare")
    assert found is not None and set(found.worktrees()) == {tmp_path / "of bare"}
