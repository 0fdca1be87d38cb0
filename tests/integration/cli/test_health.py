"""`dims health` answers with an exit code whether a process on this host works."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import Engine, text

from dims_worker.store.engine import transaction
from dims_worker.store.processes import ProcessIdentity, record_sign_of_life
from tests.conftest import GIT_ENV, Project, wait_for

HOST = socket.gethostname()
NOW = datetime.now(UTC)
YAML = "settings: {sweep: 1m}\nsources: {p: {type: files, path: .}}\nmetrics: {m: {a: {source: p, measure: count}}}\n"


@pytest.fixture
def configured(project: Project) -> Project:
    project.write({"dims.yaml": YAML})
    return project


def report(engine: Engine, role: str, *, age: int = 0, problem: str | None = None, host: str = HOST) -> None:
    identity = ProcessIdentity(f"{role}@{host}", host, role, 7, "0", "abc", (), NOW)
    with transaction(engine) as connection:
        record_sign_of_life(connection, identity, problem=problem, now=NOW)
        connection.execute(
            text("UPDATE dims_processes SET seen_at = seen_at - :age WHERE process = :process"),
            {"age": timedelta(seconds=age), "process": identity.process},
        )


@pytest.mark.parametrize("role", ["worker", "ingest", "beat", "watch"])
def test_a_process_that_reports_itself_is_healthy(configured: Project, engine: Engine, role: str) -> None:
    report(engine, role)
    done = configured.dims("health", role, "--json")
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert (answer["role"], answer["healthy"], answer["processes"]) == (role, True, [f"{role}@{HOST}"])


def test_a_process_of_another_host_or_role_does_not_count(configured: Project, engine: Engine) -> None:
    report(engine, "worker", host="elsewhere")
    report(engine, "beat")
    done = configured.dims("health", "worker")
    assert done.returncode == 3
    assert "no such process has reported itself on this host" in done.stdout


@pytest.mark.parametrize(("age", "problem", "shown"), [(600, None, "no sign of life for "), (0, "work waits", "work")])
def test_a_silent_or_stalled_process_is_unhealthy(
    configured: Project, engine: Engine, age: int, problem: str | None, shown: str
) -> None:
    report(engine, "worker", age=age, problem=problem)
    for options in ([], ["--liveness"]):
        done = configured.dims("health", "worker", *options)
        assert (done.returncode, shown in done.stdout) == (3, True)


def test_an_unreachable_database_is_no_reason_for_a_restart(configured: Project) -> None:
    lost = replace(configured, env={**configured.env, "DIMS_DATABASE_URL": "postgresql://dims:x@127.0.0.1:1/dims"})
    done = lost.dims("health", "worker", "--json")
    assert done.returncode == 3
    assert json.loads(done.stdout)["healthy"] is None
    assert lost.dims("health", "worker", "--liveness").returncode == 0


def test_the_dashboard_is_checked_by_a_request(configured: Project) -> None:
    assert configured.dims("health", "web").returncode == 3
    process = subprocess.Popen(
        [sys.executable, "-m", "dims_worker", "web", "--port", "0"],
        cwd=configured.folder,
        env={**os.environ, **GIT_ENV, **configured.env},
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_for(lambda: configured.dims("health", "web").returncode == 0)
    finally:
        process.kill()
        process.wait(10)
    done = configured.dims("health", "web")
    assert done.returncode == 3
    assert "does not answer at http://127.0.0.1:" in done.stdout
