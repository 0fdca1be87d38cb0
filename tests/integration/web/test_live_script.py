"""An open page in a real browser: activity appears, and your focus, scrolling and typing are kept."""

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
    with serving(flow.engine, flow.config, read="anyone") as site:
        yield site


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
    assert tab.value("window.same") is True  # no reload
    assert not tab.console


def test_an_event_appears_without_a_reload(tab: Page, served: Served, flow: Flow) -> None:
    page = opened(tab, served, "/events")
    assert "dims hook install" in page.value("document.body.innerText")
    flow.store(event("dims.<script>alert(1)</script>"))
    soon(page, "document.querySelectorAll('.log li').length === 1")
    assert "<script>alert(1)</script>" in page.value("document.querySelector('.log a.what').textContent")
    assert page.value("document.querySelectorAll('script').length") == 1
    assert "<script>" in page.value("document.getElementById('feed-latest').textContent")


def test_the_keyboard_focus_survives_a_refresh(tab: Page, served: Served, flow: Flow) -> None:
    flow.store(event("dims.scraper.complete"))
    page = opened(tab, served, "/events/1")
    page.value("document.getElementById('unaffected')?.setAttribute('open', '')")
    page.value("document.querySelector('#affected a.name').focus()")
    name = page.value("document.activeElement.textContent")
    flow.record(flow.claim("one"), {"m.a": 5, "m.c": 3})
    soon(page, "document.querySelector('#affected a[href^=\"/runs/\"]') !== null")
    assert page.value("document.activeElement.textContent") == name


def test_opened_details_stay_open(tab: Page, served: Served, flow: Flow) -> None:
    flow.ask("m.a")
    page = opened(tab, served, "/events/1")
    page.value("document.getElementById('unaffected').open = true")
    flow.record(flow.claim("one"), {"m.a": 5})
    soon(page, "document.querySelector('#affected a[href^=\"/runs/\"]') !== null")
    assert page.value("document.getElementById('unaffected').open") is True


def test_the_text_you_read_does_not_move(tab: Page, served: Served, flow: Flow) -> None:
    flow.store(*(event("dims.scraper.complete") for _ in range(60)))
    page = opened(tab, served, "/events")
    page.value("document.getElementById('event-30').scrollIntoView({behavior: 'instant'})")
    before = page.value("document.getElementById('event-30').getBoundingClientRect().top")
    flow.store(*(event("dims.scraper.complete") for _ in range(5)))
    soon(page, "document.getElementById('event-65') !== null")
    assert abs(page.value("document.getElementById('event-30').getBoundingClientRect().top") - before) < 2


QUIET = "new Promise(done => setTimeout(done, 1500))"
"""Longer than a page waits before it refreshes."""


def seen(page: Page, state: str) -> None:
    """Pretend that the tab is hidden or visible."""
    page.value(f"Object.defineProperty(document, 'visibilityState', {{value: '{state}', configurable: true}})")
    page.value("document.dispatchEvent(new Event('visibilitychange'))")


def test_a_hidden_page_disconnects_and_refreshes_when_visible_again(tab: Page, served: Served, flow: Flow) -> None:
    page = opened(tab, served, "/events")
    seen(page, "hidden")
    wait_for(lambda: not served.hub.streams)
    page.requests.clear()
    flow.store(event("dims.scraper.complete"))
    page.value(QUIET)
    assert not [url for url in page.requests if url.endswith("/events")]
    seen(page, "visible")
    soon(page, "document.querySelectorAll('.log li').length === 1")
    page.value(QUIET)  # it may refresh twice: for what it missed, and for the event
    page.requests.clear()
    seen(page, "hidden")
    seen(page, "visible")
    wait_for(lambda: served.hub.streams)
    page.value(QUIET)
    assert not [url for url in page.requests if url.endswith("/events")]  # there was no activity


def test_a_pending_refresh_waits_while_the_page_is_hidden(tab: Page, served: Served, flow: Flow) -> None:
    page = opened(tab, served, "/events")
    page.value(QUIET)  # wait for a refresh that opening the page may cause
    page.value("""
        new MutationObserver(() => {
          Object.defineProperty(document, 'visibilityState', {value: 'hidden', configurable: true});
          document.dispatchEvent(new Event('visibilitychange'));
        }).observe(document.getElementById('feed'), {childList: true}); 0""")
    page.requests.clear()
    flow.store(event("dims.scraper.complete"))
    wait_for(lambda: page.value("document.getElementById('feed').childElementCount") == 1)
    page.value(QUIET)
    assert not [url for url in page.requests if url.endswith("/events")]
    seen(page, "visible")
    soon(page, "document.querySelectorAll('.log li').length === 1")


def test_a_failed_refresh_is_shown_and_retried(tab: Page, served: Served, flow: Flow) -> None:
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
    assert page.value("window.asked") == ["live", "not live: reconnecting", "not live: reconnecting"]
    assert page.value(LIVE) == "live"


def test_the_page_says_when_you_are_signed_out(tab: Page, served: Served, flow: Flow) -> None:
    page = opened(tab, served, "/events")
    page.value("window.fetch = () => Promise.resolve(new Response('', {status: 403})); 0")
    flow.store(event("dims.scraper.complete"))
    soon(page, f"{LIVE} === 'not live: reload the page'")


def test_the_page_says_when_the_server_stops_and_returns(tab: Page, flow: Flow) -> None:
    with serving(flow.engine, flow.config, read="anyone") as served:
        page = opened(tab, served, "/events")
    wait_for(lambda: page.value(LIVE).startswith("not live"))
    assert page.value("document.getElementById('live').className") == "live off"
    flow.store(event("dims.scraper.complete"))
    with serving(flow.engine, flow.config, served.port, read="anyone"):
        wait_for(lambda: page.value(LIVE) == "live")
        wait_for(lambda: page.value("document.querySelectorAll('.log li').length === 1"))
        assert page.value("window.same") is True
        page.open("about:blank")
