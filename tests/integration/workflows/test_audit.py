"""audit: all other workflows in one run and one report. A failing workflow does not stop the others."""

from __future__ import annotations

import json
import threading
from typing import Any

import pytest
from sqlalchemy import Engine, text

from dims_worker import workflows
from dims_worker.pipeline import verify
from dims_worker.pipeline.ingest import register_config
from dims_worker.store import leases
from dims_worker.store.engine import transaction
from dims_worker.store.runs import last_result
from dims_worker.workflows.base import Workflow
from dims_worker.workflows.gap_analysis import workflow as gap_analysis
from tests.conftest import Lake, Project, wait_for
from tests.integration.workflows.helpers import BUCKET, CONFIG, make_tables


@pytest.fixture
def made(project: Project, lake: Lake, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> Project:
    for name, value in lake.env.items():
        monkeypatch.setenv(name, value)
    feeds = ("espn_play_by_play", "espn_box_scores", "espn_team_stats")
    lake.put(BUCKET, {f"{feed}/0000000001.json": b"x" for feed in feeds} | {"bbref/a": b"1"})
    make_tables(engine, [("0000000001", "2013-03-16", 3)], ["1"], [1])
    project.env |= {**lake.env, "NBA_DATABASE_URL": project.env["DIMS_DATABASE_URL"]}
    project.write({"dims.yaml": CONFIG.replace("instance: nba-sim-db, ", ""), "local/bbref/a": "1"})
    return project


def test_all_workflows_in_one_run(made: Project, engine: Engine) -> None:
    done = made.dims("workflow", "all", "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["workflow"] == "audit"
    assert [each["workflow"] for each in document["sections"]] == ["gap-analysis", "aws-inventory", "sync-status"]
    report = (made.folder / "reports" / "audit.md").read_text()
    assert report.startswith("# audit\n") and report.index("## Summary") < report.index("## gap-analysis")
    assert "### Missing games" in report and "### Cost" in report and "**synced**" in report
    assert not any(line.startswith("# ") for line in report.splitlines()[1:])
    with transaction(engine) as connection:
        actual = last_result(connection, "workflow.audit")
        assert actual is not None
        query = "SELECT metric, value FROM dims_metrics_history WHERE run_id = :run"
        readings = {row.metric: row.value for row in connection.execute(text(query), {"run": actual[0].run_id})}
    assert readings == {
        "workflow.audit": "ok",
        "workflow.gap-analysis": "ok",
        "workflow.aws-inventory": "ok",
        "workflow.sync-status": "ok",
        "sync_status.local_s3": "synced",
    }
    assert workflows.render_report(actual[1]) == report  # JSONB returns keys in another order


def test_a_source_that_is_not_reached_is_reported(made: Project) -> None:
    made.env["NBA_DATABASE_URL"] = "postgresql://nba:secret@127.0.0.1:1/nba"
    done = made.dims("workflow", "audit")
    assert done.returncode == 3 and "dims: warehouse was not reached" in done.stderr
    report = (made.folder / "reports" / "audit.md").read_text()
    assert "gap-analysis | failed" in report and "sync-status | ok" in report and "secret" not in report


def test_a_failing_workflow_does_not_stop_the_others(made: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: object) -> dict[str, Any]:
        raise RuntimeError("a bug")

    monkeypatch.setattr(gap_analysis, "WORKFLOW", Workflow(broken, gap_analysis.WORKFLOW.markdown))
    outcome = workflows.run_workflow(made.config, "audit")
    sections = {each["workflow"]: each for each in outcome.result["sections"]}
    assert "internal error: RuntimeError('a bug')" in sections["gap-analysis"]["unreached"]["gap-analysis"]
    assert sections["sync-status"]["synced"] and set(outcome.unreached) == {"gap-analysis"}
    assert "a bug" in workflows.render_report(outcome.result)


def test_dims_workflow_waits_for_the_lease(made: Project, engine: Engine) -> None:
    """While another process has the lease, `dims workflow` waits. It runs once the lease is free."""
    config = made.config
    source = "workflow.sync-status"
    with transaction(engine) as connection:
        register_config(connection, config)
        connection.execute(text("UPDATE dims_metrics SET requested_gen = 1 WHERE metric = :m"), {"m": source})
        claim = leases.claim_source(
            connection, source, {source: config.definitions[source]}, "another", config.settings.lease, at_once=True
        )
    assert claim is not None
    codes: list[int] = []
    thread = threading.Thread(target=lambda: codes.append(made.dims("workflow", "sync-status").returncode))
    thread.start()

    def asked() -> bool:
        with engine.connect() as connection:
            return bool(connection.execute(text("SELECT count(*) FROM dims_event_log")).scalar())

    wait_for(asked)
    assert codes == []
    with transaction(engine) as connection:
        leases.release_lease(connection, claim, config.cooldown_of(source))
    thread.join(30)
    assert codes == [0]


def test_a_lost_lease_writes_no_report(made: Project, engine: Engine) -> None:
    config = made.config
    with transaction(engine) as connection:
        register_config(connection, config)
        connection.execute(text("UPDATE dims_metrics SET requested_gen = 1 WHERE metric = 'workflow.sync-status'"))

    def steal(_: str) -> None:
        with transaction(engine) as connection:
            connection.execute(text("UPDATE dims_sources SET lease_epoch = lease_epoch + 1"))

    run = verify.measure_due(engine, config, "workflow.sync-status", options=verify.WorkflowOptions(progress=steal))
    assert run is not None and run.status == "superseded"
    assert verify.write_workflow_report(engine, config, run) is None and not (made.folder / "reports").exists()
    with transaction(engine) as connection:
        assert last_result(connection, "workflow.sync-status") is None
