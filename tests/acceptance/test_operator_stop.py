"""A real worker: scans that are killed, and stops by an operator, which blame no metric."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, text

from dims_worker.probes.scan_process.process_tree import descendants
from tests.conftest import Project, Worker, wait_for
from tests.fixtures.scan_processes import scan_processes

Start = Callable[..., Worker]
STOPS = 6
ENDLESS = "^(a+)+$"
LINE = "a" * 40 + "b"


def scalar(engine: Engine, sql: str, **parameters: Any) -> Any:
    with engine.connect() as connection:
        return connection.execute(text(sql), parameters).scalar()


def leased(engine: Engine, source: str) -> bool:
    sql = "SELECT lease_until > clock_timestamp() FROM dims_sources WHERE source = :s"
    return bool(scalar(engine, sql, s=source))


def attempts(engine: Engine) -> int:
    return int(scalar(engine, "SELECT coalesce(max(attempts), 0) FROM dims_metrics"))


def begun(engine: Engine, worker: Worker, source: str) -> bool:
    """Return whether a scan process of this worker scans the source."""
    return leased(engine, source) and len(scan_processes(worker.process.pid)) > 2  # two children, and their scans


SLOW = """
settings: {lease: 60s, sweep: 1s}
sources:
  slow: {type: command, cwd: ".", timeout: 5m}
metrics:
  m:
    number: {source: slow, command: [sh, -c, "test -f ready || sleep 300; cat ready"], parse: integer, critical: true}
rules:
  all: {on: "*"}
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGQUIT], ids=["warm", "cold"])
def test_an_operators_stop_blames_no_metric(
    project: Project, engine: Engine, start_worker: Start, number: signal.Signals
) -> None:
    """Six stops in a row during a long scan: the claim is returned each time, and the metric is measured at the end."""
    project.write({"dims.yaml": SLOW})
    for stop in range(STOPS):
        worker = start_worker()
        wait_for(lambda worker=worker: begun(engine, worker, "slow"))
        worker.process.send_signal(number)
        worker.process.wait(60)
        assert not leased(engine, "slow"), f"stop {stop}"
        assert attempts(engine) == 0, f"stop {stop}"
        assert scan_processes(worker.process.pid) == []
    assert scalar(engine, "SELECT count(*) FROM dims_metrics_history") == 0
    assert scalar(engine, "SELECT not_before FROM dims_metrics WHERE metric = 'm.number'") is None
    project.write({"ready": "42"})
    start_worker()
    wait_for(lambda: scalar(engine, "SELECT value FROM dims_metrics WHERE metric = 'm.number'") == 42)
    assert attempts(engine) == 0


def test_a_signal_to_all_processes_of_a_service_blames_no_metric(
    project: Project, engine: Engine, start_worker: Start
) -> None:
    """Systemd sends SIGTERM to every process of a unit by default, also to programs that a scan has started."""
    project.write({"dims.yaml": SLOW})
    worker = start_worker()
    wait_for(lambda: begun(engine, worker, "slow"))
    for pid in (worker.process.pid, *descendants(worker.process.pid)):
        os.kill(pid, signal.SIGTERM)
    worker.process.wait(60)
    wait_for(lambda: not leased(engine, "slow"))
    assert attempts(engine) == 0
    assert scalar(engine, "SELECT count(*) FROM dims_metrics_history") == 0


def test_a_stop_leaves_the_work_to_another_worker(project: Project, engine: Engine, start_worker: Start) -> None:
    project.write({"dims.yaml": SLOW})
    first = start_worker()
    wait_for(lambda: begun(engine, first, "slow"))
    second = start_worker()
    project.write({"ready": "42"})  # for the next scan: the first one sleeps already
    first.process.terminate()
    wait_for(lambda: scalar(engine, "SELECT value FROM dims_metrics WHERE metric = 'm.number'") == 42)
    holder = scalar(engine, "SELECT worker FROM dims_verification_runs")
    assert first.process.wait(60) == 0
    assert second.process.poll() is None
    assert attempts(engine) == 0
    assert holder
    assert "was stopped before its end" in first.log.read_text()


SHORT = SLOW.replace("sleep 300; cat ready", "sleep 2; echo 42")


def test_a_scan_that_ends_soon_after_the_stop_is_recorded(
    project: Project, engine: Engine, start_worker: Start
) -> None:
    project.write({"dims.yaml": SHORT})
    worker = start_worker()
    wait_for(lambda: begun(engine, worker, "slow"))
    worker.process.terminate()
    worker.process.wait(60)
    assert scalar(engine, "SELECT value FROM dims_metrics WHERE metric = 'm.number'") == 42


BLOCKED = f"""
settings: {{lease: 60s, sweep: 1s}}
sources:
  lines: {{type: files, path: lines, timeout: 1s}}
  repo: {{type: git, path: ".", timeout: 1s}}
  good: {{type: files, path: good, cooldown: 0s}}
metrics:
  m:
    lines: {{source: lines, measure: entries, entry: '{ENDLESS}', paths: "**"}}
    commits: {{source: repo, measure: commits, message: '{ENDLESS}'}}
    good: {{source: good, measure: count}}
workflows:
  local_inventory: {{timeout: 1s, folders: {{data: {{path: lines, id: '{ENDLESS}'}}}}}}
  file_inventory: {{source: good}}
rules:
  all: {{on: "*", metrics: ["*"], workflows: [local-inventory]}}
"""


def test_a_worker_kills_scans_and_workflows_that_hold_the_lock_of_python(
    project: Project, engine: Engine, start_worker: Start
) -> None:
    """The readings fail with the reason, other sources are measured, and the worker keeps its children."""
    project.commit(LINE, {"dims.yaml": BLOCKED, f"lines/{LINE}": f"{LINE}\n", "good/a": ""})
    worker = start_worker()
    children = set(_children(worker))
    assert project.dims("enqueue", "anything").returncode == 0
    for name in ("m.lines", "m.commits", "workflow.local-inventory"):
        wait_for(lambda name=name: "was killed. It was computing" in str(scalar(engine, ERROR, m=name)), timeout=90)
    assert scalar(engine, "SELECT value FROM dims_metrics WHERE metric = 'm.good'") == 1
    assert set(_children(worker)) == children
    worker.process.terminate()
    assert worker.process.wait(60) == 0


ERROR = "SELECT error FROM dims_metrics WHERE metric = :m"


def _children(worker: Worker) -> Iterator[int]:
    pid = worker.process.pid
    return map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "SIGTERM"])
def test_a_signal_ends_dims_verify_and_its_scans_at_once(
    project: Project, tmp_path: Path, number: signal.Signals
) -> None:

    project.write(
        {"dims.yaml": BLOCKED.replace("timeout: 1s", "timeout: 5m"), f"lines/{LINE}": f"{LINE}\n", "good/a": ""}
    )
    command = [sys.executable, "-m", "dims_worker", "verify"]
    with subprocess.Popen(
        command, cwd=project.folder, env={**os.environ, **project.env}, start_new_session=True, stderr=subprocess.PIPE
    ) as verify:
        scans = wait_for(lambda: scan_processes(verify.pid))
        time.sleep(0.5)  # so that the pattern has begun
        verify.send_signal(number)
        code = verify.wait(20)
    assert code == (130 if number == signal.SIGINT else 128 + number)
    assert [pid for pid in scans if Path(f"/proc/{pid}").exists()] == []


def test_dims_verify_kills_what_does_not_end(project: Project) -> None:
    project.commit(LINE, {"dims.yaml": BLOCKED, f"lines/{LINE}": f"{LINE}\n", "good/a": ""})
    done = project.dims("verify")
    assert done.returncode == 3
    assert done.stdout.count("was killed. It was computing all the time") == 2
    assert "3 metrics" in done.stdout and "1 new" in done.stdout
