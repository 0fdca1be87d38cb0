"""docs/api.md as a reader would do it: each block is run with curl against `dims web`, each table is true."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx2
import pytest
from redis import Redis
from sqlalchemy import Engine, text

from dims_worker.domain.plan import Planner
from dims_worker.pipeline.ingest import ingest_stream
from dims_worker.web.api.cloudevents_http import MAX_BODY, MAX_EVENTS
from dims_worker.web.api.openapi import SCHEMAS
from dims_worker.web.api.routes import ALL_PATHS
from tests.conftest import REPO, Project, wait_for
from tests.docs.pages import SPAN, blocks, rows, sections
from tests.fixtures.long_history import fill

GUIDE = (REPO / "docs" / "api.md").read_text(encoding="utf-8")
PLACE = "http://127.0.0.1:8420"
READING = blocks(sections(GUIDE, 2)["Reading"], "sh")
SENDING = blocks(sections(GUIDE, 2)["Sending events"], "sh")
TOKENS = {"DIMS_TOKEN_ADA": "ada-" + "a" * 24, "DIMS_EVENTS_TOKEN": "events-" + "e" * 24}


@dataclass
class Served:
    """`dims web` for the configuration of the guide, on a free port."""

    project: Project
    url: str

    def run(self, block: str) -> str:
        """What a block of the guide prints, which must end well."""
        script = block.replace(PLACE, self.url)
        env = {"PATH": os.environ["PATH"], "LANG": "C.UTF-8", **TOKENS}
        done = subprocess.run(
            ["sh", "-eu"], input=script, env=env, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, f"{script}\n{done.stdout}{done.stderr}"
        return done.stdout

    def curl(self, *arguments: str) -> Any:
        done = subprocess.run(["curl", "--silent", *arguments], capture_output=True, text=True, timeout=60, check=True)
        return json.loads(done.stdout)


@pytest.fixture
def served(project: Project, engine: Engine, tmp_path: Path) -> Iterator[Served]:
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed here, so the blocks of docs/api.md were not run")
    project.env.update(TOKENS)
    (configuration,) = blocks(GUIDE, "yaml")
    project.write({"dims.yaml": configuration})
    fill(engine, project.config, until=datetime.now(UTC), days=30)
    log_file = tmp_path / "web.log"
    with log_file.open("w") as log:
        web = subprocess.Popen(
            [sys.executable, "-m", "dims_worker", "web", "--port", "0"],
            cwd=project.folder,
            env={**os.environ, **project.env},
            stdout=log,
            stderr=log,
        )
    try:
        (url,) = wait_for(lambda: re.findall(r"http://\S+:\d+", log_file.read_text()))
        wait_for(lambda: _answers(f"{url}/healthz"))
        yield Served(project, url)
    finally:
        web.terminate()
        web.wait(20)
    log_text = log_file.read_text()
    assert "Traceback" not in log_text, log_text
    assert not any(token in log_text for token in TOKENS.values())


def _answers(url: str) -> bool:
    try:
        return httpx2.get(url).status_code == 200
    except httpx2.ConnectError:  # the log names the address before it listens
        return False


def test_each_block_that_reads_prints_what_the_guide_shows(served: Served) -> None:
    metrics, pages, one = (served.run(block) for block in READING)
    (pages_metric,) = json.loads(metrics)["items"]
    (shown,) = [json.loads(body) for body in blocks(GUIDE, "json") if "docs.pages" in body]
    assert list(pages_metric) == list(shown["items"][0])
    assert {name: type(value) for name, value in pages_metric.items() if name not in ("request", "error")} == {
        name: type(value) for name, value in shown["items"][0].items() if name not in ("request", "error")
    }
    assert pages.count('"items":[') == 2
    assert json.loads(one)["history"]["days"] == 90


def test_each_block_that_sends_ends_as_stored_events(served: Served, engine: Engine) -> None:
    answers = [json.loads(served.run(block)) for block in SENDING]
    assert [one["accepted"] for one in answers] == [1, 2, 1]
    assert answers[2] == next(json.loads(body) for body in blocks(GUIDE, "json") if '"accepted"' in body)
    again = [json.loads(served.run(block)) for block in SENDING[1:2]]
    assert again == answers[1:2]
    with Redis.from_url(served.project.env["DIMS_BROKER_URL"]) as redis:
        ingest_stream(redis, engine, Planner(served.project.config))
    with engine.connect() as connection:
        stored = connection.execute(
            text(
                "SELECT event_id, outcome, subject FROM dims_event_log "
                "WHERE type = 'dims.scraper.complete' ORDER BY seq"
            )
        ).fetchall()
    assert [row.event_id for row in stored] == [name for one in answers for name in one["ids"]]
    assert {row.outcome for row in stored} == {"planned"}
    assert stored[-1].subject == "Saison über alles"


def test_the_error_in_the_guide_is_the_one_that_the_api_returns(served: Served) -> None:
    bare = {"specversion": "1.0", "source": "a", "type": "b", "time": "2026-11-22T09:00:00Z"}
    batch = [{**bare, "id": "0"}, {**bare, "id": "1"}, {**bare, "id": "2", "time": None}]
    problem = served.curl(
        *("-H", f"Authorization: Bearer {TOKENS['DIMS_EVENTS_TOKEN']}", "--data", json.dumps(batch)),
        *("-H", "Content-Type: application/cloudevents-batch+json", f"{served.url}/api/events"),
    )
    assert problem == next(json.loads(body) for body in blocks(GUIDE, "json") if "about:blank" in body)


def test_the_guide_lists_exactly_the_paths_and_parameters() -> None:
    paths = {SPAN.findall(row[0])[0]: row for row in rows(sections(GUIDE, 2)["Reading"], "path")}
    assert set(paths) == {*ALL_PATHS, "/api/openapi.json"}
    for path, (_, parameters, schema) in ALL_PATHS.items():
        documented = set(SPAN.findall(paths[path][2]))
        listed = "items" in SCHEMAS[schema]["properties"] and path not in ("/api/metrics", "/api/changes")
        names = {one.name for one in parameters} - ({"limit", "before"} if listed else set())
        allowed = {word for one in parameters for word in one.schema.get("enum", ())}
        assert documented == names | allowed, path


def test_the_limits_in_the_guide_are_the_limits() -> None:
    (row,) = [row for row in rows(sections(GUIDE, 2)["What is refused"], "status") if row[0] == "413"]
    assert [int(number.replace(",", "")) for number in re.findall(r"[\d,]*\d", row[1])] == [MAX_BODY, MAX_EVENTS]
