"""`dims up` ends in an orderly way when its terminal closes, and refuses a full disk with one sentence."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from dims_worker import local
from dims_worker.local.process import supervised
from tests.conftest import Project, wait_for

YAML = "sources: {p: {type: files, path: .}}\nmetrics: {m: {a: {source: p, measure: count}}}\n"
IN_TERMINAL = """
import fcntl, runpy, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)  # the terminal of this session: closing it sends SIGHUP
runpy.run_module("dims_worker", run_name="__main__")
"""


@pytest.fixture
def configured(project: Project) -> Project:
    project.write({"dims.yaml": YAML, "Procfile": "one: sleep 600\ntwo: sleep 600\n"})
    return project


def test_a_terminal_that_closes_stops_everything(configured: Project, tmp_path: Path) -> None:
    home = Path(configured.env["DIMS_HOME"])
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", IN_TERMINAL, "up", "--procfile", "Procfile"],
        cwd=configured.folder,
        env={**os.environ, **configured.env},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    try:
        wait_for(lambda: {part.state for part in local.stack_status(home)} == {"running"}, timeout=60)
        os.close(ours)  # the kernel sends SIGHUP, and each write to the terminal fails from now on
        process.wait(60)
        assert supervised(home) == []
        assert {part.state for part in local.stack_status(home)} == {"stopped"}
    finally:
        if process.poll() is None:
            process.kill()
            process.wait(10)


FULL_DISK = """
import shutil
usage = shutil.disk_usage(".")
shutil.disk_usage = lambda path: usage._replace(free=1000)
from dims_worker.cli.main import main
main()
"""


def test_a_full_disk_is_refused_with_one_sentence(configured: Project) -> None:
    env = {**os.environ, "DIMS_HOME": configured.env["DIMS_HOME"]}
    env = {name: value for name, value in env.items() if name not in ("DIMS_DATABASE_URL", "DIMS_BROKER_URL")}
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, "up", "--procfile", "Procfile"],
        check=False,
        cwd=configured.folder,
        env=env,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 3
    (line,) = done.stderr.splitlines()
    assert "is full: 1.0 kB are free, and DIMS needs" in line
    assert "Free some space" in line
