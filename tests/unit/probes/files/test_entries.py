"""FilesProbe: entries of documents, and files that change during a scan."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dims_worker.config import FilesMetric, FilesSource
from dims_worker.probes.base import Deadline, Reading, ScanContext, readings_by_name
from dims_worker.probes.files.probe import FilesProbe

PROBE = FilesProbe()
Scan = Callable[..., dict[str, Reading]]

INVENTORY = """\
# Files
- `a.py` 12 lines
  - not one of them
- `b.sql`
### `c.md`\r
text - with a dash
### `d.md`
- the last one has no end"""


def entries(*paths: str, **more: Any) -> FilesMetric:
    return FilesMetric(source="here", measure="entries", paths=paths, **more)


@pytest.fixture
def scan(context: ScanContext, deadline: Deadline) -> Scan:
    def run(*, source: dict[str, Any] | None = None, **metrics: FilesMetric) -> dict[str, Reading]:
        where = FilesSource(type="files", path=".", **(source or {}))
        return readings_by_name(PROBE.scan(where, metrics, context, deadline).readings)

    return run


def test_entries(scan: Scan, tmp_path: Path) -> None:
    (tmp_path / "INVENTORY.md").write_bytes(INVENTORY.encode())
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "x.md").write_text("- one\n- two\n")
    results = scan(
        default=entries("INVENTORY.md"),
        heads=entries("INVENTORY.md", entry=r"^### `[^`]+`$"),
        anywhere=entries("INVENTORY.md", entry="`"),
        both=entries("**/*.md"),
        none=entries("docs/**/*.txt"),
        lines=FilesMetric(source="here", measure="lines", paths=("INVENTORY.md",)),
    )
    expected = {
        "default": len(re.findall(r"(?m)^- ", INVENTORY)),
        "heads": 2,
        "anywhere": sum("`" in line for line in INVENTORY.splitlines()),
        "both": 5,
        "none": 0,
        "lines": INVENTORY.count("\n"),
    }
    assert {name: reading.value for name, reading in results.items()} == expected
    assert {results[name].unit for name in ("default", "none")} == {"entries"}
    assert type(results["default"].value) is int


def test_entries_of_a_missing_document_fail(scan: Scan) -> None:
    results = scan(gone=entries("INVENTORY.md"), zero=entries("INVENTORY.md", absent=0))
    assert (results["gone"].method, results["gone"].error) == ("failed", "INVENTORY.md: No such file or directory")
    assert (results["zero"].method, results["zero"].value) == ("exact", 0)


def test_entries_of_a_file_that_is_not_text(scan: Scan, tmp_path: Path) -> None:
    (tmp_path / "a.md").write_bytes(b"- \xff\xfe\n\x00- no\n- yes\n" + b"x" * 700_000 + b"\n- end\n")
    results = scan(n=entries("a.md"), lines=FilesMetric(source="here", measure="lines"))
    assert (results["n"].value, results["lines"].value) == (3, 5)


def test_a_file_is_opened_once_for_lines_and_entries(
    scan: Scan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.md").write_text("- a\n* b\n")
    opened: list[str] = []
    real = os.open

    def note(path: str, *args: int) -> int:
        opened.append(path)
        return real(path, *args)

    monkeypatch.setattr(os, "open", note)
    results = scan(
        a=entries("a.md"),
        b=entries("*.md", entry=r"^\* "),
        same=entries("a.md", entry=r"^[-*] "),
        lines=FilesMetric(source="here", measure="lines"),
    )
    assert [reading.value for reading in results.values()] == [1, 1, 2, 2]
    assert opened == [f"{tmp_path.resolve()}/a.md"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_entries_of_an_unreadable_document_fail(scan: Scan, tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("- a\n")
    (tmp_path / "a.md").chmod(0)
    results = scan(n=entries("a.md"), files=FilesMetric(source="here", measure="count"))
    assert "a.md: Permission denied" in str(results["n"].error)
    assert results["files"].value == 1


@pytest.mark.parametrize("measure", ["lines", "entries"])
def test_a_file_that_vanishes_before_it_is_read(
    scan: Scan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, measure: str
) -> None:
    for name in ("a.md", os.fsdecode(b"\xff.md")):
        (tmp_path / name).write_text("- a\n")
    (tmp_path / "loop").symlink_to(".")
    real = os.open

    def vanish(path: str, *args: int) -> int:
        if path.endswith("/a.md"):
            Path(path).unlink()
        return real(path, *args)

    monkeypatch.setattr(os, "open", vanish)
    results = scan(n=FilesMetric(source="here", measure=measure, paths=("**/*.md",)))
    assert (results["n"].value, results["n"].details) == (1, {"vanished": 1})
