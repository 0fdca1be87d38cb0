"""What git does, and what its hooks report. The tests use real repositories and all hooks."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from dims_producers.git_hook import install
from dims_producers.spool import Spool
from tests.unit.producers.conftest import about_commits, commit, reported, sent


@pytest.fixture
def hooked(repo: Path, home: Path, git, watched: Spool) -> Path:
    """A repository with the hooks and one commit, which was reported before."""
    commit(git, repo, "base")
    install(repo, home)
    return repo


def head(git, repo: Path) -> str:
    return git(repo, "rev-parse", "HEAD")


def branch(git, repo: Path, name: str, *files: str, start: str = "main") -> list[str]:
    """A branch with one commit per file. HEAD is on it."""
    git(repo, "checkout", "-q", "-b", name, start)
    return [commit(git, repo, file) for file in files]


def test_a_merge_is_one_event(hooked: Path, git, watched: Spool) -> None:
    branch(git, hooked, "side", "s1", "s2")
    git(hooked, "checkout", "-q", "main")
    commit(git, hooked, "m1")
    reported(watched)
    git(hooked, "merge", "-q", "--no-edit", "side")
    assert reported(watched) == [("merge", head(git, hooked), ["s1", "s2"])]


def test_a_fast_forward_is_one_event(hooked: Path, git, watched: Spool) -> None:
    shas = branch(git, hooked, "side", "s1", "s2")
    git(hooked, "checkout", "-q", "main")
    reported(watched)
    git(hooked, "merge", "-q", "side")
    assert reported(watched) == [("merge", shas[-1], ["s1", "s2"])]
    git(hooked, "merge", "-q", "side")  # already up to date
    assert reported(watched) == []


def test_the_same_merge_after_a_reset_is_another_event(hooked: Path, git, watched: Spool) -> None:
    branch(git, hooked, "side", "s1")
    git(hooked, "checkout", "-q", "main")
    reported(watched)
    before = head(git, hooked)
    git(hooked, "merge", "-q", "side")
    git(hooked, "reset", "-q", "--hard", before)
    git(hooked, "merge", "-q", "side")
    events = about_commits(watched)
    assert [event.data["paths"] for event in events] == [["s1"], ["s1"]]
    assert len({event.id for event in events}) == 2
    assert [event.time for event in events] == sorted(event.time for event in events)


@pytest.mark.parametrize("how", [[], ["--rebase"], ["--no-ff", "--no-rebase", "--no-edit"]])
def test_a_pull_is_one_event(hooked: Path, git, tmp_path: Path, home: Path, watched: Spool, how: list[str]) -> None:
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "-q", hooked, clone], check=True)
    install(clone, home)
    commit(git, hooked, "new 1")
    commit(git, hooked, "new 2")
    reported(watched)
    git(clone, "pull", "-q", *how)
    assert reported(watched) == [("merge", head(git, clone), ["new 1", "new 2"])]


def test_a_pull_that_rebases_reports_what_differs_from_the_previous_head(
    hooked: Path, git, tmp_path: Path, home: Path, watched: Spool
) -> None:
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "-q", hooked, clone], check=True)
    install(clone, home)
    commit(git, hooked, "theirs")
    commit(git, clone, "ours")
    reported(watched)
    git(clone, "pull", "-q", "--rebase")
    now = head(git, clone)
    assert reported(watched) == [("rewrite", now, ["theirs"])]


def test_a_squash_merge_changes_only_files(hooked: Path, git, watched: Spool) -> None:
    branch(git, hooked, "side", "s1", "s2")
    git(hooked, "checkout", "-q", "main")
    reported(watched)
    before = head(git, hooked)
    git(hooked, "merge", "-q", "--squash", "side")
    assert reported(watched) == [("merge", before, ["s1", "s2"])]
    git(hooked, "commit", "-q", "-m", "squashed")
    assert reported(watched) == [("commit", head(git, hooked), ["s1", "s2"])]


def test_a_squash_merge_that_is_read_after_its_commit(hooked: Path, git, watched: Spool) -> None:
    branch(git, hooked, "side", "s1", "s2")
    git(hooked, "checkout", "-q", "main")
    reported(watched)
    before = head(git, hooked)
    git(hooked, "merge", "-q", "--squash", "side")
    git(hooked, "commit", "-q", "-m", "squashed")
    assert reported(watched) == [("merge", before, ["s1", "s2"]), ("commit", head(git, hooked), ["s1", "s2"])]


def test_a_merge_with_conflicts_is_reported_by_its_commit(hooked: Path, git, watched: Spool) -> None:
    branch(git, hooked, "side", "same", "s1")
    git(hooked, "checkout", "-q", "main")
    commit(git, hooked, "same")
    reported(watched)
    with pytest.raises(subprocess.CalledProcessError):
        git(hooked, "merge", "-q", "side")
    assert reported(watched) == []
    (hooked / "same").write_text("both")
    git(hooked, "commit", "-q", "-a", "--no-edit")
    assert reported(watched) == [("commit", head(git, hooked), ["s1", "same"])]


def test_an_amended_commit_also_reports_the_paths_that_it_lost(hooked: Path, git, watched: Spool) -> None:
    (hooked / "dropped").touch()
    commit(git, hooked, "kept")
    reported(watched)
    git(hooked, "rm", "-q", "--cached", "dropped")
    (hooked / "added").touch()
    git(hooked, "add", "added")
    git(hooked, "commit", "-q", "--amend", "-m", "amended")
    now = head(git, hooked)
    assert reported(watched) == [("commit", now, ["added", "kept"]), ("rewrite", now, ["added", "dropped"])]


def test_an_amended_root_commit_reports_all_paths(hooked: Path, git, watched: Spool) -> None:
    git(hooked, "mv", "base", "other")
    git(hooked, "commit", "-q", "--amend", "-m", "amended")
    now = head(git, hooked)
    assert reported(watched) == [("commit", now, ["other"]), ("rewrite", now, ["base", "other"])]


def test_an_amended_message_changes_no_file(hooked: Path, git, watched: Spool) -> None:
    commit(git, hooked, "a")
    reported(watched)
    git(hooked, "commit", "-q", "--amend", "-m", "reworded")
    now = head(git, hooked)
    assert reported(watched) == [("commit", now, ["a"]), ("rewrite", now, [".git"])]


def test_an_empty_commit_changes_no_file(hooked: Path, git, watched: Spool) -> None:
    git(hooked, "commit", "-q", "--allow-empty", "-m", "nothing")
    assert reported(watched) == [("commit", head(git, hooked), [".git"])]


@pytest.mark.parametrize("backend", ["--merge", "--apply"])
def test_a_rebase_is_one_event(hooked: Path, git, watched: Spool, backend: str) -> None:
    branch(git, hooked, "side", "s1", "s2")
    old = head(git, hooked)
    git(hooked, "checkout", "-q", "main")
    commit(git, hooked, "m1")
    commit(git, hooked, "m2")
    git(hooked, "checkout", "-q", "side")
    reported(watched)
    git(hooked, "rebase", "-q", backend, "main")
    events = about_commits(watched)
    *picks, last = events
    assert picks == []  # what it picks is in the paths of the rewrite
    assert (last.type, last.data["paths"]) == ("dims.git.rewrite", ["m1", "m2"])
    assert (last.data["before"], last.data["commit"]) == (old, head(git, hooked))
    assert last.subject == ("side" if backend == "--merge" else None)  # with the other one HEAD is still detached


@pytest.mark.parametrize("backend", ["--merge", "--apply"])
def test_a_rebase_that_skips_commits_that_exist_already(hooked: Path, git, watched: Spool, backend: str) -> None:
    branch(git, hooked, "side", "s1", "s2", "s3")
    old = head(git, hooked)
    git(hooked, "checkout", "-q", "main")
    commit(git, hooked, "m1")
    git(hooked, "cherry-pick", "side")
    git(hooked, "checkout", "-q", "side")
    reported(watched)
    git(hooked, "rebase", "-q", backend, "main")
    events = about_commits(watched)
    assert (events[-1].data["before"], events[-1].data["paths"]) == (old, ["m1"])


def test_a_rebase_that_drops_and_reorders_commits_commits(
    hooked: Path, git, watched: Spool, tmp_path: Path, monkeypatch
) -> None:
    for name in ("one", "two", "three", "last"):
        commit(git, hooked, name)
    reported(watched)
    editor = tmp_path / "editor"  # drop the last one, move the second to the front, join the third to the first
    editor.write_text(
        '#!/bin/sh\n{ sed -n 2p "$1"; sed -n 1p "$1"; sed -n \'s/^pick/fixup/;3p\' "$1"; } >"$1.new"\n'
        'mv "$1.new" "$1"\n'
    )
    editor.chmod(0o755)
    monkeypatch.setenv("GIT_SEQUENCE_EDITOR", str(editor))
    git(hooked, "rebase", "-q", "-i", "HEAD~4")
    assert not (hooked / "last").exists() and (hooked / "three").exists()
    assert reported(watched)[-1] == ("rewrite", head(git, hooked), ["last"])


def test_a_rebase_that_stops_is_reported_when_it_ends(hooked: Path, git, watched: Spool) -> None:
    branch(git, hooked, "side", "same", "s1")
    git(hooked, "checkout", "-q", "main")
    commit(git, hooked, "same")
    git(hooked, "checkout", "-q", "side")
    old = head(git, hooked)
    reported(watched)
    with pytest.raises(subprocess.CalledProcessError):
        git(hooked, "rebase", "-q", "main")
    (hooked / "same").write_text("both")
    git(hooked, "add", "same")
    git(hooked, "commit", "-q", "-m", "by hand")
    git(hooked, "commit", "-q", "--amend", "-m", "by hand, better")
    assert [event.type for event in sent(watched)] == ["dims.git.refs_changed", "dims.git.rewrite"]
    git(hooked, "update-ref", "ORIG_HEAD", "main")  # like after a reset in between
    git(hooked, "-c", "core.editor=true", "rebase", "--continue")
    events = about_commits(watched)
    assert [(event.type, event.data["paths"]) for event in events] == [("dims.git.rewrite", ["same"])]
    assert (events[-1].data["before"], events[-1].data["commit"]) == (old, head(git, hooked))


@pytest.mark.parametrize("backend", ["--merge", "--apply"])
def test_a_rebase_that_stopped_knows_its_first_commit(hooked: Path, git, watched: Spool, backend: str) -> None:
    branch(git, hooked, "side", "s1", "same")
    git(hooked, "checkout", "-q", "main")
    commit(git, hooked, "same")
    git(hooked, "checkout", "-q", "side")
    old = head(git, hooked)
    with pytest.raises(subprocess.CalledProcessError):
        git(hooked, "rebase", "-q", backend, "main")
    git(hooked, "update-ref", "ORIG_HEAD", "main")  # like after a reset in between
    (hooked / "same").write_text("both")
    git(hooked, "add", "same")
    reported_before = reported(watched)
    git(hooked, "-c", "core.editor=true", "rebase", "--continue")
    events = about_commits(watched)
    assert reported_before and events[-1].type == "dims.git.rewrite"
    assert (events[-1].data["before"], events[-1].data["commit"]) == (old, head(git, hooked))
    assert (events[-1].data["paths"], events[-1].subject) == (["same"], "side")


def test_an_amended_commit_within_a_rebase_is_reported_with_its_own_pair(
    hooked: Path, git, watched: Spool, monkeypatch
) -> None:
    commit(git, hooked, "one")
    commit(git, hooked, "two")
    commit(git, hooked, "three")
    reported(watched)
    monkeypatch.setenv("GIT_SEQUENCE_EDITOR", "sed -i 1s/pick/edit/")
    git(hooked, "rebase", "-q", "-i", "HEAD~2")
    (hooked / "two").write_text("edited")
    git(hooked, "commit", "-q", "-a", "--amend", "-m", "edited")
    now = head(git, hooked)
    assert reported(watched) == [("rewrite", now, ["two"])]
    git(hooked, "rebase", "--continue")
    assert reported(watched)[-1] == ("rewrite", head(git, hooked), ["two"])


def test_cherry_picks_and_reverts_are_commits(hooked: Path, git, watched: Spool) -> None:
    shas = branch(git, hooked, "side", "s1", "s2")
    git(hooked, "checkout", "-q", "main")
    commit(git, hooked, "m1")
    reported(watched)
    git(hooked, "cherry-pick", shas[1])
    picked = head(git, hooked)
    git(hooked, "revert", "--no-edit", picked)
    assert reported(watched) == [("commit", picked, ["s2"]), ("commit", head(git, hooked), ["s2"])]


def test_a_merge_in_a_linked_worktree(hooked: Path, git, watched: Spool, tmp_path: Path) -> None:
    branch(git, hooked, "side", "s1")
    git(hooked, "checkout", "-q", "main")
    tree = tmp_path / "linked tree"
    git(hooked, "worktree", "add", "-q", "-b", "there", str(tree))
    old = commit(git, tree, "t1")
    git(hooked, "update-ref", "ORIG_HEAD", "HEAD")  # the one of the main worktree
    reported(watched)
    git(tree, "merge", "-q", "--no-edit", "side")
    assert reported(watched) == [("merge", head(git, tree), ["s1"])]
    git(tree, "reset", "-q", "--hard", old)
    git(tree, "rebase", "-q", "side")
    events = about_commits(watched)
    assert (events[-1].type, events[-1].data["paths"]) == ("dims.git.rewrite", ["s1"])
    assert (events[-1].subject, events[-1].data["root"]) == ("there", os.path.realpath(tree))


def test_a_merge_with_packed_refs(hooked: Path, git, watched: Spool) -> None:
    branch(git, hooked, "side", "s1")
    git(hooked, "checkout", "-q", "main")
    reported(watched)
    git(hooked, "merge", "-q", "side")
    hook = hooked / ".git/hooks/post-merge"
    reported(watched)
    git(hooked, "pack-refs", "--all")
    subprocess.run([hook, "0"], cwd=hooked, check=True)
    assert reported(watched) == [("merge", head(git, hooked), ["s1"])]


def test_a_merge_of_two_thousand_files_has_unknown_paths(hooked: Path, git, watched: Spool) -> None:
    git(hooked, "checkout", "-q", "-b", "side")
    for i in range(2000):
        (hooked / f"f{i}").touch()
    commit(git, hooked, "last")
    git(hooked, "checkout", "-q", "main")
    reported(watched)
    git(hooked, "merge", "-q", "side")
    assert reported(watched) == [("merge", head(git, hooked), [])]


# --- hooks that existed before ----------------------------------------------------------------------


def foreign(repo: Path, name: str, log: Path, text: str = "cat") -> None:
    hook = repo / ".git/hooks" / name
    hook.parent.mkdir(exist_ok=True)
    hook.write_text(f'#!/bin/sh\n{{ printf "{name} %s\\n" "$*"; {text}; }} >>"{log}"\nexit 3\n')
    hook.chmod(0o755)


def test_existing_hooks_get_their_arguments_and_all_of_their_input(
    repo: Path, home: Path, git, watched: Spool, tmp_path: Path
) -> None:
    log = tmp_path / "lo g"
    commit(git, repo, "base")
    for name in ("post-commit", "post-merge", "post-rewrite"):
        foreign(repo, name, log)
    install(repo, home)
    olds = branch(git, repo, "side", "s1", "s2")
    git(repo, "checkout", "-q", "main")
    commit(git, repo, "m1")
    git(repo, "checkout", "-q", "side")
    log.unlink()
    git(repo, "rebase", "-q", "main")
    news = git(repo, "rev-list", "--reverse", "main..side").split()
    pairs = [f"{old} {new}" for old, new in zip(olds, news, strict=True)]
    assert log.read_text().splitlines() == ["post-commit ", "post-commit ", "post-rewrite rebase", *pairs]
    log.unlink()
    git(repo, "commit", "-q", "--amend", "-m", "amended")
    amended = f"{news[-1]} {head(git, repo)}"
    assert log.read_text().splitlines() == ["post-commit ", "post-rewrite amend", amended]
    log.unlink()
    git(repo, "checkout", "-q", "main")
    git(repo, "merge", "-q", "side")
    git(repo, "merge", "-q", "--squash", "side~1")
    assert log.read_text().splitlines() == ["post-merge 0"]
    assert reported(watched)[-1] == ("merge", head(git, repo), ["s1", "s2"])


def test_a_hook_that_reads_no_input_does_no_harm(repo: Path, home: Path, git, watched: Spool, tmp_path: Path) -> None:
    foreign(repo, "post-rewrite", tmp_path / "log", "exec <&-")
    install(repo, home)
    commit(git, repo, "a")
    done = subprocess.run(
        ["git", "-C", repo, "commit", "-q", "--amend", "-m", "x"], capture_output=True, text=True, check=True
    )
    assert (done.stdout, done.stderr) == ("", "")
    assert [kind for kind, _, _ in reported(watched)] == ["commit", "commit", "rewrite"]


@pytest.mark.skipif(not shutil.which("bash"), reason="another shell than the machine's sh")
def test_a_thousand_pairs_reach_the_existing_hook(repo: Path, home: Path, git, watched: Spool, tmp_path: Path) -> None:
    log = tmp_path / "log"
    foreign(repo, "post-rewrite", log)
    commit(git, repo, "a")
    hook = next(path for path in install(repo, home) if path.name == "post-rewrite")
    pairs = "".join(f"{i:040x} {i + 1:040x} more {i}\n" for i in range(1000))
    for shell in ("sh", "bash"):
        subprocess.run([shell, hook, "rebase"], cwd=repo, input=pairs, text=True, check=True, timeout=20)
        assert log.read_text() == "post-rewrite rebase\n" + pairs
        log.unlink()
