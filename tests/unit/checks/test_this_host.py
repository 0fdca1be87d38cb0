"""The checks of what is installed on a host, of permissions and of ports."""

from __future__ import annotations

import resource
import socket
import subprocess
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import pytest

from dims_worker.checks import installation
from dims_worker.checks.file_access import configuration_files_check, ports_check, secrets_check
from dims_worker.checks.installation import (
    installation_checks,
    open_files_check,
    second_dims_check,
    time_zones_check,
    versions_check,
)
from dims_worker.config import Config

Load = Callable[..., Config]
MINIMAL = "sources: {}\nmetrics: {}\nrules: {}\n"


def test_this_installation_is_fine(project: Path, load: Load) -> None:
    found = {check.name: check for check in installation_checks(load(project), {"PATH": ""})}
    assert {name for name, check in found.items() if check.state != "ok"} == set()
    assert found["versions"].summary.startswith("DIMS ") and "git 2." in found["git"].summary


def test_packages_that_do_not_fit_are_a_problem_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    real = metadata.version
    monkeypatch.setattr(metadata, "version", lambda name: "5.4.0" if name == "celery" else real(name))
    found = versions_check()
    assert found.state == "problem" and "5.4.0 is installed" in found.summary
    assert found.fix.startswith(f"{sys.executable} -m pip install 'celery")


def test_another_dims_on_the_path_is_a_warning(tmp_path: Path) -> None:
    other = tmp_path / "dims"
    other.write_text("#!/bin/sh\n")
    other.chmod(0o755)
    found = second_dims_check(str(tmp_path))
    assert found.state == "warning" and str(other) in found.summary
    assert second_dims_check(str(tmp_path / "empty")).state == "ok"


def test_a_host_without_time_zones(project: Path, load: Load, monkeypatch) -> None:
    monkeypatch.setattr(installation, "ZoneInfo", lambda name: (_ for _ in ()).throw(FileNotFoundError(name)))
    assert time_zones_check(load(project)).fix.endswith("pip install tzdata")


def test_few_open_files_are_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    for limits, fix in (((256, 4096), "ulimit -n 1024"), ((256, 512), "hard limit (512)")):
        monkeypatch.setattr(resource, "getrlimit", lambda _, limits=limits: limits)
        found = open_files_check()
        assert found.state == "warning" and fix in found.fix


def test_secrets_that_others_can_read(tmp_path: Path) -> None:
    home = tmp_path / ".dims"
    assert secrets_check(home).state == "ok"
    home.mkdir(mode=0o700)
    (home / "pg").mkdir()
    for name in ("producer.env", "pg/password"):
        (home / name).write_text("secret")
        (home / name).chmod(0o644)
    assert secrets_check(home).state == "ok"  # no other user can enter
    home.chmod(0o755)
    found = secrets_check(home)
    assert found.state == "problem" and "2 files" in found.summary
    subprocess.run(found.fix, shell=True, check=True)
    assert secrets_check(home).state == "ok"
    home.chmod(0o777)
    found = secrets_check(home)
    assert found.state == "problem" and "anyone can send events" in found.summary


def test_a_configuration_that_everyone_can_change(project: Path, load: Load) -> None:
    config = load(project)
    assert configuration_files_check(config).state == "ok"
    config.file.chmod(0o666)
    found = configuration_files_check(config)
    assert found.state == "problem" and found.fix == f"chmod o-w {config.file}"


@pytest.mark.parametrize(
    ("url", "state"),
    [
        ("postgresql://app:hunter2@db/x", "warning"),
        ("postgresql://app:${PASSWORD}@db/x", "ok"),
        ("${URL}", "ok"),
        ("postgresql://db/x", "ok"),
    ],
)
def test_a_password_in_the_file_is_found_and_not_shown(project: Path, load: Load, url: str, state: str) -> None:
    text = f'sources:\n  db: {{type: sql, url: "{url}"}}\nmetrics: {{}}\nrules: {{}}\n'
    found = configuration_files_check(load(project, text, {"PASSWORD": "x", "URL": "sqlite://"}))
    assert found.state == state and "hunter2" not in repr(found)
    assert state == "ok" or "line 2, contains a password" in found.summary


def test_a_channel_that_is_off_is_a_warning(project: Path, load: Load) -> None:
    text = MINIMAL + "notify: {channels: {team: {url: ''}}}\n"
    found = configuration_files_check(load(project, text))
    assert found.state == "warning" and found.summary.endswith("send nothing: team")


def test_ports_that_are_taken() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        found = ports_check({"DIMS_WEB_PORT": port, "DIMS_FLOWER_PORT": "0"}, running=False)
        assert found.state == "warning" and found.fix.startswith("Set DIMS_WEB_PORT to another port")
        assert ports_check({"DIMS_WEB_PORT": port}, running=True).state == "ok"
    assert ports_check({"DIMS_WEB_PORT": "0", "DIMS_FLOWER_PORT": "0"}, running=False).state == "ok"
