"""GitProbe against real repositories."""

from __future__ import annotations

import os
import shlex
import stat
import time
from collections.abc import Callable, Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest

from dims_worker.config import GitMetric, GitSource
from dims_worker.errors import MeasureError
from dims_worker.probes.base import Deadline, Reading, ScanContext, readings_by_name
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


@pytest.fixture
def repo(git: Run, tmp_path: Path) -> Path:
    git("init", "-q", "-b", "main")
    commits = [
        ("2025-09-30T23:59:59Z", "REC_1 early"),
        ("2025-09-30T23:30:00-02:00", "rec_2: in UTC this is October"),
        ("2025-10-02T12:00:00Z", "plain\n\nrec_3 in the body only"),
        ("2025-11-01T00:00:00Z", "rec_4 ünï"),
    ]
    for when, message in commits:
        git("commit", "-q", "--allow-empty", "-m", message, date=when)
    git("checkout", "-q", "-b", "side/one")
    git("commit", "-q", "--allow-empty", "-m", "rec_5 side")
    git("checkout", "-q", "main")
    return tmp_path


def test_commits(scan: Scan, repo: Path, git: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_DIR", "/nowhere")  # in a hook, git points at the repository of the hook
    rec: dict[str, Any] = {"message": "rec_", "since": date(2025, 10, 1)}
    results = scan(
        head=metric(),
        all=metric(all_branches=True),
        side=metric(branch="side/one"),
        october=metric(since=date(2025, 10, 1), until=date(2025, 11, 1)),
        rec=metric(**rec),
        any_case=metric(message="rec_", ignore_case=True),
        case=metric(message="^rec_"),
        book=metric(all_branches=True, ignore_case=True, **rec),
        none=metric(until=date(1999, 1, 1)),
        gone=metric(branch="gone"),
        zero=metric(branch="gone", absent=0),
        remote=metric(branch="origin/x", absent=None),
    )
    assert {name: reading.value for name, reading in results.items()} == {
        "head": 4,
        "all": 5,
        "side": 5,
        "october": 2,
        "rec": 2,
        "any_case": 3,
        "case": 2,
        "book": 3,
        "none": 0,
        "gone": None,
        "zero": 0,
        "remote": None,
    }
    monkeypatch.delenv("GIT_DIR")
    assert results["head"].value == int(git("rev-list", "--count", "HEAD"))
    assert results["gone"].method == "failed" and "no branch 'gone'" in str(results["gone"].error)
    assert results["remote"].method == "exact"


def test_each_set_of_commits_is_read_once(scan: Scan, repo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    real = git_command.Git.records

    def records(self: git_command.Git, *args: str) -> Iterator[bytes]:
        calls.append(args[0])
        return real(self, *args)

    monkeypatch.setattr(git_command.Git, "records", records)
    scan(
        a=metric(),
        b=metric(message="x"),
        c=metric(since=date(2025, 1, 1)),
        d=metric(all_branches=True),
        e=metric("tracked_files"),
        f=metric("tracked_files", paths=["*.py"]),
    )
    assert sorted(calls) == ["log", "log", "ls-files", "rev-parse"]


def test_the_users_settings_do_not_change_a_count(scan: Scan, repo: Path, git: Run) -> None:
    for key, value in {
        "log.showSignature": "true",
        "log.decorate": "full",
        "color.ui": "always",
        "core.quotePath": "true",
        "i18n.logOutputEncoding": "latin1",
        "core.fsmonitor": "touch pwned; false",
        "format.pretty": "short",
    }.items():
        git("config", key, value)
    results = scan(n=metric(), m=metric(message="ünï"), t=metric("tracked_files"))
    assert [results[name].value for name in "nmt"] == [4, 1, 0]
    assert not (repo / "pwned").exists()


def test_a_branch_takes_precedence_over_a_tag_of_its_name(scan: Scan, repo: Path, git: Run) -> None:
    git("tag", "side/one", "main")
    git("update-ref", "refs/remotes/origin/main", "main~1")
    results = scan(side=metric(branch="side/one"), remote=metric(branch="origin/main"), tag=metric(branch="HEAD~1"))
    assert (results["side"].value, results["remote"].value) == (5, 3)
    assert results["tag"].method == "failed"


def test_tracked_files(scan: Scan, repo: Path, git: Run) -> None:
    for name in ["a.py", "sub/b.py", "sub/c.md", "untracked.py", os.fsdecode(b"sub/\xff.py")]:
        (repo / name).parent.mkdir(exist_ok=True)
        (repo / name).write_text("")
    git("add", "a.py", "sub")
    results = scan(all=metric("tracked_files"), py=metric("tracked_files", paths=["**/*.py"]))
    assert (results["all"].value, results["py"].value) == (4, 3)
    below = scan("sub", py=metric("tracked_files", paths=["*.py"]), n=metric())
    assert (below["py"].value, below["n"].value) == (2, 4)


def test_no_commits_yet(scan: Scan, git: Run) -> None:
    git("init", "-q", "-b", "main")
    results = scan(
        head=metric(), all=metric(all_branches=True), files=metric("tracked_files"), main=metric(branch="main")
    )
    assert [results[name].value for name in ("head", "all", "files")] == [0, 0, 0]
    assert results["main"].method == "failed"


def test_a_broken_head_fails(scan: Scan, repo: Path) -> None:
    (repo / ".git" / "refs" / "heads" / "main").write_text("0123456789" * 4 + "\n")
    assert scan(n=metric())["n"].method == "failed"


def test_a_shallow_clone_fails(scan: Scan, repo: Path, git: Run) -> None:
    git("clone", "-q", "--depth", "1", f"file://{repo}", "shallow")
    results = scan("shallow", n=metric(), t=metric("tracked_files"))
    assert "shallow" in str(results["n"].error) and "--unshallow" in str(results["n"].error)
    assert results["t"].value == 0


def test_a_bare_repository_has_commits(scan: Scan, repo: Path, git: Run) -> None:
    git("clone", "-q", "--bare", ".", "bare.git")
    results = scan("bare.git", n=metric(), t=metric("tracked_files"))
    assert results["n"].value == 4
    assert "work tree" in str(results["t"].error)


def test_a_missing_repository_folder_or_git_fails(
    scan: Scan, git: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(MeasureError, match=f"{tmp_path} is not in a git repository.*git init"):
        scan(n=metric())
    with pytest.raises(MeasureError, match="gone does not exist"):
        scan("gone", n=metric())
    assert scan("gone", n=metric(absent=0))["n"].value == 0
    (tmp_path / "file").write_text("")
    with pytest.raises(MeasureError, match="is not a folder"):
        scan("file", n=metric(absent=0))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MeasureError, match="git is not installed"):
        scan(n=metric())


def _fake_git(folder: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = folder / "bin" / "git"
    fake.parent.mkdir()
    fake.write_text(f"#!/bin/sh\n{script}\n")
    fake.chmod(fake.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(fake.parent), prepend=os.pathsep)


def test_dubious_ownership_shows_the_fix(scan: Scan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = f"fatal: detected dubious ownership in repository at '{tmp_path}'"
    _fake_git(tmp_path, f'echo "{text}" >&2; exit 128', monkeypatch)
    with pytest.raises(MeasureError, match=r"another user.*safe\.directory"):
        scan(n=metric())


def test_the_fix_quotes_the_folder_for_the_shell() -> None:
    fix = git_command._explain("/srv/it's; $(id)", "detected dubious ownership in repository", 128)
    assert shlex.split(fix.partition("If you trust it: ")[2])[-1] == "/srv/it's; $(id)"


def test_the_deadline_kills_git_and_what_it_started(
    context: ScanContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _fake_git(tmp_path, f"sleep 60 & echo $! > {tmp_path}/pid; wait", monkeypatch)
    started = time.monotonic()
    deadline = Deadline.after(timedelta(seconds=0.5))
    with pytest.raises(MeasureError, match=r"timeout of 0\.5 s"):
        PROBE.scan(GitSource(type="git", path="."), {"n": metric()}, context, deadline)
    assert time.monotonic() - started < 30  # the program alone takes a minute
    child = int((tmp_path / "pid").read_text())
    for _ in range(100):
        if not _runs(child):
            return
        time.sleep(0.02)
    pytest.fail("git's child outlived the deadline")


def _runs(pid: int) -> bool:
    """Return whether a process runs. In a container, a zombie may stay because no process reaps it."""
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False
