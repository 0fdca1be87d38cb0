"""The HTML report in a real headless Chromium."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine

from dims_worker.config import Config
from dims_worker.reports import html
from dims_worker.reports.inventory import gather_report
from dims_worker.store.engine import transaction
from tests.fixtures.chromium import CHROMIUM, Page, browser
from tests.integration.reports.conftest import HOSTILE

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")

CONTRAST = """
(() => {
  const light = c => { const v = c / 255; return v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4 };
  const lum = ([r, g, b]) => 0.2126 * light(r) + 0.7152 * light(g) + 0.0722 * light(b);
  const rgb = s => (s.match(/[0-9.]+/g) || []).map(Number);
  const back = node => {
    for (; node; node = node.parentElement) {
      const c = rgb(getComputedStyle(node).backgroundColor);
      if (c.length === 3 || c[3] === 1) return c.slice(0, 3);
    }
    return [255, 255, 255];
  };
  const low = new Set();
  for (const node of document.querySelectorAll("body *")) {
    const own = [...node.childNodes].some(c => c.nodeType === 3 && c.textContent.trim());
    if (!own || node.closest("svg") || !node.getClientRects().length || node.closest(".skip")) continue;
    const style = getComputedStyle(node);
    const [a, b] = [lum(rgb(style.color).slice(0, 3)), lum(back(node))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    const large = parseFloat(style.fontSize) >= 24;
    if (ratio < (large ? 3 : 4.5)) low.add(`${node.tagName}.${node.className} ${ratio.toFixed(2)}`);
  }
  return [...low];
})()
"""
"""Return the elements whose contrast is below WCAG 2.2, 1.4.3 (AA)."""


@pytest.fixture(scope="module")
def page(filled: Engine, year: Config, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Page, str]]:
    folder = tmp_path_factory.mktemp("page")
    with transaction(filled) as connection:
        (folder / "inventory.html").write_text(
            html.render_page(gather_report(connection, year, timedelta(days=7))), encoding="utf-8"
        )
    with browser(folder / "profile") as tab:
        yield tab, (folder / "inventory.html").as_uri()


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_it_is_readable_on_a_phone_and_in_the_dark(page: tuple[Page, str], width: int, dark: bool) -> None:
    tab, url = page
    tab.size(width, 900, dark=dark)
    tab.open(url)
    assert tab.requests == [url]
    assert tab.console == []
    assert tab.value("document.documentElement.scrollWidth") <= width
    assert tab.value(CONTRAST) == []
    ground = tab.value("getComputedStyle(document.body).backgroundColor.match(/[0-9]+/g).map(Number)")
    assert all(part < 60 for part in ground) if dark else all(part > 230 for part in ground)


@pytest.mark.parametrize("width", [360, 1280])
def test_unfolded_parts_are_not_wider_than_the_page(page: tuple[Page, str], width: int) -> None:
    tab, url = page
    tab.size(width, 900)
    tab.open(url)
    tab.value("document.querySelectorAll('details').forEach(part => part.open = true)")
    assert tab.value("document.documentElement.scrollWidth") <= width
    there = tab.value("document.querySelector('#gaps').textContent")
    assert "basketball_reference_data.completeness_pct: missing ids" in there and "missing_games_count: games" in there
    seen = "part => part.getBoundingClientRect().right <= innerWidth"
    shown = f"[...document.querySelectorAll('#workflows dd, #gaps .bar')].map({seen})"
    assert len(tab.value(shown)) > 5 and all(tab.value(shown))


def test_a_hostile_text_is_shown_as_text(page: tuple[Page, str]) -> None:
    tab, url = page
    tab.open(url)
    assert tab.value("document.querySelectorAll('script, iframe, object, form').length") == 0
    assert HOSTILE in tab.value("document.body.textContent")
    for link in tab.value("[...document.querySelectorAll('a')].map(a => a.getAttribute('href'))"):
        assert link.startswith("#") and tab.value(f"!!document.getElementById({link[1:]!r})"), link


def test_every_chart_has_a_description(page: tuple[Page, str]) -> None:
    tab, url = page
    tab.open(url)
    assert tab.value("document.querySelectorAll('svg').length") > 40
    silent = (
        "s => !s.getAttribute('aria-label') && !s.querySelector('title') && s.getAttribute('aria-hidden') !== 'true'"
    )
    assert tab.value(f"[...document.querySelectorAll('svg')].filter({silent}).length") == 0


def test_every_link_can_be_reached_with_the_keyboard(page: tuple[Page, str], tmp_path: Path) -> None:
    tab, url = page
    tab.open(url)
    reach = "[...document.querySelectorAll('a[href], summary')].filter(x => x.tabIndex < 0).length"
    assert tab.value("document.querySelectorAll('a[href], summary').length") > 10
    assert tab.value(reach) == 0
