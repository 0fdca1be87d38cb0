"""An event says where to look. Metrics of the same source that it does not name are measured if they have changed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, text

from dims_worker.config import Config
from dims_worker.domain.run import Run
from dims_worker.events import Event
from dims_worker.pipeline.verify import check_now, measure_due
from dims_worker.probes import base, scan
from dims_worker.probes.base import Deadline, Probe, Reading, ScanContext, ScanResult
from dims_worker.probes.files.probe import FilesProbe
from dims_worker.store.engine import transaction
from tests.conftest import Project
from tests.integration.helpers import Flow, event

YAML = """
settings: {lease: 60s}
sources:
  one: {type: files, path: one, cooldown: 0s}
  two: {type: files, path: two, cooldown: 0s}
metrics:
  m:
    a: {source: one, measure: count, paths: "a/**", critical: true}
    b: {source: one, measure: count, paths: "b/**"}
    c: {source: two, measure: count}
    sum: {derive: m.a + m.c}
rules:
  changed: {on: "dims.files.*"}
  night: {on: custom.night, metrics: [m.a]}
"""


@dataclass
class World(FilesProbe):
    """Values and states of the test. Like every probe of a follower, it reads nothing if the states are the same."""

    values: dict[str, Any] = field(default_factory=lambda: {"m.a": 10, "m.b": 20, "m.c": 30})
    details: dict[str, Any] = field(default_factory=dict)
    scans: list[str] = field(default_factory=list)
    follows_state = True

    def scan(self, source: Any, metrics: Mapping[str, Any], context: ScanContext, deadline: Deadline) -> ScanResult:
        self.scans += sorted(metrics)
        readings = (Reading(name, self.values[name], "files", "exact", None, self.details) for name in metrics)
        return ScanResult(tuple(readings))

    def states(
        self, source: Any, metrics: Mapping[str, Any], context: ScanContext, deadline: Deadline
    ) -> Mapping[str, str]:
        return {name: str(self.values[name]) for name in metrics}


@dataclass
class Followed:
    """A configuration with its database, whose sources follow the world."""

    flow: Flow
    world: World
    folder: Path

    def serve(self, *events: Event) -> list[Run]:
        self.world.scans.clear()
        stored = self.flow.store(*events)
        runs = [measure_due(self.flow.engine, self.flow.config, source) for source in sorted(stored.sources)]
        return [run for run in runs if run is not None]

    def changed(self, *paths: str) -> list[Run]:
        return self.serve(event("dims.files.changed", root=str(self.folder), paths=list(paths)))

    def due(self) -> int:
        with transaction(self.flow.engine) as connection:
            query = "SELECT count(*) FROM dims_metrics WHERE requested_gen > measured_gen"
            return int(connection.execute(text(query)).scalar_one())


@pytest.fixture
def followed(project: Project, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> Followed:
    project.write({"dims.yaml": YAML})
    world = World()

    @dataclass
    class ScanHere:
        config: Config
        source: str
        names: Any
        known: Mapping[str, str] | None = None

        def result(self, stop: object = None) -> ScanResult:
            metrics = {name: self.config.metrics[name] for name in self.names}
            limit = Deadline.after(self.config.settings.lease)
            return scan.scan_source(self.config, self.source, metrics, limit, self.known)[0]

    monkeypatch.setattr("dims_worker.domain.plan.probe_for", lambda _: world)
    monkeypatch.setattr(scan, "probe_for", lambda _: world)
    monkeypatch.setattr("dims_worker.pipeline.verify.start_scan", ScanHere)
    made = Followed(Flow(engine, project.config), world, project.folder)
    made.changed()  # unknown paths: everything is measured
    assert sorted(world.scans) == ["m.a", "m.b", "m.c"]
    return made


def test_a_change_without_an_event_is_found_by_the_next_event_of_the_source(followed: Followed) -> None:
    followed.world.values["m.b"] = 21
    run, *_ = [run for run in followed.changed("one/a/x") if run.items]
    assert {item.metric: (item.value, item.outcome) for item in run.items if item.method == "exact"} == {
        "m.a": (10, "accepted"),
        "m.b": (21, "accepted"),
    }
    assert (followed.flow.state("m.b").value, followed.due()) == (21, 0)


def test_an_event_beside_all_patterns_finds_it_too(followed: Followed) -> None:
    followed.world.values["m.a"] = 5
    run, *_ = [run for run in followed.changed("README") if run.items]
    held = [item for item in run.items if item.metric == "m.a"]
    assert [(item.value, item.outcome) for item in held] == [(5, "held")]


def test_nothing_changed_costs_no_reading_and_no_run(followed: Followed) -> None:
    before = followed.flow.state("m.a")
    runs = followed.changed("README")
    assert [(run.run_id, run.items) for run in runs] == [(0, ()), (0, ())]
    assert (followed.world.scans, followed.due()) == ([], 0)
    after = followed.flow.state("m.a")
    assert after.as_of is not None and before.as_of is not None and after.as_of > before.as_of


def test_the_metrics_that_an_event_names_get_a_reading_in_any_case(followed: Followed) -> None:
    followed.changed("one/b/x")
    assert followed.world.scans == ["m.b"]


def test_a_rule_that_names_one_metric_compares_the_others_of_its_source(followed: Followed) -> None:
    followed.world.values["m.b"] = 25
    followed.serve(event("custom.night"))
    assert followed.world.scans == ["m.a", "m.b"]


def test_the_log_and_the_plan_name_only_what_the_event_concerns(followed: Followed) -> None:
    planned = followed.flow.planner.plan(event("dims.files.changed", root=str(followed.folder), paths=["one/a/x"]))
    assert (planned.metrics, planned.compared) == (("m.a",), ("m.b", "m.c"))
    followed.changed("one/a/x")
    with transaction(followed.flow.engine) as connection:
        query = "SELECT metrics FROM dims_event_log ORDER BY seq DESC LIMIT 1"
        assert connection.execute(text(query)).scalar_one() == ["m.a"]


def test_an_event_elsewhere_compares_nothing(followed: Followed) -> None:
    assert followed.serve(event("dims.files.changed", root="/elsewhere", paths=["one/a/x"])) == []


def test_a_value_that_was_only_looked_at_is_judged_by_the_next_event(followed: Followed) -> None:
    followed.world.values["m.a"] = 5
    check_now(followed.flow.engine, followed.flow.config, ["m.a"])
    assert followed.flow.state("m.a").value == 5
    run, *_ = [run for run in followed.changed("README") if run.items]
    assert [item.outcome for item in run.items if item.metric == "m.a"] == ["held"]


def test_a_value_in_the_middle_of_an_operation_is_not_judged(followed: Followed) -> None:
    followed.world.values["m.a"], followed.world.details = 5, {base.IN_PROGRESS: "a rebase is in progress"}
    run, *_ = [run for run in followed.changed("README") if run.items]
    assert [(item.value, item.outcome) for item in run.items if item.metric == "m.a"] == [(5, "looked")]
    assert followed.flow.state("m.a").baseline == 10
    followed.world.values["m.a"], followed.world.details = 11, {}
    run, *_ = [run for run in followed.changed("README") if run.items]
    assert [(item.value, item.outcome) for item in run.items if item.metric == "m.a"] == [(11, "accepted")]


def test_a_derived_value_waits_for_its_other_input(followed: Followed) -> None:
    followed.world.values["m.a"] = 11
    followed.changed("README")
    assert (followed.flow.state("m.sum").value, followed.due()) == (41, 0)


def test_a_failed_reading_is_measured_again(followed: Followed, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any) -> ScanResult:
        return ScanResult(tuple(Reading.failed(name, "files", "the disk is away") for name in ("m.a", "m.b")))

    with monkeypatch.context() as patch:
        patch.setattr(World, "scan", fails)
        followed.changed("one/a/x")
    assert followed.flow.state("m.a").error == "the disk is away"
    with transaction(followed.flow.engine) as connection:
        connection.execute(text("UPDATE dims_metrics SET not_before = NULL"))
    followed.changed("README")
    assert (followed.flow.state("m.a").error, followed.due()) == (None, 0)


def test_a_probe_without_states_is_measured_as_before() -> None:
    assert (Probe.follows_state, Probe.scan_returns_states) == (False, False)
