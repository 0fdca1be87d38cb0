"""Test `dims explain` and `dims approvals show`: output, exit codes, and the keys that docs/commands.md documents."""

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
def held_project(project: Project, engine: Engine) -> Project:
    """A project with a change that an event reported, that was measured and is held."""
    project.write({"dims.yaml": CONFIG, **{f"data/{number}": "" for number in range(10)}})
    project.dims("verify", check=True)
    project.write({f"data/new{number}": "" for number in range(3)})
    data = {"root": str(project.folder), "paths": ["data/new0"]}
    event = Event.new("dims.files.changed", "test", now=datetime.now(UTC), data=data)
    with transaction(engine) as connection:
        store_events(connection, Planner(project.config), [ReceivedEnvelope("", event.to_json().encode())])
    assert project.dims("verify", "--update").returncode == 1
    return project


def documented_keys(command: str) -> set[str]:
    """Return the keys that docs/commands.md names for `--json`."""
    section = sections((REPO / "docs" / "commands.md").read_text(encoding="utf-8"), 3)[command]
    paragraphs = [part for part in section.split("\n\n") if part.startswith("`--json` ")]
    return set(re.findall(r"`(\w+)`", " ".join(paragraphs)))


def test_explain_shows_a_held_value(held_project: Project) -> None:
    done = held_project.dims("explain", "m.files", check=True)
    lines = done.stdout.splitlines()
    assert lines[0] == "m.files: 13 files, waits for approval"
    assert "  drift        |13 - 10| / 10 x 100 = 30.0 %" in lines
    assert "  others       1 dims.files.changed" in lines
    assert "  decide       dims approvals approve 1 --version 1   (or reject)" in lines
    assert not any(line.startswith("  unexplained") for line in lines)
    shown = held_project.dims("approvals", "show", "m.files", check=True).stdout.splitlines()
    assert shown[0] == "request 1, version 1: m.files"
    assert "  others       1 dims.files.changed" in shown


def test_the_documents_have_the_documented_keys(held_project: Project) -> None:
    document: dict[str, Any] = json.loads(held_project.dims("explain", "m.files", "--json", check=True).stdout)
    nested = {"since", "run", "trigger", "against", "person", "limit", "policy_changed", "value", "from"}
    assert set(document) == documented_keys("dims explain") - nested
    assert set(document["verdict"]) > {"against", "person", "limit", "policy_changed"}
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
    request: dict[str, Any] = json.loads(held_project.dims("approvals", "show", "1", "--json", check=True).stdout)
    assert set(request) == documented_keys("dims approvals") - {"requests", "drift"}
    assert request["events"] == document["events"]


@pytest.mark.parametrize(("name", "expected"), [("m.unknown", "no metric is called m.unknown"), ("", "called")])
def test_an_unknown_metric_ends_with_code_2(held_project: Project, name: str, expected: str) -> None:
    done = held_project.dims("explain", name)
    assert (done.returncode, expected in done.stderr, done.stdout) == (2, True, "")
