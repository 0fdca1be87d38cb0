"""The git hooks, installed into real repositories and run by real git."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from dims_producers import git_hook, hook_script
from dims_producers.git_hook import HOOKS, SENDER, install, main, uninstall
from dims_producers.git_notes import REFS_HOOK, GitNote, events_of
from dims_producers.repository_paths import recorded_home
from dims_producers.spool import Spool
from dims_producers.watch_files import _pid_file
from dims_worker.errors import DimsError, NotFound
from dims_worker.events import Event
from tests.unit.producers.conftest import commit, reported


def notes(spool: Spool) -> list[GitNote]:
    return [GitNote.parse((spool.new / name).read_bytes(), 0) for name in spool._in_order()]


def event_of(note: GitNote) -> Event:
    (event,) = events_of([note])
    assert isinstance(event, Event)
    return event


def install_one(repo: Path, home: Path, python: str = sys.executable) -> Path:
    """Install the hooks and return the path of post-commit."""
    return next(iter(install(repo, home, python)))


def test_a_commit_writes_a_note(repo: Path, home: Path, git, watched: Spool) -> None:
    hook = install_one(repo, home)
    assert os.access(hook, os.X_OK)
    shas = [commit(git, repo, "one"), commit(git, repo, "two")]
    written = notes(watched)
    assert [note.sha for note in written] == shas
    assert {(note.hook, note.before, note.ref, note.repository.root) for note in written} == {
        ("post-commit", None, "refs/heads/main", str(repo))
    }
    assert reported(watched) == [("commit", shas[0], ["one"]), ("commit", shas[1], ["two"])]


def test_the_commit_is_known_with_a_detached_head_packed_refs_and_symbolic_refs(
    repo: Path, home: Path, git, watched: Spool
) -> None:
    install(repo, home)
    first = commit(git, repo)
    git(repo, "checkout", "-q", "--detach")
    second = commit(git, repo)
    git(repo, "checkout", "-q", "main")
    git(repo, "symbolic-ref", "refs/heads/alias", "refs/heads/main")
    git(repo, "checkout", "-q", "alias")
    third = commit(git, repo)
    commits = [note for note in notes(watched) if note.hook == "post-commit"]
    assert [(n.sha, n.ref) for n in commits][:2] == [(first, "refs/heads/main"), (second, "")]
    assert commits[2].sha == third
    git(repo, "checkout", "-q", "main")
    git(repo, "pack-refs", "--all")
    subprocess.run([repo / ".git/hooks/post-commit"], cwd=repo, check=True)
    assert notes(watched)[-1].sha == third


def test_a_sha256_repository_works(tmp_path: Path, home: Path, git, watched: Spool) -> None:
    subprocess.run(["git", "init", "-q", "--object-format=sha256", tmp_path / "r"], check=True)
    install(tmp_path / "r", home)
    sha = commit(git, tmp_path / "r")
    assert len(sha) == 64 and notes(watched)[0].sha == sha


def test_a_linked_worktree_and_a_submodule_have_their_own_root_have_their_own_root(
    repo: Path, home: Path, git, tmp_path: Path, watched: Spool
) -> None:
    commit(git, repo)
    tree = tmp_path / "linked tree"
    git(repo, "worktree", "add", "-q", "-b", "side/branch", str(tree))
    hook = install_one(tree, home)
    assert hook == repo / ".git/hooks/post-commit"
    sha = commit(git, tree, "in tree")
    (note,) = notes(watched)
    assert (note.sha, note.ref, note.repository.root) == (sha, "refs/heads/side/branch", str(tree))
    assert event_of(note).data["paths"] == ["in tree"]
    git(repo, "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(repo), "sub")
    install(repo / "sub", home)
    sha = commit(git, repo / "sub", "in sub")
    note = next(n for n in notes(watched) if n.sha == sha)
    assert note.repository.root == str(repo / "sub") and event_of(note).data["paths"] == ["in sub"]


def test_git_dir_and_work_tree_may_be_in_different_places(
    repo: Path, home: Path, git, tmp_path: Path, watched: Spool
) -> None:
    (repo / ".git").rename(tmp_path / "dot.git")
    apart = [f"--git-dir={tmp_path / 'dot.git'}", f"--work-tree={repo}"]
    (tmp_path / "dot.git/hooks").mkdir(exist_ok=True)
    subprocess.run(["git", "init", "-q", tmp_path / "other"], check=True)
    shutil.copy2(install_one(tmp_path / "other", home), tmp_path / "dot.git/hooks/post-commit")
    shutil.copytree(tmp_path / "other/.git/dims", tmp_path / "dot.git/dims")
    (repo / "a").touch()
    git(repo, *apart, "add", "a")
    git(repo, *apart, "commit", "-q", "-m", "apart")
    (note,) = notes(watched)
    assert event_of(note).data["paths"] == ["a"]


def test_a_commit_in_a_subfolder_with_only_some_files(repo: Path, home: Path, git, watched: Spool) -> None:
    install(repo, home)
    (repo / "sub").mkdir()
    commit(git, repo, "sub/a")
    (repo / "sub/a").write_text("changed")
    (repo / "b").write_text("left out")
    git(repo, "add", "b")
    git(repo / "sub", "commit", "-q", "-m", "only a", "a")
    assert event_of(notes(watched)[1]).data["paths"] == ["sub/a"]


@pytest.mark.parametrize("relative", [True, False])
def test_core_hooks_path_is_respected_is_respected(
    repo: Path, home: Path, git, tmp_path: Path, watched: Spool, relative: bool
) -> None:
    folder = repo / "my hooks" if relative else tmp_path / "shared 'hooks'"
    git(repo, "config", "core.hooksPath", "my hooks" if relative else str(folder))
    assert list(install(repo, home)) == [folder / name for name in HOOKS]
    sha = commit(git, repo)
    assert [note.sha for note in notes(watched)] == [sha]
    assert uninstall(repo) and not list(folder.iterdir())


@pytest.mark.parametrize("status", [0, 7])
def test_an_existing_hook_still_runs_and_is_restored(
    repo: Path, home: Path, git, tmp_path: Path, watched: Spool, status: int
) -> None:
    foreign = repo / ".git/hooks/post-commit"
    foreign.parent.mkdir(exist_ok=True)
    text = f'#!/bin/sh\nprintf "%s\\n" "$#" "$@" >> "{tmp_path}/ran"\necho seen\nexit {status}\n'
    foreign.write_text(text)
    foreign.chmod(0o751)
    hook = install_one(repo, home)
    install(repo, home)
    sha = commit(git, repo)
    assert [note.sha for note in notes(watched)] == [sha]
    subprocess.run([hook, "x y", "z"], cwd=repo, check=True, capture_output=True)
    assert (tmp_path / "ran").read_text() == "0\n2\nx y\nz\n"
    assert uninstall(repo)
    assert foreign.read_text() == text and stat.S_IMODE(foreign.stat().st_mode) == 0o751
    assert not uninstall(repo)
    assert [p.name for p in foreign.parent.iterdir() if "dims" in p.name] == []


def test_a_hook_that_is_not_executable_is_kept_and_not_run(repo: Path, home: Path, git, watched: Spool) -> None:
    foreign = repo / ".git/hooks/post-commit"
    foreign.parent.mkdir(exist_ok=True)
    foreign.write_text("#!/bin/sh\nexit 1\n")
    foreign.chmod(0o644)
    install(repo, home)
    commit(git, repo)
    assert uninstall(repo) and stat.S_IMODE(foreign.stat().st_mode) == 0o644


@pytest.mark.parametrize("name", HOOKS)
def test_two_hooks_of_others_stay_unchanged(repo: Path, home: Path, name: str) -> None:
    hook = install_one(repo, home).with_name(name)
    kept = hook.with_name(f"{name}.before-dims")
    hook.write_text("#!/bin/sh\n# another tool's\n")
    kept.write_text("#!/bin/sh\n# kept\n")
    before = {path: path.read_bytes() for path in hook.parent.iterdir()}
    with pytest.raises(DimsError, match="Merge the two by hand"):
        install(repo, home.parent / "another home")
    assert {path: path.read_bytes() for path in hook.parent.iterdir()} == before
    assert [path.name for path in uninstall(repo)] == [other for other in HOOKS if other != name]
    assert "another" in hook.read_text() and "kept" in kept.read_text()
    assert sorted(p.name for p in hook.parent.iterdir() if p.suffix != ".sample") == [hook.name, kept.name]


def test_install_and_uninstall_report_what_they_did(repo: Path, home: Path) -> None:
    folder = repo / ".git/hooks"
    foreign = "#!/bin/sh\n# foreign\n"
    folder.mkdir(exist_ok=True)
    (folder / "post-merge").write_text(foreign)
    assert git_hook.format_result(install(repo, home)).splitlines() == [
        "post-commit            installed",
        "post-merge             installed, runs post-merge.before-dims after it",
        "post-rewrite           installed",
        "post-checkout          installed",
        "post-applypatch        installed",
        "reference-transaction  installed",
    ]
    (folder / "post-commit").unlink()
    assert git_hook.format_result(install(repo, home)).splitlines() == [
        "post-commit            installed",
        "post-merge             updated, runs post-merge.before-dims after it",
        "post-rewrite           updated",
        "post-checkout          updated",
        "post-applypatch        updated",
        "reference-transaction  updated",
    ]
    assert git_hook.format_result(uninstall(repo)).splitlines() == [
        "post-commit            removed",
        "post-merge             removed, the hook from before is restored",
        "post-rewrite           removed",
        "post-checkout          removed",
        "post-applypatch        removed",
        "reference-transaction  removed",
    ]
    assert git_hook.format_result(uninstall(repo)) == ""
    assert [p.name for p in folder.iterdir() if p.suffix != ".sample"] == ["post-merge"]
    assert (folder / "post-merge").read_text() == foreign


def test_an_older_install_is_updated(repo: Path, home: Path, git, watched: Spool) -> None:
    folder = repo / ".git/hooks"
    folder.mkdir(exist_ok=True)
    # The older install had one hook, and kept another one.
    (folder / "post-commit").write_text("#!/bin/sh\n# DIMS post-commit hook: notes the commit.\nexit 1\n")
    (folder / "post-commit.before-dims").write_text("#!/bin/sh\n# foreign\n")
    assert list(install(repo, home).values()) == [
        "updated, runs post-commit.before-dims after it",
        *["installed"] * (len(HOOKS) - 1),
    ]
    sha = commit(git, repo)
    assert reported(watched) == [("commit", sha, ["a"])]
    uninstall(repo)
    assert (folder / "post-commit").read_text() == "#!/bin/sh\n# foreign\n"


def test_the_next_install_completes_an_interrupted_one(repo: Path, home: Path) -> None:
    hook = install_one(repo, home)
    hook.rename(hook.with_name("post-commit.before-dims"))
    hook.with_name("post-commit.before-dims").write_text("#!/bin/sh\n# foreign\n")
    install(repo, home)
    assert uninstall(repo) and "foreign" in hook.read_text()


def test_a_dangling_link_counts_as_an_existing_hook(repo: Path, home: Path) -> None:
    hook = repo / ".git/hooks/post-commit"
    hook.parent.mkdir(exist_ok=True)
    hook.symlink_to("not-there")
    install(repo, home)
    assert uninstall(repo) and hook.readlink() == Path("not-there")


def test_a_folder_that_is_not_a_repository_is_refused(tmp_path: Path, home: Path) -> None:
    for call in (lambda: install(tmp_path, home), lambda: uninstall(tmp_path / "missing")):
        with pytest.raises(NotFound, match=str(tmp_path)):
            call()


REFS = ("post-applypatch", REFS_HOOK)
"""The hooks whose notes only say that refs changed."""


def called_with(name: str, first: str, last: str) -> tuple[list[str], str]:
    """Return the arguments and the input that git gives to a hook."""
    if name == REFS_HOOK:
        return ["committed"], f"{first} {last} HEAD\n{first} {last} refs/heads/main\n"
    if name == "post-checkout":
        return [first, last, "1"], ""
    return ["amend"], f"{first} {last} more\n"


SHELLS = [path for name in ("dash", "bash", "busybox") if (path := shutil.which(name))]


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("name", HOOKS)
def test_with_a_running_watcher_the_hook_uses_only_builtins(
    repo: Path, home: Path, git, watched: Spool, name: str, shell: str
) -> None:
    first, last = commit(git, repo), commit(git, repo)
    git(repo, "update-ref", "ORIG_HEAD", first)
    hook = install_one(repo, home).with_name(name)
    arguments, text = called_with(name, first, last)
    command = [shell, *(["sh"] if shell.endswith("busybox") else []), hook, *arguments]
    with _pid_file(watched.folder / "watcher.pid"):
        for _ in range(2):
            done = subprocess.run(
                command,
                cwd=repo,
                env={"PATH": "/nowhere"},
                capture_output=True,
                check=False,
                input=text.encode(),
            )
            assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    # If it needed git, mkdir or Python, which are not on the path, there would be no note.
    written = notes(watched)
    if name in REFS:  # the second call finds the note of the first
        assert [(note.hook, note.sha, note.before) for note in written] == [(REFS_HOOK, "", None)]
        return
    assert {(note.hook, note.sha, note.ref) for note in written} == {(name, last, "refs/heads/main")}
    assert {note.before for note in written} == {None if name == "post-commit" else first} and len(written) == 2
    assert not (watched.folder / "lock").exists() and not (watched.folder / SENDER).exists()


@pytest.mark.skipif(not shutil.which("strace"), reason="strace counts the processes")
@pytest.mark.parametrize("name", HOOKS)
def test_with_a_running_watcher_the_hook_starts_no_process(
    repo: Path, home: Path, git, watched: Spool, name: str
) -> None:
    git(repo, "commit", "-q", "--allow-empty", "-m", "x")
    sha = git(repo, "rev-parse", "HEAD")
    hook = install_one(repo, home).with_name(name)
    arguments, text = called_with(name, sha, sha)
    command = ["strace", "-f", "-e", "trace=process", "/bin/sh", hook, *arguments]
    done = subprocess.run(command, cwd=repo, capture_output=True, text=True, check=False, input=text)
    assert len(notes(watched)) == 1
    if "execve" not in done.stderr:
        pytest.skip("strace may not trace here")
    assert done.stderr.count("execve(") == 1
    assert not any(word in done.stderr for word in ("clone(", "fork("))


class Recorder:
    """Replaces Python: records its arguments, and runs for as long as the file `living` exists."""

    def __init__(self, folder: Path) -> None:
        self.program = folder / "py thon's"
        self.living = folder / "living"
        self.calls = folder / "calls"
        self.calls.mkdir()
        self.program.write_text(
            f'#!/bin/sh\n[ "$2" = -c ] && exit 0\nprintf "%s\\n" "$@" > "{self.calls}/$$.part"\n'
            f'mv "{self.calls}/$$.part" "{self.calls}/$$"\nwhile [ -e "{self.living}" ]; do sleep 0.01; done\n'
        )
        self.program.chmod(0o755)

    def called(self, times: int) -> list[list[str]]:
        end = time.monotonic() + 5
        while len(calls := [path for path in self.calls.iterdir() if not path.suffix]) < times:
            assert time.monotonic() < end, f"called {len(calls)} times, not {times}"
            time.sleep(0.01)
        return [path.read_text().splitlines() for path in calls]

    def end(self) -> None:
        """End the running ones and wait for them."""
        self.living.unlink(missing_ok=True)
        end = time.monotonic() + 5
        while any(_runs(int(path.name)) for path in self.calls.iterdir()):
            assert time.monotonic() < end
            time.sleep(0.01)


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.fixture
def recorder(tmp_path: Path) -> Iterator[Recorder]:
    recorder = Recorder(tmp_path)
    yield recorder
    recorder.end()


DEAD = [None, "", "garbage", "999999999", f"{os.getpid()}\n1\n", f"{os.getpid()}\n999\n"]


@pytest.mark.parametrize("file", ["watcher.pid", SENDER])
@pytest.mark.parametrize(
    "pid", DEAD, ids=["none", "empty", "garbage", "no process", "this process since 1", "this process since 999"]
)
def test_without_a_running_watcher_or_sender_a_flush_is_started(
    repo: Path, home: Path, git, recorder: Recorder, pid: str | None, file: str
) -> None:
    install(repo, home, str(recorder.program))
    recorder.living.touch()
    if pid is not None:
        (home / "spool" / file).write_text(pid)
    sha = commit(git, repo)
    assert [note.sha for note in notes(Spool(home / "spool"))] == [sha]  # the folders were created
    assert recorder.called(1) == [
        ["-I", "-m", "dims_producers.git_hook", "flush", "--background", "--repository", ".git", str(home)]
    ]


def test_only_one_sender_is_started_at_a_time(repo: Path, home: Path, git, recorder: Recorder) -> None:
    recorder.living.touch()
    install(repo, home, str(recorder.program))
    shas = [commit(git, repo) for _ in range(5)]
    git(repo, "commit", "-q", "--amend", "-m", "amended")
    assert len(recorder.called(1)) == 1
    claim = home / "spool" / SENDER
    claim.unlink()  # as a sender does before its last check
    shas.append(commit(git, repo))
    assert len(recorder.called(2)) == 2
    recorder.end()  # without removing its file, as if killed
    assert claim.exists()
    recorder.living.touch()
    shas.append(commit(git, repo))
    assert len(recorder.called(3)) == 3
    written = notes(Spool(home / "spool"))
    assert [note.sha for note in written if note.hook == "post-commit"][:5] == shas[:5] and len(written) == 9


def test_a_broken_setup_never_makes_a_commit_fail_and_prints_one_line(
    repo: Path, home: Path, git, tmp_path: Path
) -> None:
    install(repo, home, "/no/such/python")
    shutil.rmtree(home / "spool")
    (home / "spool").write_text("not a folder")
    (repo / "a").touch()
    git(repo, "add", "a")
    done = subprocess.run(["git", "-C", repo, "commit", "-q", "-m", "x"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (0, "", 1)
    assert done.stderr.startswith(
        "dims: DIMS does not know this change yet. Its note waits in .git/dims/spool, because "
    )
    assert [note.sha for note in notes(Spool(repo / ".git/dims/spool"))] == [git(repo, "rev-parse", "HEAD")]


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
    broker.set_unreachable()
    assert main(["flush", str(home)]) == 3
    broker.set_unreachable(False)
    assert main(["flush", str(home)]) == 0
    assert [e.id for e in broker.events()] == [sha]
    assert main(["uninstall", str(repo)]) == 0
    assert main(["install", str(home.parent)]) == 2
    assert main(["flush", str(home)]) == 0


def test_placeholders_in_paths_are_not_replaced(repo: Path, tmp_path: Path, git) -> None:
    home = tmp_path / "@PYTHON@ $(touch x) `y`"
    hook = install_one(repo, home, "/bin/true")
    assert recorded_home(repo / ".git", repo) == home and "@" not in hook.read_text().replace('"$@"', "")
    sha = commit(git, repo)
    assert [note.sha for note in notes(Spool(home / "spool"))] == [sha]


def test_isolation_falls_back_to_the_user_site() -> None:
    assert hook_script._isolation("/bin/false") == "-P"
    assert hook_script._isolation("/no/such/program") == "-I"
    assert hook_script._isolation(sys.executable) in ("-I", "-P")
