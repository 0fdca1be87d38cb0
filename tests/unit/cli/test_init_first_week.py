"""Test that ordinary work in a fresh project needs no one, with the configuration of `dims init`."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from dims_worker.domain.decide import Baseline, Judge
from tests.fixtures.ordinary_work import OrdinaryWork
from tests.unit.cli.test_init import NOW, drafted, measured

COMMITS, DAYS, UPLOADS = 100, 7, 5


def start_with_everything(work: OrdinaryWork) -> None:
    for _ in range(4):
        work.add_module()
        work.document()
        work.upload()


@pytest.mark.parametrize("start", [lambda _: None, start_with_everything], ids=["empty", "everything"])
def test_no_change_of_a_first_week_needs_anyone(start: Callable[[OrdinaryWork], None], tmp_path: Path) -> None:
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    work = OrdinaryWork(tmp_path, seed=1)
    start(work)
    config = drafted(tmp_path)
    baselines = first = measured(config)
    work.commit()
    found = []
    for number in range(COMMITS):
        work.commit()
        if number % (COMMITS // DAYS) == 0:
            for _ in range(UPLOADS):
                work.upload()
        if number % 4 == 3:
            readings = measured(config)
            for name, value in readings.items():
                judge = Judge.of(config, name)
                verdict = judge.decide(Baseline(baselines[name]), value, Baseline(first[name]), NOW)
                if verdict.tier != "auto":
                    found.append((number, name, baselines[name], value, verdict.reason))
            baselines = readings
    assert found == []
    assert readings["git.commits"] == COMMITS + 1
