"""Run the short form of the chaos test, in parts that run side by side. `make chaos` runs the long form."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.chaos.chaos_run import SHORT, ChaosRun
from tests.chaos.faults import FAULTS
from tests.chaos.plan import chosen_faults
from tests.chaos.report import Report

SEED = int(os.environ.get("DIMS_TEST_SEED") or 17)
PARTS = {
    "kills": ["kill"],
    "stalls": ["stall: ", "stall without end: supervised worker"],
    "refusals": ["refusal"],
    "load and clocks": ["starvation", "GIL", "operator", "clock"],
    "networks": ["network: a host", "network: connections of", "network: connections to the broker"],
}
LONG_FORM = [
    "full disk",
    "stall without end: supervised ingest",
    "stall without end: children",
    "network: connections to the database",
]
"""Only `make chaos` has these: they need root or half a minute each, or DIMS does not recover from them alone yet."""


def test_every_fault_is_in_one_part() -> None:
    patterns = [[pattern] for pattern in (*(p for part in PARTS.values() for p in part), *LONG_FORM)]
    named = [fault.name for pattern in patterns for fault in chosen_faults(pattern)]
    assert sorted(named) == sorted(fault.name for fault in FAULTS)


@pytest.mark.parametrize("part", PARTS)
def test_nothing_is_lost_and_the_service_comes_back(tmp_path: Path, part: str) -> None:
    report = ChaosRun(tmp_path, SEED, SHORT, chosen_faults(PARTS[part]), print).run()
    print(report)
    if report.problems or report.weaknesses:
        pytest.fail(f"repeat with DIMS_TEST_SEED={SEED}\n{report}", pytrace=False)
    check_complete(report, part)


def check_complete(report: Report, part: str) -> None:
    """Every fault of the part was injected, except those that this computer cannot have. All events were sent."""
    wanted = {fault.name for fault in chosen_faults(PARTS[part])}
    assert {result.name for result in report.results} | report.skipped.keys() == wanted
    assert report.events >= SHORT.events
    assert report.quarantined == 0
