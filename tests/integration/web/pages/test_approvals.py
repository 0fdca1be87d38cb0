"""Approve and reject on the dashboard: once, by an approver, and only what the person saw."""

from __future__ import annotations

import re
from collections.abc import Callable
from html import unescape
from typing import Any

import pytest
from httpx2 import Response
from sqlalchemy import create_engine, text
from starlette.testclient import TestClient

from dims_worker.approvals.decisions import BaselineInput, decide_request, load_request, set_baselines
from dims_worker.config import WebSection
from dims_worker.domain.approvers import Decider
from dims_worker.store.approval_requests import ApprovalRequest
from dims_worker.store.engine import transaction
from dims_worker.web.identity import SignInPolicy, Viewer
from tests.integration.helpers import CONFIG, Flow, Threads, event
from tests.integration.web.conftest import TOKENS, Visit, form_token

HOSTILE = "<script>alert('x')</script>\"&\u202eevil"
OURS = '<script src="/static/live.js" type="module"></script>'
Make = Callable[[str], Flow]


@pytest.fixture
def waiting(flow: Flow) -> ApprovalRequest:
    """m.c proposes 150 files against 100."""
    flow.serve(c=100)
    flow.serve(c=150)
    request = flow.open("m.c")
    assert request is not None
    return request


def visible_text(page: str) -> str:
    """Return the text of a page without tags, on one line."""
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", page)).split())


def fields(page: str) -> dict[str, str]:
    """Return the hidden fields of the decision form."""
    form = page.split('class="decide"', 1)[1].split("</form>", 1)[0]
    return {name: unescape(value) for name, value in re.findall(r'name="(\w+)" value="([^"]*)"', form)}


def post(client: TestClient, number: int, verb: str = "approve", **more: Any) -> Response:
    """Press a button of the current page."""
    page = client.get(f"/requests/{number}").text
    content = fields(page) if 'class="decide"' in page else {"form_token": form_token(page), "version": "1"}
    return client.post(f"/requests/{number}/{verb}", data={**content, **more})


def test_an_open_request_is_a_card_with_a_form(flow: Flow, waiting: ApprovalRequest, visit: Visit) -> None:
    page = visit(flow.config, "ada").get("/requests").text
    content = visible_text(page)
    assert "1 value is waiting for approval" in content
    assert "100 files → 150 files +50.0 %" in content
    assert f'formaction="/requests/{waiting.id}/reject"' in page
    assert f'<label for="note-{waiting.id}">' in page
    assert 'href="/metrics/m.c"' in page
    assert "There are no decisions yet" in content
    live = re.findall(r'<(\w+) [^>]*id="[^"]+" data-live>(.*?)</\1>', page, re.S)
    assert live
    assert all("<textarea" not in inner for _, inner in live)


def test_a_read_only_database_role_cannot_decide(flow: Flow, waiting: ApprovalRequest, visit: Visit) -> None:
    name = f"{flow.engine.url.database}_looks"
    with flow.engine.begin() as connection:
        connection.execute(text(f"CREATE ROLE {name} LOGIN PASSWORD 'secret' IN ROLE dims_reader"))
    theirs = create_engine(flow.engine.url.set(username=name, password="secret"))
    try:
        answer = post(visit(flow.config, "ada", on=theirs), waiting.id)
        assert (answer.status_code, "may not do this" in answer.text) == (403, True)
        assert flow.state("m.c").baseline == 100
    finally:
        theirs.dispose()
        with flow.engine.begin() as connection:
            connection.execute(text(f"DROP ROLE {name}"))


def test_approving_makes_the_value_the_baseline(flow: Flow, waiting: ApprovalRequest, visit: Visit) -> None:
    client = visit(flow.config, "ada")
    answer = post(client, waiting.id, note="  the backfill\r\nof 2019 ")
    assert (answer.status_code, answer.headers["location"]) == (303, f"/requests/{waiting.id}")
    assert flow.state("m.c").baseline == 150
    stored = load_request(flow.engine, str(waiting.id))
    assert (stored.state, stored.decided_by, stored.known_by, stored.note) == (
        "approved",
        "ada",
        "token",
        "the backfill of 2019",
    )
    page = client.get(f"/requests/{waiting.id}").text
    content = visible_text(page)
    assert "Approved by ada, " in content
    assert "150 files became the baseline" in content
    assert "signed in with a token" in content
    assert "the backfill of 2019" in content
    assert 'class="decide"' not in page
    listed = visible_text(client.get("/requests").text)
    assert "Nothing is waiting for approval." in listed
    assert "ada" in listed
    assert "100 files → 150 files, ada (token)" in visible_text(client.get("/metrics/m.c").text)


def test_a_decision_after_signing_in_by_a_link_is_recorded_so(
    flow: Flow, waiting: ApprovalRequest, visit: Visit
) -> None:
    client = visit(flow.config)
    access = SignInPolicy(WebSection(), "a secret of the tests")
    client.cookies.set(access.cookie, access.session(Viewer("cleo", "link")))
    assert post(client, waiting.id).status_code == 303
    stored = load_request(flow.engine, str(waiting.id))
    assert (stored.decided_by, stored.known_by) == ("cleo", "link")
    assert "signed in with a link" in visible_text(client.get(f"/requests/{waiting.id}").text)


def test_rejecting_keeps_the_baseline(flow: Flow, waiting: ApprovalRequest, visit: Visit) -> None:
    client = visit(flow.config, "ada")
    assert post(client, waiting.id, "reject").status_code == 303
    assert flow.state("m.c").baseline == 100
    stored = load_request(flow.engine, str(waiting.id))
    assert (stored.state, stored.note) == ("rejected", None)
    assert "the baseline stays" in visible_text(client.get(f"/requests/{waiting.id}").text)


def test_an_unseen_version_is_shown_and_not_decided(flow: Flow, waiting: ApprovalRequest, visit: Visit) -> None:
    client = visit(flow.config, "ada")
    form = fields(client.get("/requests").text)
    flow.serve(c=152)
    answer = client.post(f"/requests/{waiting.id}/approve", data={**form, "note": 'of "2019" <b>'})
    content = visible_text(answer.text)
    assert answer.status_code == 409
    assert "Nothing was decided, because the request has changed since you opened it." in content
    assert "You saw version 1: 100 files → 150 files. It is version 2 now: 100 files → 152 files (+52.0 %)" in content
    assert flow.state("m.c").baseline == 100
    again = fields(answer.text)
    assert again["version"] == "2"
    assert "of &#34;2019&#34; &lt;b&gt;</textarea>" in answer.text  # the note is kept
    assert client.post(f"/requests/{waiting.id}/approve", data=again).status_code == 303
    assert flow.state("m.c").baseline == 152


def test_a_baseline_that_changed_meanwhile_prevents_a_decision(
    flow: Flow, waiting: ApprovalRequest, visit: Visit
) -> None:
    flow.do("UPDATE dims_metrics SET baseline_version = baseline_version + 1")
    answer = post(visit(flow.config, "ada"), waiting.id)
    assert answer.status_code == 409
    assert "The baseline has changed" in visible_text(answer.text)
    assert flow.open("m.c") is not None


def test_the_second_person_sees_who_decided_and_when(flow: Flow, waiting: ApprovalRequest, visit: Visit) -> None:
    ada, bob = visit(flow.config, "ada"), visit(flow.config, "bob")
    form = fields(bob.get(f"/requests/{waiting.id}").text)
    post(ada, waiting.id)
    for verb, choice in (("reject", "rejected"), ("approve", "approved")):
        answer = bob.post(f"/requests/{waiting.id}/{verb}", data={**form, "note": "mine"})
        content = visible_text(answer.text)
        assert answer.status_code == 409
        assert re.search(r"ada approved it (just now|\d+ seconds? ago), before you\.", content)
        assert f"Your decision ({choice}) changed nothing." in content
        assert "Your note was: “mine”" in content
    assert load_request(flow.engine, str(waiting.id)).decided_by == "ada"


def test_a_double_click_decides_once_without_a_conflict(flow: Flow, waiting: ApprovalRequest, visit: Visit) -> None:
    client = visit(flow.config, "ada")
    form = fields(client.get("/requests").text)
    answers = [client.post(f"/requests/{waiting.id}/approve", data=form) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [303, 303]
    assert flow.state("m.c").baseline_version == 2


@pytest.mark.parametrize("verbs", [("approve", "approve"), ("approve", "reject")])
def test_one_of_two_simultaneous_decisions_wins(
    flow: Flow, waiting: ApprovalRequest, visit: Visit, beside: Threads, verbs: tuple[str, str]
) -> None:
    clients = [visit(flow.config, name) for name in ("ada", "bob")]
    forms = [fields(client.get("/requests").text) for client in clients]
    with transaction(flow.engine) as connection:
        connection.execute(text("SELECT 1 FROM dims_metrics WHERE metric = 'm.c' FOR UPDATE"))
        calls = [
            beside(lambda c, v, f: c.post(f"/requests/{waiting.id}/{v}", data=f), *each)
            for each in zip(clients, verbs, forms, strict=True)
        ]
        flow.blocked(2)
    answers = [call.result(timeout=20) for call in calls]
    assert sorted(answer.status_code for answer in answers) == [303, 409]
    won = 0 if answers[0].status_code == 303 else 1
    assert load_request(flow.engine, str(waiting.id)).decided_by == ("ada", "bob")[won]
    assert f"{('ada', 'bob')[won]} " in visible_text(answers[1 - won].text).split("before you")[0]
    assert flow.state("m.c").baseline_version == (2 if verbs[won] == "approve" else 1)


def test_a_superseded_request_links_to_the_open_one(flow: Flow, waiting: ApprovalRequest, visit: Visit) -> None:
    client = visit(flow.config, "ada")
    form = fields(client.get("/requests").text)
    flow.serve(c=200)
    page = client.get(f"/requests/{waiting.id}").text
    assert f'without a decision. <a href="/requests/{waiting.id + 1}">' in " ".join(page.split())
    answer = client.post(f"/requests/{waiting.id}/approve", data={**form, "note": "mine"})
    assert answer.status_code == 409
    content = visible_text(answer.text)
    assert "Nothing was decided, because the request has changed since you opened it." in content
    assert (
        "You saw request 1: 100 files → 150 files. This request replaced it: 100 files → 200 files (+100.0 %)"
        in content
    )
    assert flow.state("m.c").baseline == 100
    assert "mine</textarea>" in answer.text
    assert 'data-url="/requests/2"' in answer.text  # the address that an open page refreshes from
    assert client.post(f"/requests/{waiting.id + 1}/approve", data=fields(answer.text)).status_code == 303
    assert flow.state("m.c").baseline == 200


def test_a_long_lock_prevents_the_decision_and_keeps_the_note(
    flow: Flow, waiting: ApprovalRequest, visit: Visit
) -> None:
    busy = create_engine(flow.engine.url, connect_args={"options": "-c lock_timeout=100"})
    client = visit(flow.config, "ada", on=busy)
    with transaction(flow.engine) as connection:
        connection.execute(text("SELECT 1 FROM dims_metrics WHERE metric = 'm.c' FOR UPDATE"))
        answer = post(client, waiting.id, note="mine")
    busy.dispose()
    assert answer.status_code == 503
    assert "Nothing was decided" in visible_text(answer.text) and "mine</textarea>" in answer.text
    assert flow.state("m.c").baseline == 100


def test_a_read_only_database_is_reported(flow: Flow, waiting: ApprovalRequest, visit: Visit) -> None:
    standby = create_engine(flow.engine.url, connect_args={"options": "-c default_transaction_read_only=on"})
    answer = post(visit(flow.config, "ada", on=standby), waiting.id)
    standby.dispose()
    assert (answer.status_code, "is read-only here" in visible_text(answer.text)) == (403, True)


def test_only_approvers_may_decide(make_flow: Make, visit: Visit) -> None:
    flow = make_flow(CONFIG + "policy: {approvers: ['ad*', <grace>]}\n")
    flow.serve(c=100)
    flow.serve(c=150)
    bob = visit(flow.config, "bob")
    page = bob.get("/requests/1").text
    assert 'class="decide"' not in page
    assert "Only ad*, <grace> may decide this request" in visible_text(page)
    answer = post(bob, 1)
    assert answer.status_code == 403
    assert "bob may not decide on m.c" in visible_text(answer.text)
    assert flow.state("m.c").baseline == 100
    assert post(visit(flow.config, "ada"), 1).status_code == 303


def test_anyone_may_read_if_configured_but_not_decide(flow: Flow, waiting: ApprovalRequest, visit: Visit) -> None:
    stranger = visit(flow.config, read="anyone")
    page = stranger.get(f"/requests/{waiting.id}").text
    assert 'class="decide"' not in page
    assert f'<a href="/sign-in?next=/requests/{waiting.id}">Sign in to decide</a>' in page
    form = fields(visit(flow.config, "ada").get("/requests").text)
    answer = stranger.post(f"/requests/{waiting.id}/approve", data={**form, "note": "mine <b>"})
    assert answer.status_code == 403
    assert "Nothing was changed." in answer.text and "mine &lt;b&gt;" in answer.text
    assert f'href="/sign-in?next=/requests/{waiting.id}"' in answer.text
    assert visit(flow.config).get("/requests").status_code == 303
    assert flow.state("m.c").baseline == 100


@pytest.mark.parametrize(
    ("wrong", "status", "expected"),
    [
        ({"form_token": "x"}, 403, "Reload the page"),
        ({"version": "x"}, 400, "which version you saw"),
        ({"version": ""}, 400, "which version you saw"),
        ({"version": "9" * 40}, 400, "which version you saw"),
        ({"note": "n" * 2001}, 400, "the note has 2,001 characters"),
        ({"note": "a\0b"}, 400, "NUL"),
    ],
)
def test_a_form_that_is_not_ours_decides_nothing(
    flow: Flow, waiting: ApprovalRequest, visit: Visit, wrong: dict[str, str], status: int, expected: str
) -> None:
    answer = post(visit(flow.config, "ada"), waiting.id, **wrong)
    assert answer.status_code == status
    assert expected in visible_text(answer.text)
    assert flow.open("m.c") is not None


def test_another_persons_form_is_refused(flow: Flow, waiting: ApprovalRequest, visit: Visit) -> None:
    form = fields(visit(flow.config, "ada").get("/requests").text)
    assert visit(flow.config, "bob").post(f"/requests/{waiting.id}/approve", data=form).status_code == 403
    loaded = visit(flow.config, "ada").get(f"/requests/{waiting.id}/approve")
    assert (loaded.status_code, loaded.headers["location"]) == (303, f"/requests/{waiting.id}")
    assert flow.open("m.c") is not None


def test_hostile_texts_are_only_texts(flow: Flow, visit: Visit) -> None:
    flow.serve(c="plain")
    flow.store(event("dims.scraper.complete"))
    flow.serve(c=HOSTILE)
    client = visit(flow.config, "ada")
    decided = post(client, 1, "reject", note=HOSTILE, seen=HOSTILE)
    assert decided.status_code == 303
    flow.serve(c="x" * 1000)
    form = fields(client.get("/requests/2").text)
    flow.do("UPDATE dims_approval_requests SET version = 5, reason = :r WHERE id = 2", r=HOSTILE)
    conflict = client.post("/requests/2/approve", data={**form, "seen": HOSTILE, "note": HOSTILE})
    assert conflict.status_code == 409
    for page in (conflict.text, *(client.get(path).text for path in ("/requests", "/requests/1", "/requests/2"))):
        assert "&lt;script&gt;" in page
        assert "<script" not in page.replace(OURS, "")
        assert "\u202e" not in page


def test_an_unknown_request_is_a_page_that_says_so(flow: Flow, visit: Visit) -> None:
    client = visit(flow.config, "ada")
    for number in ("7", "9" * 30, "x", "-1"):
        assert client.get(f"/requests/{number}").status_code == 404
    form = {"form_token": form_token(client.get("/").text), "version": "1"}
    assert client.post("/requests/7/approve", data=form).status_code == 404


def test_the_lists_have_pages(flow: Flow, waiting: ApprovalRequest, visit: Visit, queries: list[str]) -> None:
    flow.do(
        "INSERT INTO dims_approval_requests (metric, state, value, unit, as_of, anchor, baseline, baseline_version, "
        "severity, reason, opened_at, decided_at) SELECT 'm.c', 'withdrawn', '1', 'files', now(), '1', '2', 1, 'high', "
        "'r' || n, now(), now() FROM generate_series(1, 120) n"
    )
    flow.do(
        "INSERT INTO dims_approval_requests (metric, state, value, unit, as_of, anchor, baseline, baseline_version, "
        "severity, reason) SELECT 'gone.' || n, 'open', '1', 'files', now(), '1', '2', 1, 'high', 'r' "
        "FROM generate_series(1, 60) n"
    )
    client = visit(flow.config, "ada")
    queries.clear()
    page = client.get("/requests").text
    assert len(queries) <= 7
    assert "61 values are waiting" in visible_text(page)
    assert page.count('class="decide"') == 50
    seen: list[int] = []
    path: str | None = "/requests?state=decided"
    for _ in range(3):
        assert path
        page = client.get(path).text
        seen += map(int, re.findall(r'<tr><td><a href="/requests/(\d+)">', page))
        older = re.search(r'href="([^"]*)">Older', page)
        path = unescape(older[1]) if older else None
    assert path is None
    assert seen == sorted(seen, reverse=True)
    assert len(seen) == 120
    more = re.search(r'href="([^"]*)">More open requests', client.get("/requests?state=open").text)
    assert more
    assert client.get(unescape(more[1])).text.count('class="decide"') == 11
    for wrong in ("before=x", "before=" + "9" * 30, "before=" + "0" * 20 + "9" * 19, "after=-1", "state=both"):
        assert client.get(f"/requests?{wrong}").status_code == 400


def test_the_latest_decision_comes_first(flow: Flow, waiting: ApprovalRequest, visit: Visit) -> None:
    """However old the request is, and across pages."""
    flow.do(
        "INSERT INTO dims_approval_requests (metric, state, value, unit, as_of, anchor, baseline, baseline_version, "
        "severity, reason, decided_at) SELECT 'm.c', 'withdrawn', '1', 'files', now(), '1', '2', 1, 'high', 'r', "
        "now() - make_interval(days => 1, hours => n / 2) FROM generate_series(1, 60) n"
    )
    client = visit(flow.config, "ada")
    post(client, waiting.id)
    first = client.get("/requests?state=decided").text
    numbers = [int(n) for n in re.findall(r'<tr><td><a href="/requests/(\d+)">', first)]
    assert numbers[0] == waiting.id
    older = re.search(r'href="([^"]*)">Older', first)
    assert older
    second = client.get(unescape(older[1])).text
    numbers += [int(n) for n in re.findall(r'<tr><td><a href="/requests/(\d+)">', second)]
    rows = flow.rows("SELECT id FROM dims_approval_requests ORDER BY decided_at DESC, id DESC")
    assert numbers == [row.id for row in rows] and len(numbers) == 61


def test_the_page_of_a_request_shows_its_evidence(flow: Flow, visit: Visit, queries: list[str]) -> None:
    flow.serve(c=100)
    flow.store(event("dims.scraper.complete"))
    flow.serve(c=150)
    client = visit(flow.config, "ada")
    queries.clear()
    page = client.get("/requests/1").text
    assert len(queries) <= 14
    content = visible_text(page)
    assert "2 events between the baseline and the reading" in content
    assert "1 dims.scraper.complete" in content
    assert "147 to 153 files" in content
    assert 'href="/runs/2"' in page
    assert 'class="held"' in page
    assert "version 1" in content


def test_a_baseline_set_by_hand_has_a_page_too(flow: Flow, visit: Visit) -> None:
    set_baselines(flow.engine, flow.config, [BaselineInput("m.c", 7, "the audit")], Decider("ada", "option"))
    page = visible_text(visit(flow.config, "ada").get("/requests/1").text)
    assert "Set by hand by ada" in page
    assert "named by `--as`" in page
    assert "the audit" in page


def test_a_decision_from_the_terminal_appears_on_the_dashboard(
    flow: Flow, waiting: ApprovalRequest, visit: Visit
) -> None:
    person = Decider("grace", "environment")
    decide_request(flow.engine, flow.config, str(waiting.id), "rejected", version=1, person=person, note=None)
    assert "Rejected by grace" in visible_text(visit(flow.config, "ada").get(f"/requests/{waiting.id}").text)
    assert TOKENS["ada"] not in visit(flow.config, "ada").get("/requests").text
