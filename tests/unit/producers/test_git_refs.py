"""Each change of HEAD, a branch, a tag or the stash gives an event, few of them, and no command fails or waits."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from dims_producers.git_hook import install
from dims_producers.git_notes import COVERED, HISTORY_ALONE, SETTLE
from dims_producers.repository_spool import count_notes, send_notes
from dims_producers.spool import Spool
from dims_worker.events import Event
from tests.unit.producers.conftest import Git, commit, sent

Change = Callable[[Git, Path], object]


@pytest.fixture
def hooked(repo: Path, home: Path, git: Git, watched: Spool) -> Path:
    """A repository with the hooks and three commits on `main`, one more on `side`, and a branch `old`."""
    for name in ("a", "b", "c"):
        commit(git, repo, name)
    git(repo, "branch", "old")
    git(repo, "checkout", "-q", "-b", "side", "HEAD~1")
    commit(git, repo, "c")
    git(repo, "checkout", "-q", "main")
    install(repo, home)
    return repo


def kinds(spool: Spool) -> list[str]:
    return [event.type.removeprefix("dims.git.") for event in sent(spool)]


def apply_patch(git: Git, repo: Path) -> None:
    git(repo, "format-patch", "-q", "-1", "HEAD", "-o", str(repo.parent))
    git(repo, "reset", "-q", "--hard", "HEAD~1")
    git(repo, "am", "-q", *map(str, repo.parent.glob("*.patch")))


def stash(git: Git, repo: Path) -> None:
    (repo / "a").write_text("changed")
    git(repo, "stash", "-q")


def failing(git: Git, repo: Path, *args: str) -> None:
    with pytest.raises(subprocess.CalledProcessError):
        git(repo, *args)


REFS: dict[str, Change] = {
    "reset --hard": lambda git, repo: git(repo, "reset", "-q", "--hard", "HEAD~1"),
    "reset --soft": lambda git, repo: git(repo, "reset", "-q", "--soft", "HEAD~1"),
    "am": apply_patch,
    "stash": stash,
    "branch": lambda git, repo: git(repo, "branch", "new"),
    "branch -D": lambda git, repo: git(repo, "branch", "-q", "-D", "side"),
    "branch -D of a packed ref": lambda git, repo: (
        git(repo, "pack-refs", "--all"),
        git(repo, "branch", "-qD", "side"),
    ),
    "branch -f": lambda git, repo: git(repo, "branch", "-f", "side", "main"),
    "tag": lambda git, repo: git(repo, "tag", "v1"),
    "update-ref": lambda git, repo: git(repo, "update-ref", "refs/heads/side", "main"),
    "in the git directory": lambda git, repo: git(repo / ".git", "update-ref", "refs/heads/side", "main"),
    "a merge that stops": lambda git, repo: failing(git, repo, "merge", "-q", "side"),
    "a cherry-pick that stops": lambda git, repo: failing(git, repo, "cherry-pick", "side"),
    "fetch into a branch": lambda git, repo: git(repo, "fetch", "-q", ".", "main:fetched"),
}


@pytest.mark.parametrize("name", REFS)
def test_a_change_of_a_ref_is_one_event(hooked: Path, git: Git, watched: Spool, name: str) -> None:
    REFS[name](git, hooked)
    events = sent(watched)
    assert [event.type for event in events] == ["dims.git.refs_changed"]
    assert events[0].data == {"root": os.path.realpath(hooked), "paths": HISTORY_ALONE}


QUIET: dict[str, Change] = {
    "a fetch": lambda git, repo: git(repo, "update-ref", "refs/remotes/origin/main", "main"),
    "a fetched HEAD": lambda git, repo: git(repo, "update-ref", "refs/remotes/origin/HEAD", "main"),
    "an aborted transaction": lambda git, repo: failing(git, repo, "update-ref", "refs/heads/x", "main", "side"),
    "status": lambda git, repo: git(repo, "status"),
}


@pytest.mark.parametrize("name", QUIET)
def test_other_refs_give_no_event(hooked: Path, git: Git, watched: Spool, name: str) -> None:
    QUIET[name](git, hooked)
    assert sent(watched) == []


def test_a_checkout_reports_what_differs_between_the_two_commits(hooked: Path, git: Git, watched: Spool) -> None:
    main, side = git(hooked, "rev-parse", "main"), git(hooked, "rev-parse", "side")
    git(hooked, "checkout", "-q", "side")
    git(hooked, "checkout", "-q", "-b", "new")
    git(hooked, "switch", "-q", "--detach", "main~2")
    git(hooked, "checkout", "-q", "main", "--", "b")
    events = sent(watched)
    assert {event.type for event in events} == {"dims.git.checkout"}
    assert [event.data["paths"] for event in events] == [["c"], HISTORY_ALONE, ["b", "c"], []]
    assert [event.subject for event in events] == ["side", "new", None, None]
    assert (events[0].data["before"], events[0].data["commit"]) == (main, side)


def test_a_new_worktree_reports_its_own_checkout(hooked: Path, git: Git, watched: Spool, tmp_path: Path) -> None:
    tree = tmp_path / "linked"
    git(hooked, "worktree", "add", "-q", "-b", "there", str(tree))
    git(tree, "reset", "-q", "--hard", "HEAD~1")
    found = {(event.type, event.data["root"]) for event in sent(watched)}
    linked, main = os.path.realpath(tree), os.path.realpath(hooked)
    assert {("dims.git.checkout", linked), ("dims.git.refs_changed", linked)} <= found
    assert found <= {(kind, root) for kind in ("dims.git.checkout", "dims.git.refs_changed") for root in (linked, main)}


def test_a_commit_is_still_one_event(hooked: Path, git: Git, watched: Spool) -> None:
    commit(git, hooked, "d")
    assert kinds(watched) == ["commit"]
    git(hooked, "branch", "x")  # its note waits, and the commit says more
    commit(git, hooked, "e")
    assert kinds(watched) == ["commit"]


def test_a_rebase_of_a_hundred_commits_is_few_events(hooked: Path, git: Git, watched: Spool) -> None:
    git(hooked, "checkout", "-q", "-b", "long", "main~1")
    tree = git(hooked, "rev-parse", "HEAD^{tree}")
    head = "HEAD"
    for number in range(100):
        head = git(hooked, "commit-tree", tree, "-p", head, "-m", str(number))
    git(hooked, "reset", "-q", "--hard", head)
    (hooked / "new").touch()
    commit(git, hooked, "new")
    sent(watched)
    git(hooked, "rebase", "-q", "main", "--keep-empty")
    assert int(git(hooked, "rev-list", "--count", "main..long")) == 101
    events = sent(watched)
    assert sorted(event.type for event in events) == ["dims.git.refs_changed", "dims.git.rewrite"]


def test_a_note_waits_for_one_that_says_more(hooked: Path, git: Git, watched: Spool) -> None:
    git(hooked, "branch", "new")
    events: list[Event] = []
    assert watched.flush(events.extend, hold=60) == 0 and len(watched) == 1
    git(hooked, "tag", "v1")
    assert len(watched) == 1  # the note that waits will be read after the second change too
    note = next(watched.new.iterdir())
    old = time.time() - 2 * SETTLE
    os.utime(note, (old, old))
    assert watched.flush(events.extend, hold=SETTLE) == 1 and len(watched) == 0


def test_a_change_while_its_note_is_being_sent_writes_another_one(hooked: Path, git: Git, watched: Spool) -> None:
    git(hooked, "branch", "one")
    batches: list[int] = []

    def send(events: object) -> None:
        batches.append(len(list(watched.new.iterdir())))
        if len(batches) == 1:
            git(hooked, "branch", "two")

    assert watched.flush(send) == 2 and batches == [1, 1]


def test_a_covered_note_is_removed_and_does_not_count(watched: Spool, repo: Path) -> None:
    spool = repo / ".git/dims/spool"
    (spool / "new").mkdir(parents=True)
    for folder in (watched.new, spool / "new"):
        (folder / "refs-x.git").write_bytes(COVERED)
    assert len(watched) == 0 and count_notes(spool) == 0
    assert watched.flush(lambda events: None, hold=60) == 0 and list(watched.new.iterdir()) == []
    assert send_notes(spool, lambda events: None, hold=60) == 0 and list((spool / "new").iterdir()) == []


def test_two_repositories_of_one_name_have_two_notes(tmp_path: Path, home: Path, git: Git, watched: Spool) -> None:
    long = "x" * 130
    roots = [tmp_path / "one" / long, tmp_path / "two" / long]
    for root in roots:
        root.mkdir(parents=True)
        git(root, "init", "-q")
        commit(git, root)
        install(root, home)
        git(root, "tag", "v1")
    assert {event.data["root"] for event in sent(watched)} == {os.path.realpath(root) for root in roots}


def foreign(repo: Path, name: str, text: str) -> Path:
    hook = repo / ".git/hooks" / name
    hook.write_text(f"#!/bin/sh\n{text}\n")
    hook.chmod(0o755)
    return hook


def test_an_existing_hook_gets_every_state_with_all_of_its_input(
    repo: Path, home: Path, git: Git, watched: Spool, tmp_path: Path
) -> None:
    commit(git, repo)
    log = tmp_path / "log"
    foreign(repo, "reference-transaction", f'{{ echo "$1"; cat; }} >>"{log}"')
    git(repo, "tag", "before")
    alone = log.read_text()
    install(repo, home)
    log.unlink()
    git(repo, "tag", "after")
    assert log.read_text() == alone.replace("refs/tags/before", "refs/tags/after")
    assert kinds(watched) == ["refs_changed"]


def test_the_failure_of_an_existing_hook_counts(repo: Path, home: Path, git: Git, watched: Spool) -> None:
    commit(git, repo)
    foreign(repo, "reference-transaction", '[ "$1" != prepared ] || { grep -q refs/tags && exit 1; }; exit 0')
    foreign(repo, "post-checkout", "exit 5")
    install(repo, home)
    failing(git, repo, "tag", "refused")
    assert git(repo, "tag") == "" and sent(watched) == []
    done = subprocess.run(["git", "-C", repo, "checkout", "-q", "-b", "new"], capture_output=True, check=False)
    assert done.returncode == 1 and kinds(watched) == ["checkout"]


def test_a_transaction_of_many_refs_neither_fails_nor_is_read_to_its_end(
    hooked: Path, git: Git, watched: Spool
) -> None:
    sha = git(hooked, "rev-parse", "HEAD")
    lines = "".join(f"create refs/remotes/origin/{number} {sha}\n" for number in range(3000))
    subprocess.run(["git", "-C", hooked, "update-ref", "--stdin"], input=lines.encode(), check=True)
    assert kinds(watched) == ["refs_changed"]


def test_in_the_middle_of_a_rebase_a_warning_is_not_repeated(hooked: Path, home: Path, git: Git) -> None:
    home.rename(home.with_name("moved"))
    done = subprocess.run(["git", "-C", hooked, "tag", "x"], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")
    assert count_notes(hooked / ".git/dims/spool") == 1
