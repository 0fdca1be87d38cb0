"""The processes of all hosts: which runs, which lags, and which runs something else."""

from __future__ import annotations

import os
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from dims_worker.broker.queues import queue_names
from dims_worker.checks import Check, fleet
from dims_worker.checks.system import SystemState, clock_check, local_stack_check
from dims_worker.config import Config, load_config
from dims_worker.local import ProcessStatus
from dims_worker.store.processes import ProcessRow

NOW = datetime(2026, 11, 30, 12, tzinfo=UTC)
HOST = "here"
CONFIG = """
sources: {one: {type: files, path: data, queue: slow.disk}}
metrics: {m: {a: {source: one, measure: count}}}
"""
SCHEDULE = 'rules: {daily: {schedule: "0 9 * * *"}}\n'


def config_of(tmp_path: Path, text: str = CONFIG) -> Config:
    (tmp_path / "dims.yaml").write_text(text)
    return load_config(None, {}, tmp_path)


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return config_of(tmp_path)


def row(process: str, *, seen: float = 1, **values: Any) -> ProcessRow:
    """Return the row of a process that was seen this many seconds ago."""
    role, _, host = process.partition("@")
    facts: dict[str, Any] = {
        "process": process,
        "host": host,
        "role": role,
        "pid": 7,
        "version": "1.0",
        "config_hash": "abc",
        "queues": ("dims.ingest",) if role == "ingest" else (),
        "started_at": NOW - timedelta(hours=1),
        "seen_at": NOW - timedelta(seconds=seen),
        **dict.fromkeys(("last_sweep_at", "last_claim_at", "last_stored_at", "clock_offset", "problem")),
    }
    return ProcessRow(**{**facts, **values})


def local_process(name: str, state: str = "running", *, restarts: int = 0, age: float = 600) -> ProcessStatus:
    return ProcessStatus(name, 7 if state == "running" else None, NOW - timedelta(seconds=age), restarts, state)


def checks(
    config: Config, rows: list[ProcessRow], local: list[ProcessStatus] | None = None, **options: Any
) -> dict[str, Check]:
    members = fleet.build_fleet(config, rows, local or [], NOW, HOST)
    found = fleet.fleet_checks(config, members, NOW, **{"expected": True, **options})
    return {check.name: check for check in found}


def all_rows(config: Config, host: str = "a", **values: Any) -> list[ProcessRow]:
    queues = tuple(name for name in queue_names(config) if name != "dims.ingest")
    rows = [row(f"ingest@{host}"), row(f"worker@{host}", queues=queues), row(f"beat@{host}")]
    return [replace(each, **values) for each in rows]


def test_all_is_fine_while_every_queue_has_a_worker(config: Config) -> None:
    found = checks(config, all_rows(config))
    assert {check.state for check in found.values()} == {"ok"}
    assert found["versions"].summary == "all run DIMS 1.0 with configuration abc"


def test_a_queue_that_a_source_names_needs_a_worker(config: Config) -> None:
    rows = [row("ingest@a"), row("worker@a", queues=("dims.verify", "dims.verify.slow"))]
    check = checks(config, rows)["workers"]
    assert (check.state, "no worker runs for slow.disk" in check.summary) == ("problem", True)
    assert check.public == "No worker measures what is in slow.disk"


def test_a_silent_process_is_a_problem_even_if_others_do_its_work(config: Config) -> None:
    silent = fleet.silent_after(config).total_seconds() + 1
    found = checks(config, all_rows(config, seen_at=NOW - timedelta(seconds=silent)))
    assert {name for name, check in found.items() if check.state == "problem"} == {"ingest", "workers", "lagging"}
    assert "worker@a has been silent for 18 seconds" in found["workers"].summary
    rows = all_rows(config) + all_rows(config, "b", seen_at=NOW - timedelta(seconds=silent))
    found = checks(config, rows)
    assert {name for name, check in found.items() if check.state != "ok"} == {"lagging"}
    assert found["lagging"].state == "problem"
    assert "worker@b has been silent" in found["lagging"].summary
    rows = all_rows(config) + all_rows(config, "b", seen_at=NOW - timedelta(hours=3))
    assert checks(config, rows)["lagging"].state == "ok"  # its host was removed hours ago


def test_a_process_that_reports_a_problem_makes_no_progress(config: Config) -> None:
    rows = all_rows(config, problem="it has consumed no wake-up for 40 s")
    found = checks(config, rows)
    assert found["workers"].state == found["ingest"].state == "problem"
    assert "it has consumed no wake-up for 40 s" in found["workers"].summary


def test_due_metrics_that_no_worker_measures_are_a_problem(config: Config) -> None:
    check = checks(config, all_rows(config), stalled=(3, NOW - timedelta(minutes=9)))["workers"]
    assert check.state == "problem"
    assert "none makes progress: 3 metrics due since 2026-11-30 11:51" in check.summary


def test_beat_has_to_run_only_if_a_rule_has_a_schedule(tmp_path: Path, config: Config) -> None:
    assert checks(config, [])["beat"].state == "ok"
    scheduled = config_of(tmp_path, CONFIG + SCHEDULE)
    assert checks(scheduled, [])["beat"].state == "problem"
    assert checks(scheduled, [row("beat@a")])["beat"].state == "ok"
    assert checks(scheduled, [row("beat@a", seen=100)])["beat"].state == "problem"
    assert checks(config, [row("beat@a", seen=100)])["beat"].state == "warning"


def test_other_versions_and_configurations_are_named(config: Config) -> None:
    newer = NOW - timedelta(minutes=1)
    rows = [*all_rows(config), row("ingest@b", version="1.1", config_hash="def", started_at=newer)]
    check = checks(config, rows)["versions"]
    assert check.state == "warning"
    newest_first = "b: DIMS 1.1 with configuration def; a: DIMS 1.0 with configuration abc"
    assert check.summary == f"newest first: {newest_first}"


def test_no_process_is_needed_where_none_has_ever_run(config: Config) -> None:
    found = checks(config, [], expected=False)
    assert {name: check.state for name, check in found.items()} == {"workers": "warning"}


def test_the_processes_of_this_host_are_those_of_its_supervisor(config: Config) -> None:
    rows = [row("worker@here", queues=("dims.verify",)), row("worker@b")]
    members = fleet.build_fleet(config, rows, [local_process("worker"), local_process("flower")], NOW, HOST)
    assert [(member.process, member.state) for member in members] == [
        ("worker@here", "running"),
        ("worker@b", "running"),
        ("flower", "running"),
    ]
    slow = row("slow-worker@here", pid=8, role="worker")
    both = [local_process("worker"), ProcessStatus("slow-worker", 8, NOW, 0, "running")]
    members = fleet.build_fleet(config, [rows[0], slow], both, NOW, HOST)
    assert [member.process for member in members] == ["worker@here", "slow-worker@here"]
    restarted = ProcessStatus("worker", 99, NOW, 1, "running")  # its row is from the process before it
    members = fleet.build_fleet(config, rows, [restarted], NOW, HOST)
    assert [(member.process, member.state) for member in members] == [("worker@b", "running"), ("worker", "starting")]
    late = ProcessStatus("worker", 99, NOW - timedelta(minutes=5), 1, "running")
    assert fleet.build_fleet(config, [], [late], NOW, HOST)[0].state == "silent"
    assert fleet.build_fleet(config, None, [late], NOW, HOST)[0].state == "running"  # the database is unreachable


def test_a_process_of_this_host_that_ended_is_silent_at_once(config: Config) -> None:
    rows = [row("worker@here", pid=2**22 + 1), row("beat@here", pid=os.getpid())]
    states = [member.state for member in fleet.build_fleet(config, rows, [], NOW, HOST)]
    alive = b"dims" in Path(f"/proc/{os.getpid()}/cmdline").read_bytes()
    assert states == (["silent", "running"] if alive else ["running", "running"])


def test_a_first_start_is_a_warning_and_a_restart_a_problem(config: Config) -> None:
    starting = [local_process("ingest", age=5), local_process("worker", age=5)]
    found = checks(config, [], starting)
    assert (found["ingest"].state, found["workers"].state) == ("warning", "warning")
    again = [local_process("ingest", age=5, restarts=1), local_process("worker", age=5, restarts=1)]
    found = checks(config, [], again)
    assert (found["ingest"].state, found["workers"].state) == ("problem", "problem")


@pytest.mark.parametrize(
    ("statuses", "state"),
    [
        ([("ingest", "running"), ("worker", "running")], "ok"),
        ([("ingest", "running"), ("worker", "waiting")], "problem"),
        ([("ingest", "orphan"), ("worker", "orphan")], "problem"),
        ([("ingest", "stopped"), ("worker", "stopped")], "problem"),
        ([("ingest", "running"), ("flower", "missing")], "warning"),
    ],
)
def test_the_local_stack_runs_or_not(config: Config, statuses: list[tuple[str, str]], state: str) -> None:
    (check,) = local_stack_check(config, [local_process(name, each) for name, each in statuses])
    assert check.state == state
    assert list(local_stack_check(config, [local_process("postgres", "stopped")])) == []  # only `dims verify` ran


def test_a_process_that_restarts_again_and_again_is_a_warning(config: Config) -> None:
    looping = ProcessStatus("worker", 7, datetime.now(UTC), 12, "running")
    (check,) = local_stack_check(config, [looping])
    assert (check.state, "worker is running after 12 restarts" in check.summary) == ("warning", True)


@pytest.mark.parametrize(("offset", "state"), [(0.2, "ok"), (5.1, "warning"), (-61, "problem"), (600, "problem")])
def test_the_clock_of_each_host_is_compared(config: Config, offset: float, state: str) -> None:
    rows = [row("worker@a", clock_offset=0.0), row("worker@b", clock_offset=offset)]
    check = clock_check(SystemState(fleet=fleet.build_fleet(config, rows, [], NOW, HOST)))
    assert (check.state, "b is" in check.summary) == (state, state != "ok")


def test_one_process_with_a_wrong_clock_is_not_hidden_by_others_of_its_host(config: Config) -> None:
    rows = [row("beat@a", clock_offset=600.0), row("worker@a", clock_offset=0.1), row("web@a", clock_offset=-0.2)]
    check = clock_check(SystemState(fleet=fleet.build_fleet(config, rows, [], NOW, HOST)))
    assert (check.state, "ahead of the database" in check.summary) == ("problem", True)
