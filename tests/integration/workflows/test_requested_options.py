"""The options of `dims workflow` are kept with the request, so a retry and another worker have them."""

from __future__ import annotations

import json
import urllib.request
from typing import Any

import boto3
import pytest
from sqlalchemy import Engine, text

from dims_worker.domain.plan import Planner
from dims_worker.events import WORKFLOW_REQUESTED, Event
from dims_worker.pipeline import verify
from dims_worker.pipeline.ingest import ReceivedEnvelope, register_config, store_events
from dims_worker.pipeline.verify import WorkflowOptions
from dims_worker.store.engine import clock, transaction
from dims_worker.store.events import RunRequest, waiting_requests
from dims_worker.store.runs import last_result
from tests.conftest import Lake, Project
from tests.integration.workflows.helpers import BUCKET, CONFIG

SOURCE = "workflow.aws-inventory"


@pytest.fixture
def account(project: Project, lake: Lake, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A project with a bucket, one day of costs, and no database instance."""
    for name, value in lake.env.items():
        monkeypatch.setenv(name, value)
    lake.put(BUCKET, {"a": b"x"})
    project.env |= lake.env
    project.write({"dims.yaml": CONFIG})
    amount = {"UnblendedCost": {"Amount": "1.5", "Unit": "USD"}}
    day = {"TimePeriod": {}, "Total": {}, "Groups": [{"Keys": ["S3", "Usage"], "Metrics": amount}], "Estimated": False}
    body = json.dumps({"results": [{"ResultsByTime": [day]}]}).encode()
    request = urllib.request.Request(f"{lake.url}/moto-api/static/ce/cost-and-usage-results", body, method="POST")
    request.add_header("Content-Type", "application/json")
    urllib.request.urlopen(request).read()
    return project


def result(engine: Engine) -> Any:
    with transaction(engine) as connection:
        last = last_result(connection, SOURCE)
    assert last is not None
    return last[1]


def request(project: Project, engine: Engine, **data: Any) -> None:
    with transaction(engine) as connection:
        register_config(connection, project.config)
        event = Event.new(WORKFLOW_REQUESTED, "dims:test", now=clock(connection), data=data)
        stored = store_events(connection, Planner(project.config), [ReceivedEnvelope("", event.to_json().encode())])
    assert stored.rejected == 0, stored


def test_a_retry_of_a_worker_keeps_with_costs(account: Project, engine: Engine, lake: Lake) -> None:
    failed = account.dims("workflow", "aws-inventory", "--with-costs")
    assert failed.returncode == 3 and "account was not reached" in failed.stderr
    rds = boto3.client("rds", endpoint_url=lake.url, region_name="us-east-1")
    rds.create_db_instance(DBInstanceIdentifier="nba-sim-db", DBInstanceClass="db.t3.small", Engine="postgres")
    run = verify.measure_due(engine, account.config, SOURCE, at_once=True)  # as a worker does: without options
    assert run is not None and run.status == "ok"
    assert result(engine)["paid"]["total"] == 1.5
    with transaction(engine) as connection:
        assert waiting_requests(connection, SOURCE) == []
    request(account, engine, workflow="aws-inventory")
    verify.measure_due(engine, account.config, SOURCE, at_once=True)
    assert result(engine)["paid"] is None  # the next run costs nothing again


def test_the_options_of_all_waiting_requests_hold(account: Project, engine: Engine) -> None:
    request(account, engine, workflow="aws-inventory", quick=True)
    request(account, engine, workflow="aws-inventory", quick=True, options=["with-costs"])
    with transaction(engine) as connection:
        waiting = waiting_requests(connection, SOURCE)
    assert len(waiting) == 2
    assert WorkflowOptions().with_requests(waiting) == WorkflowOptions(True, frozenset({"with-costs"}))
    request(account, engine, workflow="aws-inventory", options=[])
    with transaction(engine) as connection:
        waiting = waiting_requests(connection, SOURCE)
    assert WorkflowOptions().with_requests(waiting) == WorkflowOptions(False, frozenset({"with-costs"}))


def test_a_retry_of_a_check_measures_the_metrics_of_the_workflow() -> None:
    requests = [RunRequest(WORKFLOW_REQUESTED, None, False, True), RunRequest(WORKFLOW_REQUESTED, None, None)]
    assert WorkflowOptions().with_requests(requests) == WorkflowOptions(with_metrics=True)


def test_only_requests_of_a_run_have_options() -> None:
    other = [RunRequest("dims.scraper.complete", ["with-costs"], True)]
    assert WorkflowOptions().with_requests(other) == WorkflowOptions()
    assert WorkflowOptions(True).with_requests([]) == WorkflowOptions(True)


@pytest.mark.parametrize("options", ["with-costs", ["with-cost"], [1], {"with-costs": True}, [["with-costs"]]])
def test_a_request_with_an_unknown_option_is_rejected(account: Project, engine: Engine, options: Any) -> None:
    with transaction(engine) as connection:
        event = Event.new(
            WORKFLOW_REQUESTED, "dims:test", now=clock(connection), data={"workflow": "audit", "options": options}
        )
        stored = store_events(connection, Planner(account.config), [ReceivedEnvelope("", event.to_json().encode())])
        reason = connection.execute(text("SELECT reason FROM dims_event_log")).scalar_one()
    assert stored.rejected == 1 and "options must be a list of these: with-costs" in reason
