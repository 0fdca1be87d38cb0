"""The tutorial, followed as a reader follows it: each command, and the output that it shows."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.test_guide_approvals import same, steps
from tests.acceptance.test_readme import environment, living, run, scratch
from tests.conftest import REPO
from tests.docs.pages import blocks

__all__ = ["scratch"]  # a fixture

TUTORIAL = (REPO / "docs" / "tutorial.md").read_text(encoding="utf-8")
WAITS = ("dims events", "dims metrics")
"""Commands that show what a worker does in the background: a reader repeats them a second later."""


def comparable(text: str, folder: Path) -> list[str]:
    """The lines without what differs between two walks: the folder, the host, hashes, numbers of runs, the link."""
    text = re.sub(r"http://127\.0\.0\.1:\d+/sign-in\?code=\S+", "LINK", text.replace(str(folder), "/srv/nba"))
    text = re.sub(r"\b[0-9a-f]{7}(?=[0-9a-f]{33}\b|\b)", "HASH", re.sub(r"\b[0-9a-f]{40}\b", "HASH", text))
    text = re.sub(r"\brun \d+ of|(?<=the history changed) +\d+", "RUN", text)  # how many runs a start takes varies
    return same(re.sub(r"dims:git\.[\w.-]+:", "dims:git.HOST:", text))


@pytest.fixture
def folder(scratch: Path) -> Iterator[Path]:
    """The repository of the tutorial; whatever happens, DIMS does not run there afterwards."""
    made = scratch / "nba"
    yield made
    if made.exists():
        subprocess.run(["dims", "down"], cwd=made, env=reader(scratch), capture_output=True, timeout=90, check=False)
    assert living(scratch) == []


def reader(scratch: Path) -> dict[str, str]:
    """The environment of a user called ada, whose new repositories begin on `main`."""
    branch = {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "init.defaultBranch", "GIT_CONFIG_VALUE_0": "main"}
    return environment(scratch) | branch | {"LOGNAME": "ada"}


def add_metric(folder: Path) -> None:
    """Edit the configuration as the tutorial asks."""
    (lines,) = blocks(TUTORIAL, "yaml fragment")
    file = folder / "dims.yaml"
    text = file.read_text(encoding="utf-8")
    assert text.count("\nmetrics:\n") == 1
    file.write_text(text.replace("\nmetrics:\n", f"\nmetrics:\n{lines}"), encoding="utf-8")


def test_each_command_of_the_tutorial_prints_what_the_tutorial_shows(scratch: Path, folder: Path) -> None:
    cwd, env = scratch, reader(scratch)
    commands = list(steps(TUTORIAL))
    for command, expected in commands:
        if command == "cd nba":
            cwd = folder
            continue
        if command == "dims config check":
            add_metric(folder)
        output = run_until(command, expected, cwd, env)
        if expected:
            assert comparable(output, folder) == comparable(expected, Path("/srv/nba")), command
    assert [command for command, _ in commands][-1] == "dims down"


def run_until(command: str, expected: str, cwd: Path, env: dict[str, str]) -> str:
    """The command's output, once it is the expected one; after half a minute, the last output."""
    end = time.monotonic() + 30
    while True:
        done = run(["bash", "-euo", "pipefail", "-c", command], cwd, env, 120)
        right = done.returncode == 0 and comparable(done.stdout, cwd) == comparable(expected, Path("/srv/nba"))
        if right or not command.startswith(WAITS) or time.monotonic() > end:
            assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
            return done.stdout
        time.sleep(0.5)
