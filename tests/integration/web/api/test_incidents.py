"""Incidents and accepted changes over HTTP: read, acknowledge, close."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from starlette.testclient import TestClient

from tests.conftest import Project
from tests.integration.helpers import CONFIG, Flow
from tests.integration.web.conftest import EVENTS_TOKEN, TOKENS, Visit
from tests.integration.web.pages.test_incidents import Make, open_incident, stored


@pytest.fixture
def api(flow: Flow, visit: Visit) -> TestClient:
    client = visit(flow.config)
    client.headers["authorization"] = f"Bearer {TOKENS['ada']}"
    return client


def numbers(api: TestClient, query: str = "") -> list[int]:
    answer = api.get(f"/api/incidents{query}")
    assert answer.status_code == 200, answer.text
    return [item["id"] for item in answer.json()["items"]]


def detail(answer: Any, status: int) -> str:
    """Return the detail of a problem."""
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json"), answer.text
    text: str = answer.json()["detail"]
    return text


def test_incidents_are_read_with_everything_that_the_commands_print(
    make_flow: Make, visit: Visit, project: Project
) -> None:
    flow = make_flow(CONFIG.replace("a: {source: one,", "a: {owner: data-team, source: one,"))
    first, second = open_incident(flow, "m.a", "m.b", low=95.0, high=105.0)
    client = visit(flow.config, "ada")
    item = client.get(f"/api/incidents/{first.id}").json()
    assert (item["label"], item["owner"], item["story_size"]) == ("lost", "data-team", 2)
    assert (item["value"], item["anchor"], item["drift_pct"], item["version"]) == (60, 100, 40.0, 1)
    assert "100 -> 60 files, -40.0 %, expected 95 to 105" in item["sentence"]
    listed = client.get("/api/incidents").json()
    assert [each["id"] for each in listed["items"]] == [second.id, first.id] and listed["next"] is None
    assert {**listed["items"][1], "story_size": 2} == item


def test_incidents_are_filtered_and_read_page_by_page(flow: Flow, api: TestClient) -> None:
    drift, failing = open_incident(flow, "m.a")[0].id, open_incident(flow, "m.b", kind="failing")[0].id
    silence = open_incident(flow, "rule:nightly", kind="silence")[0].id
    api.post(f"/api/incidents/{failing}/ack", json={"version": 1})
    gone = open_incident(flow, "m.e")[0].id
    api.post(f"/api/incidents/{gone}/close", json={"version": 1, "reason": "fine"})
    assert numbers(api) == [silence, failing, drift]
    for query, expected in {
        "state=open": [silence, drift],
        "state=acknowledged": [failing],
        "state=closed": [gone],
        "state=all": [gone, silence, failing, drift],
        "state=active&category=m": [failing, drift],
        "kind=drift&state=all": [gone, drift],
        "metric=rule:nightly": [silence],
        "category=other": [],
    }.items():
        assert numbers(api, f"?{query}") == expected, query
    page = api.get("/api/incidents?limit=2").json()
    assert ([item["id"] for item in page["items"]], page["next"]) == ([silence, failing], failing)
    assert numbers(api, f"?limit=2&before={failing}") == [drift]


def test_a_person_acknowledges_and_closes(flow: Flow, api: TestClient) -> None:
    (incident,) = open_incident(flow, "m.a")
    answer = api.post(f"/api/incidents/{incident.id}/ack", json={"version": 1, "note": " on\nit "})
    assert answer.status_code == 200
    item = answer.json()
    assert (item["state"], item["version"], item["acknowledged_by"], item["note"]) == (
        "acknowledged",
        2,
        "ada",
        "on it",
    )
    assert item["label"] == "lost, acknowledged"
    item = api.post(f"/api/incidents/{incident.id}/close", json={"version": 2.0, "reason": "we moved it"}).json()
    assert (item["state"], item["resolution"], item["closed_by"]) == ("closed", "expected", "ada")
    assert (item["closing_reason"], item["known_by"]) == ("we moved it", "token")
    assert numbers(api) == []


def test_a_decision_about_another_version_changes_nothing(flow: Flow, api: TestClient) -> None:
    (incident,) = open_incident(flow, "m.a")
    flow.do("UPDATE dims_incidents SET version = 3")
    for verb, text in (("ack", "note"), ("close", "reason")):
        said = detail(api.post(f"/api/incidents/{incident.id}/{verb}", json={"version": 1, text: "x"}), 409)
        assert f"incident {incident.id} has changed since version 1: it has version 3 now" in said
    assert api.post(f"/api/incidents/{incident.id}/close", json={"version": 3, "reason": "x"}).status_code == 200
    said = detail(api.post(f"/api/incidents/{incident.id}/ack", json={"version": 4}), 409)
    assert "is closed already" in said and "ada" in said


def test_closing_the_incident_of_a_held_value_approves_the_version_that_was_seen(flow: Flow, api: TestClient) -> None:
    flow.serve(c=100)
    flow.serve(c=150)
    (item,) = api.get("/api/incidents?kind=approval").json()["items"]
    flow.serve(c=160)
    body = {"version": item["version"], "reason": "fine"}
    said = detail(api.post(f"/api/incidents/{item['id']}/close", json=body), 409)
    assert "has changed since version" in said
    assert flow.state("m.c").baseline == 100 and flow.open("m.c") is not None
    (item,) = api.get("/api/incidents?kind=approval").json()["items"]
    done = api.post(f"/api/incidents/{item['id']}/close", json=body | {"version": item["version"]}).json()
    assert (done["state"], done["resolution"], flow.state("m.c").baseline) == ("closed", "approved", 160)


BODIES: list[tuple[str, Any, str]] = [
    ("ack", {}, "`version` must be"),
    ("ack", {"version": "1"}, "`version` must be"),
    ("ack", {"version": True}, "`version` must be"),
    ("ack", {"version": 1.5}, "`version` must be"),
    ("ack", {"version": 0}, "`version` must be"),
    ("ack", {"version": 2**31}, "`version` must be"),
    ("ack", {"version": 1, "reason": "x"}, "unknown key 'reason'. Known here: version, note"),
    ("ack", {"version": 1, "note": 5}, "`note` must be a text"),
    ("ack", {"version": 1, "note": "x" * 2001}, "`note` has 2,001 characters"),
    ("ack", {"version": 1, "note": "\0"}, "the note has a NUL character"),
    ("ack", {"version": 1, "note": "\ud800"}, "the note has half of a surrogate pair"),
    ("ack", [], "the body must be a JSON object"),
    ("close", {"version": 1}, "`reason` is missing or empty"),
    ("close", {"version": 1, "reason": " \n"}, "`reason` is missing or empty"),
    ("close", {"version": 1, "note": "x"}, "unknown key 'note'. Known here: version, reason"),
]
TEXTS = [b"", b"{", b'{"version": 1, "version": 2}', b"[" * 60_000, b'{"version": "\xff"}', b'{"version": 1e400}']


def test_a_body_that_is_not_valid_is_refused(flow: Flow, api: TestClient) -> None:
    (incident,) = open_incident(flow, "m.a")
    kind = {"content-type": "application/json"}
    for verb, body, expected in BODIES:
        answer = api.post(f"/api/incidents/{incident.id}/{verb}", content=json.dumps(body), headers=kind)
        assert detail(answer, 400).startswith(expected), body
    for content in TEXTS:
        assert api.post(f"/api/incidents/{incident.id}/ack", content=content, headers=kind).status_code == 400, content
    long = api.post(f"/api/incidents/{incident.id}/ack", content=b" " * 70_000, headers=kind)
    assert detail(long, 413).startswith("a body has at most 65,536 bytes")
    for media in ("application/x-www-form-urlencoded", "text/plain", ""):
        answer = api.post(
            f"/api/incidents/{incident.id}/ack", content=b'{"version": 1}', headers={"content-type": media}
        )
        assert answer.status_code == 415, media
    assert api.post(f"/api/incidents/{incident.id}/ack?force=1", json={"version": 1}).status_code == 400
    assert stored(flow, incident.id).version == 1


def test_a_decision_needs_a_person_who_may_decide(make_flow: Make, visit: Visit) -> None:
    flow = make_flow(CONFIG.replace("a: {source: one,", "a: {approvers: [bob], source: one,"))
    (incident,) = open_incident(flow, "m.a")
    address, body = f"/api/incidents/{incident.id}/close", {"version": 1, "reason": "x"}
    producer = {"authorization": f"Bearer {EVENTS_TOKEN}"}
    assert visit(flow.config).post(address, json=body).status_code == 401
    assert visit(flow.config, read="anyone").post(address, json=body).status_code == 401
    assert visit(flow.config).post(address, json=body, headers=producer).status_code == 401
    assert "its `approvers` are bob" in detail(visit(flow.config, "ada").post(address, json=body), 403)
    for headers in ({"sec-fetch-site": "cross-site"}, {"origin": "https://evil.example"}):
        assert visit(flow.config, "bob").post(address, json=body, headers=headers).status_code == 403
    assert stored(flow, incident.id).version == 1
    assert visit(flow.config, "bob").post(address, json=body).status_code == 200  # with the session of the browser


def test_an_unknown_incident_is_a_problem(api: TestClient) -> None:
    for number, status in {"1": 404, str(2**63 - 1): 404, "0": 400, "x": 400, str(2**63): 400, "%00": 400}.items():
        expected = "there is no incident" if status == 404 else "id must be a whole number"
        assert expected in detail(api.get(f"/api/incidents/{number}"), status)
        for verb, key in (("ack", "note"), ("close", "reason")):
            answer = api.post(f"/api/incidents/{number}/{verb}", json={"version": 1, key: "x"})
            assert expected in detail(answer, status), (number, verb)


def test_other_methods_are_refused(api: TestClient) -> None:
    paths = {
        "incidents": "GET",
        "incidents/1": "GET",
        "incidents/1/ack": "POST",
        "incidents/1/close": "POST",
        "changes": "GET",
    }
    for (path, known), method in itertools.product(paths.items(), ("GET", "PUT", "DELETE", "PATCH", "POST")):
        if method != known:
            assert api.request(method, f"/api/{path}").status_code == 405, (path, method)


def test_accepted_changes_are_read_the_largest_first(flow: Flow, api: TestClient) -> None:
    flow.serve(a=100, c=100)
    flow.serve(a=40, c=110)
    changes = api.get("/api/changes").json()
    assert [item["metric"] for item in changes["items"]] == ["m.a", "m.c"] and changes["left_off"] is False
    item = changes["items"][0]
    assert (item["before"], item["after"], item["drift_pct"], item["run"]) == (100, 40, 60.0, 2)
    assert (item["accepted"]["how"], item["incident"]["label"]) == ("policy", "lost")
    assert item["events"]["number"] == 1
    short = api.get("/api/changes?limit=1&days=30").json()
    assert ([item["metric"] for item in short["items"]], short["left_off"]) == (["m.a"], True)
    for wrong in ("days=0", "days=x", "limit=501", "since=1"):
        assert api.get(f"/api/changes?{wrong}").status_code == 400


def test_metrics_are_filtered_by_the_flags_of_their_health(flow: Flow, api: TestClient) -> None:
    flow.serve(a=100, c=100)
    flow.serve(a=40, c=100)
    flow.serve(a=39, c=150)

    def found(state: str) -> list[str]:
        return [item["metric"] for item in api.get(f"/api/metrics?state={state}").json()["items"]]

    assert (found("drifted"), found("waiting"), found("limit")) == (["m.a"], ["m.c"], [])
    (item,) = api.get("/api/metrics?state=drifted").json()["items"]
    assert (item["health"]["label"], item["health"]["flags"]) == ("lost", ["drifted"])
    assert numbers(api, "?metric=m.a") == item["health"]["incidents"]
