"""An open page in a real browser: what happens appears in it, and nobody loses what they were at."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import wait_for
from tests.fixtures.chromium import CHROMIUM, Page, browser
from tests.integration.helpers import Flow, event
from tests.integration.web.serving import Served, serving

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here")
LIVE = "document.getElementById('live').textContent"


@pytest.fixture
def served(flow: Flow) -> Iterator[Served]:
    with serving(flow.engine, flow.config, read="anyone") as found:
        yield found


@pytest.fixture
def tab(tmp_path: Path) -> Iterator[Page]:
    with browser(tmp_path / "profile") as page:
        page.size(1200, 800)
        yield page


def opened(tab: Page, served: Served, path: str) -> Page:
    tab.open(f"http://localhost:{served.port}{path}")
    wait_for(lambda: tab.value(LIVE) == "live")
    tab.value("window.same = true")
    return tab


def soon(tab: Page, expression: str) -> None:
    wait_for(lambda: tab.value(expression), timeout=15)
    assert tab.value("window.same") is True  # it was not loaded again
    assert not tab.console


def test_an_event_appears_without_a_reload(tab: Page, served: Served, flow: Flow) -> None:
    page = opened(tab, served, "/events")
    assert "dims hook install" in page.value("document.body.innerText")
    flow.store(event("dims.<script>alert(1)</script>"))
    soon(page, "document.querySelectorAll('.log li').length === 1")
    assert "<script>alert(1)</script>" in page.value("document.querySelector('.log a.what').textContent")
    assert page.value("document.querySelectorAll('script').length") == 1
    assert "<script>" in page.value("document.getElementById('told-last').textContent")


def test_the_keyboard_and_what_was_opened_stay_where_they_were(tab: Page, served: Served, flow: Flow) -> None:
    flow.store(event("dims.scraper.complete"))
    page = opened(tab, served, "/events/1")
    page.value("document.getElementById('alone')?.setAttribute('open', '')")
    page.value("document.querySelector('#concerned a.name').focus()")
    name = page.value("document.activeElement.textContent")
    flow.record(flow.claim("one"), {"m.a": 5, "m.c": 3})
    soon(page, "document.querySelector('#concerned a[href^=\"/runs/\"]') !== null")
    assert page.value("document.activeElement.textContent") == name


def test_an_opened_part_stays_open(tab: Page, served: Served, flow: Flow) -> None:
    flow.ask("m.a")
    page = opened(tab, served, "/events/1")
    page.value("document.getElementById('alone').open = true")
    flow.record(flow.claim("one"), {"m.a": 5})
    soon(page, "document.querySelector('#concerned a[href^=\"/runs/\"]') !== null")
    assert page.value("document.getElementById('alone').open") is True


def test_what_somebody_reads_does_not_move(tab: Page, served: Served, flow: Flow) -> None:
    flow.store(*(event("dims.scraper.complete") for _ in range(60)))
    page = opened(tab, served, "/events")
    page.value("document.getElementById('event-30').scrollIntoView({behavior: 'instant'})")
    before = page.value("document.getElementById('event-30').getBoundingClientRect().top")
    flow.store(*(event("dims.scraper.complete") for _ in range(5)))
    soon(page, "document.getElementById('event-65') !== null")
    assert abs(page.value("document.getElementById('event-30').getBoundingClientRect().top") - before) < 2


QUIET = "new Promise(done => setTimeout(done, 1500))"
"""Longer than a page waits before it asks."""


def seen(page: Page, state: str) -> None:
    """As if another tab were looked at, or this one again."""
    page.value(f"Object.defineProperty(document, 'visibilityState', {{value: '{state}', configurable: true}})")
    page.value("document.dispatchEvent(new Event('visibilitychange'))")


def test_a_hidden_page_keeps_no_connection_and_asks_when_it_is_seen_again(
    tab: Page, served: Served, flow: Flow
) -> None:
    page = opened(tab, served, "/events")
    seen(page, "hidden")
    wait_for(lambda: not served.hub.streams)
    page.requests.clear()
    flow.store(event("dims.scraper.complete"))
    page.value(QUIET)
    assert not [url for url in page.requests if url.endswith("/events")]
    seen(page, "visible")
    soon(page, "document.querySelectorAll('.log li').length === 1")
    page.value(QUIET)  # it may have been told twice: that it missed something, and what
    page.requests.clear()
    seen(page, "hidden")
    seen(page, "visible")
    wait_for(lambda: served.hub.streams)
    page.value(QUIET)
    assert not [url for url in page.requests if url.endswith("/events")]  # nothing had happened


def test_a_page_that_was_about_to_ask_when_it_was_hidden_does_not(tab: Page, served: Served, flow: Flow) -> None:
    page = opened(tab, served, "/events")
    page.value(QUIET)  # what it missed while it was opened has been asked for
    page.value("""
        new MutationObserver(() => {
          Object.defineProperty(document, 'visibilityState', {value: 'hidden', configurable: true});
          document.dispatchEvent(new Event('visibilitychange'));
        }).observe(document.getElementById('told'), {childList: true}); 0""")
    page.requests.clear()
    flow.store(event("dims.scraper.complete"))
    wait_for(lambda: page.value("document.getElementById('told').childElementCount") == 1)
    page.value(QUIET)
    assert not [url for url in page.requests if url.endswith("/events")]
    seen(page, "visible")
    soon(page, "document.querySelectorAll('.log li').length === 1")


def test_a_refresh_that_fails_is_made_up_for_and_said_meanwhile(tab: Page, served: Served, flow: Flow) -> None:
    page = opened(tab, served, "/events")
    page.value("""
        window.asked = [];
        const real = window.fetch;
        window.fetch = (...all) => {
          window.asked.push(document.getElementById('live').textContent);
          if (window.asked.length === 1) return Promise.resolve(new Response('', {status: 503}));
          if (window.asked.length === 2) return Promise.reject(new TypeError('no answer'));
          return real(...all);
        }; 0""")
    flow.store(event("dims.scraper.complete"))
    soon(page, "document.querySelectorAll('.log li').length === 1")
    assert page.value("window.asked") == ["live", "not live: trying again", "not live: trying again"]
    assert page.value(LIVE) == "live"


def test_who_was_signed_out_is_told(tab: Page, served: Served, flow: Flow) -> None:
    page = opened(tab, served, "/events")
    page.value("window.fetch = () => Promise.resolve(new Response('', {status: 403})); 0")
    flow.store(event("dims.scraper.complete"))
    soon(page, f"{LIVE} === 'not live: load the page again'")


def test_a_site_that_stops_is_said_and_its_return_is_noticed(tab: Page, flow: Flow) -> None:
    with serving(flow.engine, flow.config, read="anyone") as served:
        page = opened(tab, served, "/events")
    wait_for(lambda: page.value(LIVE).startswith("not live"))
    assert page.value("document.getElementById('live').className") == "live away"
    flow.store(event("dims.scraper.complete"))
    with serving(flow.engine, flow.config, served.port, read="anyone"):
        wait_for(lambda: page.value(LIVE) == "live")
        wait_for(lambda: page.value("document.querySelectorAll('.log li').length === 1"))
        assert page.value("window.same") is True
        page.open("about:blank")
