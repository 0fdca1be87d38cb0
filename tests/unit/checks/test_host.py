"""The checks of the data directory, the spool and the disks."""

from __future__ import annotations

import os
from collections import namedtuple
from pathlib import Path

import pytest

from dims_worker.checks import host

Usage = namedtuple("Usage", "total used free")
GB = 1_000_000_000
HOUR = 3600


@pytest.mark.parametrize(
    ("total", "free", "state"),
    [
        (90_000_000, 90_000_000, "problem"),
        (100 * GB, 99_999_999, "problem"),
        (100 * GB, 100_000_000, "warning"),
        (10 * GB, GB - 1, "warning"),
        (10 * GB, GB, "ok"),
        (100 * GB, 5 * GB - 1, "warning"),
        (100 * GB, 5 * GB, "ok"),
        (100_000 * GB, 20 * GB - 1, "warning"),
        (100_000 * GB, 20 * GB, "ok"),
    ],
)
def test_a_disk_with_little_free_space_is_reported_with_its_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, total: int, free: int, state: str
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda path: Usage(total, total - free, free))
    check, numbers = host.disk_check({"data directory": tmp_path / "new" / "home"})
    assert (check.name, check.state, numbers) == ("disk", state, {"data directory": free})
    assert str(tmp_path) in check.summary
    assert bool(check.fix) == (state != "ok")
    assert str(tmp_path) not in check.public + check.fix


def test_one_disk_is_reported_once_and_the_worst_of_two_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check, numbers = host.disk_check({"data directory": tmp_path, "temporary files": tmp_path})
    assert check.summary.count("free at") == 1
    assert set(numbers) == {"data directory", "temporary files"}
    full = Path("/proc")
    monkeypatch.setattr("shutil.disk_usage", lambda path: Usage(GB, GB, 0 if path == full else 300 * GB))
    check, _ = host.disk_check({"data directory": tmp_path, "temporary files": full})
    assert check.state == "problem"
    assert "temporary files" in check.summary and "data directory" not in check.summary


def spool(home: Path, *names: str, folder: str = "new", age: float = 0) -> None:
    (home / "spool" / folder).mkdir(parents=True, exist_ok=True)
    for name in names:
        path = home / "spool" / folder / name
        path.write_text("{}")
        os.utime(path, (1_000_000 - age, 1_000_000 - age))


def checked(home: Path) -> tuple[str, str]:
    check = host.spool_check(home, host.read_spool(home, now=1_000_000))
    assert bool(check.fix) == (check.state != "ok")
    return check.state, check.summary


def test_the_spool_is_empty_waits_or_is_late(tmp_path: Path) -> None:
    assert checked(tmp_path) == ("ok", "empty")
    spool(tmp_path, "1.json", "2.git", age=60)
    assert checked(tmp_path) == ("ok", "2 events to be sent")
    spool(tmp_path, "0.json", age=2 * HOUR)
    assert checked(tmp_path) == ("warning", "3 events to be sent, the oldest for 2 hours")
    (tmp_path / "spool" / "full").touch()
    assert checked(tmp_path)[0] == "problem"


def test_files_that_could_not_be_read_are_a_warning(tmp_path: Path) -> None:
    spool(tmp_path, "1.json", folder="bad")
    state, summary = checked(tmp_path)
    assert (state, summary) == ("warning", f"empty; 1 file could not be read: see {tmp_path}/spool/bad")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files to another user")
def test_a_spool_of_another_user_is_a_problem(tmp_path: Path) -> None:
    spool(tmp_path, "1.json")
    os.chown(tmp_path, 12345, 12345)
    state, summary = checked(tmp_path)
    assert state == "problem"
    assert f"such as {tmp_path}/spool" in summary


def test_a_spool_that_cannot_be_read_is_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spool(tmp_path, "1.json")

    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("os.scandir", refuse)
    assert checked(tmp_path) == ("problem", f"{tmp_path}/spool/new cannot be read: Permission denied")


def test_the_data_directory_is_usable_missing_or_not_a_folder(tmp_path: Path) -> None:
    assert host.data_directory_check(tmp_path).state == "ok"
    assert host.data_directory_check(tmp_path / "new").state == "ok"
    (tmp_path / "file").touch()
    assert host.data_directory_check(tmp_path / "file").state == "problem"
    assert host.data_directory_check(tmp_path / "file" / "below").state == "problem"


def test_the_state_of_a_process_on_this_host() -> None:
    assert host.process_state(2**22 + 1) == "gone"
    assert host.process_state(1) in ("gone", "alive")
