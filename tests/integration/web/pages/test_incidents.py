"""The inbox: what is not healthy, by story, and the buttons that acknowledge and close it."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from datetime import timedelta
from html import unescape
from typing import Any

import pytest
from httpx2 import Response
from sqlalchemy import create_engine, text
from starlette.testclient import TestClient

from dims_worker.store.engine import clock, transaction
from dims_worker.store.incidents import Incident, find_incident, insert_incidents
from tests.integration.helpers import CONFIG, Flow
from tests.integration.web.conftest import Visit, form_token
from tests.integration.web.pages.test_approvals import visible_text

HOSTILE = "<script>alert('x')</script>\"&\u202eevil"
Make = Callable[[str], Flow]


def open_incident(flow: Flow, *metrics: str, **columns: Any) -> list[Incident]:
    """Insert one incident for each metric, as a run does: all of one story. By default each lost 40 of 100 files."""
    with transaction(flow.engine) as connection:
        now = clock(connection)
        row = {"kind": "drift", "severity": "high", "reason": "a drift of 40 % is major", "opened_at": now}
        row |= {"updated_at": now, "value": 60, "unit": "files", "as_of": now, "first_as_of": now}
        row |= {"anchor": 100, "anchor_as_of": now - timedelta(days=1)} | columns
        return insert_incidents(connection, [row | {"metric": metric} for metric in metrics])


def stored(flow: Flow, number: int) -> Incident:
    with transaction(flow.engine) as connection:
        incident = find_incident(connection, number)
    assert incident is not None
    return incident


def form_of(page: str, name: str) -> dict[str, str]:
    """Return the hidden fields of the form with this id."""
    form = page.split(f'id="{name}"', 1)[1].split("</form>", 1)[0]
    return {key: unescape(value) for key, value in re.findall(r'name="(\w+)" value="([^"]*)"', form)}


def decide(client: TestClient, number: int, verb: str, note: str = "", form: str = "") -> Response:
    """Press a button on the page of an incident, or on that of its story."""
    fields = form_of(client.get(f"/incidents/{number}").text, form or f"decide-{number}")
    return client.post(f"/incidents/{number}/{verb}", data=fields | {"note": note})


def stories(page: str) -> list[list[int]]:
    """Return the numbers of the incidents in each story of the inbox."""
    return [
        [int(number) for number in re.findall(r'<li id="incident-(\d+)"', story.split("</article>")[0])]
        for story in page.split('<article class="card story"')[1:]
    ]


def test_without_incidents_the_inbox_says_that_all_is_well(flow: Flow, visit: Visit) -> None:
    page = visit(flow.config, "ada").get("/incidents").text
    assert "All is well. No incident is open." in visible_text(page)
    assert "badge" not in page and '<form class="decide"' not in page


def test_the_incidents_of_one_run_are_one_story_and_the_newest_story_is_first(flow: Flow, visit: Visit) -> None:
    old = open_incident(flow, "m.a")
    new = open_incident(flow, "m.b", "m.c", "m.e")
    page = visit(flow.config, "ada").get("/incidents").text
    assert stories(page) == [[each.id for each in new], [old[0].id]]
    content = visible_text(page)
    assert "4 incidents are open. The newest is incident 4" in content
    assert "3 metrics since" in content
    assert "m.b lost 100 → 60 files, -40.0 %" in content.replace(". ", ".")
    assert '<b class="badge">4</b>' in page
    assert 'href="/metrics/m.b"' in page and f'href="/incidents/{new[0].id}"' in page


def test_the_inbox_shows_owner_band_and_who_acknowledged_it(make_flow: Make, visit: Visit) -> None:
    flow = make_flow(CONFIG.replace("a: {source: one,", "a: {owner: data-team, source: one,"))
    (incident,) = open_incident(flow, "m.a", low=95.0, high=105.0)
    client = visit(flow.config, "ada")
    assert decide(client, incident.id, "ack", "  on it,\r\n <b>soon</b> ").status_code == 303
    assert (stored(flow, incident.id).state, stored(flow, incident.id).note) == ("acknowledged", "on it, <b>soon</b>")
    for address in ("/incidents", f"/incidents/{incident.id}", "/metrics/m.a"):
        content = visible_text(client.get(address).text)
        assert "lost, acknowledged" in content, address
        assert "by ada just now: “on it, <b>soon</b>”" in content, address
        assert "expected 95 to 105" in content, address
    for address in ("/incidents", f"/incidents/{incident.id}"):
        assert "data-team" in visible_text(client.get(address).text), address


def test_closing_needs_a_reason_and_keeps_it(flow: Flow, visit: Visit) -> None:
    (incident,) = open_incident(flow, "m.a")
    client = visit(flow.config, "ada")
    answer = decide(client, incident.id, "close", " \n ")
    assert (answer.status_code, stored(flow, incident.id).state) == (400, "open")
    assert "write why you close it" in visible_text(answer.text)
    assert decide(client, incident.id, "close", "we removed the test data").status_code == 303
    closed = stored(flow, incident.id)
    assert (closed.state, closed.resolution, closed.closed_by, closed.known_by, closed.closing_reason) == (
        "closed",
        "expected",
        "ada",
        "token",
        "we removed the test data",
    )
    page = client.get("/incidents").text
    assert stories(page) == [] and "badge" not in page
    assert "Closed as expected by ada just now: “we removed the test data”" in visible_text(page)
    assert "Closed as expected by ada" in visible_text(client.get("/metrics/m.a").text)
    assert 'class="decide"' not in client.get(f"/incidents/{incident.id}").text


def test_one_click_decides_about_a_whole_story(flow: Flow, visit: Visit) -> None:
    numbers = [each.id for each in open_incident(flow, "m.a", "m.b", "m.c")]
    client = visit(flow.config, "ada")
    form = f"decide-{numbers[0]}-story"
    page = client.get("/incidents").text
    assert "Acknowledge all 3" in page and "Close all 3 as expected" in page
    assert client.post(f"/incidents/{numbers[0]}/ack", data=form_of(page, form)).status_code == 303
    assert {stored(flow, number).state for number in numbers} == {"acknowledged"}
    assert "Acknowledge all" not in client.get("/incidents").text
    assert decide(client, numbers[0], "close", "the new layout", form).status_code == 303
    assert {stored(flow, number).closing_reason for number in numbers} == {"the new layout"}


def test_an_incident_that_changed_is_shown_and_not_decided(flow: Flow, visit: Visit) -> None:
    first, second = open_incident(flow, "m.a", "m.b")
    client = visit(flow.config, "ada")
    form = form_of(client.get("/incidents").text, f"decide-{first.id}-story")
    flow.do(f"UPDATE dims_incidents SET version = version + 1, value = '50' WHERE id = {second.id}")
    answer = client.post(f"/incidents/{first.id}/close", data=form | {"note": 'of "2019" <b>'})
    content = visible_text(answer.text)
    assert answer.status_code == 409
    assert "1 of 2 were closed. The rest did not change." in content
    assert f"Incident {second.id} has changed since version 1: it has version 2 now" in content
    assert [stored(flow, each.id).state for each in (first, second)] == ["closed", "open"]
    alone = client.post(f"/incidents/{second.id}/close", data=form | {"to_close": f"{second.id}:1", "note": "a <b>"})
    assert alone.status_code == 409
    assert "Nothing was closed." in visible_text(alone.text)
    assert "a &lt;b&gt;</textarea>" in alone.text  # the text is kept
    again = form_of(alone.text, f"decide-{second.id}")
    assert again["to_close"] == f"{second.id}:2"
    assert client.post(f"/incidents/{second.id}/close", data=again | {"note": "right"}).status_code == 303


def test_the_second_person_sees_who_decided(flow: Flow, visit: Visit) -> None:
    (incident,) = open_incident(flow, "m.a")
    ada, bob = visit(flow.config, "ada"), visit(flow.config, "bob")
    form = form_of(bob.get("/incidents").text, f"decide-{incident.id}")
    decide(ada, incident.id, "close", "mine")
    answer = bob.post(f"/incidents/{incident.id}/ack", data=form | {"note": "too late"})
    assert answer.status_code == 409
    assert f"Incident {incident.id} is closed already (expected by ada)" in visible_text(answer.text)
    assert "Your text was: “too late”" in visible_text(answer.text)


@pytest.mark.parametrize(("verb", "state"), [("ack", "acknowledged"), ("close", "closed")])
def test_a_double_click_decides_once_without_a_conflict(flow: Flow, visit: Visit, verb: str, state: str) -> None:
    (incident,) = open_incident(flow, "m.a")
    client = visit(flow.config, "ada")
    form = form_of(client.get("/incidents").text, f"decide-{incident.id}") | {"note": "seen"}
    answers = [client.post(f"/incidents/{incident.id}/{verb}", data=form) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [303, 303]
    assert (stored(flow, incident.id).state, stored(flow, incident.id).version) == (state, 2)


def test_only_approvers_may_decide(make_flow: Make, visit: Visit) -> None:
    flow = make_flow(CONFIG.replace("a: {source: one,", "a: {approvers: [bob], source: one,"))
    (incident,) = open_incident(flow, "m.a")
    client = visit(flow.config, "ada")
    page = client.get(f"/incidents/{incident.id}").text
    assert "Only bob may acknowledge or close it" in visible_text(page) and 'class="decide"' not in page
    data = {"form_token": form_token(page), "to_close": f"{incident.id}:1", "note": "mine"}
    refused = client.post(f"/incidents/{incident.id}/close", data=data)
    assert (refused.status_code, stored(flow, incident.id).state) == (403, "open")
    assert "Ada may not decide on m.a" in visible_text(refused.text)
    assert decide(visit(flow.config, "bob"), incident.id, "close", "fine").status_code == 303


def test_a_held_value_is_decided_on_its_request(flow: Flow, visit: Visit) -> None:
    flow.serve(c=100)
    flow.serve(c=150)
    request = flow.open("m.c")
    assert request is not None
    with transaction(flow.engine) as connection:
        known = connection.execute(text("SELECT id FROM dims_incidents WHERE kind = 'approval'")).scalar()
    number = known or open_incident(flow, "m.c", kind="approval", request=request.id, value=150)[0].id
    client = visit(flow.config, "ada")
    for address in ("/incidents", f"/incidents/{number}", "/metrics/m.c", "/"):
        page = client.get(address).text
        assert f'href="/requests/{request.id}"' in page, address
        assert f'action="/incidents/{number}/ack"' not in page, address


def test_a_drift_cannot_be_closed_while_a_later_value_waits(flow: Flow, visit: Visit) -> None:
    flow.serve(c=100)
    (incident,) = open_incident(flow, "m.c")
    client = visit(flow.config, "ada")
    form = form_of(client.get(f"/incidents/{incident.id}").text, f"decide-{incident.id}")
    flow.serve(c=40)
    request = flow.open("m.c")
    assert request is not None
    page = client.get(f"/incidents/{incident.id}").text
    assert 'class="decide"' not in page and f'class="button" href="/requests/{request.id}"' in page
    version = stored(flow, incident.id).version
    data = form | {"to_close": f"{incident.id}:{version}", "note": "the old level is fine"}
    answer = client.post(f"/incidents/{incident.id}/close", data=data)
    assert answer.status_code == 409
    assert f"waits for the decision on request {request.id}" in visible_text(answer.text)
    assert (flow.state("m.c").baseline, stored(flow, incident.id).state) == (100, "open")


def test_filters_choose_state_kind_and_category(flow: Flow, visit: Visit) -> None:
    drift, failing = open_incident(flow, "m.a"), open_incident(flow, "m.b", kind="failing", reason="no answer")
    silence = open_incident(flow, "rule:nightly", kind="silence", reason="no event for 3 days")
    client = visit(flow.config, "ada")
    decide(client, failing[0].id, "ack")
    (gone,) = open_incident(flow, "m.e")
    decide(client, gone.id, "close", "fine")
    shown = {
        "": [silence, failing, drift],
        "state=open": [silence, drift],
        "state=acknowledged": [failing],
        "kind=drift": [drift],
        "kind=silence": [silence],
        "category=m": [failing, drift],
        "category=other": [],
        "state=closed": [],
        "state=open&kind=failing": [],
    }
    for query, expected in shown.items():
        page = client.get(f"/incidents?{query}").text
        assert stories(page) == [[each[0].id] for each in expected], query
        closed = query in ("", "kind=drift", "category=m", "state=closed")
        assert (f'href="/incidents/{gone.id}"' in page.split('id="done"')[-1]) is closed, query
    assert client.get("/incidents?state=lost").status_code == 400
    assert "rule nightly" in visible_text(client.get("/incidents").text)


def test_a_large_story_folds_its_rest(make_flow: Make, visit: Visit) -> None:
    names = [f"x{number}" for number in range(30)]
    flow = make_flow(CONFIG + "  more: {on: dims.more}\n")
    open_incident(flow, *(f"m.{name}" for name in names))  # metrics that are not configured any more
    page = visit(flow.config, "ada").get("/incidents").text
    assert [len(story) for story in stories(page)] == [30]
    assert "and 22 more" in page and "Acknowledge all 30" in page


def test_closed_incidents_are_read_page_by_page(flow: Flow, visit: Visit) -> None:
    with transaction(flow.engine) as connection:
        now = clock(connection)
        row = {"metric": "m.a", "kind": "drift", "state": "closed", "severity": "high", "reason": "x", "opened_at": now}
        rows = [row | {"updated_at": now, "closed_at": now, "resolution": "recovered", "over_at": now}] * 60
        insert_incidents(connection, rows)
    client = visit(flow.config, "ada")
    pages: list[Sequence[str]] = []
    address = "/incidents?state=closed"
    while address:
        page = client.get(address).text
        pages.append(re.findall(r'<td><a href="/incidents/(\d+)"', page))
        older = re.search(r'href="([^"]+)">Older<', page)
        address = unescape(older[1]) if older else ""
    assert [len(numbers) for numbers in pages] == [50, 10]
    assert len({number for numbers in pages for number in numbers}) == 60


def test_hostile_text_is_shown_as_text(flow: Flow, visit: Visit) -> None:
    (incident,) = open_incident(flow, "m.a", kind="failing", reason=HOSTILE)
    client = visit(flow.config, "ada")
    decide(client, incident.id, "ack", HOSTILE)
    for address in ("/incidents", f"/incidents/{incident.id}", "/metrics/m.a"):
        page = client.get(address).text
        assert "<script>alert" not in page and "\u202e" not in page, address


FORMS = ["", "12", "12:", "12:1,", "x:1", "1:99999999999", "-1:1", "12:1;13:1"]


def test_a_form_without_versions_is_refused(flow: Flow, visit: Visit) -> None:
    (incident,) = open_incident(flow, "m.a")
    client = visit(flow.config, "ada")
    token = form_token(client.get(f"/incidents/{incident.id}").text)
    for versions in FORMS:
        data = {"form_token": token, "to_ack": versions}
        answer = client.post(f"/incidents/{incident.id}/ack", data=data)
        assert answer.status_code == 400, versions
    assert client.post(f"/incidents/{incident.id}/ack", data={"to_ack": f"{incident.id}:1"}).status_code == 403
    assert client.post("/incidents/0/ack", data={"form_token": token, "to_ack": "99:1"}).status_code == 404
    assert stored(flow, incident.id).state == "open"


def test_a_decision_needs_a_person_and_the_same_site(flow: Flow, visit: Visit) -> None:
    (incident,) = open_incident(flow, "m.a")
    anyone = visit(flow.config, read="anyone")
    page = anyone.get(f"/incidents/{incident.id}").text
    assert "Sign in to acknowledge or close" in page and 'class="decide"' not in page
    signed_out = anyone.post(f"/incidents/{incident.id}/ack", data={"note": "my note"})
    assert signed_out.status_code == 403 and "my note" in signed_out.text
    client = visit(flow.config, "ada")
    data = form_of(client.get("/incidents").text, f"decide-{incident.id}")
    for headers in ({"sec-fetch-site": "cross-site"}, {"origin": "https://evil.example"}):
        assert client.post(f"/incidents/{incident.id}/ack", data=data, headers=headers).status_code == 403
    bob = visit(flow.config, "bob")
    assert bob.post(f"/incidents/{incident.id}/ack", data=data).status_code == 403  # a form of ada
    assert visit(flow.config).get("/incidents").headers["location"] == "/sign-in?next=/incidents"
    assert stored(flow, incident.id).state == "open"


def test_a_read_only_database_role_cannot_decide(flow: Flow, visit: Visit) -> None:
    (incident,) = open_incident(flow, "m.a")
    name = f"{flow.engine.url.database}_reads"
    with flow.engine.begin() as connection:
        connection.execute(text(f"CREATE ROLE {name} LOGIN PASSWORD 'secret' IN ROLE dims_reader"))
    theirs = create_engine(flow.engine.url.set(username=name, password="secret"))
    try:
        client = visit(flow.config, "ada", on=theirs)
        assert client.get("/incidents").status_code == 200
        assert decide(client, incident.id, "ack").status_code == 403
        assert stored(flow, incident.id).state == "open"
    finally:
        theirs.dispose()
        with flow.engine.begin() as connection:
            connection.execute(text(f"DROP ROLE {name}"))


def test_an_unknown_incident_is_not_found(flow: Flow, visit: Visit) -> None:
    client = visit(flow.config, "ada")
    for number in ("1", "99999999999999999999", "x", "%00"):
        answer = client.get(f"/incidents/{number}")
        assert answer.status_code == 404
        assert "Incident not found" in answer.text
    answer = client.get("/incidents/7/close")
    assert (answer.status_code, answer.headers["location"]) == (303, "/incidents/7")


def test_forms_are_outside_of_what_is_replaced(flow: Flow, visit: Visit) -> None:
    (incident,) = open_incident(flow, "m.a", "m.b")[:1]
    client = visit(flow.config, "ada")
    for address in ("/incidents", f"/incidents/{incident.id}"):
        page = client.get(address).text
        live = re.findall(r'<(\w+) [^>]*id="[^"]+" data-live>(.*?)</\1>', page, re.S)
        assert live and all("<textarea" not in inner for _, inner in live), address
