"""Test the workflows in config/ on the generated world: their results agree with the metrics."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

import pytest

from tests.acceptance.conftest import Environment

EXIT_CODES = {
    "file-inventory": 0,
    "local-inventory": 0,
    "gap-analysis": 0,
    "aws-inventory": 0,
    "sync-status": 1,
    "audit": 0,
}
"""The exit code of each workflow. The local copy differs from the bucket."""


def _run(environment: Environment, name: str) -> tuple[int, dict[str, Any]]:
    done = environment.project.dims("workflow", name, "--json")
    assert done.returncode in (0, 1, 3), done.stdout + done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    return done.returncode, result


def test_each_workflow_reaches_all_its_sources(environment: Environment) -> None:
    for name, expected in EXIT_CODES.items():
        code, result = _run(environment, name)
        assert (code, result["unreached"]) == (expected, {}), name
    reports = {path.name for path in (environment.project.folder / "reports").iterdir()}
    assert reports == {
        "local_inventory.md",
        "gap_analysis.md",
        "missing_game_ids.txt",
        "aws_inventory.md",
        "sync_status.md",
        "audit.md",
    }


def test_the_inventory_documents_what_the_metric_counts(environment: Environment) -> None:
    _, result = _run(environment, "file-inventory")
    code, found = environment.verify("-c", "file_inventory")
    assert code == 0
    assert found["file_inventory.total_files_documented"]["value"] == result["totals"]["files"]
    written = datetime.fromisoformat(found["file_inventory.last_inventory_age_days"]["instant"])
    assert abs((written - datetime.fromisoformat(result["generated_at"])).total_seconds()) < 60


def test_workflows_and_metrics_agree(environment: Environment) -> None:
    truth = environment.world.truth
    _, gaps = _run(environment, "gap-analysis")
    totals = gaps["games"]["all"]
    assert totals["without_box_score"] == truth["data_gaps.missing_games_count"]
    assert totals["without_play_by_play"] == truth["data_gaps.games_without_pbp"]
    named = (environment.project.folder / "reports" / "missing_game_ids.txt").read_text().split()
    complete = environment.world.with_box_score & environment.world.with_pbp
    assert sorted(named) == sorted(game.id for game in environment.world.games if game.id not in complete)

    _, costs = _run(environment, "aws-inventory")
    assert costs["cost"]["sum_usd"] == pytest.approx(truth["aws_inventory.monthly_cost_estimate_usd"], rel=1e-12)
    assert costs["lake"]["objects"] == truth["s3_storage.total_objects"]

    code, sync = _run(environment, "sync-status")
    assert (code, sync["synced"]) == (1, False)


def test_the_aws_inventory_needs_no_database(environment: Environment) -> None:
    environment.project.env["NBA_DATABASE_URL"] = ""
    code, result = _run(environment, "aws-inventory")
    assert (code, result["unreached"]) == (0, {})


def test_a_missing_database_is_reported_and_is_not_an_empty_result(environment: Environment) -> None:
    environment.project.env["NBA_DATABASE_URL"] = "postgresql://ada:hunter2@127.0.0.1:1/nba_simulator"
    code, result = _run(environment, "gap-analysis")
    assert code == 3
    assert list(result["unreached"]) == ["warehouse"]
    report = (environment.project.folder / "reports" / "gap_analysis.md").read_text()
    assert "warehouse" in report and "hunter2" not in report + json.dumps(result)
