"""Run the short form of the chaos test. `make chaos` runs the long one."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from tests.chaos.chaos_run import SHORT, ChaosRun


def test_nothing_is_lost_while_processes_are_killed(tmp_path: Path) -> None:
    seed = int(os.environ.get("DIMS_TEST_SEED") or random.SystemRandom().randrange(10**6))
    report = ChaosRun(tmp_path, seed, SHORT).run()
    print(report)
    if report.problems:
        pytest.fail(f"repeat with DIMS_TEST_SEED={seed}\n{report}", pytrace=False)
    assert report.killed.total() == SHORT.kills
    assert set(report.killed) == {"main", "child", "broker", "database"}
    assert report.events == SHORT.events
