"""docs/events.md as a reader would do it: every block that publishes is run, and ends as a stored event."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from sqlalchemy import Engine, text

from dims_worker.domain.plan import Planner
from dims_worker.events import STREAM, Event
from dims_worker.pipeline.ingest import ingest_stream
from tests.conftest import REPO, Project

GUIDE = (REPO / "docs/events.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", GUIDE, re.MULTILINE | re.DOTALL)
PROGRAMS = [(language, body) for language, body in BLOCKS if language != "json"]
NAMES = ["dims-enqueue", "--from-file", "valkey-cli", "dims_producers.enqueue", "import redis", "node:net"]

RULES = """
sources:
  here: {type: files, path: "."}
metrics:
  code: {files: {source: here, measure: count}}
rules:
  scraper_complete: {on: dims.scraper.complete}
"""

STAND_IN = f"""#!{sys.executable}
# What `valkey-cli -u URL -x COMMAND…` does, for a machine that has no valkey-cli
import sys, redis
flag, url, stdin, *words = sys.argv[1:]
assert (flag, stdin) == ("-u", "-x")
with redis.Redis.from_url(url) as client:
    print(client.execute_command(*words, sys.stdin.buffer.read()))
"""


@pytest.fixture
def reader(project: Project, tmp_path: Path) -> Project:
    """A project with a rule for scrapers, and a PATH with what DIMS installs and some client of the broker's."""
    project.write({"dims.yaml": RULES})
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "dims-enqueue").symlink_to(Path(sys.executable).parent / "dims-enqueue")
    if shutil.which("valkey-cli") is None:
        (programs / "valkey-cli").write_text(STAND_IN)
        (programs / "valkey-cli").chmod(0o755)
    project.env["PATH"] = f"{programs}{os.pathsep}{os.environ['PATH']}"
    return project


def run(language: str, body: str, reader: Project) -> subprocess.CompletedProcess[str]:
    node = shutil.which("node")
    if language == "js" and node is None:
        pytest.skip("node is not installed here, so the block in JavaScript was not run")
    commands = {"sh": ["sh", "-e"], "python": [sys.executable, "-W", "error", "-"], "js": [str(node), "-"]}
    return subprocess.run(
        commands[language],
        input=body,
        cwd=reader.folder,
        env={**os.environ, **reader.env},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_blocks_are_those_that_are_known() -> None:
    assert len(PROGRAMS) == len(NAMES)
    for (_, body), name in zip(PROGRAMS, NAMES, strict=True):
        assert name in body
    assert {language for language, _ in BLOCKS} == {"json", "sh", "python", "js"}


@pytest.mark.parametrize(("language", "body"), PROGRAMS, ids=NAMES)
def test_each_block_ends_as_a_stored_event(language: str, body: str, reader: Project, engine: Engine) -> None:
    done = run(language, body, reader)
    assert done.returncode == 0, done.stderr
    with Redis.from_url(reader.env["DIMS_BROKER_URL"]) as redis:
        sent: Any = redis.xrange(STREAM)
        events = [Event.from_json(fields[b"event"]) for _, fields in sent]
        assert events and len({event.id for event in events}) == len(events)
        ingest_stream(redis, engine, Planner(reader.config))
    with engine.connect() as connection:
        stored = connection.execute(text("SELECT event_id, outcome FROM dims_event_log ORDER BY seq")).fetchall()
    assert [tuple(row) for row in stored] == [(event.id, "planned") for event in events]


@pytest.mark.parametrize("wrong", ["redis://:wrong@127.0.0.1:{port}/0", "redis://127.0.0.1:1"])
def test_the_block_in_javascript_fails_where_the_broker_refuses(reader: Project, wrong: str) -> None:
    port = re.search(r":(\d+)/", reader.env["DIMS_BROKER_URL"])
    assert port
    reader.env["DIMS_BROKER_URL"] = wrong.format(port=port[1])
    (language, body) = PROGRAMS[NAMES.index("node:net")]
    assert run(language, body, reader).returncode != 0
