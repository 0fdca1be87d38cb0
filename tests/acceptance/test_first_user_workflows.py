"""The first user's workflows on the made world: what they find is what the metrics measure."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

import pytest

from tests.acceptance.conftest import Place

FINE = {"file-inventory": 0, "local-inventory": 0, "gap-analysis": 0, "aws-inventory": 0, "sync-status": 1, "audit": 0}
"""Each workflow, and how it ends where the local copy is not the lake."""


def _run(place: Place, name: str) -> tuple[int, dict[str, Any]]:
    done = place.project.dims("workflow", name, "--json")
    assert done.returncode in (0, 1, 3), done.stdout + done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    return done.returncode, result


def test_each_workflow_reaches_all_its_sources(place: Place) -> None:
    for name, expected in FINE.items():
        code, result = _run(place, name)
        assert (code, result["unreached"]) == (expected, {}), name
    reports = {path.name for path in (place.project.folder / "reports").iterdir()}
    assert reports == {
        *("local_inventory.md", "gap_analysis.md", "missing_game_ids.txt", "aws_inventory.md"),
        *("sync_status.md", "audit.md"),
    }


def test_the_inventory_documents_what_the_metric_counts(place: Place) -> None:
    _, result = _run(place, "file-inventory")
    code, found = place.verify("-c", "file_inventory")
    assert code == 0
    assert found["file_inventory.total_files_documented"]["value"] == result["totals"]["files"]
    written = datetime.fromisoformat(found["file_inventory.last_inventory_age_days"]["instant"])
    assert abs((written - datetime.fromisoformat(result["generated_at"])).total_seconds()) < 60


def test_workflows_and_metrics_agree(place: Place) -> None:
    truth = place.world.truth
    _, gaps = _run(place, "gap-analysis")
    told = gaps["games"]["all"]
    assert told["without_box_score"] == truth["data_gaps.missing_games_count"]
    assert told["without_play_by_play"] == truth["data_gaps.games_without_pbp"]
    named = (place.project.folder / "reports" / "missing_game_ids.txt").read_text().split()
    there = place.world.with_box_score & place.world.with_pbp
    assert sorted(named) == sorted(game.id for game in place.world.games if game.id not in there)

    _, costs = _run(place, "aws-inventory")
    assert costs["cost"]["sum_usd"] == pytest.approx(truth["aws_inventory.monthly_cost_estimate_usd"], rel=1e-12)
    assert costs["lake"]["objects"] == truth["s3_storage.total_objects"]

    code, sync = _run(place, "sync-status")
    assert (code, sync["synced"]) == (1, False)


def test_the_aws_inventory_needs_no_database(place: Place) -> None:
    place.project.env["NBA_DATABASE_URL"] = ""
    code, result = _run(place, "aws-inventory")
    assert (code, result["unreached"]) == (0, {})


def test_a_database_that_is_down_is_no_report_without_gaps(place: Place) -> None:
    place.project.env["NBA_DATABASE_URL"] = "postgresql://ada:hunter2@127.0.0.1:1/nba_simulator"
    code, result = _run(place, "gap-analysis")
    assert code == 3
    assert list(result["unreached"]) == ["warehouse"]
    report = (place.project.folder / "reports" / "gap_analysis.md").read_text()
    assert "warehouse" in report and "hunter2" not in report + json.dumps(result)
