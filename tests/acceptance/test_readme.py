"""What the README promises on its first screen, done as a reader would do it; and `dims demo`."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

REPO = Path(__file__).parents[2]
LAST_LINE = re.compile(r"demo: ok commit_to_recorded_ms=\d+ upload_to_recorded_ms=\d+ metrics=\d+")
BOUND = 60


def shell_lines() -> list[str]:
    """The lines of README's ```sh blocks, in their order."""
    found = re.findall(r"^```sh\n(.*?)^```", (REPO / "README.md").read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    return [line for block in found for line in block.splitlines() if line.strip()]


MAKE = [line for line in shell_lines() if line.startswith("make ")]
OTHERS = [line for line in shell_lines() if not line.startswith("make ")]


def living(folder: Path) -> list[psutil.Process]:
    """The processes that work in a folder or name it."""
    found = []
    for process in psutil.process_iter():
        try:
            places = [process.cwd(), *process.cmdline()]
            if process.status() != psutil.STATUS_ZOMBIE and any(str(folder) in place for place in places):
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found


@pytest.fixture
def scratch(tmp_path: Path) -> Iterator[Path]:
    """A folder of the test's own; whatever still runs in it at the end is ended."""
    folder = tmp_path.resolve()
    (folder / "tmp").mkdir()
    (folder / "user").mkdir()
    yield folder
    for process in living(folder):
        process.kill()


def environment(scratch: Path) -> dict[str, str]:
    """A user's plain environment: nothing of DIMS, AWS or git but who commits."""
    who = {
        f"GIT_{role}_{part}": value
        for role in ("AUTHOR", "COMMITTER")
        for part, value in (("NAME", "Ada"), ("EMAIL", "ada@example.org"))
    }
    return {
        **who,
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        "HOME": str(scratch / "user"),
        "TMPDIR": str(scratch / "tmp"),
        "LANG": "C.UTF-8",
        "GIT_CONFIG_NOSYSTEM": "1",
    }


def run(command: list[str], cwd: Path, env: dict[str, str], timeout: float) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        cwd=cwd,
        env=env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def test_the_readme_shows_both_commands_and_a_first_session() -> None:
    assert MAKE == ["make demo", "make test"]
    assert any("dims up" in line for line in OTHERS)
    assert OTHERS[-1] == "dims down"


@pytest.mark.parametrize("line", MAKE)
def test_make_knows_its_targets(line: str, scratch: Path) -> None:
    done = run(["make", "-n", *line.split()[1:]], REPO, environment(scratch), 30)
    assert done.returncode == 0, done.stderr
    assert {"make demo": "dims demo", "make test": "-m pytest"}[line] in done.stdout


def test_the_commands_for_a_repository_of_ones_own_work_in_their_order(scratch: Path) -> None:
    env = environment(scratch)
    project = scratch / "project"
    project.mkdir()
    (project / "loader.py").write_text("x = 1\n")
    assert run(["git", "init", "-q"], project, env, 30).returncode == 0
    try:
        done = run(["bash", "-euo", "pipefail", "-c", "\n".join(OTHERS)], project, env, 180)
        assert done.returncode == 0, f"{done.stdout}{done.stderr}"
        assert "new: first baseline" in done.stdout
        assert "DIMS is up: postgres, valkey, ingest, worker, slow-worker, beat, flower, watch, web" in done.stdout
        status = run(["dims", "status", "--json"], project, env, 30)
        status_document = json.loads(status.stdout)
        assert {one["state"] for one in status_document["processes"]} == {"stopped"}
        assert status_document["broker"].startswith("unreachable")
        assert status_document["database"].startswith("unreachable")
        assert status.returncode == 3
        assert living(scratch) == []
    finally:
        run(["dims", "down"], project, env, 90)


def test_the_demo_ends_by_itself_and_leaves_nothing_behind(scratch: Path) -> None:
    done = run(["dims", "demo"], scratch, environment(scratch), BOUND)
    assert done.returncode == 0, f"{done.stdout}{done.stderr}"
    assert LAST_LINE.fullmatch(done.stdout.rstrip("\n").splitlines()[-1])
    assert living(scratch) == []
    assert list((scratch / "tmp").glob("dims-demo-*")) == []
