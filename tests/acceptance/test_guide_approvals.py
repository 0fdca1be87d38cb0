"""The example of docs/approvals.md, done as a reader would do it: each command, and what it prints."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import REPO, Project
from tests.docs.pages import blocks, sections

EXAMPLE = sections((REPO / "docs" / "approvals.md").read_text(encoding="utf-8"), 2)["An example"]
CODES = {"dims verify --update": [1, 0]}
"""Exit codes other than 0, in the order of the calls."""


def steps(text: str) -> Iterator[tuple[str, str]]:
    """Each command of a text's console blocks, and the output shown below it."""
    for block in blocks(text, "console"):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, _, output = part.partition("\n")
            yield command, output


def same(text: str) -> list[str]:
    """The lines with what differs from one time to the next left out: times, and how wide a table is for them."""
    text = re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", "DATE", text)
    text = re.sub(r"\d+ (seconds?|minutes?) ago|just now", "TIME ago", text)
    text = re.sub(r"\bin (\d+ ms|\d+\.\d+ s)(?=:)", "in TIME", text)
    lines = [" ".join(re.sub("─+", "─", line).split()) for line in text.splitlines()]
    return [line for line in lines if line]


@pytest.fixture
def folder(project: Project) -> Path:
    (configuration,) = blocks(EXAMPLE, "yaml")
    project.write({"dims.yaml": configuration})
    return project.folder


def test_the_example_of_the_guide_does_what_it_says(project: Project, folder: Path) -> None:
    env = {
        **os.environ,
        **project.env,
        "LANG": "C.UTF-8",
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
    }
    codes = {command: list(left) for command, left in CODES.items()}
    done = 0
    for command, expected in steps(EXAMPLE):
        if name := re.fullmatch(r"export (\w+)=(\w+)", command):
            env[name[1]] = name[2]
            continue
        ran = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", command],
            cwd=folder,
            env=env,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert same(ran.stdout) == same(expected), f"{command}\n{ran.stdout}{ran.stderr}"
        left = codes.get(command)
        assert ran.returncode == (left.pop(0) if left else 0), f"{command}\n{ran.stderr}"
        done += 1
    assert done == 8
    assert not any(codes.values())


def test_the_example_shows_the_numbers_of_the_guide() -> None:
    commands = [command for command, _ in steps(EXAMPLE)]
    assert any("172726" in command for command in commands)
    assert "echo 205000 > objects.txt" in commands
    for said in ("172,726 objects", "205,000 objects", "18.7 %", "waits for approval", "approved by ada"):
        assert said in EXAMPLE


def test_what_is_left_out_of_the_comparison_is_nothing_but_times_and_widths() -> None:
    assert same("a  1\n\n") == ["a 1"]
    assert same("ran 3 seconds ago") == same("ran 11 minutes ago") == same("ran just now") != same("ran 3 objects ago")
    assert same("18.7 %") != same("18.6 %")
    assert same("run 2") != same("run 3")
