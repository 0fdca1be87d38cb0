"""Pointers of Git LFS and git-annex: the file is elsewhere, so its lines are unknown, and its size is what they say."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from dims_worker.config import FilesMetric, FilesSource
from dims_worker.probes.base import Deadline, Reading, ScanContext, readings_by_name
from dims_worker.probes.files.probe import FilesProbe

LFS = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0a' * 32}\nsize 5242880\n"
ANNEX = f"/annex/objects/SHA256E-s777--{'0a' * 32}.csv\n"


def metric(measure: str, *paths: str, **more: Any) -> FilesMetric:
    return FilesMetric(source="here", measure=measure, paths=paths or ("**",), **more)


def scan(context: ScanContext, deadline: Deadline, **metrics: FilesMetric) -> dict[str, Reading]:
    return readings_by_name(FilesProbe().scan(FilesSource(type="files", path="."), metrics, context, deadline).readings)


@pytest.mark.parametrize(
    ("content", "size", "fix"),
    [
        (LFS, 5_242_880, "is a Git LFS pointer, not the file. Run git lfs pull"),
        (LFS.replace("\n", "\r\n"), 5_242_880, "git lfs pull"),
        (LFS.replace("oid ", f"ext-0-foo sha256:{'1' * 64}\noid "), 5_242_880, "git lfs pull"),
        (LFS.replace("git-lfs", "hawser"), 5_242_880, "git lfs pull"),
        (ANNEX, 777, "is a git-annex pointer, not the file. Run git annex get"),
    ],
)
def test_a_pointer_has_no_lines_and_the_size_of_its_file(
    context: ScanContext, deadline: Deadline, tmp_path: Path, content: str, size: int, fix: str
) -> None:
    (tmp_path / "big.csv").write_bytes(content.encode())
    (tmp_path / "a.csv").write_text("1\n")
    results = scan(
        context,
        deadline,
        n=metric("count"),
        bytes=metric("bytes"),
        lines=metric("lines"),
        entries=metric("entries", entry="^oid"),
        other=metric("lines", "a.csv"),
    )
    assert results["n"].value == 2
    assert (results["bytes"].value, results["bytes"].details) == (size + 2, {"lfs_pointers": 1})
    for name in ("lines", "entries"):
        assert str(results[name].error).startswith("big.csv: is a ")
        assert fix in str(results[name].error)
    assert results["other"].value == 1


def test_bytes_alone_find_pointers_too(
    context: ScanContext, deadline: Deadline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "big.csv").write_text(LFS)
    (tmp_path / "large.csv").write_text("x" * 5000)
    (tmp_path / "tiny.csv").write_text("x")
    opened: list[str] = []
    real = os.open
    monkeypatch.setattr(os, "open", lambda path, *args: opened.append(str(path)) or real(path, *args))
    results = scan(context, deadline, bytes=metric("bytes"))
    assert results["bytes"].value == 5_242_880 + 5001
    assert [Path(path).name for path in opened] == ["big.csv"]  # only a file that is small enough is opened


def test_a_pointer_without_a_size_fails_the_bytes(context: ScanContext, deadline: Deadline, tmp_path: Path) -> None:
    (tmp_path / "big.csv").write_text(LFS.replace("size 5242880\n", "size \n"))
    results = scan(context, deadline, n=metric("count"), bytes=metric("bytes"))
    assert results["n"].value == 1
    assert "big.csv: is a Git LFS pointer" in str(results["bytes"].error)


@pytest.mark.parametrize(
    "content", [LFS + "x" * 1024, "# about\n" + LFS, "version https://example.org/spec/v1\nsize 1\n"]
)
def test_a_text_about_pointers_is_a_file(
    context: ScanContext, deadline: Deadline, tmp_path: Path, content: str
) -> None:
    (tmp_path / "a.md").write_text(content)
    results = scan(context, deadline, bytes=metric("bytes"), lines=metric("lines"))
    assert (results["bytes"].value, results["bytes"].details) == (len(content), {})
    assert results["lines"].value == content.count("\n")
