"""What the watcher survives: lost notices, folders that go and come, watchdog's own troubles. Real inotify."""

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
"""A broker that is away: what is told stays in the spool, where it can be looked at."""


class Place:
    """A folder and a spool beside it."""

    def __init__(self, top: Path) -> None:
        self.project, self.outside = top / "project", top / "outside"
        self.project.mkdir()
        self.outside.mkdir()
        self.spool = Spool(top / "home" / "spool")

    def told(self) -> list[list[str]]:
        """The lists of paths that were told so far."""
        files = [self.spool.new / name for name in self.spool._in_order()]
        return [Event.from_json(file.read_bytes()).data["paths"] for file in files]

    def forget(self) -> None:
        for path in self.spool.new.iterdir():
            path.unlink()

    def quiet(self) -> None:
        """Wait until all that happened has been told, and forget it."""
        wait_for(lambda: self.hears(f"quiet {time.monotonic_ns()}"), 20)
        self.forget()

    def hears(self, name: str) -> bool:
        """Whether a file that is made now is told within a moment, by its name."""
        (self.project / name).touch()
        end = time.monotonic() + 1
        while not (found := any(name in paths for paths in self.told())) and time.monotonic() < end:
            time.sleep(0.05)
        return found


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
        wait_for(lambda: len(place.told()) == len(folders))
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
from dims_producers.watch_files import watch_folders
logging.disable(logging.INFO)
logging.getLogger().setLevel(logging.CRITICAL)  # as somebody may have it who wants to hear little
stop = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: stop.set())
watch_folders({"p": Path(sys.argv[1])}, Spool(Path(sys.argv[2])), lambda: sys.argv[3], ignored=lambda p: False, stop=stop)
"""


@pytest.fixture
def process(place: Place) -> Iterator[subprocess.Popen[bytes]]:
    """A watcher in a process of its own, which can be stopped for a while."""
    command = [sys.executable, "-c", CODE, place.project, place.spool.folder, NOWHERE]
    started = subprocess.Popen(command, cwd=REPO)
    wait_for(lambda: (place.spool.folder / PID_FILE).exists() and place.told() == [[]])
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
    """Use two files in turns until the queue of a watcher that is stopped and notes this is full."""
    for _ in range(queue_length() // 2 + 100):
        use(folder / "a")
        use(folder / "b")


def test_a_queue_that_overflows_is_unknown(place: Place, process: subprocess.Popen[bytes]) -> None:
    for name in "ab":
        (place.project / name).touch()
    place.quiet()
    with stopped(process):
        in_turns(place.project, os.utime)
        (place.project / "new folder").mkdir()  # nobody is told of it any more
    wait_for(lambda: [] in place.told())
    place.quiet()
    (place.project / "new folder/file").touch()
    wait_for(lambda: ["new folder/file"] in place.told())


def test_who_only_reads_does_not_fill_the_queue(place: Place, process: subprocess.Popen[bytes]) -> None:
    """Else a measurement, which reads all, would make all unknown, and so be followed by the next one."""
    for name in "ab":
        (place.project / name).write_text(name)
    place.quiet()
    with stopped(process):
        in_turns(place.project, Path.read_text)
        (place.project / "a").write_text("changed")
    wait_for(place.told)
    assert place.told() == [["a"]]


def test_many_changes_in_few_files_are_told_by_name(place: Place, process: subprocess.Popen[bytes]) -> None:
    with stopped(process):
        for _ in range(queue_length() // 20):
            for name in "ab":
                (place.project / name).write_text("x")
    wait_for(place.told)
    assert place.told() == [["a", "b"]]


def test_a_folder_that_is_made_again_at_once_is_watched(place: Place) -> None:
    """Many file systems give it the number of the one before: only watchdog knows that it is another one."""
    with watching(place):
        for number in range(4):
            shutil.rmtree(place.project)
            place.project.mkdir()
            wait_for(lambda: [] in place.told())
            wait_for(lambda n=number: place.hears(f"f{n}"))
            place.forget()


def test_a_folder_that_is_moved_away_and_back(place: Place) -> None:
    with watching(place):
        place.project.rename(place.outside / "away")
        (place.outside / "away/changed").touch()
        (place.outside / "away").rename(place.project)
        wait_for(lambda: any(not paths or "changed" in paths for paths in place.told()))
        wait_for(lambda: place.hears("after"))


def test_another_folder_in_its_place(place: Place) -> None:
    with watching(place):
        (place.outside / "other").mkdir()
        (place.outside / "other/there").touch()
        place.project.rename(place.outside / "away")
        (place.outside / "other").rename(place.project)
        wait_for(lambda: [] in place.told())
        wait_for(lambda: place.hears("after"))
        place.quiet()
        (place.outside / "away/not ours any more").touch()
        place.quiet()


def test_a_link_that_points_elsewhere(place: Place, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(place.outside)
    with watching(place, link):
        link.unlink()
        (tmp_path / "elsewhere").mkdir()
        link.symlink_to(tmp_path / "elsewhere")
        wait_for(lambda: [] in place.told())
        wait_for(lambda: (tmp_path / "elsewhere/x").touch() or ["x"] in place.told(), period=0.3)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_thread_of_watchdog_that_dies_is_noticed(place: Place) -> None:
    """It does with watchdog 7.1: a folder moved out, one of its name made and removed, the first one deleted."""
    with watching(place):
        (place.project / "d").mkdir()
        (place.project / "d").rename(place.outside / "d")
        (place.project / "d").mkdir()
        (place.project / "d").rmdir()
        (place.outside / "d").rmdir()
        time.sleep(0.5)
        wait_for(lambda: place.hears("after"))


def test_files_that_come_and_go_by_a_move(place: Place) -> None:
    with watching(place):
        (place.outside / "f").touch()
        (place.outside / "f").rename(place.project / "f")
        wait_for(lambda: place.told() == [["f"]])
        (place.project / "f").rename(place.outside / "f")
        wait_for(lambda: place.told() == [["f"], ["f"]])
        (place.outside / "g").touch()
        (place.outside / "g").rename(place.project / "h")
        wait_for(lambda: place.told() == [["f"], ["f"], ["h"]])


def test_a_folder_that_is_renamed_is_unknown_and_watched_under_its_new_name(place: Place) -> None:
    with watching(place):
        (place.project / "a/b").mkdir(parents=True)
        (place.project / "a/b/f").touch()
        wait_for(lambda: place.told() == [["a/b/f"]])
        (place.project / "a").rename(place.project / "c")
        wait_for(lambda: place.told() == [["a/b/f"], []])
        (place.project / "c/b/f").write_text("x")
        wait_for(lambda: place.told() == [["a/b/f"], [], ["c/b/f"]])
        (place.project / "a").mkdir()
        (place.project / "a/f").touch()
        wait_for(lambda: place.told()[3:] == [["a/f"]])


def test_a_tree_that_grows_fast_is_told_to_the_last_file(place: Place) -> None:
    script = "for i in 1 2 3 4 5 6 7 8; do mkdir -p $0/$i/x/y; echo 1 >$0/$i/x/y/f; echo 2 >$0/$i/g; done"
    with watching(place):
        for number in range(5):
            subprocess.run(["sh", "-c", script, f"t{number}"], cwd=place.project, check=True)
        want = {str(path.relative_to(place.project)) for path in place.project.rglob("*") if path.is_file()}
        assert len(want) == 80
        wait_for(lambda: want <= {path for paths in place.told() for path in paths})
        assert [] not in place.told()


def test_a_time_that_is_set_is_a_change(place: Place) -> None:
    with watching(place):
        (place.project / "f").touch()
        wait_for(lambda: place.told() == [["f"]])
        os.utime(place.project / "f", (1, 1))
        wait_for(lambda: place.told() == [["f"], ["f"]])


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[bytes], bool]], None]:
    """Have the kernel refuse watches, as it does when there are too many."""
    real = inotify_c.inotify_add_watch

    def install(refuse: Callable[[bytes], bool]) -> None:
        def add_watch(descriptor: int, path: bytes, mask: int) -> int:
            if not refuse(path):
                return int(real(descriptor, path, mask))
            ctypes.set_errno(errno.ENOSPC)
            return -1

        monkeypatch.setattr(inotify_c, "inotify_add_watch", add_watch)

    return install


def test_a_folder_of_which_parts_cannot_be_watched_is_unknown_now_and_then(
    place: Place, refused, monkeypatch, caplog
) -> None:
    monkeypatch.setattr(watch_files, "_BLIND", 1.5)
    for number in range(3):
        (place.project / f"d{number}").mkdir()
    refused(lambda path: path.endswith(b"/d1"))
    with watching(place):
        wait_for(lambda: place.told() == [[], []])
        assert "project is not watched as a whole: 1 folders in it are not (on Linux, see fs.inotify" in caplog.text
        refused(lambda path: False)
        (place.project / "d1").rename(place.project / "d3")  # watched from now on
        place.quiet()
        (place.project / "d3/f").touch()
        wait_for(lambda: ["d3/f"] in place.told())
    assert caplog.text.count("as a whole") == 1


def test_a_folder_that_cannot_be_watched_is_tried_again_and_leaves_nothing_behind(
    place: Place, refused, monkeypatch, caplog
) -> None:
    monkeypatch.setattr(watched_folder, "_REFUSED", 0.0)
    refused(lambda path: path.endswith(b"/project"))
    one = watched_folder.WatchedFolder(place.project, lambda seen: None, recursive=True)
    for _ in range(3):
        assert one.look() is False
    threads, queues = threading.active_count(), len(watched_folder._queues())
    for _ in range(10):
        assert one.look() is False
    assert (threading.active_count(), len(watched_folder._queues())) == (threads, queues)
    assert caplog.text.count("cannot be watched, and is tried again: [Errno 28]") == 1
    refused(lambda path: False)
    assert one.look() is True and one.look() is False
    one.close()


def test_a_full_spool_is_waited_for_and_then_all_is_unknown(place: Place, monkeypatch, caplog) -> None:
    monkeypatch.setattr(watch_files, "_DISK_FULL", 0.3)
    place.spool = Spool(place.spool.folder, max_files=2)
    with watching(place):
        for name in "ab":
            (place.project / name).touch()
            wait_for(lambda n=name: [n] in place.told())
        (place.project / "c").touch()
        wait_for(lambda: "the spool takes no event" in caplog.text)
        (place.project / "d").touch()
        time.sleep(1)
        assert place.told() == [["a"], ["b"]]
        events: list[Event] = []
        place.spool.flush(events.extend)
        wait_for(lambda: place.told() == [[]])
    assert caplog.text.count("the spool takes no event") == 1


# --- the bar ------------------------------------------------------------------------------------------

IDLE = 5.0
BAR = 0.01


def test_an_idle_watcher_costs_less_than_a_hundredth_of_a_processor(tmp_path: Path) -> None:
    """A real `dims watch` over a tree of 500 folders, its home within; seconds of a processor in a few of the clock."""
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
            path.unlink()  # nothing waits: an idle one
        time.sleep(2)  # it has begun
        process = psutil.Process(started.pid)
        before, begun = process.cpu_times(), time.monotonic()
        time.sleep(IDLE)
        after, took = process.cpu_times(), time.monotonic() - begun
        share = (after.user + after.system - before.user - before.system) / took
        print(f"an idle watcher: {share:.2%} of a processor")
        assert share < BAR
        (project / "d1/new").touch()  # and it is awake
        wait_for(lambda: len(spool) == 1)
    finally:
        started.terminate()
        assert started.wait(10) == 0
