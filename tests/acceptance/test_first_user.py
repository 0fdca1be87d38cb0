"""Test the configuration in config/ on a generated world: each metric equals its independently counted value."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, text

from dims_worker.config import DerivedMetric, S3Metric, load_config
from dims_worker.config.units import AGES
from tests.acceptance.conftest import Environment, set_times
from tests.conftest import REPO
from tests.fixtures import data_project

DISABLED = "local_data.espn_size_gb"
SIZE = "aws_inventory.rds_database_size_gb"
FEED = (
    "pbp_file_count {box}_file_count schedule_file_count team_stats_file_count last_update_hours oldest_data_days "
    "total_size_gb avg_file_size_{unit} small_files_count completeness_pct gap_days_count"
)
NAMES = {
    "s3_storage": "total_objects total_size_gb hoopr_files",
    "prediction_system": "total_lines fetch_upcoming_games_lines fetch_recent_player_data_lines "
    "prepare_upcoming_game_features_lines predict_upcoming_games_lines train_model_for_predictions_lines "
    "demo_predictions_lines daily_predictions_sh_lines",
    "plus_minus_system": "total_lines python_lines sql_lines docs_lines",
    "code_base": "python_files ml_scripts phase_2_scripts test_files",
    "documentation": "markdown_files total_size_mb",
    "git": "book_recommendation_commits",
    "workflows": "total",
    "sql_schemas": "total_lines",
    "local_data": "espn_size_gb archives_size_gb temp_data_size_gb",
    "file_inventory": "total_files_documented last_inventory_age_days",
    "aws_inventory": "rds_database_size_gb rds_allocated_storage_gb monthly_cost_estimate_usd",
    "data_gaps": "missing_games_count games_without_pbp",
    "sync_status": "local_s3_sync_status",
    "espn_data": FEED.format(box="boxscore", unit="kb"),
    "hoopr_data": FEED.format(box="phase1", unit="mb"),
    "basketball_reference_data": FEED.format(box="boxscore", unit="kb"),
}
CRITICAL = {
    *("s3_storage.total_objects", "s3_storage.total_size_gb", "prediction_system.total_lines"),
    *("plus_minus_system.total_lines", "git.book_recommendation_commits", "local_data.archives_size_gb"),
    *("aws_inventory.monthly_cost_estimate_usd", "data_gaps.missing_games_count", "data_gaps.games_without_pbp"),
    *("sync_status.local_s3_sync_status", "espn_data.last_update_hours", "espn_data.completeness_pct"),
    "espn_data.gap_days_count",
}
STABLE = {
    *("s3_storage.hoopr_files", "git.book_recommendation_commits", "workflows.total", "sql_schemas.total_lines"),
    *("file_inventory.total_files_documented", "aws_inventory.rds_allocated_storage_gb"),
    *(f"prediction_system.{name}" for name in NAMES["prediction_system"].split()),
    *(f"plus_minus_system.{name}" for name in NAMES["plus_minus_system"].split()),
}


# --- configuration -----------------------------------------------------------------------------------


def test_the_shipped_configuration_declares_the_68_metrics() -> None:
    config = load_config(REPO / "config" / "dims.yaml", {}, REPO)  # an empty environment
    expected = [f"{category}.{name}" for category, names in NAMES.items() for name in names.split()]
    assert list(config.metrics) == expected
    assert len(config.metrics) == 68
    assert {name for name, metric in config.metrics.items() if metric.critical} == CRITICAL
    assert {name for name, metric in config.metrics.items() if metric.volatility == "stable"} == STABLE
    assert {name for name, metric in config.metrics.items() if not metric.enabled} == {DISABLED}
    for name, metric in config.metrics.items():
        is_text = isinstance(metric, S3Metric) and metric.measure == "sync_status"
        assert bool(metric.shown_unit) != is_text, name
        assert metric.description and "\n" not in metric.description, name
        assert "volatility" in metric.model_fields_set, name
        assert metric.is_age == name.endswith(("_hours", "_age_days", "oldest_data_days")), name
        assert (metric.precision is not None) == name.endswith(
            ("_gb", "_mb", "_kb", "_usd", "_pct", "_hours", "_days")
        ) or (name in ("aws_inventory.rds_allocated_storage_gb",)), name
    of_policy = {name: config.policy_of(name).direction for name in config.metrics}
    assert {name for name, direction in of_policy.items() if direction == "up"} == {
        name for name in config.metrics if name.startswith("data_gaps.")
    }
    assert {name for name, direction in of_policy.items() if direction == "down"} == {
        name for name in config.metrics if name.endswith("completeness_pct")
    }
    assert config.configured_workflows == (
        *("file-inventory", "local-inventory", "gap-analysis", "aws-inventory", "sync-status", "audit"),
    )


def test_the_environment_sets_values_of_the_configuration() -> None:
    env = {
        "NBA_BUCKET": "b",
        "NBA_DATABASE_URL": "sqlite:///x",
        "NBA_ARCHIVES": "/a",
        "NBA_TEMP": "/t",
        "NBA_ESPN_DIR": "/e",
        "NBA_LOCAL_LAKE": "/l",
        "NBA_PROJECT": "/p",
        "NBA_RDS_INSTANCE": "i",
        "NBA_PRICE_S3_GIB_MONTH": "0.05",
        "NBA_PRICE_DB_T3_MICRO": "1",
    }
    config = load_config(REPO / "config" / "dims.yaml", env, REPO)
    settings = [source.model_dump() for source in config.sources.values()]
    assert {each["path"] for each in settings if "path" in each} == {"/p", "/a", "/t", "/e"}
    assert config.sources["lake"].model_dump()["bucket"] == "b"
    assert config.metrics["sync_status.local_s3_sync_status"].model_dump()["local"] == "/l"
    assert config.metrics["aws_inventory.rds_allocated_storage_gb"].model_dump()["instance"] == "i"
    assert config.prices["s3_gib_month"] == 0.05
    assert config.prices["rds_class"] == {"db.t3.micro": 1, "db.t3.small": 29.2, "db.t3.medium": 58.4}


# --- generated world ---------------------------------------------------------------------------------


def _assert_true(item: Mapping[str, Any], truth: Any) -> None:
    """Compare a metric in the JSON output with its true value: value, type and unit."""
    name, value = item["metric"], item["value"]
    assert item["error"] is None and item["method"] in ("exact", "derived"), item
    if isinstance(truth, datetime):
        assert datetime.fromisoformat(item["instant"]) == truth, name
        seconds = (datetime.fromisoformat(item["as_of"]) - truth).total_seconds()
        assert value == pytest.approx(seconds / AGES[item["unit"]]), name
    elif isinstance(truth, float):
        assert isinstance(value, float | int) and math.isclose(value, truth, rel_tol=1e-12), (name, value, truth)
    else:
        assert (type(value), value) == (type(truth), truth), name


def test_every_metric_of_the_generated_world_is_true(environment: Environment) -> None:
    code, items = environment.verify()
    assert {name: item["error"] for name, item in items.items() if item["method"] == "failed"} == {}
    assert code == 0
    config = environment.project.config
    assert list(items) == [name for name, metric in config.metrics.items() if metric.enabled]
    assert len(items) == 67
    for name, item in items.items():
        assert item["unit"] == config.metrics[name].shown_unit, name
        assert item["method"] == ("derived" if isinstance(config.metrics[name], DerivedMetric) else "exact"), name
        if name != SIZE:
            _assert_true(item, environment.world.truth[name])
    assert items[SIZE]["value"] == pytest.approx(_database_size(environment) / 10**9, abs=400_000 / 10**9)

    lists = -(-len(environment.world.objects) // 1000)
    assert lists > 1
    assert (
        len(environment.lake.lists) == lists
    )  # one listing for all metrics of the bucket, including sync and completeness


def _database_size(environment: Environment) -> int:
    """Return the size of all relations in the catalogue. A few small files of the server are not included."""
    query = "SELECT sum(pg_total_relation_size(oid)) FROM pg_class WHERE relkind IN ('r', 'm') AND NOT relisshared"
    with environment.warehouse.connect() as connection:
        return int(connection.execute(text(query)).scalar_one())


def test_the_disabled_metric_is_measured_when_it_is_named(environment: Environment) -> None:
    code, items = environment.verify("-m", DISABLED)
    assert (code, list(items)) == (0, [DISABLED])
    _assert_true(items[DISABLED], environment.world.truth[DISABLED])
    assert environment.lake.lists == []


def test_gaps_and_differences_are_in_the_details(environment: Environment, engine: Engine) -> None:
    environment.verify("-m", "data_gaps.*", "-m", "sync_status.*", "-m", "espn_data.*", "-m", "aws_inventory.*")
    details = _details(engine)
    world = environment.world
    without = sorted(game.id for game in world.games if game.id not in world.with_box_score)
    assert details["data_gaps.missing_games_count"]["rows"] == without
    without = sorted(game.id for game in world.games if game.id not in world.with_pbp)
    assert details["data_gaps.games_without_pbp"]["rows"] == without
    sync = details["sync_status.local_s3_sync_status"]
    for kind, keys in world.different.items():
        assert sync[kind] == len(keys)
    days = data_project.missing_days(key for key in world.objects if key.startswith("espn_schedules/"))
    gaps = details["espn_data.gap_days_count"]
    assert gaps["missing"] == [day.isoformat() for day in days][:20]
    assert "espn_schedules/171031017.json" in gaps["unreadable_names"]
    assert gaps["unreadable"] == 4
    assert details["aws_inventory.rds_allocated_storage_gb"]["class_usd_month"] == 29.20


def test_a_feed_without_new_data_is_reported(environment: Environment) -> None:
    old = data_project.make(environment.world.now - timedelta(days=30))
    set_times(old)
    done = environment.project.dims("verify", "--json", "-c", "espn_data", "-c", "hoopr_data")
    assert done.returncode == 1
    items = {item["metric"]: item for item in json.loads(done.stdout)["metrics"]}
    drifted = [name for name, item in items.items() if item["severity"] not in (None, "none")]
    assert drifted == ["espn_data.last_update_hours"]
    assert items[drifted[0]]["value"] > 29 * 24


def _details(engine: Engine) -> dict[str, dict[str, Any]]:
    with engine.connect() as connection:
        rows = connection.execute(text("SELECT metric, details FROM dims_metrics_history WHERE details IS NOT NULL"))
        return {row.metric: row.details for row in rows}


def test_a_missing_temporary_folder_counts_as_empty(environment: Environment) -> None:
    environment.project.env["NBA_TEMP"] += "/gone"
    code, items = environment.verify("-c", "local_data")
    assert (code, items["local_data.temp_data_size_gb"]["value"]) == (0, 0)
    environment.project.env["NBA_ARCHIVES"] += "/gone"
    code, items = environment.verify("-c", "local_data")
    assert (code, items["local_data.archives_size_gb"]["value"]) == (3, None)
    assert "does not exist" in items["local_data.archives_size_gb"]["error"]


@pytest.mark.parametrize("instance_class", ["db.t3.micro", "db.x9.huge"])
def test_the_cost_is_unknown_for_an_instance_class_without_a_price(
    environment: Environment, instance_class: str
) -> None:
    from moto.rds.models import rds_backends

    backend = rds_backends["123456789012"]["us-east-1"]
    backend.databases["nba-sim-db"].db_instance_class = instance_class
    code, items = environment.verify("-c", "aws_inventory")
    cost = items["aws_inventory.monthly_cost_estimate_usd"]
    if instance_class in data_project.PRICES:
        expected = environment.world.truth[cost["metric"]] + data_project.PRICES[instance_class] - 29.20
        assert (code, cost["value"]) == (0, pytest.approx(expected, rel=1e-12))
    else:
        assert (code, cost["value"]) == (3, None)
        assert "class_usd_month" in cost["error"]


# --- missing sources ---------------------------------------------------------------------------------

DATABASE = {SIZE, "data_gaps.missing_games_count", "data_gaps.games_without_pbp"}
COMPLETENESS = {f"{feed}_data.completeness_pct" for feed in ("espn", "hoopr", "basketball_reference")}
COST = "aws_inventory.monthly_cost_estimate_usd"


def _of_lake() -> set[str]:
    config = load_config(REPO / "config" / "dims.yaml", {}, REPO)
    return {*config.metrics_by_source["lake"], COST}


@pytest.mark.parametrize("missing", ["database down", "bucket gone", "no credentials", "credentials wrong", "no git"])
def test_a_missing_source_fails_its_metrics_and_no_others(
    environment: Environment, missing: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    affected, word = _break(environment, missing, monkeypatch, tmp_path)
    code, items = environment.verify()
    assert code == 3
    failed = {name: item["error"] for name, item in items.items() if item["method"] == "failed"}
    assert set(failed) == affected
    for name, error in failed.items():
        assert word in error, (name, error)
        assert items[name]["value"] is None
        assert "Traceback" not in error and "hunter2" not in error
    for name, item in items.items():
        if name not in {*affected, SIZE}:
            _assert_true(item, environment.world.truth[name])


def _break(
    environment: Environment, missing: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> tuple[set[str], str]:
    """Remove a source. Return the metrics that need it, and a word that each error contains."""
    config = environment.project.config
    env = environment.project.env
    aws = {"aws_inventory.rds_allocated_storage_gb"}
    if missing == "database down":
        env["NBA_DATABASE_URL"] = "postgresql://ada:hunter2@127.0.0.1:1/nba_simulator"
        return DATABASE | COMPLETENESS, "127.0.0.1"
    if missing == "bucket gone":
        env["NBA_BUCKET"] = "gone-lake"
        return _of_lake(), "gone-lake"
    if missing == "no credentials":
        env |= {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": "", "HOME": str(tmp_path)}
        return _of_lake() | aws, "credentials"
    if missing == "credentials wrong":
        from moto import settings

        monkeypatch.setattr(settings, "INITIAL_NO_AUTH_ACTION_COUNT", 0)
        return _of_lake() | aws, "access key"
    tools = tmp_path / "tools"
    tools.mkdir()
    env["PATH"] = str(tools)
    of_git = {*config.metrics_by_source["project"], *config.metrics_by_source["repo"]}
    derived = {"prediction_system.total_lines", "plus_minus_system.total_lines"}
    return of_git | derived, "git is not installed"
