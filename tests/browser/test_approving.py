"""Decide by mouse, by keyboard, beside another person, and without JavaScript."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.browser.conftest import Visit, expect
from tests.browser.local_stack import TOKENS, LocalStack

if TYPE_CHECKING:
    from playwright.sync_api import Page

FOCUS = """() => {
  const on = document.activeElement, style = getComputedStyle(on), box = on.getBoundingClientRect();
  const ringed = (style.outlineStyle !== "none" && parseFloat(style.outlineWidth) > 0) || style.boxShadow !== "none";
  const inside = box.bottom > 0 && box.top < innerHeight && box.width > 0 && box.height > 0;
  return {what: on.getAttribute("href") || on.innerText || on.id || on.tagName, seen: ringed && inside};
}"""


def sign_in(page: Page, person: str) -> None:
    page.get_by_label("Your token").fill(TOKENS[person])
    page.get_by_role("button", name="Sign in").click()


def ended(page: Page, how: str) -> None:
    """Wait until the summary says how the request ended. The chart's legend has the same words."""
    expect(page.locator("#latest")).to_contain_text(how)


def test_a_held_upload_is_approved_by_clicking(site: LocalStack, visit: Visit) -> None:
    metric = "s3_storage.clicked"
    page = visit()
    page.goto("/requests")
    sign_in(page, "ada")
    expect(page).to_have_url(f"{site.url}/requests")
    expect(page.locator("#live")).to_have_class("live on")
    assert site.baseline(metric) == 10

    page.evaluate("window.stayed = true")
    site.upload("clicked", list("abc"))
    request = site.request(metric)
    link = page.locator(f'a[href="/requests/{request.id}"]').first
    expect(link).to_be_visible()  # without a reload
    assert page.evaluate("window.stayed") is True
    assert site.baseline(metric) == 10

    link.click()
    expect(page.locator("#main")).to_contain_text("13")
    page.locator("[name=note]").fill("the new season")
    page.get_by_role("button", name="Approve").click()
    ended(page, "Approved by ada")
    expect(page.locator("#main")).to_contain_text("the new season")
    assert site.baseline(metric) == 13


def test_keys_alone_are_enough_and_the_focus_is_always_seen(site: LocalStack, visit: Visit) -> None:
    request = site.request("s3_storage.keyed")
    page = visit()
    page.goto("/")
    expect(page.get_by_label("Your token")).to_be_focused()  # by autofocus, soon after the page is drawn
    page.keyboard.type(TOKENS["ada"])
    page.keyboard.press("Enter")
    expect(page).to_have_url(f"{site.url}/")
    tab_to(page, f"/requests/{request.id}")
    page.keyboard.press("Enter")
    expect(page).to_have_url(f"{site.url}/requests/{request.id}")
    tab_to(page, "Approve")
    page.keyboard.press("Space")
    ended(page, "Approved by ada")
    assert site.baseline("s3_storage.keyed") == 15


def tab_to(page: Page, wanted: str) -> None:
    """Press Tab until the element has the focus. The focus must always be visible."""
    for _ in range(100):
        page.keyboard.press("Tab")
        focus = page.evaluate(FOCUS)
        assert focus["seen"], f"on {page.url} the focus is not visible on {focus['what']}"
        if focus["what"].strip() == wanted:
            return
    raise AssertionError(f"on {page.url} no Tab leads to {wanted}")


def test_the_second_of_two_people_sees_who_decided(site: LocalStack, visit: Visit) -> None:
    request = site.request("s3_storage.raced")
    ada, bob = visit("ada"), visit("bob", java_script_enabled=False)
    for page in (ada, bob):
        page.goto(f"/requests/{request.id}")
    ada.get_by_role("button", name="Approve").click()
    ended(ada, "Approved by ada")
    with bob.expect_response("**/reject") as answer:
        bob.get_by_role("button", name="Reject").click()
    assert answer.value.status == 409
    ended(bob, "Approved by ada")
    decided = site.scalar(
        "SELECT state || ' by ' || decided_by FROM dims_approval_requests WHERE id = :id", id=request.id
    )
    assert decided == "approved by ada" and site.baseline("s3_storage.raced") == 15


def test_a_change_in_between_is_shown_and_not_decided(site: LocalStack, visit: Visit) -> None:
    request = site.request("s3_storage.moved")
    page = visit("bob", java_script_enabled=False)
    page.goto(f"/requests/{request.id}")
    site.upload("moved", ["one more"])
    site.request("s3_storage.moved", version=request.version + 1)
    with page.expect_response("**/approve") as answer:
        page.get_by_role("button", name="Approve").click()
    assert answer.value.status == 409
    expect(page.locator("#main")).to_contain_text("15 objects")  # the value that bob saw
    expect(page.locator("#main")).to_contain_text("16 objects")
    assert site.baseline("s3_storage.moved") == 10
    page.get_by_role("button", name="Approve").click()  # with the new value visible
    ended(page, "Approved by bob")
    assert site.baseline("s3_storage.moved") == 16


def test_a_decision_needs_no_javascript(site: LocalStack, visit: Visit) -> None:
    page = visit(java_script_enabled=False)
    page.goto(f"/requests/{site.request('s3_storage.plain').id}")
    sign_in(page, "ada")
    page.get_by_role("button", name="Reject").click()
    ended(page, "Rejected by ada")
    assert site.baseline("s3_storage.plain") == 10
