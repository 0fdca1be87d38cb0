"""The API against its own description: schemathesis asks whatever the description allows, and what it does not."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from redis import Redis
from sqlalchemy import Engine

from dims_worker.events import STREAM, Event
from dims_worker.web.envelopes import ATTRIBUTES, BINARY
from tests.conftest import Project
from tests.filled import fill
from tests.integration.web.conftest import EVENTS_TOKEN, TOKENS, Visit
from tests.integration.web.test_api import CONFIG

TIMES = st.datetimes(datetime(2000, 1, 1), datetime(2100, 12, 31)).map(lambda time: f"{time.isoformat()}Z")  # noqa: DTZ001
schemathesis.openapi.format("date-time", TIMES)


@pytest.fixture
def api(project: Project, engine: Engine, visit: Visit, broker_url: str) -> Any:
    project.write({"dims.yaml": CONFIG})
    fill(engine, project.config, until=datetime.now(UTC), days=30)
    client = visit(project.config, broker_url=broker_url, hosts=["testserver"])
    found = schemathesis.openapi.from_dict(client.get("/api/openapi.json", headers=bearer(TOKENS["ada"])).json())
    found.app = client.app
    found.config.generation.update(allow_x00=False)
    return found


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


schema = schemathesis.pytest.from_fixture("api")


@schema.parametrize()
@settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
def test_the_api_is_as_it_is_described(case: Any) -> None:
    token = EVENTS_TOKEN if case.method == "POST" else TOKENS["ada"]
    case.call_and_validate(headers=bearer(token))
