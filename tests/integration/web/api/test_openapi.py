"""Check the API against its OpenAPI document. Schemathesis sends what the document allows and what it forbids."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from redis import Redis
from schemathesis.core.jsonschema.types import JsonValue
from sqlalchemy import Engine

from dims_worker.events import FIELD, STREAM, Event
from dims_worker.web.api.cloudevents_http import ATTRIBUTES, BINARY
from dims_worker.web.api.openapi import openapi_document
from dims_worker.web.api.routes import ALL_PATHS
from tests.conftest import Project
from tests.fixtures.long_history import fill
from tests.integration.web.api.test_routes import CONFIG
from tests.integration.web.conftest import EVENTS_TOKEN, TOKENS, Visit, hold_requests

TIMES = st.datetimes(datetime(2000, 1, 1), datetime(2100, 12, 31)).map(lambda time: f"{time.isoformat()}Z")  # noqa: DTZ001
schemathesis.openapi.format("date-time", TIMES)


VALUES = ("1.0", "an%20id", "a producer", "com.example.t", "2026-11-26T00:00:00Z", "gr%C3%BC%C3%9Fe")

schema = schemathesis.openapi.from_dict(openapi_document(ALL_PATHS, read_by_anyone=False, cookie="dims_session_x"))
schema.config.generation.update(allow_x00=False)
schema.config.update(base_url="http://localhost")
rejection = schema.config.checks.negative_data_rejection
rejection.expected_statuses = [*rejection.expected_statuses, "413"]  # for a batch that is too long


class CountingApp:
    """The application of the current test, without its lifespan, which schemathesis would never end."""

    def __init__(self) -> None:
        self.site: Any = None
        self.answers: Counter[int] = Counter()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            raise NotImplementedError

        async def counted(message: Any) -> None:
            if message["type"] == "http.response.start":
                self.answers[message["status"]] += 1
            await send(message)

        await self.site(scope, receive, counted)


app = CountingApp()
schema.app = app


@pytest.fixture
def site(project: Project, engine: Engine, visit: Visit, broker_url: str) -> Iterator[Counter[int]]:
    project.write({"dims.yaml": CONFIG})
    fill(engine, project.config, until=datetime.now(UTC), days=30)
    hold_requests(engine)
    app.site, app.answers = visit(project.config, broker_url=broker_url).app, Counter()
    yield app.answers
    with Redis.from_url(broker_url) as redis:
        sent: Any = redis.xrange(STREAM)
    for _, fields in sent:
        Event.from_json(fields[FIELD.encode()])  # every accepted event must be valid


@pytest.fixture
def thorough(site: Counter[int]) -> Iterator[None]:
    """Require many accepted and many refused requests."""
    yield
    assert min(site[200] + site[202] + site[404], site[400]) > 10, site


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


@schema.parametrize()
@settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
def test_the_api_matches_its_openapi_document(case: Any, thorough: None) -> None:
    if case.media_type == BINARY:  # this mode needs headers, which the schema cannot require
        case.headers.update({f"ce-{name}": value for name, value in zip(ATTRIBUTES, VALUES, strict=True)})
    token = EVENTS_TOKEN if (case.method, case.path) == ("POST", "/api/events") else TOKENS["ada"]
    case.call_and_validate(headers=bearer(token))


def test_existing_metrics_match_the_openapi_document(site: Counter[int]) -> None:
    """Random names do not exist, so test some that do."""
    for name in ("docs.pages", "docs.newest", "lake.half", "lake.off"):
        case = schema["/api/metrics/{name}"]["GET"].Case(path_parameters={"name": name}, query={"days": 365})
        response = case.call_and_validate(headers=bearer(TOKENS["ada"]))
        assert response.status_code == 200
        assert bool(response.json()["history"]["points"]) is (name != "lake.off")


def test_existing_incidents_match_the_openapi_document(site: Counter[int]) -> None:
    incidents = schema["/api/incidents"]["GET"].Case(query={"state": "all"})
    listed = incidents.call_and_validate(headers=bearer(TOKENS["ada"])).json()["items"]
    assert listed
    acknowledged: tuple[tuple[str, str, dict[str, JsonValue] | None], ...] = (
        ("/api/incidents/{id}", "GET", None),
        ("/api/incidents/{id}/ack", "POST", {"version": 1, "note": "seen"}),
        ("/api/incidents/{id}/ack", "POST", {"version": 1}),
    )
    for path, method, body in acknowledged:
        case = schema[path][method].Case(path_parameters={"id": listed[0]["id"]})
        if body is not None:
            case.body, case.media_type = body, "application/json"
        case.call_and_validate(headers=bearer(TOKENS["ada"]))
    assert site[409] == 1  # the second person saw an old version
    changes = schema["/api/changes"]["GET"].Case(query={"days": 365})
    assert changes.call_and_validate(headers=bearer(TOKENS["ada"])).json()["items"]


def test_the_openapi_document_says_whether_reading_needs_a_token(project: Project, visit: Visit) -> None:
    project.write({"dims.yaml": CONFIG})
    closed, opened = visit(project.config, "ada"), visit(project.config, read="anyone")
    assert {} not in closed.get("/api/openapi.json").json()["security"]
    assert {} in opened.get("/api/openapi.json").json()["security"]
