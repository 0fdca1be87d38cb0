"""The checks of the watcher's limits, and of network file systems."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from dims_worker.checks import watching
from dims_worker.checks.watching import count_folders, inotify_check, network_file_system, watching_checks
from dims_worker.config import Config

WATCHED = "sources:\n  data: {type: files, path: data}\nrules: {}\nmetrics: {}\nwatch: [data]\n"
Load = Callable[..., Config]


def tree(folder: Path, folders: int) -> Path:
    for number in range(folders):
        (folder / str(number)).mkdir(parents=True)
    return folder


def test_folders_are_counted_without_following_links(tmp_path: Path) -> None:
    tree(tmp_path / "data/deep", 8)
    (tmp_path / "data/link").symlink_to(tmp_path)
    (tmp_path / "data/file").touch()
    assert count_folders([tmp_path / "data", tmp_path / "missing"], 100).folders == 10
    assert not count_folders([tmp_path / "data"], 5).complete
    assert not count_folders([tmp_path / "data"], 100, seconds=-1).complete


@pytest.mark.parametrize(("allowed", "state"), [(9, "problem"), (12, "warning"), (100, "ok")])
def test_watches_are_compared_with_the_folders(tmp_path: Path, allowed: int, state: str) -> None:
    found = inotify_check([tree(tmp_path / "data", 9)], allowed)
    assert found.state == state
    assert state == "ok" or "sysctl -w fs.inotify.max_user_watches=524288" in found.fix


@pytest.mark.parametrize(
    ("kind", "expected"),
    [("nfs4", "nfs4"), ("cifs", "cifs"), ("fuse.sshfs", "fuse.sshfs"), ("9p", "9p"), ("ext4", None), ("overlay", None)],
)
def test_the_mount_of_a_path_decides(tmp_path: Path, monkeypatch, kind: str, expected: str | None) -> None:
    mounts = tmp_path / "mountinfo"
    place = str(tmp_path / "on mount").replace(" ", "\\040")
    mounts.write_text(
        "22 1 8:1 / / rw - ext4 /dev/sda rw\n"
        f"23 22 0:9 / {place} rw,relatime shared:1 - {kind} server:/x rw\n"
        f"24 22 0:10 / {place}er rw - nfs server:/y rw\n"
    )
    monkeypatch.setattr(watching, "MOUNTS", mounts)
    assert network_file_system(tmp_path / "on mount/data/x") == expected
    assert network_file_system(tmp_path / "beside") is None


def test_all_checks_of_a_watched_folder(tmp_path: Path, load: Load) -> None:
    (tmp_path / "data").mkdir()
    found = {check.name: check.state for check in watching_checks(load(tmp_path, WATCHED))}
    expected = {"watcher", "watched mounts", "data mount"} | (
        {"watches", "inotify"} if watching.INOTIFY.is_dir() else set()
    )
    assert found.keys() == expected


def test_a_data_directory_on_a_network_file_system_is_a_warning(tmp_path: Path, load: Load, monkeypatch) -> None:
    mounts = tmp_path / "mountinfo"
    mounts.write_text(f"23 22 0:9 / {os.path.realpath(tmp_path)} rw - nfs server:/x rw\n")
    monkeypatch.setattr(watching, "MOUNTS", mounts)
    found = {check.name: check for check in watching_checks(load(tmp_path, WATCHED))}
    assert found["data mount"].state == found["watched mounts"].state == "warning"
    assert "Set DIMS_HOME" in found["data mount"].fix and "schedule" in found["watched mounts"].fix
