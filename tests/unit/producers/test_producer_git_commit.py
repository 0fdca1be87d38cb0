"""Notes become events: real repositories, real git."""

from __future__ import annotations

import os
import shutil
import time
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

import pytest

from dims_worker.errors import EventError
from producers.git_commit import Note, event_of, read_note

NOW = datetime(2026, 11, 22, 9, tzinfo=UTC)


def note(repo: Path, sha: str, ref: str = "refs/heads/main", git_dir: str = "") -> Note:
    return Note(sha, ref, git_dir, str(repo), NOW)


def commit(git, repo: Path, *files: str, message: str = "m") -> str:
    for name in files:
        path = repo / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{name} {time.time_ns()}")
    git(repo, "add", "-A")
    git(repo, "commit", "-q", "--allow-empty", "-m", message)
    return git(repo, "rev-parse", "HEAD")


def paths_of(repo: Path, sha: str) -> list[str]:
    return list(event_of(note(repo, sha)).data["paths"])


def test_the_event_of_a_commit(repo: Path, git, monkeypatch) -> None:
    monkeypatch.setenv("GIT_COMMITTER_DATE", "2026-03-01T10:00:00+02:00")
    sha = commit(git, repo, "b.txt", "a/ü €.txt", message="Zeile eins ü\n\nBody")
    event = event_of(note(repo, sha))
    root = os.path.realpath(repo)
    assert event.id == sha and event.type == "dims.git.commit" and event.subject == "main"
    assert event.producer.startswith("dims:git.") and event.producer.endswith(":" + quote(root))
    assert event.time == datetime(2026, 3, 1, 8, tzinfo=UTC)
    assert event.data == {
        "root": root,
        "commit": sha,
        "branch": "main",
        "subject": "Zeile eins ü",
        "author": "Ada Test",
        "paths": ["a/ü €.txt", "b.txt"],
    }


def test_hostile_names(repo: Path, git) -> None:
    names = ["a b", "tab\tx", "new\nline", "q\"uote's", "-dash", "*", "$(x)", "😀", "back\\slash", ":(top)x"]
    sha = commit(git, repo, *names)
    assert paths_of(repo, sha) == sorted(names)


def test_a_name_that_is_not_utf8_is_unknown(repo: Path, git) -> None:
    (repo / os.fsdecode(b"caf\xe9")).touch()
    assert paths_of(repo, commit(git, repo, "plain")) == []


def test_a_rename_gives_both_names_and_a_deletion_one(repo: Path, git) -> None:
    commit(git, repo, "old", "gone", "stays")
    git(repo, "config", "diff.renames", "copies")
    git(repo, "mv", "old", "new")
    git(repo, "rm", "-q", "gone")
    assert paths_of(repo, commit(git, repo)) == ["gone", "new", "old"]


def test_a_merge_is_told_against_its_first_parent(repo: Path, git) -> None:
    commit(git, repo, "base")
    git(repo, "checkout", "-q", "-b", "side")
    commit(git, repo, "side1", "side2")
    git(repo, "checkout", "-q", "main")
    commit(git, repo, "main1")
    git(repo, "merge", "-q", "--no-ff", "--no-edit", "side")
    assert paths_of(repo, git(repo, "rev-parse", "HEAD")) == ["side1", "side2"]


def test_an_amended_commit_tells_also_what_it_no_longer_holds(repo: Path, git) -> None:
    commit(git, repo, "base")
    commit(git, repo, "kept", "dropped")
    git(repo, "rm", "-q", "--cached", "dropped")
    (repo / "added").touch()
    git(repo, "add", "added")
    git(repo, "commit", "-q", "--amend", "-m", "amended")
    (repo / ".git" / "info" / "exclude").write_text("dropped\n")
    sha = git(repo, "rev-parse", "HEAD")
    commit(git, repo, "later")
    assert paths_of(repo, sha) == ["added", "dropped", "kept"]


def test_an_amended_root_commit_tells_all(repo: Path, git) -> None:
    commit(git, repo, "a", "b")
    git(repo, "rm", "-q", "b")
    git(repo, "commit", "-q", "--amend", "-m", "amended")
    assert paths_of(repo, git(repo, "rev-parse", "HEAD")) == ["a", "b"]


def test_coming_back_to_a_commit_does_not_widen_it(repo: Path, git) -> None:
    commit(git, repo, "base")
    sha = commit(git, repo, "one")
    commit(git, repo, "two")
    git(repo, "reset", "-q", "--hard", sha)
    assert paths_of(repo, sha) == ["one"]


def test_two_thousand_paths_are_unknown(repo: Path, git) -> None:
    for i in range(2000):
        (repo / f"f{i}").touch()
    assert paths_of(repo, commit(git, repo)) == []


def test_settings_of_the_user_do_not_spoil_what_git_says(repo: Path, git, monkeypatch) -> None:
    for setting in ("log.showSignature=true", "color.ui=always", "diff.relative=true", "core.quotePath=true"):
        git(repo, "config", *setting.split("="))
    sha = commit(git, repo, "sub/ü", message="s")
    monkeypatch.setenv("GIT_DIR", "/nowhere")
    monkeypatch.setenv("GIT_INDEX_FILE", "/nowhere/index")
    event = event_of(note(repo, sha))
    assert event.data["paths"] == ["sub/ü"] and event.data["subject"] == "s"


def test_a_commit_that_vanished_is_unknown_and_not_lost(repo: Path, git) -> None:
    sha = "0123456789" * 4
    event = event_of(note(repo, sha))
    assert (event.id, event.time, event.data["paths"]) == (sha, NOW, [])
    shutil.rmtree(repo)
    assert event_of(note(repo, sha)).data["paths"] == []


def test_without_a_commit_there_is_no_event(repo: Path) -> None:
    with pytest.raises(EventError, match="no commit"):
        event_of(note(repo, ""))


def test_a_note_without_a_sha_means_head(repo: Path, git) -> None:
    sha = commit(git, repo, "a")
    assert event_of(note(repo, "")).id == sha


def test_a_time_outside_the_years_is_that_of_the_note(repo: Path, git, monkeypatch) -> None:
    monkeypatch.setenv("GIT_COMMITTER_DATE", "@86400 +0000")
    assert event_of(note(repo, commit(git, repo, "a"))).time == NOW


def test_hostile_subjects_and_authors(repo: Path, git, monkeypatch) -> None:
    monkeypatch.setenv("GIT_AUTHOR_NAME", os.fsdecode(b"caf\xe9 \x01"))
    git(repo, "config", "i18n.commitEncoding", "UTF-8")
    (repo / "m").write_bytes(b"caf\xe9 " + b"x" * 5000 + b"\nsecond")
    git(repo, "add", "-A")
    git(repo, "commit", "-q", "-F", "m")
    event = event_of(note(repo, git(repo, "rev-parse", "HEAD")))
    assert len(event.data["subject"]) == 1000 and event.data["author"].startswith("caf")


def test_detached_head_has_no_branch(repo: Path, git) -> None:
    sha = commit(git, repo, "a")
    event = event_of(note(repo, sha, ref=""))
    assert event.subject is None and event.data["branch"] is None


def test_a_separate_git_dir(repo: Path, git, tmp_path: Path) -> None:
    sha = commit(git, repo, "a")
    (repo / ".git").rename(tmp_path / "elsewhere.git")
    assert event_of(note(repo, sha, git_dir=str(tmp_path / "elsewhere.git"))).data["paths"] == ["a"]


def write(path: Path, text: str, age: float = 0) -> Path:
    path.write_text(text)
    os.utime(path, (time.time() - age,) * 2)
    return path


def test_a_note_is_read_whatever_its_folder_is_called(repo: Path, git, tmp_path: Path) -> None:
    sha = commit(git, repo, "a")
    odd = tmp_path / "odd\nroot \"'"
    repo.rename(odd)
    file = write(tmp_path / "n.git", f"dims-git 1\nsha {sha}\nref refs/heads/main\ndir \nroot {odd}\nend\n")
    event = read_note(file)
    assert event and event.data["root"] == os.path.realpath(odd) and event.data["paths"] == ["a"]


def test_a_torn_note_is_left_while_young_then_refused(tmp_path: Path) -> None:
    assert read_note(write(tmp_path / "n.git", "")) is None
    assert read_note(write(tmp_path / "n.git", "dims-git 1\nsha 0123")) is None
    with pytest.raises(EventError, match="torn"):
        read_note(write(tmp_path / "n.git", "dims-git 1\nsha 0123", age=11))


@pytest.mark.parametrize("text", ["x\nend\n", "dims-git 2\nsha \nref \ndir \nroot /x\nend\n",
                                  "dims-git 1\nsha xyz\nref \ndir \nroot /x\nend\n",
                                  "dims-git 1\nsha \nref \ndir \nroot rel\nend\n"])  # fmt: skip
def test_what_is_no_note_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(EventError, match="not a note"):
        read_note(write(tmp_path / "n.git", text))
