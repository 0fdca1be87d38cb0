"""The hook: installed into real repositories, run by real git."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from dims_worker.errors import DimsError, NotFound
from producers import git_hook
from producers.git_hook import install, main, uninstall
from producers.spool import Spool
from producers.watch_files import _pid_file


@pytest.fixture
def watched(spool: Spool) -> Spool:
    """A spool whose watcher seems to live: it is this process."""
    spool.make()
    (spool.folder / "watcher.pid").write_text(f"{os.getpid()}\n")
    return spool


def commit(git, repo: Path, name: str = "a", *options: str) -> str:
    (repo / name).write_text(str(time.time_ns()))
    git(repo, "add", "-A")
    git(repo, "commit", "-q", "-m", name, *options)
    return git(repo, "rev-parse", "HEAD")


def notes(spool: Spool) -> list[git_hook.Note]:
    found = []
    for name in spool._in_order():
        path = spool.new / name
        found.append(git_hook.Note.parse(path.read_bytes(), datetime.now(UTC)))
    return found


def test_a_commit_leaves_a_note(repo: Path, home: Path, git, watched: Spool) -> None:
    hook = install(repo, home)
    assert os.access(hook, os.X_OK)
    shas = [commit(git, repo, "one"), commit(git, repo, "two"), commit(git, repo, "two", "--amend")]
    found = notes(watched)
    assert [note.sha for note in found] == shas
    assert {(note.ref, note.root) for note in found} == {("refs/heads/main", str(repo))}
    events = []
    watched.flush(events.extend, git_hook.READERS)
    assert [(e.id, e.data["paths"]) for e in events] == [(shas[0], ["one"]), (shas[1], ["two"]), (shas[2], ["two"])]


def test_detached_and_packed_and_symbolic(repo: Path, home: Path, git, watched: Spool) -> None:
    install(repo, home)
    first = commit(git, repo)
    git(repo, "checkout", "-q", "--detach")
    second = commit(git, repo)
    git(repo, "checkout", "-q", "main")
    git(repo, "symbolic-ref", "refs/heads/alias", "refs/heads/main")
    git(repo, "checkout", "-q", "alias")
    third = commit(git, repo)
    assert [(n.sha, n.ref) for n in notes(watched)][:2] == [(first, "refs/heads/main"), (second, "")]
    assert notes(watched)[2].sha == third
    git(repo, "checkout", "-q", "main")
    git(repo, "pack-refs", "--all")
    subprocess.run([repo / ".git/hooks/post-commit"], cwd=repo, check=True)
    assert notes(watched)[-1].sha == third


def test_sha256_repository(tmp_path: Path, home: Path, git, watched: Spool) -> None:
    subprocess.run(["git", "init", "-q", "--object-format=sha256", tmp_path / "r"], check=True)
    install(tmp_path / "r", home)
    sha = commit(git, tmp_path / "r")
    assert len(sha) == 64 and notes(watched)[0].sha == sha


def test_a_linked_worktree_and_a_submodule(repo: Path, home: Path, git, tmp_path: Path, watched: Spool) -> None:
    commit(git, repo)
    tree = tmp_path / "linked tree"
    git(repo, "worktree", "add", "-q", "-b", "side/branch", str(tree))
    hook = install(tree, home)
    assert hook == repo / ".git/hooks/post-commit"
    sha = commit(git, tree, "in tree")
    (note,) = notes(watched)
    assert (note.sha, note.ref, note.root) == (sha, "refs/heads/side/branch", str(tree))
    assert git_hook.event_of(note).data["paths"] == ["in tree"]
    git(repo, "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(repo), "sub")
    install(repo / "sub", home)
    sha = commit(git, repo / "sub", "in sub")
    note = next(n for n in notes(watched) if n.sha == sha)
    assert note.root == str(repo / "sub") and git_hook.event_of(note).data["paths"] == ["in sub"]


def test_git_dir_and_work_tree_apart(repo: Path, home: Path, git, tmp_path: Path, watched: Spool) -> None:
    (repo / ".git").rename(tmp_path / "dot.git")
    apart = [f"--git-dir={tmp_path / 'dot.git'}", f"--work-tree={repo}"]
    (tmp_path / "dot.git/hooks").mkdir(exist_ok=True)
    subprocess.run(["git", "init", "-q", tmp_path / "other"], check=True)
    shutil.copy2(install(tmp_path / "other", home), tmp_path / "dot.git/hooks/post-commit")
    (repo / "a").touch()
    git(repo, *apart, "add", "a")
    git(repo, *apart, "commit", "-q", "-m", "apart")
    (note,) = notes(watched)
    assert git_hook.event_of(note).data["paths"] == ["a"]


def test_from_a_folder_below_and_with_only_some_files(repo: Path, home: Path, git, watched: Spool) -> None:
    install(repo, home)
    (repo / "sub").mkdir()
    commit(git, repo, "sub/a")
    (repo / "sub/a").write_text("changed")
    (repo / "b").write_text("left out")
    git(repo, "add", "b")
    git(repo / "sub", "commit", "-q", "-m", "only a", "a")
    assert git_hook.event_of(notes(watched)[1]).data["paths"] == ["sub/a"]


@pytest.mark.parametrize("relative", [True, False])
def test_core_hooks_path(repo: Path, home: Path, git, tmp_path: Path, watched: Spool, relative: bool) -> None:
    folder = repo / "my hooks" if relative else tmp_path / "shared 'hooks'"
    git(repo, "config", "core.hooksPath", "my hooks" if relative else str(folder))
    assert install(repo, home) == folder / "post-commit"
    sha = commit(git, repo)
    assert [note.sha for note in notes(watched)] == [sha]
    assert uninstall(repo) and not list(folder.iterdir())


@pytest.mark.parametrize("status", [0, 7])
def test_a_hook_that_was_there_runs_as_before_and_is_put_back(
    repo: Path, home: Path, git, tmp_path: Path, watched: Spool, status: int
) -> None:
    foreign = repo / ".git/hooks/post-commit"
    foreign.parent.mkdir(exist_ok=True)
    text = f'#!/bin/sh\nprintf "%s\\n" "$#" "$@" >> "{tmp_path}/ran"\necho seen\nexit {status}\n'
    foreign.write_text(text)
    foreign.chmod(0o751)
    hook = install(repo, home)
    install(repo, home)
    sha = commit(git, repo)
    assert [note.sha for note in notes(watched)] == [sha]
    subprocess.run([hook, "x y", "z"], cwd=repo, check=True, capture_output=True)
    assert (tmp_path / "ran").read_text() == "0\n2\nx y\nz\n"
    assert uninstall(repo)
    assert foreign.read_text() == text and stat.S_IMODE(foreign.stat().st_mode) == 0o751
    assert not uninstall(repo)
    assert [p.name for p in foreign.parent.iterdir() if "dims" in p.name] == []


def test_a_hook_that_git_would_not_run_is_kept_and_not_run(repo: Path, home: Path, git, watched: Spool) -> None:
    foreign = repo / ".git/hooks/post-commit"
    foreign.parent.mkdir(exist_ok=True)
    foreign.write_text("#!/bin/sh\nexit 1\n")
    foreign.chmod(0o644)
    install(repo, home)
    commit(git, repo)
    assert uninstall(repo) and stat.S_IMODE(foreign.stat().st_mode) == 0o644


def test_two_foreign_hooks_are_both_left_alone(repo: Path, home: Path) -> None:
    hook = install(repo, home)
    kept = hook.with_name("post-commit.before-dims")
    hook.write_text("#!/bin/sh\n# another tool's\n")
    kept.write_text("#!/bin/sh\n# kept\n")
    with pytest.raises(DimsError, match="merge the two by hand"):
        install(repo, home)
    assert not uninstall(repo)
    assert "another" in hook.read_text() and "kept" in kept.read_text()
    assert sorted(p.name for p in hook.parent.glob("post-commit*") if p.suffix != ".sample") == [hook.name, kept.name]


def test_an_interrupted_install_is_mended_by_the_next(repo: Path, home: Path) -> None:
    hook = install(repo, home)
    hook.rename(hook.with_name("post-commit.before-dims"))
    hook.with_name("post-commit.before-dims").write_text("#!/bin/sh\n# foreign\n")
    install(repo, home)
    assert uninstall(repo) and "foreign" in hook.read_text()


def test_a_dangling_link_is_a_foreign_hook(repo: Path, home: Path) -> None:
    hook = repo / ".git/hooks/post-commit"
    hook.parent.mkdir(exist_ok=True)
    hook.symlink_to("not-there")
    install(repo, home)
    assert uninstall(repo) and hook.readlink() == Path("not-there")


def test_not_a_repository(tmp_path: Path, home: Path) -> None:
    for call in (lambda: install(tmp_path, home), lambda: uninstall(tmp_path / "missing")):
        with pytest.raises(NotFound, match=str(tmp_path)):
            call()


def test_with_a_living_watcher_the_hook_uses_builtins_only(repo: Path, home: Path, git, watched: Spool) -> None:
    git(repo, "commit", "-q", "--allow-empty", "-m", "x")
    hook = install(repo, home)
    with _pid_file(watched.folder / "watcher.pid"):
        for _ in range(2):
            done = subprocess.run(
                ["/bin/sh", hook], cwd=repo, env={"PATH": "/nowhere"}, capture_output=True, check=False
            )
            assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    # Had it not found all it needs, git, mkdir or Python would have been missing, and so the note.
    assert {note.sha for note in notes(watched)} == {git(repo, "rev-parse", "HEAD")}
    assert not (watched.folder / "lock").exists()


@pytest.mark.skipif(not shutil.which("strace"), reason="strace counts the processes")
def test_with_a_living_watcher_the_hook_starts_no_process(repo: Path, home: Path, git, watched: Spool) -> None:
    git(repo, "commit", "-q", "--allow-empty", "-m", "x")
    hook = install(repo, home)
    command = ["strace", "-f", "-e", "trace=process", "/bin/sh", hook]
    done = subprocess.run(command, cwd=repo, capture_output=True, text=True, check=False)
    if "execve" not in done.stderr:
        pytest.skip("strace may not trace here")
    assert done.stderr.count("execve(") == 1
    assert not any(word in done.stderr for word in ("clone(", "fork("))


@pytest.fixture
def recorder(tmp_path: Path) -> Path:
    """Stands for Python: writes down how it was called."""
    program = tmp_path / "py thon's"
    program.write_text(f'#!/bin/sh\n[ "$2" = -c ] && exit 0\nprintf "%s\\n" "$@" > "{tmp_path}/called"\n')
    program.chmod(0o755)
    return program


@pytest.mark.parametrize("pid", [None, "", "garbage", "999999999", f"{os.getpid()}\n1\n", f"{os.getpid()}\n999\n"])
def test_without_a_living_watcher_a_flush_is_started(
    repo: Path, home: Path, git, tmp_path: Path, recorder: Path, pid: str | None
) -> None:
    install(repo, home, str(recorder))
    if pid is not None:
        (home / "spool").mkdir()
        (home / "spool/watcher.pid").write_text(pid)
    sha = commit(git, repo)
    assert [note.sha for note in notes(Spool(home / "spool"))] == [sha]  # the folders were made
    called = tmp_path / "called"
    end = time.monotonic() + 5
    while not (called.exists() and called.read_text().endswith("\n")) and time.monotonic() < end:
        time.sleep(0.01)
    assert called.read_text().splitlines() == ["-I", "-m", "producers.git_hook", "flush", "--background", str(home)]


def test_nothing_makes_a_commit_fail_or_print(repo: Path, home: Path, git, tmp_path: Path) -> None:
    (home / "spool").write_text("not a folder")
    install(repo, home, "/no/such/python")
    (repo / "a").touch()
    git(repo, "add", "a")
    done = subprocess.run(["git", "-C", repo, "commit", "-q", "-m", "x"], capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_main_installs_flushes_and_uninstalls(repo: Path, home: Path, git, capsys, broker, monkeypatch) -> None:
    monkeypatch.setenv("DIMS_HOME", str(home))
    assert main(["install", str(repo)]) == 0
    spool = Spool(home / "spool")
    spool.make()
    (spool.folder / "watcher.pid").write_text(f"{os.getpid()}\n")
    sha = commit(git, repo)
    assert main(["flush", str(home)]) == 2
    assert "DIMS_BROKER_URL" in capsys.readouterr().err
    monkeypatch.setenv("DIMS_BROKER_URL", broker.url)
    broker.away()
    assert main(["flush", str(home)]) == 3
    broker.away(False)
    assert main(["flush", str(home)]) == 0
    assert [e.id for e in broker.events()] == [sha]
    assert main(["uninstall", str(repo)]) == 0
    assert main(["install", str(home.parent)]) == 2
    assert main(["flush", str(home)]) == 0


def test_placeholders_in_paths_are_not_replaced(repo: Path, tmp_path: Path, git) -> None:
    home = tmp_path / "@PYTHON@ $(touch x) `y`"
    hook = install(repo, home, "/bin/true")
    assert f"home='{home}'" in hook.read_text()
    sha = commit(git, repo)
    assert [note.sha for note in notes(Spool(home / "spool"))] == [sha]


def test_the_isolation_falls_back() -> None:
    assert git_hook._isolation("/bin/false") == "-P"
    assert git_hook._isolation("/no/such/program") == "-I"
    assert git_hook._isolation(sys.executable) in ("-I", "-P")
