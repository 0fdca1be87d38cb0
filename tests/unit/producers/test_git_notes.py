"""Notes become events. The tests use real repositories and real git."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from dims_producers.git_history import GitRepository
from dims_producers.git_notes import GitNote, events_of, read_notes
from dims_producers.spool_file import SpoolFile
from dims_worker.errors import EventError
from dims_worker.events import Event

NOW = datetime(2026, 11, 22, 9, tzinfo=UTC)
WRITTEN = int(NOW.timestamp()) * 10**9


def note(
    repo: Path,
    sha: str,
    ref: str = "refs/heads/main",
    git_dir: str = "",
    *,
    hook: str = "post-commit",
    before: str | None = None,
) -> GitNote:
    return GitNote(hook, sha, before, ref, GitRepository(str(repo), git_dir), WRITTEN)


def event_of(note: GitNote) -> Event:
    (event,) = events_of([note])
    if isinstance(event, EventError):
        raise event
    return event


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


def test_a_commit_becomes_an_event(repo: Path, git, monkeypatch) -> None:
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


def test_hostile_file_names_arrive_unchanged(repo: Path, git) -> None:
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


def test_a_merge_is_compared_with_its_first_parent(repo: Path, git) -> None:
    commit(git, repo, "base")
    git(repo, "checkout", "-q", "-b", "side")
    commit(git, repo, "side1", "side2")
    git(repo, "checkout", "-q", "main")
    commit(git, repo, "main1")
    git(repo, "merge", "-q", "--no-ff", "--no-edit", "side")
    assert paths_of(repo, git(repo, "rev-parse", "HEAD")) == ["side1", "side2"]


def test_a_commit_that_is_checked_out_again_has_the_same_paths(repo: Path, git) -> None:
    commit(git, repo, "base")
    sha = commit(git, repo, "one")
    commit(git, repo, "two")
    git(repo, "reset", "-q", "--hard", sha)
    assert paths_of(repo, sha) == ["one"]


def test_two_thousand_paths_are_unknown(repo: Path, git) -> None:
    for i in range(2000):
        (repo / f"f{i}").touch()
    assert paths_of(repo, commit(git, repo)) == []


def test_settings_of_the_user_do_not_change_the_result(repo: Path, git, monkeypatch) -> None:
    for setting in ("log.showSignature=true", "color.ui=always", "diff.relative=true", "core.quotePath=true"):
        git(repo, "config", *setting.split("="))
    sha = commit(git, repo, "sub/ü", message="s")
    monkeypatch.setenv("GIT_DIR", "/nowhere")
    monkeypatch.setenv("GIT_INDEX_FILE", "/nowhere/index")
    event = event_of(note(repo, sha))
    assert event.data["paths"] == ["sub/ü"] and event.data["subject"] == "s"


def test_a_commit_that_is_gone_has_unknown_paths_and_is_not_lost(repo: Path, git) -> None:
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


def test_a_commit_with_an_invalid_year_gets_the_time_of_the_note(repo: Path, git, monkeypatch) -> None:
    monkeypatch.setenv("GIT_COMMITTER_DATE", "@86400 +0000")
    assert event_of(note(repo, commit(git, repo, "a"))).time == NOW


def test_hostile_subjects_and_authors_are_cleaned_are_cleaned(repo: Path, git, monkeypatch) -> None:
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


def test_a_separate_git_dir_works(repo: Path, git, tmp_path: Path) -> None:
    sha = commit(git, repo, "a")
    (repo / ".git").rename(tmp_path / "elsewhere.git")
    assert event_of(note(repo, sha, git_dir=str(tmp_path / "elsewhere.git"))).data["paths"] == ["a"]


# --- merges and rewrites ------------------------------------------------------------------------------


def changed(repo: Path, sha: str, before: str | None, hook: str = "post-merge") -> list[str]:
    return list(event_of(note(repo, sha, hook=hook, before=before)).data["paths"])


def test_a_merge_and_a_rewrite_become_events(repo: Path, git) -> None:
    first, last = commit(git, repo, "a", message="one"), commit(git, repo, "b", "c", message="two")
    for hook, kind in (("post-merge", "merge"), ("post-rewrite", "rewrite")):
        event = event_of(note(repo, last, hook=hook, before=first))
        assert event.type == f"dims.git.{kind}" and event.id == f"{last}-{kind}-{WRITTEN}" and event.time == NOW
        assert event.subject == "main"
        assert event.data == {
            "root": os.path.realpath(repo),
            "commit": last,
            "before": first,
            "branch": "main",
            "subject": "two",
            "author": "Ada Test",
            "paths": ["b", "c"],
        }


def test_the_difference_is_the_same_in_both_directions(repo: Path, git) -> None:
    first = commit(git, repo, "gone", "a")
    git(repo, "rm", "-q", "gone")
    middle = commit(git, repo, "b")
    git(repo, "mv", "a", "aa")
    last = commit(git, repo, "c")
    assert changed(repo, last, first) == ["a", "aa", "b", "c", "gone"]
    assert changed(repo, first, last) == ["a", "aa", "b", "c", "gone"]
    assert changed(repo, middle, first, "post-rewrite") == ["b", "gone"]


def test_a_merge_without_a_previous_commit_has_unknown_paths(repo: Path, git) -> None:
    commit(git, repo, "a")
    sha = commit(git, repo, "b")
    event = event_of(note(repo, sha, hook="post-merge"))
    assert event.data["paths"] == [] and event.data["commit"] == sha and "before" not in event.data
    gone = event_of(note(repo, sha, hook="post-rewrite", before="0123456789" * 4))
    assert gone.data["paths"] == [] and gone.data["before"] == "0123456789" * 4


def test_a_commit_without_changes_concerns_only_the_history(repo: Path, git) -> None:
    commit(git, repo, "a")
    before = git(repo, "rev-parse", "HEAD")
    sha = commit(git, repo)
    assert paths_of(repo, sha) == [".git"]
    assert changed(repo, sha, before) == [".git"]


def test_a_squash_reports_the_paths_in_the_index(repo: Path, git) -> None:
    commit(git, repo, "a", "b")
    sha = git(repo, "rev-parse", "HEAD")
    assert changed(repo, sha, sha) == []  # it was undone since, so git does not know the paths
    (repo / "a").write_text("squashed")
    git(repo, "add", "a")
    (repo / "b").write_text("not of it")
    event = event_of(note(repo, sha, hook="post-merge", before=sha))
    assert event.data["paths"] == ["a"] and (event.data["subject"], event.data["author"]) == (None, None)
    git(repo, "commit", "-q", "-m", "squashed")
    assert changed(repo, sha, sha) == ["a"]


def test_many_notes_at_once_give_the_same_events_as_one_by_one(repo: Path, git, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(repo, other)
    shas = [commit(git, repo, f"f{i}", message=f"// {i}") for i in range(5)]
    elsewhere = commit(git, other, "x")
    git(repo, "checkout", "-q", "-b", "side", shas[1])
    side = commit(git, repo, "side")
    git(repo, "checkout", "-q", "main")
    git(repo, "merge", "-q", "--no-ff", "--no-edit", "side")
    merged = git(repo, "rev-parse", "HEAD")
    notes = [
        note(repo, shas[4], hook="post-merge", before=shas[0]),
        *(note(repo, sha) for sha in shas),
        note(other, elsewhere),
        note(repo, "0123456789" * 4),
        note(repo, merged, hook="post-rewrite", before=side),
        note(repo, merged, hook="post-merge", before=shas[4]),
        note(repo, merged),
        note(repo, ""),
        note(repo, shas[3], hook="post-rewrite", before=shas[1]),
    ]
    together = events_of(notes)
    assert together == [event_of(note) for note in notes]
    assert [event.data["paths"] for event in together if isinstance(event, Event)] == [
        ["f1", "f2", "f3", "f4"],
        *([f"f{i}"] for i in range(5)),
        ["x"],
        [],
        ["f2", "f3", "f4"],
        ["side"],
        ["side"],
        ["side"],
        ["f2", "f3"],
    ]


def test_a_thousand_notes_start_one_process(repo: Path, git, monkeypatch) -> None:
    sha, last = commit(git, repo, "a"), commit(git, repo, "b")
    ran: list[list[str]] = []
    real = subprocess.run

    def counted(args: list[str], **options: Any) -> Any:
        ran.append(args)
        return real(args, **options)

    monkeypatch.setattr(subprocess, "run", counted)
    events = events_of([note(repo, sha), note(repo, last), note(repo, last, hook="post-merge", before=sha)] * 334)
    assert len(events) == 1002 and len(ran) == 1
    assert [e.data["paths"] for e in events[-3:] if isinstance(e, Event)] == [["a"], ["b"], ["b"]]


def test_a_git_that_hangs_makes_the_paths_unknown(repo: Path, git, tmp_path: Path, monkeypatch) -> None:
    sha = commit(git, repo, "a")
    slow = tmp_path / "bin" / "git"
    slow.parent.mkdir()
    slow.write_text("#!/bin/sh\nexec sleep 60\n")
    slow.chmod(0o755)
    monkeypatch.setenv("PATH", f"{slow.parent}:{os.environ['PATH']}")
    monkeypatch.setattr("dims_producers.git_history._TIMEOUT", 0.1)
    event = event_of(note(repo, sha))
    assert (event.id, event.data["paths"], event.time) == (sha, [], NOW)


@pytest.mark.parametrize("damage", ["a commit", "a tree"])
def test_a_broken_repository_loses_no_event(repo: Path, git, damage: str) -> None:
    shas = [commit(git, repo, f"f{i}") for i in range(4)]
    object_ = git(repo, "rev-parse", shas[1] if damage == "a commit" else f"{shas[1]}^{{tree}}")
    file = repo / ".git/objects" / object_[:2] / object_[2:]
    file.chmod(0o644)
    file.write_bytes(b"damaged")
    events = events_of([note(repo, sha) for sha in shas])
    assert [event.id for event in events if isinstance(event, Event)] == shas
    for number, event in enumerate(events):  # the known paths are right, and the others are unknown
        assert isinstance(event, Event) and event.data["paths"] in ([f"f{number}"], [])


# --- the files ----------------------------------------------------------------------------------------


def read(text: str, age: float = 0) -> Event | EventError | None:
    (event,) = read_notes([SpoolFile("n.git", os.fsencode(text), time.time_ns() - int(age * 1e9))])
    return event


def test_a_note_is_read_with_any_folder_name(repo: Path, git, tmp_path: Path) -> None:
    sha = commit(git, repo, "a")
    odd = tmp_path / "odd\nroot \"'"
    repo.rename(odd)
    tail = f"ref refs/heads/main\ndir \nroot {odd}\nend\n"
    for head in (
        f"dims-git 1\nsha {sha}\n",  # from a hook of an older DIMS
        f"dims-git 2\nhook post-commit\nsha {sha}\nbefore \n",
    ):
        event = read(head + tail)
        assert isinstance(event, Event) and event.id == sha
        assert event.data["root"] == os.path.realpath(odd) and event.data["paths"] == ["a"]


def test_a_note_names_its_hook_and_the_previous_commit(repo: Path, git) -> None:
    first, last = commit(git, repo, "a"), commit(git, repo, "b")
    for before, paths in ((first, ["b"]), ("", []), ("garbage; x", [])):
        event = read(f"dims-git 2\nhook post-merge\nsha {last}\nbefore {before}\nref \ndir \nroot {repo}\nend\n")
        assert isinstance(event, Event) and event.type == "dims.git.merge" and event.data["paths"] == paths


def test_an_incomplete_note_waits_and_is_then_refused() -> None:
    assert read("") is None
    assert read("dims-git 1\nsha 0123") is None
    assert "incomplete" in str(read("dims-git 1\nsha 0123", age=11))


def test_each_file_has_its_own_result(repo: Path, git) -> None:
    sha = commit(git, repo, "a")
    whole = f"dims-git 1\nsha {sha}\nref \ndir \nroot {repo}\nend\n".encode()
    now = time.time_ns()
    files = [
        SpoolFile("1", b"x\nend\n", now),
        SpoolFile("2", whole, now),
        SpoolFile("3", whole[:20], now),
        SpoolFile("4", whole, now),
    ]
    bad, good, young, again = read_notes(files)
    assert isinstance(bad, EventError) and young is None
    assert isinstance(good, Event) and good == again and good.id == sha


@pytest.mark.parametrize(
    "text",
    [
        "x\nend\n",
        "dims-git 3\nsha \nref \ndir \nroot /x\nend\n",
        "dims-git 1\nsha xyz\nref \ndir \nroot /x\nend\n",
        "dims-git 2\nhook pre-push\nsha \nbefore \nref \ndir \nroot /x\nend\n",
        "dims-git 1\nsha \nref \ndir \nroot rel\nend\n",
    ],
)
def test_an_invalid_note_is_refused(text: str) -> None:
    assert "not a note" in str(read(text))


def tree_with(git: Any, repo: Path, path: str) -> str:
    """Commit a file at a path of any length. git keeps paths that Linux cannot open in one call."""
    blob = git(repo, "hash-object", "-w", "--stdin")
    git(repo, "-c", "core.longpaths=true", "update-index", "--add", "--cacheinfo", f"100644,{blob},{path}")
    tree = git(repo, "write-tree")
    return str(git(repo, "commit-tree", "-m", "m", tree))


@pytest.mark.parametrize(("names", "known"), [(7, True), (20, True), (21, False)])
def test_a_path_is_named_up_to_the_limit_of_an_event(repo: Path, git: Any, names: int, known: bool) -> None:
    path = "/".join(["n" * 199] * names)  # 7: 1,399 bytes, 20: 3,999 bytes, 21: 4,199 bytes
    assert paths_of(repo, tree_with(git, repo, path)) == ([path] if known else [])
