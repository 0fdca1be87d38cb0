"""The schedules of config/ judge what they measure: on the generated world, with a worker and `dims enqueue --wait`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import boto3
import pytest

from tests.acceptance.conftest import Environment
from tests.conftest import Worker, wait_for

ARCHIVES, COST = "local_data.archives_size_gb", "aws_inventory.monthly_cost_estimate_usd"
COMPLETENESS = {f"{feed}_data.completeness_pct" for feed in ("espn", "hoopr", "basketball_reference")}
DATABASE = {"data_gaps.missing_games_count", "data_gaps.games_without_pbp", "aws_inventory.rds_database_size_gb"}


def _requests(environment: Environment) -> dict[str, dict[str, Any]]:
    listed = json.loads(environment.project.dims("approvals", "list", "--json", check=True).stdout)["requests"]
    return {request["metric"]: request for request in listed}


def _measured(environment: Environment, event: str) -> set[str]:
    """Send an event, wait until it is served, and return what was measured."""
    done = environment.project.dims("enqueue", event, "--wait")
    assert done.returncode in (0, 1), done.stdout + done.stderr
    return {line.split("  ")[1] for line in done.stdout.splitlines() if line.startswith("run ")}


def _set_allocated(environment: Environment, gib: int) -> None:
    client = boto3.client("rds", endpoint_url=environment.lake.url, region_name="us-east-1")
    client.modify_db_instance(DBInstanceIdentifier="nba-sim-db", AllocatedStorage=gib)
    client.close()


@pytest.fixture
def archive(environment: Environment, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file in the archives that makes them 100,000 bytes in all."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    file = Path(environment.project.env["NBA_ARCHIVES"]) / "whole"
    file.write_bytes(b"x" * (100_000 - sum(map(len, environment.world.archives.values()))))
    config = environment.project.folder / "config" / "dims.yaml"
    config.write_text(config.read_text().replace("cooldown: 60s", "cooldown: 1s"))
    return file


def test_the_monthly_audit_asks_from_15_percent_on(
    environment: Environment, archive: Path, start: Callable[[], Worker]
) -> None:
    start()
    wait_for(lambda: json.loads(environment.project.dims("status", "--json").stdout)["numbers"].get("due") == 0, 120)
    assert _requests(environment) == {}
    size = archive.stat().st_size

    archive.write_bytes(b"x" * (size + 14_900))
    _set_allocated(environment, 37 + 49)  # 37 GiB and a class cost 32.90 USD, and a GiB costs 0.10 USD: 14.89 %
    measured = _measured(environment, "monthly_audit")
    enabled = set(environment.project.config.enabled_metrics) - set(environment.project.config.derived)
    assert measured == enabled | {"workflow.audit"}
    assert _requests(environment) == {}

    archive.write_bytes(b"x" * (size + 15_000))
    _set_allocated(environment, 37 + 50)
    _measured(environment, "monthly_audit")
    held = _requests(environment)
    assert set(held) == {ARCHIVES, COST}
    assert held[ARCHIVES]["drift_pct"] == 15 and held[ARCHIVES]["compared_with"] == 0.0001
    shown = environment.project.dims("approvals", "list").stdout
    assert "+15.0 % from 0.00 GB" in shown and "+15.2 % from" in shown

    assert _measured(environment, "scraper_complete") >= COMPLETENESS | DATABASE
