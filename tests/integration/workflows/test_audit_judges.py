"""A monthly audit judges what it measures, once: it asks a person from 15.0 % on, and not at 14.9 %."""

from __future__ import annotations

from datetime import UTC, datetime

import boto3
import pytest
from sqlalchemy import Engine, text

from dims_worker.approvals.decisions import decide_request
from dims_worker.domain.approvers import Decider
from dims_worker.domain.plan import Planner
from dims_worker.domain.schedule import tick_event
from dims_worker.events import Event
from dims_worker.pipeline.ingest import ReceivedEnvelope, register_config, store_events
from dims_worker.pipeline.verify import measure_due
from dims_worker.store import approval_requests, metric_states
from dims_worker.store.engine import transaction
from tests.conftest import Lake, Project

CONFIG = """
sources:
  lake: {type: s3, bucket: nba-lake, cooldown: 1h}
  account: {type: aws}
  archives: {type: files, path: archives}
metrics:
  s3_storage:
    total_objects: {source: lake, measure: count, critical: true}
    total_size_gb: {source: lake, measure: bytes, unit: GB, precision: 2, critical: true}
  local_data:
    archives_size_gb: {source: archives, measure: bytes, unit: GB, precision: 2, critical: true}
  aws_inventory:
    rds_gb: {source: account, measure: rds_storage, instance: nba-sim-db, unit: GiB}
    cost_usd: {derive: aws_inventory.rds_gb * prices.rds_gib_month, unit: USD, precision: 2, critical: true}
rules:
  monthly_audit: {schedule: "0 0 1 * *", workflows: [audit]}
prices: {s3_gib_month: 0.023, rds_gib_month: 0.10, rds_class: {db.t3.small: 29.20}}
workflows:
  local_inventory: {metrics: local_data.archives_size_gb, folders: {archives: {path: archives, id: null}}}
  aws_inventory: {lake: lake, aws: account, instance: nba-sim-db, metrics: aws_inventory.rds_gb}
  audit: {metrics: "*", report: reports/audit.md}
"""
JUDGED = {
    "s3_storage.total_objects",
    "s3_storage.total_size_gb",
    "local_data.archives_size_gb",
    "aws_inventory.cost_usd",
}
DAY = datetime(2026, 11, 1, tzinfo=UTC)


class Audited:
    """A project whose sizes and costs are multiples of 0.1 %, and a worker that serves one tick at a time."""

    def __init__(self, project: Project, lake: Lake, engine: Engine) -> None:
        self.project, self.lake, self.engine, self.config = project, lake, engine, project.config
        self.planner = Planner(self.config)
        self.rds = boto3.client("rds", endpoint_url=lake.url, region_name="us-east-1")
        self.rds.create_db_instance(
            DBInstanceIdentifier="nba-sim-db", DBInstanceClass="db.t3.small", Engine="postgres", AllocatedStorage=1000
        )
        with transaction(engine) as connection:
            register_config(connection, self.config)

    def grow_to(self, thousandths: int) -> None:
        """Make every size, count and cost this many thousandths of what it was at first."""
        lake = {f"{number:04}": b"x" * 7 for number in range(thousandths)}
        self.lake.put("nba-lake", lake)
        self.project.write({"archives/a": "x" * 3 * thousandths})
        self.rds.modify_db_instance(DBInstanceIdentifier="nba-sim-db", AllocatedStorage=thousandths)

    def tick(self, day: int) -> None:
        """Store a tick of the monthly audit, and serve all that is due."""
        self.serve(tick_event("monthly_audit", DAY.replace(day=day)))

    def serve(self, *events: Event) -> None:
        with transaction(self.engine) as connection:
            envelopes = [ReceivedEnvelope("", event.to_json().encode()) for event in events]
            store_events(connection, self.planner, envelopes)
        names = list(self.config.definitions)
        while True:
            with transaction(self.engine) as connection:
                due = metric_states.due_sources(connection, names)
            if not due:
                return
            for each in due:
                measure_due(self.engine, self.config, each.source, at_once=True)

    def requests(self) -> dict[str, approval_requests.ApprovalRequest]:
        with transaction(self.engine) as connection:
            return approval_requests.open_requests(connection)

    def readings(self) -> dict[str, int]:
        """Return how many readings the history has of each metric."""
        with transaction(self.engine) as connection:
            rows = connection.execute(text("SELECT metric, count(*) FROM dims_metrics_history GROUP BY metric"))
            return {metric: count for metric, count in rows if not metric.startswith("workflow.")}


@pytest.fixture
def audited(project: Project, lake: Lake, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> Audited:
    for name, value in lake.env.items():
        monkeypatch.setenv(name, value)
    project.env |= lake.env
    project.write({"dims.yaml": CONFIG})
    audited = Audited(project, lake, engine)
    audited.grow_to(1000)
    audited.serve()  # the first readings, which count as accepted by a person
    return audited


def test_an_audit_asks_from_15_percent_on(audited: Audited) -> None:
    before = audited.readings()
    audited.grow_to(1149)
    audited.tick(1)
    assert audited.requests() == {}
    assert {name: count - before[name] for name, count in audited.readings().items()} == dict.fromkeys(
        audited.config.metrics, 1
    ), "each metric is measured once"
    audited.grow_to(1150)
    audited.tick(2)
    held = audited.requests()
    assert set(held) == JUDGED
    person = Decider("ada", "option")
    for request in held.values():
        assert request.reason.endswith("which a person last accepted")
        assert request.drift_pct == 15 and request.from_person
        decide_request(audited.engine, audited.config, str(request.id), "approved", version=1, person=person, note=None)
    audited.grow_to(1322)  # 14.96 % more than 1150
    audited.tick(3)
    assert audited.requests() == {}


def test_an_audit_names_itself_as_the_cause_of_a_request(audited: Audited) -> None:
    audited.grow_to(1610)
    audited.tick(1)
    held = audited.requests()
    assert set(held) == JUDGED and {request.drift_pct for request in held.values()} == {61}
    assert {(request.evidence or {})["events"] for request in held.values()} == {1}


def test_a_run_by_hand_is_a_check(audited: Audited) -> None:
    before = audited.readings()
    audited.grow_to(1610)
    done = audited.project.dims("workflow", "audit")
    assert done.returncode == 0, done.stdout + done.stderr
    assert audited.requests() == {}
    assert {name: count - before[name] for name, count in audited.readings().items()} == dict.fromkeys(
        audited.config.metrics, 1
    )
    with transaction(audited.engine) as connection:
        states = metric_states.read_states(connection, audited.config.metrics)
    assert not any(state.due for state in states.values())
