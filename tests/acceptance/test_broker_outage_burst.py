"""Test that 1,000 commits and changed files during a broker outage all arrive, each exactly once."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from dims_producers import git_hook
from dims_producers.spool import Spool
from dims_worker import local
from dims_worker.events import STREAM, Event
from tests.conftest import GIT_ENV, REPO, wait_for

COMMITS = 1000
CONFIG = """
sources:
  project: {type: files, path: "."}
  repo: {type: git, path: "."}
metrics:
  project: {files: {source: project, measure: count, paths: "**"}}
  git: {commits: {source: repo, measure: commits, unit: commits}}
rules:
  git_post_commit: {on: "dims.git.*"}
  files_changed: {on: dims.files.changed}
watch: [project]
"""


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """Return a data directory whose Valkey has run once and is stopped."""
    home = tmp_path / "home"
    local.start(home, database=False, fast=True)
    local.stop(home)
    yield home
    local.stop(home)


@pytest.fixture
def project(tmp_path: Path, home: Path) -> Path:
    folder = tmp_path / "project"
    subprocess.run(["git", "init", "-q", "-b", "main", folder], check=True)
    (folder / "dims.yaml").write_text(CONFIG)
    git_hook.install(folder, home)
    return folder


@pytest.fixture
def environment(home: Path) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("GIT_", "DIMS_"))}
    return {**inherited, **GIT_ENV, "DIMS_HOME": str(home), "PYTHONPATH": str(REPO)}


def arrived(home: Path) -> list[Event]:
    servers = local.running(home)  # the user of a producer is not allowed to read
    assert servers is not None
    with redis.Redis.from_url(str(servers.broker_url)) as client:
        entries: Any = client.xrange(STREAM)
    return [Event.from_json(fields[b"event"]) for _, fields in entries]


def write_files(folder: Path, stop: threading.Event, names: list[str]) -> None:
    while not stop.wait(0.5):
        names.append(f"file {len(names)}")
        (folder / names[-1]).write_text("x")


def test_a_burst_during_a_broker_outage_arrives_once(home: Path, project: Path, environment: dict[str, str]) -> None:
    spool = Spool(home / "spool")
    watcher = subprocess.Popen([sys.executable, "-m", "dims_worker", "watch"], cwd=project, env=environment)
    try:
        wait_for(lambda: (home / "spool/watcher.pid").exists() and len(spool) == 1)
        stop, names = threading.Event(), list[str]()
        writer = threading.Thread(target=write_files, args=(project, stop, names))
        writer.start()
        script = f"i=0; while [ $i -lt {COMMITS} ]; do git commit -q --allow-empty -m c$i || exit 1; i=$((i+1)); done"
        subprocess.run(["sh", "-c", script], cwd=project, env=environment, check=True, timeout=300)
        stop.set()
        writer.join()
        assert len(spool) >= COMMITS + 2 and watcher.poll() is None  # every event waits, and the watcher still runs
        local.start(home, database=False, fast=True)
        wait_for(lambda: len(spool) == 0, 60)
        wait_for(lambda: names[-1] in {path for event in arrived(home) for path in event.data["paths"]})
    finally:
        watcher.terminate()
        assert watcher.wait(20) == 0
    events = arrived(home)
    listed = subprocess.run(["git", "rev-list", "--reverse", "HEAD"], cwd=project, capture_output=True, check=True)
    shas = listed.stdout.decode().split()
    assert len(shas) == COMMITS
    assert sorted(event.id for event in events if event.type == "dims.git.commit") == sorted(shas)
    changes = [event.data["paths"] for event in events if event.type == "dims.files.changed"]
    assert changes[0] == [] and Counter(path for paths in changes for path in paths) == Counter(names)
    moved = [event for event in events if event.type == "dims.git.refs_changed"]  # the watcher also reports new commits
    assert len(events) == len(shas) + len(changes) + len(moved) == len({(event.producer, event.id) for event in events})
    assert not (spool.bad.exists() or list(spool.tmp.iterdir()))
