"""Reading over HTTP: what is known, page by page, in the words of `--json`."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
from sqlalchemy import Engine

from dims_worker.config import Config
from tests.conftest import Project
from tests.filled import fill
from tests.integration.web.conftest import Visit

CONFIG = """
sources:
  here: {type: files, path: "."}
metrics:
  docs:
    pages: {source: here, measure: count, description: "Pages <b>of</b> the guide", critical: true}
    newest: {source: here, measure: newest_age, unit: days}
    bytes: {source: here, measure: bytes, unit: GB, precision: 2}
  lake:
    objects: {source: here, measure: count, critical: true}
    half: {derive: "docs.pages / 2", unit: pages, precision: 1}
    off: {source: here, measure: count, enabled: false}
"""


@pytest.fixture
def config(project: Project) -> Config:
    project.write({"dims.yaml": CONFIG})
    return project.config


def test_x(config: Config, engine: Engine, visit: Visit) -> None:
    fill(engine, config, until=datetime.now(UTC), days=30)
    client = visit(config, "ada")
    for path in (
        "metrics",
        "metrics/docs.pages",
        "metrics/docs.newest",
        "events?limit=2",
        "runs?limit=2",
        "requests?limit=2",
        "events?bla=1",
        "events?limit=0",
    ):
        print(path, json.dumps(client.get(f"/api/{path}").json(), indent=1)[:3000])
