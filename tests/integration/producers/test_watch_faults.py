"""What the watcher survives: lost events, folders that vanish and return, and faults of watchdog. Uses real inotify."""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from watchdog.observers import inotify_c

from dims_producers import watch_files, watched_folder
from dims_producers.spool import Spool
from dims_producers.watch_files import PID_FILE, FolderWatcher
from dims_worker.events import Event
from tests.conftest import REPO, wait_for

pytestmark = pytest.mark.filterwarnings("ignore:Callback with id:RuntimeWarning")
NOWHERE = "redis://127.0.0.1:1/0"
"""An unreachable broker. The events stay in the spool, where the tests read them."""


class Place:
    """A folder, and a spool beside it."""

    def __init__(self, top: Path) -> None:
        self.project, self.outside = top / "project", top / "outside"
        self.project.mkdir()
        self.outside.mkdir()
        self.spool = Spool(top / "home" / "spool")

    def reported(self) -> list[list[str]]:
        """Return the lists of paths that were reported so far."""
        files = [self.spool.new / name for name in self.spool._in_order()]
        return [Event.from_json(file.read_bytes()).data["paths"] for file in files]

    def forget(self) -> None:
        for path in self.spool.new.iterdir():
            path.unlink()

    def quiet(self) -> None:
        """Wait until all changes are reported, and remove their events."""
        wait_for(lambda: self.hears(f"quiet {time.monotonic_ns()}"), 20)
        self.forget()

    def hears(self, name: str) -> bool:
        """Return whether a new file is soon reported by name."""
        (self.project / name).touch()
        end = time.monotonic() + 1
        while not (reported := any(name in paths for paths in self.reported())) and time.monotonic() < end:
            time.sleep(0.05)
        return reported


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


@contextmanager
def watching(place: Place, *more: Path) -> Iterator[FolderWatcher]:
    stop = threading.Event()
    folders = {str(folder): folder for folder in (place.project, *more)}
    watcher = FolderWatcher(folders, place.spool, lambda: NOWHERE, ignored=lambda path: False, settle=0.15, stop=stop)
    thread = threading.Thread(target=watcher.run)
    thread.start()
    try:
        wait_for((place.spool.folder / PID_FILE).exists)
        wait_for(lambda: len(place.reported()) == len(folders))
        place.forget()
        yield watcher
    finally:
        stop.set()
        thread.join(10)
        assert not thread.is_alive()


CODE = """
import logging, signal, sys, threading
from pathlib import Path
from dims_producers.spool import Spool
from dims_producers.watch_files import FolderWatcher
logging.disable(logging.INFO)
logging.getLogger().setLevel(logging.CRITICAL)  # like a user who wants few log lines
stop = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: stop.set())
folders, spool = {"p": Path(sys.argv[1])}, Spool(Path(sys.argv[2]))
FolderWatcher(folders, spool, lambda: sys.argv[3], ignored=lambda path: False, stop=stop).run()
"""


@pytest.fixture
def process(place: Place) -> Iterator[subprocess.Popen[bytes]]:
    """A watcher in its own process, which can be paused."""
    command = [sys.executable, "-c", CODE, place.project, place.spool.folder, NOWHERE]
    started = subprocess.Popen(command, cwd=REPO)
    wait_for(lambda: (place.spool.folder / PID_FILE).exists() and place.reported() == [[]])
    place.forget()
    yield started
    started.send_signal(signal.SIGCONT)
    started.terminate()
    assert started.wait(10) == 0


@contextmanager
def stopped(process: subprocess.Popen[bytes]) -> Iterator[None]:
    process.send_signal(signal.SIGSTOP)
    wait_for(lambda: psutil.Process(process.pid).status() == psutil.STATUS_STOPPED)
    yield
    process.send_signal(signal.SIGCONT)


def queue_length() -> int:
    return int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())


def in_turns(folder: Path, use: Callable[[Path], object]) -> None:
    """Change two files in turns until the event queue of a paused watcher is full."""
    for _ in range(queue_length() // 2 + 100):
        use(folder / "a")
        use(folder / "b")


def test_an_event_queue_that_overflows_is_an_unknown_change(place: Place, process: subprocess.Popen[bytes]) -> None:
    for name in "ab":
        (place.project / name).touch()
    place.quiet()
    with stopped(process):
        in_turns(place.project, os.utime)
        (place.project / "new folder").mkdir()  # the kernel reports nothing of it any more
    wait_for(lambda: [] in place.reported())
    place.quiet()
    (place.project / "new folder/file").touch()
    wait_for(lambda: ["new folder/file"] in place.reported())


def test_a_program_that_only_reads_does_not_fill_the_queue(place: Place, process: subprocess.Popen[bytes]) -> None:
    """Otherwise a measurement, which reads everything, would cause an unknown change and so the next measurement."""
    for name in "ab":
        (place.project / name).write_text(name)
    place.quiet()
    with stopped(process):
        in_turns(place.project, Path.read_text)
        (place.project / "a").write_text("changed")
    wait_for(place.reported)
    assert place.reported() == [["a"]]


def test_many_changes_in_few_files_are_reported_by_name(place: Place, process: subprocess.Popen[bytes]) -> None:
    with stopped(process):
        for _ in range(queue_length() // 20):
            for name in "ab":
                (place.project / name).write_text("x")
    wait_for(place.reported)
    assert place.reported() == [["a", "b"]]


def test_a_folder_that_is_recreated_at_once_is_watched(place: Place) -> None:
    """Many file systems reuse the inode number, so only watchdog knows that it is another folder."""
    with watching(place):
        for number in range(4):
            shutil.rmtree(place.project)
            place.project.mkdir()
            wait_for(lambda: [] in place.reported())
            wait_for(lambda n=number: place.hears(f"f{n}"))
            place.forget()


def test_a_folder_that_is_moved_away_and_back_is_watched(place: Place) -> None:
    with watching(place):
        place.project.rename(place.outside / "away")
        (place.outside / "away/changed").touch()
        (place.outside / "away").rename(place.project)
        wait_for(lambda: any(not paths or "changed" in paths for paths in place.reported()))
        wait_for(lambda: place.hears("after"))


def test_another_folder_in_the_same_place_is_watched(place: Place) -> None:
    with watching(place):
        (place.outside / "other").mkdir()
        (place.outside / "other/there").touch()
        place.project.rename(place.outside / "away")
        (place.outside / "other").rename(place.project)
        wait_for(lambda: [] in place.reported())
        wait_for(lambda: place.hears("after"))
        place.quiet()
        (place.outside / "away/not ours any more").touch()
        place.quiet()


def test_a_link_that_changes_its_target_is_followed(place: Place, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(place.outside)
    with watching(place, link):
        link.unlink()
        (tmp_path / "elsewhere").mkdir()
        link.symlink_to(tmp_path / "elsewhere")
        wait_for(lambda: [] in place.reported())
        wait_for(lambda: (tmp_path / "elsewhere/x").touch() or ["x"] in place.reported(), period=0.3)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_dead_thread_of_watchdog_is_noticed(place: Place) -> None:
    """It dies with watchdog 7.1: move a folder out, create and remove another with its name, delete the first one."""
    with watching(place):
        (place.project / "d").mkdir()
        (place.project / "d").rename(place.outside / "d")
        (place.project / "d").mkdir()
        (place.project / "d").rmdir()
        (place.outside / "d").rmdir()
        time.sleep(0.5)
        wait_for(lambda: place.hears("after"))


def test_files_that_are_moved_in_and_out_are_reported(place: Place) -> None:
    with watching(place):
        (place.outside / "f").touch()
        (place.outside / "f").rename(place.project / "f")
        wait_for(lambda: place.reported() == [["f"]])
        (place.project / "f").rename(place.outside / "f")
        wait_for(lambda: place.reported() == [["f"], ["f"]])
        (place.outside / "g").touch()
        (place.outside / "g").rename(place.project / "h")
        wait_for(lambda: place.reported() == [["f"], ["f"], ["h"]])


def test_a_renamed_folder_is_an_unknown_change_and_stays_watched(place: Place) -> None:
    with watching(place):
        (place.project / "a/b").mkdir(parents=True)
        (place.project / "a/b/f").touch()
        wait_for(lambda: place.reported() == [["a/b/f"]])
        (place.project / "a").rename(place.project / "c")
        wait_for(lambda: place.reported() == [["a/b/f"], []])
        (place.project / "c/b/f").write_text("x")
        wait_for(lambda: place.reported() == [["a/b/f"], [], ["c/b/f"]])
        (place.project / "a").mkdir()
        (place.project / "a/f").touch()
        wait_for(lambda: place.reported()[3:] == [["a/f"]])


def test_every_file_of_a_fast_growing_tree_is_reported(place: Place) -> None:
    script = "for i in 1 2 3 4 5 6 7 8; do mkdir -p $0/$i/x/y; echo 1 >$0/$i/x/y/f; echo 2 >$0/$i/g; done"
    with watching(place):
        for number in range(5):
            subprocess.run(["sh", "-c", script, f"t{number}"], cwd=place.project, check=True)
        want = {str(path.relative_to(place.project)) for path in place.project.rglob("*") if path.is_file()}
        assert len(want) == 80
        wait_for(lambda: want <= {path for paths in place.reported() for path in paths})
        assert [] not in place.reported()


def test_a_changed_modification_time_is_a_change(place: Place) -> None:
    with watching(place):
        (place.project / "f").touch()
        wait_for(lambda: place.reported() == [["f"]])
        os.utime(place.project / "f", (1, 1))
        wait_for(lambda: place.reported() == [["f"], ["f"]])


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[bytes], bool]], None]:
    """Make the kernel refuse watches, as if there were too many."""
    real = inotify_c.inotify_add_watch

    def install(refuse: Callable[[bytes], bool]) -> None:
        def add_watch(descriptor: int, path: bytes, mask: int) -> int:
            if not refuse(path):
                return int(real(descriptor, path, mask))
            ctypes.set_errno(errno.ENOSPC)
            return -1

        monkeypatch.setattr(inotify_c, "inotify_add_watch", add_watch)

    return install


def test_a_partly_unwatched_folder_is_an_unknown_change_from_time_to_time(
    place: Place, refused, monkeypatch, caplog
) -> None:
    monkeypatch.setattr(watch_files, "_CHECK_ALL", 1.5)
    for number in range(3):
        (place.project / f"d{number}").mkdir()
    refused(lambda path: path.endswith(b"/d1"))
    with watching(place):
        wait_for(lambda: place.reported() == [[], []])
        assert "project is not completely watched: 1 folders in it are not (on Linux, see fs.inotify" in caplog.text
        refused(lambda path: False)
        (place.project / "d1").rename(place.project / "d3")  # watched from now on
        place.quiet()
        (place.project / "d3/f").touch()
        wait_for(lambda: ["d3/f"] in place.reported())
    assert caplog.text.count("is not completely watched") == 1


def test_a_folder_that_cannot_be_watched_is_tried_again_without_leaks(
    place: Place, refused, monkeypatch, caplog
) -> None:
    monkeypatch.setattr(watched_folder, "_RETRY", 0.0)
    refused(lambda path: path.endswith(b"/project"))
    folder = watched_folder.WatchedFolder(place.project, lambda seen: None, recursive=True)
    for _ in range(3):
        assert folder.check() is False
    threads, queues = threading.active_count(), len(watched_folder._queues())
    for _ in range(10):
        assert folder.check() is False
    assert (threading.active_count(), len(watched_folder._queues())) == (threads, queues)
    assert caplog.text.count("cannot be watched: [Errno 28]") == 1
    refused(lambda path: False)
    assert folder.check() is True and folder.check() is False
    folder.close()


def test_after_a_full_spool_the_changes_are_unknown(place: Place, monkeypatch, caplog) -> None:
    monkeypatch.setattr(watch_files, "_DISK_FULL", 0.3)
    place.spool = Spool(place.spool.folder, max_files=2)
    with watching(place):
        for name in "ab":
            (place.project / name).touch()
            wait_for(lambda n=name: [n] in place.reported())
        (place.project / "c").touch()
        wait_for(lambda: "the spool accepts no event" in caplog.text)
        (place.project / "d").touch()
        time.sleep(1)
        assert place.reported() == [["a"], ["b"]]
        events: list[Event] = []
        place.spool.flush(events.extend)
        wait_for(lambda: place.reported() == [[]])
    assert caplog.text.count("the spool accepts no event") == 1


# --- the bar ------------------------------------------------------------------------------------------

IDLE = 5.0
BAR = 0.01


def test_an_idle_watcher_uses_less_than_one_percent_of_a_processor(tmp_path: Path) -> None:
    """A real `dims watch` over 500 folders with the data directory inside. Measures its processor time."""
    project = tmp_path / "project"
    for number in range(500):
        (project / f"d{number}").mkdir(parents=True)
    (project / "dims.yaml").write_text(
        'sources: {project: {type: files, path: "."}}\nwatch: [project]\n'
        'metrics: {project: {files: {source: project, measure: count, paths: "**"}}}\n'
    )
    env = {**os.environ, "DIMS_BROKER_URL": NOWHERE, "DIMS_HOME": str(project / ".dims"), "PYTHONPATH": str(REPO)}
    started = subprocess.Popen([sys.executable, "-m", "dims_worker", "watch"], cwd=project, env=env)
    try:
        spool = Spool(project / ".dims/spool")
        wait_for(lambda: (spool.folder / PID_FILE).exists() and len(spool) == 1)
        for path in spool.new.iterdir():
            path.unlink()  # nothing waits, so it is idle
        time.sleep(2)  # it has started
        process = psutil.Process(started.pid)
        before, begun = process.cpu_times(), time.monotonic()
        time.sleep(IDLE)
        after, took = process.cpu_times(), time.monotonic() - begun
        share = (after.user + after.system - before.user - before.system) / took
        print(f"an idle watcher: {share:.2%} of a processor")
        assert share < BAR
        (project / "d1/new").touch()  # and it still works
        wait_for(lambda: len(spool) == 1)
    finally:
        started.terminate()
        assert started.wait(10) == 0
