"""What changed: the accepted drifts of the last days."""

from __future__ import annotations

import re

from tests.integration.helpers import Flow
from tests.integration.web.conftest import Visit
from tests.integration.web.pages.test_approvals import post, visible_text


def changed(page: str) -> list[str]:
    """Return the metrics of the listed changes, in their order."""
    cards = page.split('<article class="card accepted"')[1:]
    return [re.search(r'href="/metrics/([^"]+)"', card)[1] for card in cards]  # type: ignore[index]


def test_accepted_drifts_are_listed_the_largest_first(flow: Flow, visit: Visit) -> None:
    flow.serve(a=100, c=100)
    flow.serve(a=40, c=110)
    client = visit(flow.config, "ada")
    page = client.get("/changes").text
    assert changed(page) == ["m.a", "m.c"]
    content = visible_text(page)
    assert "100 → 40 files, -60.0 %" in content and "100 → 110 files, +10.0 %" in content
    assert "Accepted by policy just now" in content
    assert 'href="/runs/2"' in page
    assert re.search(r'href="/incidents/\d+"', page)  # the loss is an incident
    assert '<a href="/changes"' in client.get("/").text


def test_a_change_that_waits_is_listed_once_a_person_approves_it(flow: Flow, visit: Visit) -> None:
    flow.serve(c=100)
    flow.serve(c=150)
    client = visit(flow.config, "ada")
    assert changed(client.get("/changes").text) == []
    request = flow.open("m.c")
    assert request is not None
    assert post(client, request.id, note="the backfill").status_code == 303
    page = client.get("/changes").text
    assert changed(page) == ["m.c"]
    assert "by ada (token)" in visible_text(page) and "the backfill" in page
    assert f'href="/requests/{request.id}"' in page


def test_the_address_chooses_the_days(flow: Flow, visit: Visit) -> None:
    flow.serve(a=100)
    flow.serve(a=40)
    older = "interval '10 days'"
    flow.do(f"UPDATE dims_verification_runs SET started_at = started_at - {older}, finished_at = finished_at - {older}")
    client = visit(flow.config, "ada")
    assert "No value drifted in the last 7 days." in visible_text(client.get("/changes").text)
    assert changed(client.get("/changes?days=30").text) == ["m.a"]
    assert '<a href="/changes?days=12" aria-current="true">12 days</a>' in client.get("/changes?days=12").text
    for wrong in ("0", "x", "1.5", "-1", "9999"):
        assert client.get(f"/changes?days={wrong}").status_code == 400, wrong


def test_reading_needs_what_every_page_needs(flow: Flow, visit: Visit) -> None:
    assert visit(flow.config).get("/changes").headers["location"] == "/sign-in?next=/changes"
    assert visit(flow.config, read="anyone").get("/changes").status_code == 200
