"""Test the parts of the chaos test that need no processes: its plan, its expectations and its report."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.chaos.cluster import Cluster
from tests.chaos.faults import FAULTS
from tests.chaos.faults.base import no_problem, problem, warning
from tests.chaos.faults.kills import KillBroker
from tests.chaos.faults.networks import CutNamespace
from tests.chaos.plan import chosen_faults, make_plan, skipped_faults
from tests.chaos.report import Report
from tests.chaos.runner import FaultResult
from tests.chaos.status_check import StatusAnswer, problems_of


def test_names_of_faults_are_unique() -> None:
    assert len({fault.name for fault in FAULTS}) == len(FAULTS)


def test_a_seed_always_gives_the_same_plan_with_every_fault() -> None:
    plan = make_plan(random.Random(3), FAULTS, 300)
    assert plan == make_plan(random.Random(3), FAULTS, 300)
    assert plan != make_plan(random.Random(4), FAULTS, 300)
    assert len(plan) == 300
    assert set(plan) == set(FAULTS)
    assert plan.count(KillBroker) > plan.count(CutNamespace)


def test_a_pattern_that_matches_no_fault_lists_the_faults() -> None:
    assert chosen_faults(["kill: broker"]) == [KillBroker]
    with pytest.raises(ValueError, match="kill: broker"):
        chosen_faults(["no such fault"])


def test_a_fault_that_needs_root_is_skipped_with_the_reason(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path, random.Random(1), isolated=False, unavailable={"network": "needs root"})
    assert skipped_faults(cluster, [KillBroker, CutNamespace]) == {CutNamespace.name: "needs root"}


def test_an_expectation_needs_the_exit_code_and_the_sentence() -> None:
    down, up = ("broker: unreachable",), ()
    assert problem("broker").is_met(3, list(down))
    assert not problem("broker").is_met(0, list(down))
    assert not problem("database").is_met(3, list(down))
    assert warning("broker").is_met(0, list(down))
    assert not warning("broker").is_met(0, list(up))
    assert no_problem().is_met(0, list(up))


def test_problems_are_read_from_the_checks_of_dims_status() -> None:
    checks = [
        {"name": "broker", "state": "ok", "summary": "up"},
        {"name": "beat", "state": "problem", "summary": "late"},
    ]
    assert problems_of({"checks": checks}) == ["beat: late"]


def test_the_report_shows_a_wrong_answer_before_a_right_one() -> None:
    right = FaultResult("kill: broker", "exit 3", status=StatusAnswer(3, ("broker: down",), 1.0), status_right=True)
    wrong = FaultResult("kill: broker", "exit 3", status=StatusAnswer(0, (), 1.0), status_right=False, recovery=2.5)
    right.recovery = 21.0
    right.problems = ["back only after 21.0 s"]
    report = Report(7, results=[right, wrong], skipped={"full disk: broker": "a mount needs root"})
    text = report.markdown()
    assert "| kill: broker | 2 | 0 | no problem | exit 3 | 1 of 2 |" in text
    assert "full disk: broker: a mount needs root" in text
    assert "longest recovery of the service: 21.0 s after `kill: broker`" in text
    assert len(report.weaknesses) == 2
