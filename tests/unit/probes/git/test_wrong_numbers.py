"""Repositories in which git prints a number that is not the whole: DIMS fails with the fix, or says why."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dims_worker.config import FilesMetric, FilesSource, GitMetric, GitSource
from dims_worker.errors import MeasureError
from dims_worker.probes.base import Deadline, Reading, ScanContext, readings_by_name
from dims_worker.probes.files.probe import FilesProbe
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
    """`main` and `side` both change `same`, so merging, rebasing and picking stop."""
    git("init", "-q", "-b", "main")
    git("config", "uploadpack.allowFilter", "true")
    for name in ("same", "folder/a", "folder/b"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
        git("add", "-A")
        git("commit", "-q", "-m", name)
    git("checkout", "-q", "-b", "side")
    (tmp_path / "same").write_text("side")
    git("commit", "-q", "-a", "-m", "side")
    git("checkout", "-q", "main")
    (tmp_path / "same").write_text("main")
    git("commit", "-q", "-a", "-m", "main")
    return tmp_path


def stops(git: Run, *args: str) -> None:
    with pytest.raises(subprocess.CalledProcessError):
        git(*args)


def start_rebase(git: Run, repo: Path) -> None:
    git("checkout", "-q", "side")
    stops(git, "rebase", "-q", "main")


def start_rebase_of_patches(git: Run, repo: Path) -> None:
    git("checkout", "-q", "side")
    stops(git, "rebase", "-q", "--apply", "main")


def start_am(git: Run, repo: Path) -> None:
    (repo / "patch").write_text(git("format-patch", "-1", "--stdout", "side"))
    stops(git, "am", "-q", "patch")


def start_merge(git: Run, repo: Path) -> None:
    stops(git, "merge", "-q", "side")


def start_cherry_pick(git: Run, repo: Path) -> None:
    stops(git, "cherry-pick", "side")


def start_revert(git: Run, repo: Path) -> None:
    (repo / "same").write_text("later")
    git("commit", "-q", "-a", "-m", "later")
    stops(git, "revert", "--no-edit", "HEAD~1")


def start_bisect(git: Run, repo: Path) -> None:
    git("bisect", "start", "HEAD", "HEAD~3")


def start_pick_of_two(git: Run, repo: Path) -> None:
    """After you commit the first of several picks by hand, no CHERRY_PICK_HEAD is left."""
    stops(git, "cherry-pick", "side", "side~1")
    git("checkout", "-q", "--theirs", "same")
    git("commit", "-q", "-a", "-m", "by hand")


@pytest.mark.parametrize(
    ("start", "words", "end"),
    [
        (start_rebase, "a rebase", ("rebase", "--abort")),
        (start_rebase_of_patches, "a rebase", ("rebase", "--abort")),
        (start_am, "git am", ("am", "--abort")),
        (start_merge, "a merge", ("merge", "--abort")),
        (start_cherry_pick, "a cherry-pick", ("cherry-pick", "--abort")),
        (start_pick_of_two, "a cherry-pick or a revert", ("cherry-pick", "--quit")),
        (start_revert, "a revert", ("revert", "--abort")),
        (start_bisect, "a bisect", ("bisect", "reset")),
    ],
)
@pytest.mark.parametrize("linked", [False, True])
def test_an_operation_in_progress_is_named(
    scan: Scan, repo: Path, git: Run, start: Callable[..., None], words: str, end: tuple[str, ...], linked: bool
) -> None:
    path = "."
    if linked:
        git("worktree", "add", "-q", "-b", "there", "linked")
        git("checkout", "-q", "--detach")
        path = "linked"

    def there(*args: str) -> str:
        return git(*args, at=path)

    metrics = {
        "head": metric(),
        "age": metric("newest_age"),
        "files": metric("tracked_files"),
        "all": metric(all_branches=True),
        "branches": metric("branches"),
        "size": metric("size"),
    }
    start(there, repo / path)
    results = scan(path, **metrics)
    marked = {name: reading.details.get("in_progress") for name, reading in results.items()}
    expected = f"{words} is in progress"
    assert marked == {**dict.fromkeys(("head", "age", "files"), expected), **dict.fromkeys(("all", "branches", "size"))}
    assert results["head"].value == int(there("rev-list", "--count", "HEAD"))
    there(*end)
    assert not any("in_progress" in reading.details for reading in scan(path, **metrics).values())


@pytest.mark.parametrize("ignore", ["gitignore", None])
def test_files_that_git_tracks_are_those_of_an_operation_in_progress(
    repo: Path, git: Run, context: ScanContext, deadline: Deadline, ignore: Any
) -> None:
    start_merge(git, repo)
    source, files = FilesSource(type="files", path="folder", ignore=ignore), FilesMetric(source="tree", measure="count")
    (reading,) = FilesProbe().scan(source, {"n": files}, context, deadline).readings
    assert reading.value == 2
    assert reading.details.get("in_progress") == ("a merge is in progress" if ignore else None)


def test_a_missing_index_is_no_zero(scan: Scan, repo: Path, git: Run) -> None:
    (repo / ".git/index").rename(repo / ".git/kept")
    reading = scan(files=metric("tracked_files"))["files"]
    assert reading.value is None and "has no index" in str(reading.error) and "git reset" in str(reading.error)
    (repo / ".git/index.lock").touch()
    assert "is writing the first index" in str(scan(files=metric("tracked_files"))["files"].error)
    (repo / ".git/index.lock").unlink()
    git("reset", "-q")
    assert scan(files=metric("tracked_files"))["files"].value == 3


def test_a_clone_and_a_worktree_without_a_checkout_have_no_index(scan: Scan, repo: Path, git: Run) -> None:
    git("clone", "-q", "--no-checkout", ".", "clone")
    git("worktree", "add", "-q", "--no-checkout", "linked", "side")
    for path in ("clone", "linked"):
        reading = scan(path, files=metric("tracked_files"), n=metric())
        assert "git reset" in str(reading["files"].error) and reading["n"].value == 4


def test_a_repository_with_only_empty_commits_tracks_nothing(scan: Scan, git: Run, tmp_path: Path) -> None:
    git("init", "-q")
    git("commit", "-q", "--allow-empty", "-m", "x")
    (tmp_path / ".git/index").unlink(missing_ok=True)
    assert scan(files=metric("tracked_files"))["files"].value == 0


def test_an_empty_index_file_fails(scan: Scan, repo: Path) -> None:
    (repo / ".git/index").write_bytes(b"")
    assert scan(files=metric("tracked_files"))["files"].method == "failed"


def test_a_head_whose_branch_was_renamed_or_lost_fails(scan: Scan, repo: Path, git: Run) -> None:
    git("symbolic-ref", "HEAD", "refs/heads/gone")
    metrics = {"n": metric(), "age": metric("newest_age", absent=None), "all": metric(all_branches=True)}
    results = scan(**metrics)
    for name in ("n", "age"):
        assert results[name].method == "failed" and "names the branch 'gone'" in str(results[name].error)
    assert results["all"].value == 5
    git("symbolic-ref", "HEAD", "refs/heads/main")
    git("update-ref", "-d", "refs/heads/side")
    (repo / ".git/refs/heads/main").unlink()
    assert "has had some" in str(scan(n=metric())["n"].error)


def test_a_repository_that_only_fetched_has_no_commit_of_its_own(scan: Scan, repo: Path, git: Run) -> None:
    git("init", "-q", "new")
    git("fetch", "-q", "..", "main:refs/remotes/origin/main", at="new")
    results = scan("new", n=metric(), files=metric("tracked_files"), remote=metric(branch="origin/main"))
    assert [results[name].value for name in ("n", "files", "remote")] == [0, 0, 4]


def test_a_partial_clone_is_right_or_fails_and_never_fetches(scan: Scan, repo: Path, git: Run) -> None:
    for filter, folder in (("blob:none", "blobs"), ("tree:0", "trees")):
        git("clone", "-q", "--no-checkout", f"--filter={filter}", f"file://{repo}", folder)
        git("config", "protocol.file.allow", "always", at=folder)
    git("config", "mailmap.blob", "HEAD:same", at="blobs")
    wanted = {"n": metric(), "paths": metric(paths=["folder/**"]), "age": metric("newest_age")}
    whole = {name: reading.value for name, reading in scan(**wanted).items()}
    before = objects(repo / "trees"), objects(repo / "blobs")
    trees = scan("trees", **wanted, files=metric("tracked_files"))
    assert trees["files"].method == "failed"
    assert "partial clone" in str(trees["paths"].error) and "git fetch --refetch" in str(trees["paths"].error)
    for name in ("n", "age"):  # one pass reads them all, and it needs the trees
        assert trees[name].method == "failed"
    alone = scan("trees", n=metric(), age=metric("newest_age"))
    assert [alone[name].value for name in ("n", "age")] == [whole["n"], whole["age"]]
    assert before == (objects(repo / "trees"), objects(repo / "blobs"))
    git("config", "--unset", "mailmap.blob", at="blobs")
    blobs = scan("blobs", **wanted)
    assert {name: reading.value for name, reading in blobs.items()} == whole
    fix = str(trees["paths"].error).partition("To fetch all: ")[2]
    subprocess.run(fix, shell=True, check=True, cwd=repo / "trees", capture_output=True)
    assert {name: reading.value for name, reading in scan("trees", **wanted).items()} == whole


def objects(repo: Path) -> list[str]:
    return sorted(str(path) for path in (repo / ".git/objects").rglob("*"))


def test_a_missing_commit_or_tree_fails(scan: Scan, repo: Path, git: Run) -> None:
    for revision, failing in (("HEAD~2", ("n", "paths")), ("HEAD~1^{tree}", ("paths",))):
        sha = git("rev-parse", revision).strip()
        file = repo / ".git/objects" / sha[:2] / sha[2:]
        content = file.read_bytes()
        git("commit-graph", "write", "--reachable")  # it lets git count commits that it cannot read
        file.unlink()
        for name in failing:
            reading = scan(**{name: metric(paths=["folder/**"]) if name == "paths" else metric()})[name]
            assert reading.method == "failed" and "git fsck" in str(reading.error), reading
        file.write_bytes(content)


def test_a_broken_branch_fails_what_counts_all_branches(scan: Scan, repo: Path) -> None:
    (repo / ".git/refs/heads/torn").write_text("")
    results = scan(all=metric(all_branches=True), head=metric(), n=metric("branches"))
    assert results["all"].method == results["n"].method == "failed"
    assert results["head"].value == 4


@pytest.mark.parametrize("damage", ["HEAD", "objects"])
def test_a_broken_repository_is_not_confused_with_the_one_around_it(
    scan: Scan, repo: Path, git: Run, damage: str
) -> None:
    git("clone", "-q", ".", "nested/inner")
    git("clone", "-q", "--bare", ".", "nested/bare")
    (repo / "nested/inner/below").mkdir()
    for part in (repo / "nested/inner/.git" / damage, repo / "nested/bare" / damage):
        shutil.rmtree(part) if part.is_dir() else part.unlink()
    for path in ("nested/inner", "nested/inner/below", *(["nested/bare"] if damage == "HEAD" else [])):
        with pytest.raises(MeasureError, match="git cannot read it and would read"):
            scan(path, n=metric())


def test_a_submodule_that_is_not_checked_out_is_not_its_parent(scan: Scan, repo: Path, git: Run) -> None:
    git("-c", "protocol.file.allow=always", "submodule", "--quiet", "add", "./.git", "sub")
    git("commit", "-q", "-m", "sub")
    assert scan("sub", n=metric())["n"].value == 4
    git("clone", "-q", ".", "clone")
    with pytest.raises(MeasureError, match=r"not checked out\. Run git submodule update --init"):
        scan("clone/sub", n=metric(), files=metric("tracked_files"))


def test_a_borrowed_store_is_named_with_the_size_and_its_loss_fails(scan: Scan, repo: Path, git: Run) -> None:
    git("clone", "-q", "--shared", ".", "borrower")
    results = scan("borrower", n=metric(), size=metric("size"))
    assert results["n"].value == 4
    assert results["size"].details == {"not_counted": [str(repo / ".git/objects")]}
    (repo / ".git/objects").rename(repo / ".git/moved")
    assert scan("borrower", n=metric())["n"].method == "failed"


def test_authors_are_counted_as_mailmap_names_them(scan: Scan, repo: Path, git: Run) -> None:
    for author in ("Ada <ada@x.org>", "ada l <al@old.org>", "Bob <bob@x.org>"):
        git("commit", "-q", "--allow-empty", "-m", "x", "--author", author)
    ada = metric(author="^Ada <ada@x.org>$")
    assert scan(ada=ada)["ada"].value == 1
    (repo / ".mailmap").write_text("Ada <ada@x.org> <al@old.org>\n")
    assert scan(ada=ada)["ada"].value == 2 == len(git("log", "--format=%H", "--author=Ada <ada@x.org>").split())
    (repo / "more").write_text("Ada <ada@x.org> <bob@x.org>\n")
    git("config", "mailmap.file", "more")
    assert scan(ada=ada)["ada"].value == 3
    assert scan("folder", ada=ada)["ada"].value == 3
