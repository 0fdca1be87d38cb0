"""Decide about incidents by mouse, beside another person, and without JavaScript."""

from __future__ import annotations

from dims_worker.store.engine import clock, transaction
from dims_worker.store.incidents import Incident, insert_incidents
from tests.browser.conftest import Visit, expect
from tests.browser.local_stack import LocalStack


def open_story(site: LocalStack, *metrics: str) -> list[Incident]:
    """Insert incidents of metrics that nothing measures, so that no run ends them."""
    with transaction(site.engine) as connection:
        now = clock(connection)
        row = {"kind": "drift", "severity": "high", "reason": "down 40 %", "opened_at": now, "updated_at": now}
        row |= {"value": 60, "anchor": 100, "unit": "files", "as_of": now, "first_as_of": now, "anchor_as_of": now}
        return insert_incidents(connection, [row | {"metric": metric} for metric in metrics])


def state(site: LocalStack, incident: Incident) -> str:
    found: str = site.scalar("SELECT state FROM dims_incidents WHERE id = :id", id=incident.id)
    return found


def test_a_story_is_acknowledged_and_closed_while_another_page_follows(site: LocalStack, visit: Visit) -> None:
    other = visit("bob")
    other.goto("/incidents")
    expect(other.locator("#live")).to_have_class("live on")
    before = int(other.locator(".badge").inner_text())
    other.evaluate("window.stayed = true")
    story = open_story(site, "click.a", "click.b")
    expect(other.locator(".badge")).to_have_text(str(before + 2))  # without a reload

    page = visit("ada")
    page.goto("/incidents")
    page.locator(f"#act-{story[0].story} > summary").click()
    page.get_by_label("Note. To close, write the reason.").locator("visible=true").fill("a test upload")
    page.get_by_role("button", name="Acknowledge all 2").click()
    expect(page.locator("#now")).to_contain_text("Acknowledged by ada")
    assert [state(site, each) for each in story] == ["acknowledged"] * 2

    page.locator("#act-story > summary").click()
    close = page.get_by_role("button", name="Close all 2 as expected")
    close.click()
    expect(page.locator("#act-story textarea:invalid")).to_be_visible()  # a reason is required
    page.locator("#act-story textarea").fill("the test is over")
    close.click()
    expect(page.locator("#now")).to_contain_text("Closed as expected by ada")
    expect(other.locator(".badge")).to_have_text(str(before))
    assert other.evaluate("window.stayed") is True


def test_a_person_who_is_typing_is_notified_of_a_change_and_keeps_the_text(site: LocalStack, visit: Visit) -> None:
    (incident,) = open_story(site, "typed.a")
    ada, bob = visit("ada"), visit("bob")
    for page in (ada, bob):
        page.goto(f"/incidents/{incident.id}")
        expect(page.locator("#live")).to_have_class("live on")
    bob.locator("[name=note]").fill("half a sen")
    ada.get_by_role("button", name="Acknowledge").click()
    expect(bob.locator(".changed")).to_be_visible()
    assert bob.locator("[name=note]").input_value() == "half a sen"
    bob.get_by_role("button", name="Close as expected").click()
    expect(bob.locator(".conflict")).to_contain_text("Nothing was closed.")
    assert bob.locator("[name=note]").input_value() == "half a sen"
    bob.get_by_role("button", name="Close as expected").click()
    expect(bob.locator("#now")).to_contain_text("“half a sen”")


def test_an_incident_is_closed_without_javascript(site: LocalStack, visit: Visit) -> None:
    (incident,) = open_story(site, "plain.a")
    page = visit("ada", java_script_enabled=False)
    page.goto("/")
    page.get_by_role("link", name="incidents", exact=False).first.click()
    page.locator(f"#act-{incident.story} > summary").click()
    page.locator(f"#note-{incident.id}").fill("no longer needed")
    page.locator(f"#decide-{incident.id}").get_by_role("button", name="Close as expected").click()
    assert "Closed as expected by ada" in page.locator("#now").inner_text()
    assert state(site, incident) == "closed"
