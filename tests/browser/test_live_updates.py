"""Open pages show activity as it happens."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.browser.conftest import Faults, Visit, expect
from tests.browser.local_stack import LocalStack

if TYPE_CHECKING:
    from playwright.sync_api import Page


def stays(page: Page) -> None:
    """Mark the page. A reload would remove the mark."""
    page.evaluate("window.stayed = true")


def test_a_commit_appears_among_the_events_without_a_reload(site: LocalStack, visit: Visit) -> None:
    page = visit("ada")
    page.goto("/events")
    expect(page.locator("#live")).to_have_class("live on")
    stays(page)
    site.commit("Say where the games are", {"code/games.md": "# Games\n"})
    expect(page.locator("#main")).to_contain_text("Say where the games are")
    assert page.evaluate("window.stayed") is True


def test_a_commit_changes_a_value_without_a_reload(site: LocalStack, visit: Visit) -> None:
    page = visit("ada")
    page.goto("/")
    expect(page.locator("#live")).to_have_class("live on")
    row = page.locator("tr").filter(has=page.locator('a[href="/metrics/git.commits"]')).first
    before = site.scalar("SELECT value FROM dims_metrics WHERE metric = 'git.commits'")
    expect(row).to_contain_text(f"{before:,}")
    stays(page)
    jumped = page.evaluate("window.shift")
    site.commit("One more", {"code/one_more.py": "x = 2\n"})
    expect(row).to_contain_text(f"{before + 1:,}")
    assert page.evaluate("window.stayed") is True
    assert page.evaluate("window.shift") - jumped < 0.05


def test_a_workflow_that_is_started_shows_its_report_without_a_reload(site: LocalStack, visit: Visit) -> None:
    page = visit("ada")
    page.goto("/workflows/file-inventory")
    before = site.scalar("SELECT max(run_id) FROM dims_verification_runs WHERE result IS NOT NULL")
    page.get_by_role("button", name="Start file-inventory").click()
    expect(page.get_by_role("status").filter(has_text="equested")).to_be_visible()
    stays(page)
    request_line = page.locator("#state .requested")
    expect(request_line).to_contain_text("Done: run ")
    run = request_line.get_by_role("link", name="run ").inner_text()
    assert int(run.removeprefix("run ")) > before
    expect(page.locator("#state .wf-state")).to_contain_text(f"{run},")
    expect(page.locator("#report")).to_contain_text("Last report")
    assert page.evaluate("window.stayed") is True


def test_eight_hidden_tabs_do_not_block_a_visible_one(site: LocalStack, visit: Visit) -> None:
    """A browser allows six connections to a site. A hidden tab needs none."""
    page = visit("ada")
    hidden = "Object.defineProperty(document, 'visibilityState', {value: 'hidden'})"
    for _ in range(8):
        other = page.context.new_page()
        other.add_init_script(hidden)  # without a screen, Chromium reports all tabs as visible
        other.goto("/events")
    page.goto("/events")
    expect(page.locator("#live")).to_have_class("live on")
    site.commit("Eight tabs are open", {"code/tabs.md": "# Tabs\n"})
    expect(page.locator("#main")).to_contain_text("Eight tabs are open")


def test_a_page_refreshes_after_a_minute_without_activity(site: LocalStack, visit: Visit) -> None:
    page = visit("ada")
    page.clock.install()
    page.goto("/")
    expect(page.locator("#live")).to_have_class("live on")
    with page.expect_request(f"{site.url}/", timeout=15_000):
        page.clock.run_for(61_000)


def test_the_page_says_when_the_network_is_lost_and_restored(site: LocalStack, visit: Visit, seen: Faults) -> None:
    page = visit("ada")
    page.clock.install()
    page.goto("/")
    expect(page.locator("#live")).to_have_class("live on")
    page.context.set_offline(True)
    page.clock.run_for(50_000)
    expect(page.locator("#live")).to_have_text("not live: reconnecting")
    page.context.set_offline(False)
    page.clock.resume()
    page.clock.run_for(20_000)
    expect(page.locator("#live")).to_have_text("live")
    seen.console = [message for message in seen.console if "ERR_INTERNET_DISCONNECTED" not in message]  # expected
