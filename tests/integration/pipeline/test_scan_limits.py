"""A scan that does not end is killed, its metrics fail with the reason, and what blocks is found and quarantined."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Engine

from dims_worker.domain.run import Run
from dims_worker.errors import ScanStopped
from dims_worker.pipeline import verify
from dims_worker.pipeline.ingest import register_config
from dims_worker.pipeline.record import record_run
from dims_worker.probes.base import readings_by_name
from dims_worker.probes.scan_process import pool
from dims_worker.store import leases
from dims_worker.store.engine import transaction
from dims_worker.store.leases import QUARANTINE_AFTER
from tests.conftest import Lake, Project, wait_for
from tests.fixtures.scan_processes import scan_processes
from tests.integration.helpers import Flow, reading

ENDLESS = "^(a+)+$"
"""A pattern that needs years for `LINE`, and never gives way to another thread meanwhile."""
LINE = "a" * 40 + "b"

FILES = f"""
sources:
  one: {{type: files, path: ".", timeout: 3s}}
metrics:
  m:
    bad: {{source: one, measure: entries, entry: '{ENDLESS}', paths: re.txt}}
    good: {{source: one, measure: count, paths: "*.txt"}}
rules:
  all: {{on: "*"}}
"""


@pytest.fixture(autouse=True)
def short_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "GRACE", 0.3)


def measure(flow: Flow, source: str = "one") -> dict[str, str | None]:
    """Measure what is due of a source. Return the error of each reading, or None for a good one."""
    run = verify.measure_due(flow.engine, flow.config, source, at_once=True)
    assert run is not None
    return errors(run)


def errors(run: Run) -> dict[str, str | None]:
    return {item.metric: item.error for item in run.items}


def attempts(flow: Flow) -> dict[str, int]:
    return {row.metric: row.attempts for row in flow.rows("SELECT metric, attempts FROM dims_metrics")}


@pytest.fixture
def blocked(project: Project, engine: Engine) -> Flow:
    project.write({"dims.yaml": FILES, "re.txt": LINE})
    flow = Flow(engine, project.config)
    flow.ask("m.bad", "m.good")
    return flow


def test_a_metric_that_blocks_is_measured_alone_and_quarantined_and_the_others_go_on(blocked: Flow) -> None:
    for number in range(1, leases.MAX_SHARED_LOSSES + 1):
        found = measure(blocked)
        assert all("longer than its timeout of 3 s and was killed. It was computing" in str(e) for e in found.values())
        assert attempts(blocked) == {"m.bad": number, "m.good": number}
    alone = [measure(blocked) for _ in range(2)]
    assert {"m.good": None} in alone
    assert attempts(blocked)["m.good"] == 0
    while attempts(blocked)["m.bad"] < QUARANTINE_AFTER:
        assert "m.bad" in measure(blocked)
    quarantined = measure(blocked)["m.bad"]
    assert quarantined is not None
    assert quarantined.startswith("quarantined: this measurement blocked its process or crashed its worker 3 times")
    assert blocked.state("m.bad").due
    assert blocked.state("m.good").value == 1


def test_a_scan_that_waits_blames_no_metric(project: Project, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """A dead server is not the fault of a metric: all of them are tried again together."""
    project.write({"dims.yaml": FILES, "re.txt": LINE})
    flow = Flow(engine, project.config)
    flow.ask("m.good")

    class Waiting:
        follows_state = False

        def scan(self, *_: object) -> None:
            threading.Event().wait(60)

    monkeypatch.setattr("dims_worker.probes.scan.probe_for", lambda _: Waiting())
    assert "It was waiting for a server, a file system or a program" in str(measure(flow)["m.good"])
    assert attempts(flow)["m.good"] == 0


def test_a_scan_process_that_dies_fails_its_metrics_and_counts(
    project: Project, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.write({"dims.yaml": FILES, "re.txt": LINE})
    flow = Flow(engine, project.config)
    flow.ask("m.good")

    class Dying:
        follows_state = False

        def scan(self, *_: object) -> None:
            os.kill(os.getpid(), 9)

    monkeypatch.setattr("dims_worker.probes.scan.probe_for", lambda _: Dying())
    assert "the scan of one has no result: its process ended with signal 9 (SIGKILL)" in str(measure(flow)["m.good"])
    assert attempts(flow)["m.good"] == 1


def check(project: Project, engine: Engine) -> Run:
    config = project.config
    with transaction(engine) as connection:
        register_config(connection, config)
    return verify.check_now(engine, config, config.metrics)


def test_a_git_pattern_is_killed_and_other_sources_are_unaffected(project: Project, engine: Engine) -> None:
    project.commit(LINE, {"a.txt": "", "dims.yaml": GIT})
    found = errors(check(project, engine))
    assert [name for name, error in found.items() if error is None] == ["m.files"]
    assert {str(found[f"m.{name}"])[:60] for name in ("message", "author")} == {
        "the scan of repo took longer than its timeout of 1 s and was"
    }


GIT = f"""
sources:
  repo: {{type: git, path: ".", timeout: 1s}}
  here: {{type: files, path: "."}}
metrics:
  m:
    message: {{source: repo, measure: commits, message: '{ENDLESS}'}}
    author: {{source: repo, measure: commits, author: 'no such person'}}
    files: {{source: here, measure: count, paths: "*.txt"}}
"""


def test_a_pattern_for_keys_is_killed(
    project: Project, engine: Engine, lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in lake.env.items():
        monkeypatch.setenv(name, value)
    lake.put("lake", {LINE: b"x"})
    project.write({"dims.yaml": S3})
    found = errors(check(project, engine))
    assert found["m.other"] is None
    assert "It was computing all the time" in str(found["m.days"])


S3 = f"""
sources:
  lake: {{type: s3, bucket: lake, timeout: 5s}}
  again: {{type: s3, bucket: lake}}
metrics:
  m:
    days: {{source: lake, measure: missing_days, date: '{ENDLESS}'}}
    other: {{source: again, measure: count}}
"""

WORKFLOW = f"""
sources:
  here: {{type: files, path: ".", timeout: 1s}}
metrics:
  m:
    bad: {{source: here, measure: entries, entry: '{ENDLESS}', paths: re.txt}}
workflows:
  local_inventory: {{timeout: 2s, folders: {{data: {{path: data, id: '{ENDLESS}'}}}}}}
  file_inventory: {{source: here, metrics: [m.bad]}}
"""


@pytest.fixture
def workflow(project: Project, engine: Engine) -> Flow:
    project.write({"dims.yaml": WORKFLOW, f"data/{LINE}": "", "re.txt": LINE})
    return Flow(engine, project.config)


def run_workflow(flow: Flow, name: str, **options: Any) -> tuple[Run, dict[str, Any]]:
    flow.do("UPDATE dims_metrics SET requested_gen = 1 WHERE metric = :m", m=name)
    run = verify.measure_due(flow.engine, flow.config, name, options=verify.WorkflowOptions(**options))
    assert run is not None
    return run, flow.scalar("SELECT result FROM dims_verification_runs WHERE run_id = :r", r=run.run_id)


def test_a_workflow_that_computes_without_an_end_is_killed(workflow: Flow) -> None:
    steps: list[str] = []
    run, result = run_workflow(workflow, "workflow.local-inventory", progress=steps.append)
    assert "the workflow local-inventory took longer than its timeout of 2 s and was killed" in str(run.items[0].error)
    assert list(result["unreached"]) == ["local-inventory"]
    assert steps == ["local-inventory: reading data"]
    assert attempts(workflow)["workflow.local-inventory"] == 1


def test_a_scan_of_a_workflow_is_killed_alone(workflow: Flow) -> None:
    """A run by hand measures the metrics itself. The rest of the workflow has its result."""
    run, result = run_workflow(workflow, "workflow.file-inventory", with_metrics=True)  # by hand
    assert "the scan of here took longer than its timeout of 1 s and was killed" in result["unreached"]["here"]
    assert "files" in result
    assert errors(run)["m.bad"] is not None


# --- an operator's stop -------------------------------------------------------------------------------


def stopped_after(number: int) -> Callable[[], bool]:
    answers = iter([*[False] * number, True])
    return lambda: next(answers)


def test_a_stop_returns_the_claim_uncounted(blocked: Flow) -> None:
    blocked.config.sources["one"].__dict__["timeout"] = timedelta(minutes=5)
    for _ in range(2 * QUARANTINE_AFTER):
        with pytest.raises(ScanStopped):
            verify.measure_due(blocked.engine, blocked.config, "one", stop=stopped_after(1))
        assert attempts(blocked) == {"m.bad": 0, "m.good": 0}
        assert blocked.rows("SELECT lease_until, lease_holder, not_before FROM dims_sources") == [(None, None, None)]
    assert blocked.scalar("SELECT lease_epoch FROM dims_sources") == 4 * QUARANTINE_AFTER
    claim = blocked.claim(at_once=False)
    assert claim is not None
    assert sorted(claim.generations) == ["m.bad", "m.good"]
    assert scan_processes() == []


def test_a_stop_returns_the_claim_of_a_workflow(workflow: Flow) -> None:
    workflow.do("UPDATE dims_metrics SET requested_gen = 1 WHERE metric = 'workflow.local-inventory'")
    with pytest.raises(ScanStopped):
        verify.measure_due(workflow.engine, workflow.config, "workflow.local-inventory", stop=stopped_after(2))
    assert attempts(workflow)["workflow.local-inventory"] == 0


def test_ctrl_c_returns_the_claim_and_kills_the_scan(blocked: Flow) -> None:
    def interrupt() -> bool:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        verify.measure_due(blocked.engine, blocked.config, "one", at_once=True, stop=interrupt)
    assert attempts(blocked) == {"m.bad": 0, "m.good": 0}
    assert scan_processes() == []


def test_a_record_after_the_return_of_its_claim_is_superseded(blocked: Flow) -> None:
    claim = blocked.claim()
    assert claim is not None
    with transaction(blocked.engine) as connection:
        assert leases.return_claim(connection, claim)
        assert not leases.return_claim(connection, claim)
    readings = readings_by_name([reading("m.good", 3), reading("m.bad", 4)])
    measured = blocked.measured({}, claim)
    measured.readings = readings
    with transaction(blocked.engine) as connection:
        run = record_run(connection, blocked.config, measured)
    assert (run.status, blocked.state("m.good").value) == ("superseded", None)
    assert blocked.state("m.good").due


def test_a_claim_whose_lease_was_lost_cannot_be_returned(blocked: Flow) -> None:
    first = blocked.claim()
    blocked.do("UPDATE dims_sources SET lease_until = clock_timestamp() - interval '1 s'")
    second = blocked.claim()
    assert first is not None and second is not None
    with transaction(blocked.engine) as connection:
        assert not leases.return_claim(connection, first)
        assert leases.is_leased(connection, "one")
    assert attempts(blocked) == {"m.bad": 2, "m.good": 2}


def test_the_duration_of_the_last_scan_is_recorded(blocked: Flow) -> None:
    measure(blocked)
    seconds = blocked.scalar("SELECT scan_seconds FROM dims_sources WHERE source = 'one'")
    assert 3.0 <= seconds < 60


def test_a_scan_leaves_no_process_when_its_thread_has_ended(blocked: Flow) -> None:
    """A worker of a pool of threads has its own scan process, which ends with the thread."""
    blocked.do("UPDATE dims_metrics SET requested_gen = 0 WHERE metric = 'm.bad'")
    thread = threading.Thread(target=measure, args=(blocked,))
    thread.start()
    thread.join()
    assert blocked.state("m.good").value == 1
    wait_for(lambda: scan_processes() == [])
