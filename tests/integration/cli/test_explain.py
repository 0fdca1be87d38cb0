"""`dims explain` and `dims approvals show` as commands: exit codes, JSON whose keys the page of commands tells."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import Engine

from dims_worker.domain.plan import Planner
from dims_worker.events import Event
from dims_worker.pipeline.ingest import ReceivedEnvelope, store_events
from dims_worker.store.engine import transaction
from tests.conftest import REPO, Project
from tests.docs.pages import sections

CONFIG = """
sources:
  tree: {type: files, path: "."}
metrics:
  m:
    files: {source: tree, measure: count, paths: "data/**", critical: true}
rules:
  changed: {on: dims.files.changed}
"""


@pytest.fixture
def made(project: Project, engine: Engine) -> Project:
    """A project in which a change was told, measured, and is held."""
    project.write({"dims.yaml": CONFIG, **{f"data/{number}": "" for number in range(10)}})
    project.dims("verify", check=True)
    project.write({f"data/new{number}": "" for number in range(3)})
    data = {"root": str(project.folder), "paths": ["data/new0"]}
    event = Event.new("dims.files.changed", "test", now=datetime.now(UTC), data=data)
    with transaction(engine) as connection:
        store_events(connection, Planner(project.config), [ReceivedEnvelope("", event.to_json().encode())])
    assert project.dims("verify", "--update").returncode == 1
    return project


def told_keys(command: str) -> set[str]:
    """The keys that the page names for `--json`."""
    section = sections((REPO / "docs" / "commands.md").read_text(encoding="utf-8"), 3)[command]
    paragraphs = [part for part in section.split("\n\n") if part.startswith("`--json` ")]
    return set(re.findall(r"`(\w+)`", " ".join(paragraphs)))


def test_explain_tells_a_held_value(made: Project) -> None:
    done = made.dims("explain", "m.files", check=True)
    lines = done.stdout.splitlines()
    assert lines[0] == "m.files: 13 files, extreme, held: request 1 waits for approval"
    assert "  drift     |13 - 10| / 10 x 100 = 30.0 %" in lines
    assert "  others    1 dims.files.changed" in lines
    assert "  decide    dims approvals approve 1 --version 1   (or reject)" in lines
    assert not any(line.startswith("  unexplained") for line in lines)
    shown = made.dims("approvals", "show", "m.files", check=True).stdout.splitlines()
    assert shown[0] == "request 1, version 1: m.files"
    assert "  others    1 dims.files.changed" in shown


def test_the_document_has_the_keys_that_are_told(made: Project) -> None:
    document: dict[str, Any] = json.loads(made.dims("explain", "m.files", "--json", check=True).stdout)
    nested = {"since", "run", "trigger", "against", "person", "limit", "recorded_otherwise", "value", "from"}
    assert set(document) == told_keys("dims explain") - nested
    assert set(document["verdict"]) > {"against", "person", "limit", "recorded_otherwise"}
    assert document["policy"]["critical"] == {"value": True, "from": "metric"}
    assert document["policy"]["stale_after"] == {"value": "604800s", "from": "default"}
    assert (document["reading"]["value"], document["reading"]["run"], document["reading"]["trigger"]) == (
        13,
        2,
        "event",
    )
    assert document["verdict"]["against"]["value"] == 10
    assert document["verdict"]["drift_pct"] == 30
    assert document["events"]["others"] == {"dims.files.changed": 1}
    assert (document["request"]["id"], document["unexplained"], document["gaps"]) == (1, None, [])
    request: dict[str, Any] = json.loads(made.dims("approvals", "show", "1", "--json", check=True).stdout)
    assert set(request) == told_keys("dims approvals") - {"requests", "drift"}
    assert request["events"] == document["events"]


@pytest.mark.parametrize(("name", "code", "said"), [("m.nobody", 2, "no metric is called m.nobody"), ("", 2, "called")])
def test_what_nobody_knows_is_exit_2(made: Project, name: str, code: int, said: str) -> None:
    done = made.dims("explain", name)
    assert (done.returncode, said in done.stderr, done.stdout) == (code, True, "")
