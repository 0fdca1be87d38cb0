"""Run `dims status --json` as an operator does, and read which problems it names."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import Any

from tests.chaos.cluster import PLAIN, Cluster
from tests.chaos.faults.base import Expectation

TIMEOUT = 45.0
"""Seconds after which an answer of `dims status` counts as missing."""
NO_ANSWER = -1


@dataclass(frozen=True, slots=True)
class StatusAnswer:
    """The exit code of `dims status`, and a sentence for each problem that it names, such as `broker: unreachable`."""

    code: int
    problems: tuple[str, ...]
    seconds: float

    def meets(self, expected: Expectation) -> bool:
        return expected.is_met(self.code, list(self.problems))

    def named(self, pattern: str = "", length: int = 160) -> str:
        """Return the problem that matches the pattern, or all of them, in at most `length` characters."""
        matching = [problem for problem in self.problems if pattern and re.search(pattern, problem, re.IGNORECASE)]
        text = "; ".join(matching or self.problems) or "no problem"
        return text if len(text) <= length else f"{text[: length - 1]}…"


def run_status(cluster: Cluster) -> StatusAnswer:
    """Run `dims status --json` beside the servers, with the user and the data directory of a worker's host."""
    env = cluster.environment("operator") | {"DIMS_HOME": str(cluster.home(PLAIN))}
    began = time.monotonic()
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "dims_worker", "status", "--json"],
            cwd=cluster.world.folder,
            env=env,
            check=False,
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
        )
    except subprocess.TimeoutExpired:
        return StatusAnswer(NO_ANSWER, (f"dims status did not answer within {TIMEOUT:g} s",), TIMEOUT)
    seconds = time.monotonic() - began
    try:
        problems = problems_of(json.loads(done.stdout))
    except ValueError:
        text = " ".join((done.stderr or done.stdout).split())
        problems = [f"no JSON: {text[-300:]}"]
    return StatusAnswer(done.returncode, tuple(problems), seconds)


def problems_of(document: dict[str, Any]) -> list[str]:
    """Return a sentence for each problem in the JSON document."""
    if "checks" in document:
        return [f"{check['name']}: {check['summary']}" for check in document["checks"] if check["state"] != "ok"]
    lines = [(name, text) for name, text in document.items() if isinstance(text, str)]
    return [f"{name}: {text}" for name, text in lines if text.startswith(("unreachable", "behind"))]
