"""Test that logs stay short while their process keeps writing, also on a full disk."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from dims_worker.local import log_rotation
from dims_worker.local.log_rotation import rotate_logs

WRITER = """
import os, sys, time
out = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
for number in range(40_000):
    os.write(out, b"line %06d\\n" % number)
print("done")
"""


def test_a_long_log_is_copied_and_cut_and_a_short_one_stays(tmp_path: Path) -> None:
    long, short = tmp_path / "worker.log", tmp_path / "beat.log"
    long.write_text("x" * 100)
    long.chmod(0o600)
    short.write_text("y" * 10)
    assert rotate_logs(tmp_path, 50) == []
    assert long.stat().st_size == 0
    assert (tmp_path / "worker.log.1").read_text() == "x" * 100
    assert (tmp_path / "worker.log.1").stat().st_mode & 0o777 == 0o600
    assert short.read_text() == "y" * 10
    assert sorted(path.name for path in tmp_path.iterdir()) == ["beat.log", "worker.log", "worker.log.1"]


def test_an_older_copy_is_replaced(tmp_path: Path) -> None:
    log = tmp_path / "worker.log"
    for text in ("first", "second"):
        log.write_text(text * 20)
        assert rotate_logs(tmp_path, 50) == []
    assert (tmp_path / "worker.log.1").read_text() == "second" * 20


def test_a_process_goes_on_writing_to_a_log_that_is_cut(tmp_path: Path) -> None:
    log = tmp_path / "worker.log"
    writer = subprocess.Popen([sys.executable, "-c", WRITER, str(log)], stdout=subprocess.PIPE)
    largest = 0
    while writer.poll() is None:
        rotate_logs(tmp_path, 20_000)
        largest = max(largest, log.stat().st_size if log.exists() else 0)
    assert writer.communicate()[0] == b"done\n"
    with log.open("ab") as out:
        out.write(b"end\n")
    text = (tmp_path / "worker.log.1").read_text() + log.read_text()
    assert "\0" not in text
    assert text.endswith("line 039999\nend\n") or text.endswith("end\n")


def test_a_missing_folder_and_other_files_do_no_harm(tmp_path: Path) -> None:
    assert rotate_logs(tmp_path / "missing") == []
    (tmp_path / "notes.txt").write_text("x" * 100)
    assert rotate_logs(tmp_path, 10) == []
    assert (tmp_path / "notes.txt").read_text() == "x" * 100


def test_a_full_disk_leaves_a_log_until_it_is_four_times_too_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("shutil.copyfileobj", full)
    monkeypatch.setattr(log_rotation, "KEPT", 30)
    log = tmp_path / "worker.log"
    log.write_text("line\n" * 20)
    assert rotate_logs(tmp_path, 50) == []
    assert log.stat().st_size == 100
    log.write_text("line\n" * 100)
    (problem,) = rotate_logs(tmp_path, 50)
    assert "No space left on device" in problem
    assert str(log) in problem
    assert log.read_text() == "line\n" * 5
    assert [path.name for path in tmp_path.iterdir()] == ["worker.log"]


def test_the_supervisor_checks_now_and_then_and_reports_once_an_hour(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[Path] = []
    said: list[str] = []

    def rotate(folder: Path) -> list[str]:
        calls.append(folder)
        return ["a problem"]

    monkeypatch.setattr(log_rotation, "rotate_logs", rotate)
    rotation = log_rotation.LogRotation(tmp_path, said.append)
    for now in (0.0, 1.0, 6.0, 12.0, 3700.0):
        rotation.check(now)
    assert len(calls) == 4
    assert said == ["a problem"] * 2
