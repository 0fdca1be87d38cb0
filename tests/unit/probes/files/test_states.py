"""The states of files: they change whenever a value may, and a tree that changes during a pass has none."""

from __future__ import annotations

import errno
import os
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from dims_worker.config import FilesMetric, FilesSource
from dims_worker.errors import MeasureError
from dims_worker.probes.base import Deadline, Reading, ScanContext, readings_by_name
from dims_worker.probes.files.probe import FilesProbe
from dims_worker.probes.settled_scan import SettledScan

PROBE = FilesProbe()
Run = Callable[..., str]


def metric(measure: str, *paths: str, **more: Any) -> FilesMetric:
    return FilesMetric(source="here", measure=measure, paths=paths or ("**",), **more)


METRICS = {
    "py": metric("count", "**/*.py"),
    "lines": metric("lines", "**/*.py"),
    "docs": metric("bytes", "docs/**"),
    "named": metric("lines", "docs/a.md", absent=None),
}


@pytest.fixture
def states(context: ScanContext) -> Callable[..., Mapping[str, str | None]]:
    def run(metrics: Mapping[str, FilesMetric] = METRICS, **source: Any) -> Mapping[str, str | None]:
        return PROBE.states(FilesSource(type="files", path="tree", **source), metrics, context, soon())

    return run


def soon() -> Deadline:
    return Deadline.after(timedelta(seconds=60))


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name in ("a.py", "sub/b.py", "docs/a.md", "docs/b.md"):
        path = tmp_path / "tree" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("1\n")
    return tmp_path / "tree"


def rewrite_in_place(path: Path) -> None:
    """Change the content, and put size and modification time back, as some tools do."""
    times = path.stat()
    path.write_text("\n\n")
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def replace(path: Path) -> None:
    other = path.with_name("new")
    other.write_text("2\n")
    other.replace(path)


@pytest.mark.parametrize(
    ("change", "changed"),
    [
        (lambda tree: (tree / "sub/b.py").write_text("1\n2\n"), {"py", "lines"}),
        (lambda tree: rewrite_in_place(tree / "docs/a.md"), {"docs", "named"}),
        (lambda tree: replace(tree / "docs/b.md"), {"docs"}),
        (lambda tree: (tree / "a.py").unlink(), {"py", "lines"}),
        (lambda tree: (tree / "a.py").rename(tree / "sub/c.py"), {"py", "lines"}),
        (lambda tree: (tree / "docs/a.md").unlink(), {"docs", "named"}),
        (lambda tree: (tree / "docs").rename(tree / "texts"), {"docs", "named"}),
        (lambda tree: (tree / "notes.txt").write_text(""), set()),
        (lambda tree: tree.rename(tree.with_name("gone")), set(METRICS)),
    ],
)
def test_each_change_changes_the_states_that_it_concerns(
    states: Callable[..., Mapping[str, str | None]], tree: Path, change: Callable[[Path], object], changed: set[str]
) -> None:
    before = states()
    assert before == states()
    change(tree)
    after = states()
    assert set(before) == set(after) == set(METRICS)
    assert {name for name in METRICS if before[name] != after[name]} == changed


def test_no_content_is_read(
    states: Callable[..., Mapping[str, str | None]], tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Any, *_args: Any) -> int:
        raise AssertionError(f"opened {path}")

    monkeypatch.setattr(os, "open", refuse)
    assert set(states()) == set(METRICS)


def test_a_scan_returns_the_states_of_its_own_pass(
    states: Callable[..., Mapping[str, str | None]], tree: Path, context: ScanContext
) -> None:
    before = states()
    scanned = PROBE.scan(FilesSource(type="files", path="tree"), METRICS, context, soon())
    assert scanned.states == before


def test_an_unreadable_folder_is_part_of_the_state(
    states: Callable[..., Mapping[str, str | None]], tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = states()
    real = os.scandir

    def scandir(path: str) -> Any:
        if path.endswith("/sub"):
            raise PermissionError(errno.EACCES, "Permission denied")
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    after = states()
    assert {name for name in METRICS if before[name] != after[name]} == {"py", "lines"}


def test_a_file_that_has_just_changed_has_no_state(
    states: Callable[..., Mapping[str, str | None]], tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    states()  # waits until the files are old enough
    (tree / "a.py").write_text("3\n")
    monkeypatch.setattr(time, "sleep", lambda _seconds: (tree / "a.py").write_text("4\n"))
    assert {name for name, state in states().items() if state is None} == {"py", "lines"}


def test_times_in_the_future_are_no_recent_changes(states: Callable[..., Mapping[str, str | None]], tree: Path) -> None:
    os.utime(tree / "sub", (4_000_000_000, 4_000_000_000))
    os.utime(tree / "a.py", (4_000_000_000, 4_000_000_000))
    assert None not in states().values()


def test_states_follow_the_rules_of_git(
    states: Callable[..., Mapping[str, str | None]], tree: Path, git: Run, tmp_path: Path
) -> None:
    git("init", "-q", at="tree")
    git("init", "-q", at="tree/sub")
    before = states(ignore="gitignore")
    (tree / ".git/info/exclude").write_text("*.md\n")
    ignored = states(ignore="gitignore")
    assert {name for name in METRICS if before[name] != ignored[name]} == {"docs", "named"}  # in `named`, the detail
    (tree / "sub/.git/info/exclude").write_text("b.py\n")
    nested = states(ignore="gitignore")
    assert {name for name in METRICS if ignored[name] != nested[name]} == {"py", "lines"}
    git("add", "-f", "docs/b.md", at="tree")
    assert {name for name, each in states(ignore="gitignore").items() if nested[name] != each} == {"docs"}


def test_a_source_that_cannot_be_listed_has_no_states(
    states: Callable[..., Mapping[str, str | None]], tree: Path
) -> None:
    with pytest.raises(MeasureError, match="not in a git repository"):
        states(ignore="gitignore")


# --- changes during a pass ---------------------------------------------------------------------------


@contextmanager
def renaming(pairs: list[tuple[Path, Path]], pause: float) -> Iterator[None]:
    """Move each file to its other place and back, again and again."""
    stopped = threading.Event()

    def run() -> None:
        while not stopped.is_set():
            for one, other in pairs:
                one.rename(other)
                time.sleep(pause)
            for one, other in pairs:
                other.rename(one)
                time.sleep(pause)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        thread.join()


def measure(source: FilesSource, metrics: Mapping[str, FilesMetric], context: ScanContext) -> dict[str, Reading]:
    return readings_by_name(SettledScan(PROBE, source, context, soon()).run(metrics, {}).readings)


@pytest.mark.parametrize(("moved", "pause"), [(1, 0.0), (40, 0.002)])
@pytest.mark.parametrize("source", [{}, {"ignore": "gitignore"}])
def test_a_count_during_renames_is_right_or_approximate(
    context: ScanContext, tmp_path: Path, git: Run, moved: int, pause: float, source: dict[str, Any]
) -> None:
    """A file that moves between folders may be missed or counted twice, but then the reading says so."""
    git("init", "-q", at=".")
    folders = [tmp_path / "tree" / name for name in "abcdef"]
    for folder in folders:
        folder.mkdir(parents=True)
        for number in range(50):
            (folder / f"{number}.txt").write_text("1\n")
    pairs = [(folders[n % 6] / f"{n}.txt", folders[(n + 3) % 6] / f"moved{n}.txt") for n in range(moved)]
    where = FilesSource(type="files", path="tree", **source)
    metrics = {"n": metric("count"), "lines": metric("lines")}
    with renaming(pairs, pause):
        for _ in range(3):
            for reading in measure(where, metrics, context).values():
                assert reading.value == 300 or reading.method == "approximate", reading
    results = measure(where, metrics, context).values()
    assert [(reading.value, reading.method) for reading in results] == [(300, "exact")] * 2


def test_a_file_that_grows_while_it_is_read_is_approximate(
    context: ScanContext, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    where = FilesSource(type="files", path="tree")
    metrics = {"lines": metric("lines", "**/*.py")}
    PROBE.states(where, metrics, context, soon())
    real = os.readv

    def grow(fd: int, buffers: Any) -> int:
        with (tree / "a.py").open("a") as file:
            file.write("\n")
        return real(fd, buffers) if os.fstat(fd).st_size < 50 else 0

    monkeypatch.setattr(os, "readv", grow)
    reading = measure(where, metrics, context)["lines"]
    assert (reading.method, reading.details) == ("approximate", {"changed_while_measured": True})
    monkeypatch.undo()
    assert measure(where, metrics, context)["lines"].method == "exact"


def test_a_tree_of_many_files_needs_little_memory(context: ScanContext, tmp_path: Path) -> None:
    """Nothing is kept for each file, so a million of them fit."""

    (tmp_path / "tree").mkdir()
    for number in range(2000):
        (tmp_path / "tree" / f"{number:0100}.txt").touch()
    where = FilesSource(type="files", path="tree")
    tracemalloc.start()
    try:
        assert set(PROBE.states(where, {"n": metric("count")}, context, soon())) == {"n"}
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2000 * 200  # the names alone would need more
