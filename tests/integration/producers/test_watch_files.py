"""The watcher with real folders, real inotify and a real Valkey."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from dims_producers.git_hook import install
from dims_producers.spool import Spool
from dims_producers.watch_files import FolderWatcher

# watchdog warns when it finds a folder in two ways at once (`mkdir -p`). An error would end its thread.
pytestmark = pytest.mark.filterwarnings("ignore:Callback with id:RuntimeWarning")

IGNORED = (".pyc", ".tmp")


class Running:
    def __init__(self, folders: dict[str, Path], spool: Spool, url: str, followed: Sequence[Path] = ()) -> None:
        self.stop = threading.Event()
        self.spool = spool
        watcher = FolderWatcher(
            folders, spool, lambda: url, ignored=self.ignored, settle=0.15, stop=self.stop, followed=followed
        )
        self.thread = threading.Thread(target=watcher.run)

    @staticmethod
    def ignored(path: Path) -> bool:
        assert path.is_absolute()
        if path.name == "boom":
            raise RuntimeError("boom")
        return path.suffix in IGNORED or "build" in path.parent.parts

    def start(self) -> None:
        self.thread.start()
        end = time.monotonic() + 5
        while not (self.spool.folder / "watcher.pid").exists():
            assert time.monotonic() < end
            time.sleep(0.01)

    def end(self) -> None:
        self.stop.set()
        self.thread.join(10)
        assert not self.thread.is_alive()
        assert not (self.spool.folder / "watcher.pid").exists()


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "pro ject"
    folder.mkdir()
    return folder


@pytest.fixture
def watcher(project: Path, tmp_path: Path, valkey, until) -> Iterator[Running]:
    """A watcher of `project`, with the data directory inside the project."""
    running = Running({"project": project}, Spool(project / ".dims" / "spool"), valkey.url)
    running.start()
    until(lambda: reported(valkey) == [[]])  # changes before it watched are unknown
    valkey.client.flushdb()
    yield running
    running.end()


def git(repo: Path, *args: str) -> None:
    subprocess.run(["git", "-C", repo, *args], check=True, capture_output=True)


def reported(valkey) -> list[list[str]]:
    return [e.data["paths"] for e in valkey.events() if e.type == "dims.files.changed"]


def test_changes_settle_into_one_event(project: Path, watcher: Running, valkey, until) -> None:
    (project / "sub").mkdir()
    for name in ("a b.txt", "ü😀.txt", "new\nline", "boom"):
        (project / name).write_text("x")
    (project / "sub/deep.txt").write_text("x")
    until(lambda: reported(valkey))
    assert reported(valkey) == [["a b.txt", "boom", "new\nline", "sub/deep.txt", "ü😀.txt"]]
    (event,) = valkey.events()
    assert event.data["root"] == os.path.realpath(project)
    assert event.producer.startswith("dims:watch.") and event.producer.endswith("/pro%20ject")


def test_changed_moved_and_deleted_files_are_reported_are_reported(
    project: Path, watcher: Running, valkey, until
) -> None:
    for name in ("a", "b", "c"):
        (project / name).write_text("x")
    until(lambda: len(reported(valkey)) == 1)
    (project / "a").write_text("y")
    until(lambda: len(reported(valkey)) == 2)
    (project / "b").rename(project / "bb")
    until(lambda: len(reported(valkey)) == 3)
    (project / "c").unlink()
    until(lambda: len(reported(valkey)) == 4)
    (project / "a").read_text()
    list(project.iterdir())
    time.sleep(0.5)
    assert reported(valkey)[1:] == [["a"], ["b", "bb"], ["c"]]


def test_ignored_files_are_not_reported(project: Path, watcher: Running, valkey, until) -> None:
    (project / ".git/objects").mkdir(parents=True)
    (project / ".git/HEAD").write_text("x")
    (project / "sub").mkdir()
    (project / "sub/.git").write_text("gitdir: elsewhere")
    (project / "x.pyc").write_text("x")
    (project / "build").mkdir()
    (project / "build/out").write_text("x")
    (project / ".dims/other").write_text("x")
    shutil.rmtree(project / "build")
    shutil.rmtree(project / ".git")
    time.sleep(0.5)
    assert reported(valkey) == []
    (project / "seen").write_text("x")
    until(lambda: reported(valkey))
    assert reported(valkey) == [["seen"]]


def test_a_new_folder_is_reported_and_a_removed_one_is_unknown(
    project: Path, watcher: Running, valkey, until, tmp_path: Path
) -> None:
    (tmp_path / "outside/in").mkdir(parents=True)
    (tmp_path / "outside/in/file").write_text("x")
    (tmp_path / "outside").rename(project / "inside")
    until(lambda: reported(valkey))
    assert reported(valkey) == [["inside/in/file"]]
    (project / "inside").rename(tmp_path / "outside")
    until(lambda: len(reported(valkey)) == 2)
    assert reported(valkey)[1] == []


def test_two_thousand_files_are_unknown(project: Path, watcher: Running, valkey, until) -> None:
    for i in range(2000):
        (project / f"f{i}").touch()
    until(lambda: reported(valkey))
    time.sleep(0.5)
    # One event has too many paths, so they are unknown. A slow machine may make several events.
    assert [] in reported(valkey) or {path for paths in reported(valkey) for path in paths} == {
        f"f{i}" for i in range(2000)
    }


def test_a_file_that_is_written_without_end_is_reported_regularly(project: Path, watcher: Running, valkey) -> None:
    end = time.monotonic() + 2.6
    while time.monotonic() < end:
        with (project / "log").open("a") as file:
            file.write("x")
        time.sleep(0.03)
    assert reported(valkey) == [["log"]]


def test_a_folder_that_vanishes_and_comes_back_is_an_unknown_change(
    project: Path, watcher: Running, valkey, until, tmp_path: Path
) -> None:
    # The data directory moves with it, like when you move a whole project away and back.
    project.rename(tmp_path / "away")
    time.sleep(1.3)
    project.mkdir(exist_ok=True)
    until(lambda: [] in reported(valkey))
    before = len(reported(valkey))
    time.sleep(1.3)
    (project / "again").write_text("x")
    until(lambda: ["again"] in reported(valkey)[before:])


def test_a_folder_that_does_not_exist_yet_is_watched_later(tmp_path: Path, valkey, until) -> None:
    running = Running({"late": tmp_path / "late"}, Spool(tmp_path / "home/spool"), valkey.url)
    running.start()
    try:
        (tmp_path / "late").mkdir()
        until(lambda: reported(valkey) == [[]])
        (tmp_path / "late/x").touch()
        until(lambda: reported(valkey) == [[], ["x"]])
    finally:
        running.end()


def test_the_watcher_sends_the_note_of_the_hook(repo: Path, home: Path, commit, valkey, until) -> None:
    install(repo, home, "/no/such/python")
    running = Running({"repo": repo}, Spool(home / "spool"), valkey.url)
    running.start()
    try:
        shas = [commit(f"f{i}") for i in range(3)]
        until(lambda: len([e for e in valkey.events() if e.type == "dims.git.commit"]) == 3)
        assert [e.id for e in valkey.events() if e.type == "dims.git.commit"] == shas
        started = time.monotonic()
        sha = commit("quick")
        until(lambda: any(e.id == sha for e in valkey.events()))
        assert time.monotonic() - started < 2
    finally:
        running.end()
    assert not (home / "spool/bad").exists()


def test_a_repository_without_hooks_is_followed(repo: Path, home: Path, commit, valkey, until) -> None:
    commit("a")
    commit("b")
    running = Running({}, Spool(home / "spool"), valkey.url, followed=[repo, repo / "below"])
    running.start()

    def refs() -> list[str]:
        return [e.data["root"] for e in valkey.events() if e.type == "dims.git.refs_changed"]

    try:
        until(lambda: len(refs()) == 1)  # what happened before is unknown
        for number, change in enumerate(
            (["reset", "-q", "--hard", "HEAD~1"], ["branch", "x"], ["branch", "-m", "x", "y"])
        ):
            git(repo, *change)
            until(lambda: len(refs()) == number + 2)  # noqa: B023 - called at once
        git(repo, "--no-optional-locks", "status")
        time.sleep(3.5)
        assert refs() == [os.path.realpath(repo)] * 4
    finally:
        running.end()


def test_what_a_hook_reports_the_watcher_does_not_report_again(repo: Path, home: Path, commit, valkey, until) -> None:
    install(repo, home, "/no/such/python")
    commit("a")
    running = Running({}, Spool(home / "spool"), valkey.url, followed=[repo])
    running.start()

    def kinds() -> list[str]:
        return [e.type.removeprefix("dims.git.") for e in valkey.events()]

    try:
        until(lambda: sorted(kinds()) == ["commit", "refs_changed"])
        sha = commit("b")
        until(lambda: kinds().count("commit") == 2)
        git(repo, "reset", "-q", "--hard", f"{sha}~1")
        until(lambda: kinds().count("refs_changed") == 2)
        time.sleep(3.5)
        assert sorted(kinds()) == ["commit"] * 2 + ["refs_changed"] * 2
    finally:
        running.end()


def test_nothing_is_lost_while_the_broker_is_unreachable(project: Path, watcher: Running, valkey, until) -> None:
    valkey.stop()
    (project / "a").write_text("x")
    until(lambda: len(watcher.spool) == 1)
    time.sleep(0.5)
    assert watcher.thread.is_alive()
    valkey.start()
    until(lambda: reported(valkey) == [["a"]])
    until(lambda: len(watcher.spool) == 0)  # the sender deletes a file after the broker has answered


def test_the_last_changes_are_reported_at_the_end(tmp_path: Path, project: Path, valkey, until) -> None:
    running = Running({"project": project}, Spool(tmp_path / "home/spool"), valkey.url)
    running.start()
    until(lambda: reported(valkey) == [[]])
    (project / "last").write_text("x")
    time.sleep(0.1)
    running.end()
    assert reported(valkey) == [[], ["last"]]


def test_a_lost_event_of_the_kernel_is_an_unknown_change(project: Path, watcher: Running, valkey, until) -> None:
    import logging

    logging.getLogger("watchdog.observers.inotify_c").warning("Inotify queue overflowed; events were lost")
    until(lambda: reported(valkey) == [[]])


CODE = """
import sys, threading, signal
from pathlib import Path
from dims_producers.spool import Spool
from dims_producers.watch_files import FolderWatcher
stop = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: stop.set())
folders, spool = {"p": Path(sys.argv[1])}, Spool(Path(sys.argv[2]))
FolderWatcher(folders, spool, lambda: sys.argv[3], ignored=lambda path: False, stop=stop).run()
"""


def test_a_killed_watcher_does_not_keep_the_hook_from_sending(
    repo: Path, home: Path, project: Path, commit, valkey, until, python_processes
) -> None:
    (home / "producer.env").write_text(f"DIMS_BROKER_URL={valkey.url}\n")
    install(repo, home)
    process = subprocess.Popen([sys.executable, "-c", CODE, project, home / "spool", valkey.url])
    pid = home / "spool/watcher.pid"
    until(pid.exists)
    assert pid.read_text().split()[0] == str(process.pid)
    process.send_signal(signal.SIGKILL)
    process.wait(10)
    assert pid.exists()
    sha = commit("a")
    until(lambda: [e.id for e in valkey.events()] == [sha])
    until(lambda: not python_processes(str(home)))
