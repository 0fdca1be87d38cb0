"""Every page, light and dark, phone and wide, with and without JavaScript."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.browser.conftest import Visit
from tests.browser.local_stack import LocalStack

if TYPE_CHECKING:
    from playwright.sync_api import Page

PAGES = {
    "overview": "/",
    "searched": "/?q=hostile",
    "nothing found": "/?q=no+such+metric",
    "metric": "/metrics/s3_storage.waiting",
    "another metric": "/metrics/git.commits",
    "requests": "/requests?state=all",
    "request": "/requests/{request}",
    "incidents": "/incidents",
    "closed incidents": "/incidents?state=closed",
    "incident": "/incidents/{incident}",
    "changes": "/changes?days=90",
    "events": "/events",
    "event": "/events/{event}",
    "runs": "/runs",
    "run": "/runs/{run}",
    "workflows": "/workflows",
    "workflow": "/workflows/file-inventory",
    "never run": "/workflows/audit",
    "problem": "/workflows/nothing",
    "sign-in": "/sign-in",
}
LONG = {
    "long event": "/events/{long}",
    "long request": "/requests/{odd}",
    "long metric": "/metrics/s3_storage.hostile",
    "long events": "/events?type=com.amazonaws.s3.ObjectCreated:Put",
}
"""Pages that show an object whose name has hundreds of characters."""


def address(site: LocalStack, name: str) -> str:
    return (PAGES | LONG)[name].format(
        request=site.request("s3_storage.waiting").id,
        incident=site.scalar("SELECT max(id) FROM dims_incidents WHERE metric = 's3_storage.waiting'"),
        event=site.scalar("SELECT max(seq) FROM dims_event_log WHERE metrics @> '{s3_storage.waiting}'"),
        odd=site.request("s3_storage.hostile").id,
        long=site.scalar("SELECT seq FROM dims_event_log WHERE subject LIKE 'hostile/<%'"),
        run=site.scalar("SELECT max(run_id) FROM dims_verification_runs WHERE readings > 0"),
    )


def opened(site: LocalStack, visit: Visit, name: str, **options: Any) -> Page:
    """Open a page and check its status."""
    page = visit(None if name == "sign-in" else "ada", **options)
    answer = page.goto(address(site, name))
    assert answer is not None and answer.status == (404 if name == "problem" else 200)
    return page


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_accessible_and_fits(name: str, site: LocalStack, visit: Visit, axe: str) -> None:
    page = opened(site, visit, name, viewport={"width": 360, "height": 740})
    page.evaluate(axe)
    faults = []
    for width in (360, 1280):
        page.set_viewport_size({"width": width, "height": 800})
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
            report = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
            faults += [
                f"{width} {scheme}: {item['id']} ({item['impact']}): {node['html']:.200}: {node['failureSummary']:.300}"
                for item in report["violations"]
                if item["impact"] in ("serious", "critical")
                for node in item["nodes"][:3]
            ]
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize("name", PAGES | LONG)
def test_a_page_does_not_jump_nor_scroll_sideways(name: str, site: LocalStack, visit: Visit) -> None:
    page = opened(site, visit, name, viewport={"width": 360, "height": 740})
    page.evaluate("new Promise(done => requestAnimationFrame(() => setTimeout(done, 100)))")
    assert page.evaluate("window.shift") < 0.05
    for width in (360, 390, 768, 1280):
        page.set_viewport_size({"width": width, "height": 800})
        wide = page.evaluate("document.documentElement.scrollWidth")
        assert wide <= width, f"{wide} px on a screen of {width}: {page.evaluate(WIDEST)}"
    assert page.locator("h1").count() == 1


NAMED = (
    "overview",
    "searched",
    "metric",
    "requests",
    "incidents",
    "incident",
    "changes",
    "events",
    "run",
    "workflows",
    "problem",
)


@pytest.mark.parametrize("name", NAMED)
def test_long_names_fit(name: str, site: LocalStack, visit: Visit) -> None:
    page = opened(site, visit, name, viewport={"width": 320, "height": 740})
    page.evaluate(LENGTHEN)
    assert len(page.locator(".project").inner_text()) == 120
    for width in (320, 360, 1280):
        page.set_viewport_size({"width": width, "height": 800})
        wide = page.evaluate("document.documentElement.scrollWidth")
        assert wide <= width, f"{wide} px on a screen of {width}: {page.evaluate(WIDEST)}"


LENGTHEN = """for (const one of document.querySelectorAll(".project, h1, .category h2, .name, .rail a, option"))
  (one.firstChild || one).textContent = "wide_".repeat(24)"""


def test_search_results_are_visible_without_scrolling(site: LocalStack, visit: Visit) -> None:
    page = opened(site, visit, "searched", viewport={"width": 360, "height": 740})
    assert page.locator(".result").bounding_box()["y"] < 500  # type: ignore[index]
    assert page.locator(".metrics .name").first.bounding_box()["y"] < 740  # type: ignore[index]


def test_a_category_is_folded_and_opened_without_javascript(site: LocalStack, visit: Visit) -> None:
    page = visit("ada", java_script_enabled=False)
    page.goto("/")
    page.locator("#d-git > summary").click()
    assert not page.locator("#d-git table").is_visible()
    page.locator("#d-git > summary").click()
    assert page.locator("#d-git table").is_visible()


def test_a_printed_page_has_no_forms(site: LocalStack, visit: Visit) -> None:
    page = opened(site, visit, "overview")
    page.emulate_media(media="print")
    for part in ("form", ".account", ".bar-top nav"):
        assert not [item for item in page.locator(part).all() if item.is_visible()], part
    page.emulate_media(media="screen", forced_colors="active")
    assert page.evaluate("getComputedStyle(document.querySelector('.chip:not(.ok)')).borderTopWidth") == "1px"


WIDEST = """[...document.querySelectorAll("body *")].filter(e => e.getBoundingClientRect().right > innerWidth + 1)
  .slice(0, 5).map(e => e.tagName + "." + e.className + " " + e.innerText?.slice(0, 40)).join("; ")"""


def test_every_page_works_without_javascript(site: LocalStack, visit: Visit) -> None:
    page = visit("ada", java_script_enabled=False)
    for name in PAGES:
        answer = page.goto(address(site, name))
        assert answer is not None and answer.status == (404 if name == "problem" else 200), name
        assert page.locator("h1").count() == 1, name
