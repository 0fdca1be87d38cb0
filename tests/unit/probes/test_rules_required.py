"""Databases, accounts and programs: no event reports changes in them, so rules must name their metrics."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from pydantic import ValidationError

from dims_worker.config import AwsMetric, load_config
from dims_worker.config.metrics import METRICS, SourceMetric
from dims_worker.domain.plan import Planner
from dims_worker.errors import MeasureError
from dims_worker.events import Event
from dims_worker.probes import probe_for
from dims_worker.probes.base import Change, Deadline, KeysChanged, PathsChanged, ScanContext

CONFIG = """
sources:
  warehouse: {type: sql, url: "sqlite:///games.db"}
  account: {type: aws}
  tools: {type: command}
  project: {type: files, path: "."}
metrics:
  gaps:
    games: {source: warehouse, query: SELECT 1}
    storage: {source: account, measure: rds_storage, instance: db}
    size: {source: tools, command: [du, -s, .]}
    files: {source: project, measure: count, paths: "*.py"}
rules:
  commit: {on: "dims.git.*"}
  saved: {on: dims.files.changed, metrics: ["gaps.*"]}
"""


def event(kind: str) -> Event:
    now = datetime(2024, 3, 10, tzinfo=UTC)
    return Event.new(kind, "test", now=now, data={"root": "/elsewhere", "paths": ["a.py"]})


@pytest.fixture
def planner(tmp_path: Path) -> Planner:
    (tmp_path / "dims.yaml").write_text(CONFIG)
    return Planner(load_config(None, {}, tmp_path))


def test_rules_that_name_a_metric_make_it_due(planner: Planner) -> None:
    assert planner.plan(event("dims.git.commit")).metrics == ()
    plan = planner.plan(event("dims.files.changed"))
    assert {concern.metric: concern.reason for concern in plan.planned} == dict.fromkeys(
        ("gaps.games", "gaps.size", "gaps.storage"), "the rule names it"
    )


METRIC: dict[str, SourceMetric] = {
    "sql": METRICS["sql"].model_validate({"source": "x", "query": "SELECT 1"}),
    "aws": METRICS["aws"].model_validate({"source": "x", "measure": "cost"}),
    "command": METRICS["command"].model_validate({"source": "x", "command": ["true"]}),
}


@pytest.mark.parametrize("kind", sorted(METRIC))
def test_paths_and_keys_do_not_touch_them(kind: str, planner: Planner, context: ScanContext) -> None:
    source = next(source for source in planner.config.sources.values() if source.type == kind)
    probe = probe_for(kind)
    changes: tuple[Change, ...] = (PathsChanged("/", ("a",)), PathsChanged("/", history=True), KeysChanged("b"))
    for change in changes:
        assert not isinstance(change, probe.change_types)
        assert probe.touched(source, METRIC[kind], change, context) is None


@pytest.mark.parametrize("kind", sorted(METRIC))
def test_a_deadline_that_is_over(kind: str, planner: Planner, context: ScanContext) -> None:
    source = next(source for source in planner.config.sources.values() if source.type == kind)
    with pytest.raises(MeasureError, match="timeout"):
        probe_for(kind).scan(source, {"m": METRIC[kind]}, context, Deadline.after(timedelta(seconds=-1)))


def test_rds_storage_needs_a_unit_of_bytes() -> None:
    assert AwsMetric(source="x", measure="rds_storage", instance="db").shown_unit == "GiB"
    with pytest.raises(ValidationError, match="unit of rds_storage must be one of bytes"):
        AwsMetric(source="x", measure="rds_storage", instance="db", unit="hours")
