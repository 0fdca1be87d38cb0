"""`dims doctor` as a person runs it: on real servers, with faults, and what it prints."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from typing import Any

import pytest
from click.testing import CliRunner
from sqlalchemy import make_url

from dims_worker.checks import Check
from dims_worker.checks.producers import producer_checks, producers_check
from dims_worker.cli.doctor import doctor
from dims_worker.cli.session import Session
from tests.conftest import Project

CONFIG = """
sources:
  code: {type: git, path: .}
  data: {type: files, path: data}
metrics:
  m:
    commits: {source: code, measure: commits}
    files: {source: data, measure: count}
rules:
  committed: {on: "dims.git.*"}
  changed: {on: dims.files.changed}
watch: [data]
"""


@pytest.fixture
def ready(project: Project) -> Project:
    project.env |= {"DIMS_WEB_PORT": "0", "DIMS_FLOWER_PORT": "0", "PATH": "/usr/bin:/bin"}
    project.commit("first", {"dims.yaml": CONFIG, "data/a": "a"})
    project.dims("hook", "install", check=True)
    return project


def document(project: Project) -> dict[str, Any]:
    done = project.dims("doctor", "--json")
    assert done.returncode in (0, 1, 3), done.stderr
    found = json.loads(done.stdout)
    assert done.returncode == {"ok": 0, "warning": 1, "problem": 3}[found["state"]]
    return found


def failing(project: Project) -> dict[str, dict[str, Any]]:
    """Return the failed checks, without those of the servers, which are slow on a loaded machine."""
    checks = document(project)["checks"]
    return {check["name"]: check for check in checks if check["state"] != "ok" and check["group"] != "What runs"}


def test_a_project_in_order_has_four_groups_and_no_secret(ready: Project) -> None:
    assert failing(ready) == {}
    done = ready.dims("doctor")
    assert done.returncode in (1, 3)  # no worker has ever run here
    titles = [line for line in done.stdout.splitlines() if line and line[0] != " "]
    assert titles[:-1] == ["What runs", "Sources", "Events", "This host"]
    assert " workers " in done.stdout and "1 warning" in titles[-1]
    assert make_url(ready.env["DIMS_DATABASE_URL"]).password not in done.stdout


def test_the_fix_of_a_warning_removes_it(ready: Project) -> None:
    ready.dims("hook", "uninstall", check=True)
    found = failing(ready)
    assert found.keys() == {"hooks of code"} and found["hooks of code"]["group"] == "Events"
    words = shlex.split(found["hooks of code"]["fix"])
    assert words[0] == "dims"
    ready.dims(*words[1:], check=True)
    assert failing(ready) == {}


def test_a_problem_exits_with_3(ready: Project) -> None:
    subprocess.run(["rm", "-r", str(ready.folder / "data")], check=True)
    done = ready.dims("doctor")
    assert done.returncode == 3
    assert "problem" in done.stdout.splitlines()[-1]
    assert "fix: Correct `path`, or mount it" in done.stdout


@pytest.mark.parametrize(("state", "code"), [("ok", 0), ("warning", 1), ("problem", 3)])
def test_the_exit_code_follows_the_worst_state(ready: Project, monkeypatch, state: Any, code: int) -> None:
    checks = {"What runs": [Check("a", "ok", "fine"), Check("b", state, "text", "one\n  two")]}
    monkeypatch.setattr("dims_worker.cli.doctor.doctor_checks", lambda config, env: checks)
    session = Session(None, ready.env, ready.folder)
    result = CliRunner().invoke(doctor, [], obj=session)
    assert result.exit_code == code
    assert ("           fix: one\n                  two\n" in result.stdout) == (state != "ok")


def test_servers_that_do_not_run_hide_no_other_check(ready: Project) -> None:
    ready.env["DIMS_DATABASE_URL"] = "postgresql+psycopg2://u:secret-word@127.0.0.1:1/x"
    ready.env["DIMS_BROKER_URL"] = "redis://:secret-word@127.0.0.1:1/0"
    found = document(ready)
    states = {check["name"]: check["state"] for check in found["checks"]}
    assert states["database"] == states["broker"] == "problem"
    assert states["hooks of code"] == states["code"] == states["versions"] == "ok"
    assert "secret-word" not in json.dumps(found)


def test_a_broken_configuration_is_a_usage_error(ready: Project) -> None:
    ready.write({"dims.yaml": "sources: 3\n"})
    assert ready.dims("doctor").returncode == 2


def test_status_gets_one_check_of_the_producers(ready: Project) -> None:
    names = {check.name for check in producer_checks(ready.config)}
    assert {"hooks of code", "data mount", "watcher"} <= names
    assert producers_check(ready.config).state == "ok"
    (ready.folder / ".git/hooks/post-commit").unlink()
    (ready.folder / ".git/hooks/post-merge").chmod(0o644)
    found = producers_check(ready.config)
    assert (found.state, found.summary) == ("problem", "1 problem: hooks of code")
    assert str(ready.folder) not in found.public + found.fix


def test_hook_install_all_serves_every_git_source(ready: Project) -> None:
    for name in ("a", "b"):
        (ready.folder / name).mkdir()
        subprocess.run(["git", "init", "-q", str(ready.folder / name)], check=True)
    ready.write(
        {"dims.yaml": CONFIG.replace("sources:", "sources:\n  a: {type: git, path: a}\n  b: {type: git, path: b}")}
    )
    assert failing(ready).keys() >= {"hooks of a", "hooks of b"}
    done = ready.dims("hook", "install", "--all", check=True)
    assert done.stdout.count("post-commit") == 3
    assert not [name for name in failing(ready) if name.startswith("hooks")]
    assert sys.executable in (ready.folder / "a/.git/hooks/post-commit").read_text()
