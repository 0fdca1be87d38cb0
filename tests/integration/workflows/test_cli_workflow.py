"""`dims workflow` on the command line, and workers that run workflows for rules."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import Engine, text

from dims_worker.store.engine import transaction
from dims_worker.store.runs import last_result
from tests.conftest import Lake, Project, Worker, wait_for
from tests.integration.workflows.helpers import BUCKET, CONFIG, make_tables

GAMES = [("0000000001", "2013-03-16", 3), ("0000000002", "2013-03-17", 3), ("0000000003", "2013-03-18", 1)]


@pytest.fixture
def made(project: Project, lake: Lake, engine: Engine) -> Project:
    """A project with a small lake, three games, and a local folder that equals its prefix."""
    lake.put(BUCKET, {"espn_play_by_play/0000000001.csv": b"x", "bbref/a": b"1"})
    make_tables(engine, GAMES, ["1"], [1])
    project.env |= {**lake.env, "NBA_DATABASE_URL": project.env["DIMS_DATABASE_URL"]}
    project.write({"dims.yaml": CONFIG, "local/bbref/a": "1"})
    return project


def last(engine: Engine, name: str) -> Any:
    with transaction(engine) as connection:
        return last_result(connection, f"workflow.{name}")


def count(engine: Engine, table: str) -> int:
    with engine.connect() as connection:
        return int(connection.execute(text(f"SELECT count(*) FROM {table}")).scalar_one())


def test_a_run_is_recorded_and_shown_again(made: Project, engine: Engine, lake: Lake) -> None:
    done = made.dims("workflow", "gap-analysis")
    assert done.returncode == 0, done.stderr
    assert "2 of 3 games have no box score content" in done.stdout
    assert "report: reports/gaps.md (written)" in done.stdout
    report = made.folder / "reports" / "gaps.md"
    assert "`0000000002`" in report.read_text() and (made.folder / "missing_game_ids.txt").read_text() == (
        "0000000002\n0000000003\n"
    )
    run, result = last(engine, "gap-analysis")
    assert (run.status, run.trigger, run.source) == ("ok", "workflow", "workflow.gap-analysis")
    assert result["games"]["all"]["games"] == 3
    assert count(engine, "dims_event_log") == 1
    inode, listed = report.stat().st_ino, len(lake.lists)

    again = made.dims("workflow", "gap-analysis", "--last", check=True)
    assert again.stdout == report.read_text()
    shown = made.dims("workflow", "gap-analysis", "--last", "--json", "--report", "again.json", check=True)
    document = json.loads(shown.stdout)
    assert document["run"] == run.run_id and {k: document[k] for k in result} == result
    assert json.loads((made.folder / "again.json").read_text()) == result
    assert len(lake.lists) == listed and count(engine, "dims_verification_runs") == 1

    unchanged = made.dims("workflow", "gap-analysis", check=True)
    assert "report: reports/gaps.md (unchanged)" in unchanged.stdout
    assert report.stat().st_ino == inode


def test_the_list_of_workflows(made: Project) -> None:
    made.dims("workflow", "sync-status", check=True)
    listed = json.loads(made.dims("workflow", "--json", check=True).stdout)["workflows"]
    assert {row["workflow"]: row["outcome"] for row in listed} == {
        "gap-analysis": None,
        "aws-inventory": None,
        "sync-status": "ok",
        "audit": None,
    }
    table = made.dims("workflow", check=True).stdout
    assert "reports/sync.md" in table and "ago" in table and "never" in table
    unknown = made.dims("workflow", "gap")
    assert unknown.returncode == 2 and "but these: gap-analysis, aws-inventory, sync-status, audit" in unknown.stderr
    never = made.dims("workflow", "audit", "--last")
    assert never.returncode == 2 and "has no result yet" in never.stderr


def test_exit_codes_of_sync_status(made: Project) -> None:
    assert made.dims("workflow", "sync-status").returncode == 0
    made.write({"local/bbref/b": "2"})
    done = made.dims("workflow", "sync-status", "--json")
    assert done.returncode == 1 and json.loads(done.stdout)["outcome"] == "attention"
    assert "aws s3 cp " in json.loads(done.stdout)["commands"][0]
    made.write({"dims.yaml": CONFIG.replace("bucket: nba-lake", "bucket: gone")})
    done = made.dims("workflow", "sync-status")
    assert done.returncode == 3 and "dims: lake was not reached: S3 bucket gone at " in done.stderr
    assert ": the bucket does not exist. " in done.stderr


@pytest.mark.parametrize("what, source", [("database", "warehouse"), ("bucket", "lake")])
def test_gap_analysis_exits_with_3_and_names_unreached_sources(
    made: Project, engine: Engine, what: str, source: str
) -> None:
    if what == "database":
        made.env["NBA_DATABASE_URL"] = "postgresql://nba:secret@127.0.0.1:1/nba"
    else:
        made.write({"dims.yaml": CONFIG.replace("bucket: nba-lake", "bucket: gone")})
    done = made.dims("workflow", "gap-analysis")
    assert done.returncode == 3 and f"dims: {source} was not reached: " in done.stderr
    assert "secret" not in done.stdout + done.stderr
    run, result = last(engine, "gap-analysis")
    assert (run.status, run.failed, list(result["unreached"])) == ("partial", 1, [source])
    assert f"**{source}** was not reached" in (made.folder / "reports" / "gaps.md").read_text()


def test_a_report_that_cannot_be_written_is_an_error(made: Project) -> None:
    made.write({"file": ""})
    done = made.dims("workflow", "sync-status", "--report", "file/report.md")
    assert done.returncode == 2 and "cannot be written to" in done.stderr


def test_a_worker_runs_the_workflows_that_a_rule_names(
    made: Project, engine: Engine, start_worker: Callable[..., Worker]
) -> None:
    start_worker()
    made.dims("enqueue", "scraper_complete", check=True)
    wait_for(lambda: last(engine, "gap-analysis") and last(engine, "sync-status"), timeout=60)
    assert last(engine, "gap-analysis")[1]["games"]["all"]["without_play_by_play"] == 2
    assert last(engine, "sync-status")[1]["status"] == "synced"
    wait_for((made.folder / "reports" / "gaps.md").is_file, timeout=20)
    wait_for((made.folder / "reports" / "sync.md").is_file, timeout=20)
    assert last(engine, "aws-inventory") is None
    events = made.dims("events", check=True).stdout
    assert "planned" in events
    again = made.dims("workflow", "sync-status", "--last", check=True)
    assert "**synced**" in again.stdout
