"""Unusual files count as `find` and `wc` count them, and what does not count is named."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dims_worker.config import FilesMetric, FilesSource
from dims_worker.probes.base import Deadline, Reading, ScanContext, readings_by_name
from dims_worker.probes.files.probe import FilesProbe

Run = Callable[..., str]


def metric(measure: str, *paths: str, **more: Any) -> FilesMetric:
    return FilesMetric(source="here", measure=measure, paths=paths or ("**",), **more)


ALL = {"n": metric("count"), "lines": metric("lines"), "bytes": metric("bytes")}


@pytest.fixture
def scan(context: ScanContext, deadline: Deadline) -> Callable[..., dict[str, Reading]]:
    def run(source: dict[str, Any] | None = None, **metrics: FilesMetric) -> dict[str, Reading]:
        where = FilesSource(type="files", path="tree", **(source or {}))
        return readings_by_name(FilesProbe().scan(where, metrics, context, deadline).readings)

    return run


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Hard links, a sparse file, line ends of several kinds, names of all kinds, a pipe, links inside the tree."""
    folder = tmp_path / "tree"
    folder.mkdir()
    (folder / "dos.txt").write_bytes(b"1\r\n2\r\nno end")
    (folder / "mac.txt").write_bytes(b"1\r2\r")
    (folder / "linked.txt").hardlink_to(folder / "dos.txt")
    with (folder / "sparse.bin").open("wb") as file:
        file.truncate(5_000_000)
    for name in (b"new\nline.txt", b"tab\t.txt", b"\xff.txt", b"-n", b"? x", b"100644 x 0\ty", " é ".encode()):
        (folder / os.fsdecode(name)).write_bytes(b"\n")
    (folder / "f").mkdir()
    (folder / "f" / "empty").touch()
    (folder / "inside").symlink_to("f")
    os.mkfifo(folder / "pipe")
    return folder


def truth(folder: Path) -> list[int]:
    """Return files, lines and bytes, by `find`, `wc` and `cat`."""
    find = ["find", str(folder), "-name", ".git", "-prune", "-o", "-type", "f"]
    count = subprocess.run([*find, "-printf", "."], check=True, capture_output=True).stdout
    content = subprocess.run([*find, "-exec", "cat", "{}", "+"], check=True, capture_output=True).stdout
    return [len(count), content.count(b"\n"), len(content)]


def test_unusual_files_count_as_find_and_wc_count_them(
    scan: Callable[..., dict[str, Reading]], tree: Path, git: Run
) -> None:
    results = scan(**ALL)
    assert [reading.value for reading in results.values()] == truth(tree)
    assert {reading.method for reading in results.values()} == {"exact"}
    assert all(not reading.details for reading in results.values())
    git("init", "-q", at="tree")
    assert [reading.value for reading in scan({"ignore": "gitignore"}, **ALL).values()] == truth(tree)
    git("add", "-A", at="tree")
    (tree / "dos.txt").unlink()
    (tree / "dos.txt").mkdir()  # git still has a file of this name
    (tree / "dos.txt" / "below").write_text("1\n")
    assert [reading.value for reading in scan({"ignore": "gitignore"}, **ALL).values()] == truth(tree)


def test_links_out_of_the_tree_are_counted_in_the_details(
    scan: Callable[..., dict[str, Reading]], tree: Path, tmp_path: Path, git: Run
) -> None:
    (tmp_path / "elsewhere" / "deep").mkdir(parents=True)
    (tmp_path / "elsewhere" / "x.py").write_text("1\n")
    (tree / "f" / "code").symlink_to(tmp_path / "elsewhere")
    (tree / "x.py").symlink_to(tmp_path / "elsewhere" / "x.py")
    (tree / "broken.py").symlink_to("/nowhere/y.py")
    git("init", "-q", at="tree")
    for source in ({}, {"ignore": "gitignore"}):
        results = scan(source, py=metric("count", "**/*.py"), top=metric("count", "*.txt"), f=metric("count", "f/**"))
        assert (results["py"].value, results["py"].details) == (0, {"symbolic_links": 3})
        assert results["top"].details == {}
        assert results["f"].details == {"symbolic_links": 1}


def test_a_name_in_other_letters_is_an_error_where_the_file_system_ignores_case(
    scan: Callable[..., dict[str, Reading]], tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.lstat
    monkeypatch.setattr(
        os, "lstat", lambda path, **more: real(str(path).replace("/F", "/f").replace("DOS", "dos"), **more)
    )
    results = scan(folder=metric("count", "F/**"), file=metric("lines", "DOS.txt"), right=metric("count", "f/**"))
    assert results["folder"].error == (
        "F: has another spelling on the disk. Upper and lower case are different in patterns"
    )
    assert "another spelling" in str(results["file"].error)
    assert results["right"].value == 1


def test_times_in_the_future_are_kept(scan: Callable[..., dict[str, Reading]], tree: Path) -> None:
    os.utime(tree / "mac.txt", (4_000_000_000, 4_000_000_000))
    assert scan(newest=metric("newest_age"))["newest"].value == "2096-10-02T07:06:40+00:00"
