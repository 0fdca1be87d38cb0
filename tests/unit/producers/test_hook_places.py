"""Where a hook finds its data directory, and where its notes go if that does not accept them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from dims_producers.git_hook import HOOKS, install, uninstall
from dims_producers.git_notes import GitNote
from dims_producers.hook_script import script
from dims_producers.repository_paths import RepositoryPaths, hook_home
from dims_producers.repository_spool import count_notes, repository_spools, send_notes
from dims_producers.spool import Spool
from dims_producers.spool_sender import SpoolSender
from dims_worker.errors import DimsError, UsageError
from dims_worker.events import Event
from tests.unit.producers.conftest import commit, reported

PYTHON = "/bin/true"  # a sender that sends nothing
SHELLS = [path for name in ("dash", "bash", "busybox") if (path := shutil.which(name))]
other_user = pytest.mark.skipif(
    os.geteuid() != 0 or not shutil.which("setpriv"), reason="only root can commit as another user"
)


def shas(folder: Path) -> list[str]:
    """Return the commits of the notes that name one, oldest first."""
    spool = Spool(folder)
    notes = [GitNote.parse((spool.new / name).read_bytes(), 0) for name in spool._in_order()]
    return [note.sha for note in notes if note.hook not in ("post-checkout", "reference-transaction")]


def project(folder: Path, git) -> Path:
    """Create a repository with a data directory in it, as in most projects."""
    folder.mkdir(parents=True)
    git(folder, "init", "-q", "-b", "main")
    (folder / ".gitignore").write_text(".dims\n")
    (folder / ".dims").mkdir()
    return folder


def commit_output(repo: Path, *prefix: str) -> str:
    """Commit, and return what git and the hooks print."""
    command = [*prefix, "git", "-C", repo, "commit", "-q", "--allow-empty", "-m", "x"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return done.stdout + done.stderr


def test_a_moved_project_reports_to_its_new_data_directory(tmp_path: Path, git) -> None:
    old = project(tmp_path / "old", git)
    install(old, old / ".dims", PYTHON)
    new = old.rename(tmp_path / "new")
    sha = commit(git, new)
    assert shas(new / ".dims/spool") == [sha]
    assert not old.exists()
    copy = Path(shutil.copytree(new, tmp_path / "copy"))
    in_copy = commit(git, copy)
    assert shas(copy / ".dims/spool") == [sha, in_copy] and shas(new / ".dims/spool") == [sha]


def test_repositories_below_one_project_move_with_it(tmp_path: Path, git) -> None:
    top = tmp_path / "project"
    for name in ("code/api", "code/site"):
        project(top / name, git)
        shutil.rmtree(top / name / ".dims")
        install(top / name, top / ".dims", PYTHON)
    moved = top.rename(tmp_path / "moved")
    written = [commit(git, moved / name) for name in ("code/api", "code/site")]
    assert sorted(shas(moved / ".dims/spool")) == sorted(written) and not top.exists()


def test_a_repository_beside_the_project_keeps_its_data_directory_when_it_moves(
    tmp_path: Path, repo: Path, git
) -> None:
    home = tmp_path / "project/.dims"
    install(repo, home, PYTHON)
    moved = repo.rename(tmp_path / "elsewhere")
    sha = commit(git, moved)
    assert shas(home / "spool") == [sha]


def test_without_its_data_directory_a_hook_warns_and_keeps_the_note(tmp_path: Path, repo: Path, git) -> None:
    home = tmp_path / "project/.dims"
    install(repo, home, PYTHON)
    home.parent.rename(tmp_path / "moved")
    output = commit_output(repo)
    assert output == (
        "dims: DIMS does not know this change yet. Its note waits in .git/dims/spool, because the data directory "
        f"{home} does not exist. Run: dims hook install\n"
    )
    assert not home.parent.exists()
    assert hook_home(RepositoryPaths.of(repo)) is None
    assert shas(repo / ".git/dims/spool") == [git(repo, "rev-parse", "HEAD")]
    install(repo, tmp_path / "moved/.dims", PYTHON)
    assert commit_output(repo) == ""


def test_each_linked_worktree_uses_its_own_data_directory_or_that_of_the_main_one(tmp_path: Path, git) -> None:
    main = project(tmp_path / "main", git)
    install(main, main / ".dims", PYTHON)
    first = commit(git, main)
    own, none = tmp_path / "own", tmp_path / "none"
    git(main, "worktree", "add", "-q", "-b", "own", str(own))
    git(main, "worktree", "add", "-q", "-b", "none", str(none))
    (own / ".dims").mkdir()
    install(own, own / ".dims", PYTHON)
    in_own, in_none, in_main = commit(git, own, "b"), commit(git, none, "c"), commit(git, main, "d")
    assert shas(own / ".dims/spool") == [in_own]
    assert shas(main / ".dims/spool") == [first, in_none, in_main]
    homes = [hook_home(RepositoryPaths.of(tree)) for tree in (main, own, none)]
    assert homes == [main / ".dims", own / ".dims", main / ".dims"]


def test_an_install_in_a_linked_worktree_keeps_what_an_older_hook_of_the_main_one_names(
    tmp_path: Path, repo: Path, home: Path, git
) -> None:
    commit(git, repo)
    hook = repo / ".git/hooks/post-commit"
    hook.parent.mkdir(exist_ok=True)
    quoted = str(home).replace("'", "'\"'\"'")
    hook.write_text(
        f"#!/bin/sh\n# DIMS post-commit hook: older\ndims() {{\n    home='{quoted}' python=/x head=''\n}}\n"
    )
    tree = tmp_path / "tree"
    git(repo, "worktree", "add", "-q", "-b", "side", str(tree))
    install(tree, tree / ".dims", PYTHON)
    sha, in_tree = commit(git, repo), commit(git, tree, "b")
    assert shas(home / "spool") == [sha] and shas(tree / ".dims/spool") == [in_tree]


def test_a_repository_of_no_project_is_left_alone(tmp_path: Path, repo: Path, git) -> None:
    """A global core.hooksPath runs our hook in every repository of a user."""
    shared = tmp_path / "shared hooks"
    used = project(tmp_path / "used", git)
    for each in (repo, used):
        git(each, "config", "core.hooksPath", str(shared))
    install(used, used / ".dims", PYTHON)
    assert commit_output(repo) == "" and not (repo / ".git/dims").exists()
    commit_output(used)
    assert len(shas(used / ".dims/spool")) == 1


def test_a_submodule_uses_the_data_directory_of_the_project_around_it(tmp_path: Path, repo: Path, git) -> None:
    commit(git, repo)
    top = project(tmp_path / "project", git)
    git(top, "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(repo), "sub")
    install(top / "sub", top / ".dims", PYTHON)
    moved = top.rename(tmp_path / "moved")
    sha = commit(git, moved / "sub")
    assert shas(moved / ".dims/spool") == [sha]


def test_a_bare_repository_is_refused_and_its_worktrees_work(tmp_path: Path, repo: Path, git) -> None:
    commit(git, repo)
    bare, tree = tmp_path / "bare.git", tmp_path / "tree"
    git(repo, "clone", "-q", "--bare", str(repo), str(bare))
    with pytest.raises(UsageError, match="bare repository"):
        install(bare, tmp_path / ".dims", PYTHON)
    git(bare, "worktree", "add", "-q", str(tree), "main")
    install(tree, tree / ".dims", PYTHON)
    sha = commit(git, tree, "b")
    assert shas(tree / ".dims/spool") == [sha]


@pytest.mark.parametrize("shell", SHELLS)
def test_every_shell_finds_the_nearest_data_directory(tmp_path: Path, git, shell: str) -> None:
    repo = project(tmp_path / "a b/repo", git)
    shutil.rmtree(repo / ".dims")
    (tmp_path / "a b/.dims/spool/new").mkdir(parents=True)
    sha = commit(git, repo)
    hook = tmp_path / "post-commit"
    hook.write_text(script("post-commit", PYTHON))
    command = [shell, *(["sh"] if shell.endswith("busybox") else []), hook]
    done = subprocess.run(command, cwd=repo, capture_output=True, check=True, env={"PATH": "/nowhere"})
    assert (done.stdout, done.stderr) == (b"", b"") and shas(tmp_path / "a b/.dims/spool") == [sha]


def husky(repo: Path, git) -> None:
    """Lay out what husky 9 writes: stubs that run the tracked file one folder up."""
    stubs = repo / ".husky/_"
    stubs.mkdir(parents=True)
    (stubs / "h").write_text(
        '#!/usr/bin/env sh\nn=$(basename "$0")\ns=$(dirname "$(dirname "$0")")/$n\n'
        '[ ! -f "$s" ] && exit 0\nsh -e "$s" "$@"\n'
    )
    for name in ("post-commit", "post-merge", "post-rewrite", "post-checkout", "post-applypatch"):
        (stubs / name).write_text('#!/usr/bin/env sh\n. "$(dirname "$0")/h"\n')
        (stubs / name).chmod(0o755)
    git(repo, "config", "core.hooksPath", ".husky/_")


def test_with_husky_the_install_says_which_line_to_add(tmp_path: Path, repo: Path, home: Path, git) -> None:
    husky(repo, git)
    before = {path: path.read_bytes() for path in (repo / ".husky/_").iterdir()}
    with pytest.raises(UsageError, match="husky writes post-commit again") as refusal:
        install(repo, home, PYTHON)
    assert {path: path.read_bytes() for path in before} == before
    lines = str(refusal.value).splitlines()
    for place, line in zip(lines[1::2], lines[2::2], strict=True):
        Path(place.rpartition(" to ")[2].rstrip(":")).write_text(f"echo theirs\n{line.strip()}\n")
    outcomes = {path.name: outcome for path, outcome in install(repo, home, PYTHON).items()}
    assert outcomes.pop("reference-transaction") == "updated"  # husky has no script for it, so it is ours alone
    assert len(outcomes) == 5 and all("run by post-" in outcome for outcome in outcomes.values())
    assert "theirs" in commit_output(repo)
    first = git(repo, "rev-parse", "HEAD")
    git(repo, "commit", "-q", "--amend", "--allow-empty", "-m", "amended")
    events = reported(Spool(home / "spool"))
    assert [event[0] for event in events] == ["commit", "commit", "rewrite"] and events[0][1] == first
    assert uninstall(repo) and not (repo / ".git/dims/hooks/post-commit").exists()
    assert "theirs" in commit_output(repo)


def test_a_hook_that_the_repository_contains_is_not_changed(repo: Path, home: Path, git) -> None:
    (repo / ".githooks").mkdir()
    theirs = repo / ".githooks/post-commit"
    theirs.write_text("#!/bin/sh\necho theirs\n")
    theirs.chmod(0o755)
    git(repo, "config", "core.hooksPath", ".githooks")
    commit(git, repo)
    with pytest.raises(
        UsageError, match=r"(?s)git writes post-commit again.*\.githooks/post-commit:\n  dims="
    ) as refusal:
        install(repo, home, PYTHON)
    assert git(repo, "status", "--porcelain", "--untracked-files=no") == ""
    with theirs.open("a") as file:
        file.write(str(refusal.value).splitlines()[-1].strip() + "\n")
    install(repo, home, PYTHON)
    assert "theirs" in commit_output(repo) and len(shas(home / "spool")) == 1


def test_with_lefthook_the_install_says_what_to_add(repo: Path, home: Path) -> None:
    hook = repo / ".git/hooks/post-rewrite"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text('#!/bin/sh\ncall_lefthook run "post-rewrite" "$@"\n')
    with pytest.raises(
        UsageError, match=r"(?s)lefthook writes post-rewrite .*lefthook\.yml:\n  post-rewrite: \{commands"
    ) as e:
        install(repo, home, PYTHON)
    assert "call_lefthook" in hook.read_text()
    (repo / "lefthook.yml").write_text(str(e.value).splitlines()[-1].strip() + "\n")
    assert len(install(repo, home, PYTHON)) == len(HOOKS)


def test_pre_commit_and_dims_run_one_another_in_either_order(repo: Path, home: Path, git) -> None:
    """pre-commit renames an existing hook to NAME.legacy and runs it first."""
    install(repo, home, PYTHON)
    hook = repo / ".git/hooks/post-commit"
    hook.rename(hook.with_name("post-commit.legacy"))
    hook.write_text('#!/bin/sh\n# File generated by pre-commit\n"${0%/*}/post-commit.legacy" "$@"\n')
    hook.chmod(0o755)
    sha = commit(git, repo)
    assert shas(home / "spool") == [sha]


def test_a_folder_of_hooks_that_you_cannot_write_is_one_sentence(repo: Path, home: Path, git, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    git(repo, "config", "core.hooksPath", str(tmp_path / "file/hooks"))
    with pytest.raises(UsageError, match=r"cannot write the hooks of .*Install them as the user who owns"):
        install(repo, home, PYTHON)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user can enter, which those of pytest are not."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


def as_user(repo: Path) -> list[str]:
    """Give everything in `repo` to user 1234, and return the command that runs another one as that user."""
    subprocess.run(["chown", "-R", "1234:1234", repo], check=True)
    return ["setpriv", "--reuid=1234", "--regid=1234", "--clear-groups", "env", "HOME=/nonexistent"]


@other_user
def test_a_spool_of_root_loses_no_commit_of_a_user(open_folder: Path, git) -> None:
    repo = project(open_folder / "project", git)
    install(repo, repo / ".dims", PYTHON)
    user = as_user(repo)
    subprocess.run(["chown", "-R", "0:0", repo / ".dims"], check=True)
    assert commit_output(repo, *user) == (
        "dims: DIMS does not know this change yet. Its note waits in .git/dims/spool, because you cannot write to "
        f"{repo}/.dims/spool. Run: dims doctor\n"
    )
    (repo / ".dims").chmod(0o700)  # as the data directory of root is
    assert "dims doctor" in commit_output(repo, *user)
    (spool,) = repository_spools([repo])
    assert count_notes(spool) == 2 and spool.stat().st_uid == 1234
    sent: list[Event] = []
    assert send_notes(spool, sent.extend) == 2 and count_notes(spool) == 0
    assert len({event.id for event in sent}) == 2


@other_user
def test_what_root_creates_in_the_spool_belongs_to_its_owner(open_folder: Path, git) -> None:
    repo = project(open_folder / "project", git)
    install(repo, repo / ".dims", PYTHON)
    user = as_user(repo)
    shutil.rmtree(repo / ".dims/spool")
    commit_output(repo, "env", "GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=safe.directory", "GIT_CONFIG_VALUE_0=*")
    spool = Spool(repo / ".dims/spool")
    spool.put(Event.new("x.y", "test", now=datetime.now(UTC)))
    spool.flush(lambda events: None)
    assert {path.stat().st_uid for path in spool.folder.rglob("*")} | {spool.folder.stat().st_uid} == {1234}
    subprocess.run(["chown", "-R", "1234:1234", repo / ".git"], check=True)
    assert commit_output(repo, *user) == "" and len(spool) == 1


def test_the_sender_also_sends_what_waits_in_a_repository(repo: Path, home: Path, git, broker) -> None:
    install(repo, home, PYTHON)
    shutil.rmtree(home / "spool")
    (home / "spool").write_text("no folder")
    sha = commit(git, repo)
    (home / "spool").unlink()
    sender = SpoolSender(Spool(home / "spool"), lambda: broker.url, [repo, repo.parent / "missing"])
    assert sender.work(time.monotonic())
    assert [event.id for event in broker.events()] == [sha] and count_notes(repository_spools([repo])[0]) == 0


def test_what_is_not_a_note_stays_where_it_is_and_is_never_followed(
    repo: Path, home: Path, git, tmp_path: Path
) -> None:
    install(repo, home, PYTHON)
    spool = repo / ".git/dims/spool"
    (spool / "new").mkdir(parents=True)
    (tmp_path / "secret").write_text("secret")
    (spool / "new/a.git").symlink_to(tmp_path / "secret")
    (spool / "new/b.git").write_text("dims-git 2\nnonsense\nend\n")
    os.mkfifo(spool / "new/c.git")
    assert send_notes(spool, pytest.fail) == 0
    assert sorted(path.name for path in (spool / "new").iterdir()) == ["a.git", "b.git", "c.git"]


def test_the_background_sender_sends_both_spools(repo: Path, home: Path, git, broker, monkeypatch) -> None:
    from dims_producers import git_hook

    monkeypatch.setattr(os, "setsid", lambda: None)
    monkeypatch.setattr(os, "nice", lambda _: 0)
    monkeypatch.setenv("DIMS_BROKER_URL", broker.url)
    install(repo, home, PYTHON)
    first = commit(git, repo)
    shutil.move(home / "spool/new", repo / ".git/dims/spool/new")
    second = commit(git, repo)
    git_dir = str(repo / ".git")
    assert git_hook.main(["flush", "--background", "--repository", git_dir, str(home)]) == 0
    assert sorted(event.id for event in broker.events()) == sorted([first, second])


def test_an_install_reports_an_error_without_a_change(repo: Path, home: Path) -> None:
    hook = repo / ".git/hooks/post-commit"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text("#!/bin/sh\n")
    hook.with_name("post-commit.before-dims").write_text("#!/bin/sh\n")
    with pytest.raises(DimsError, match="Merge the two by hand"):
        install(repo, home, sys.executable)
    assert not (repo / ".git/dims").exists()
