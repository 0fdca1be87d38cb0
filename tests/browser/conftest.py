"""A real Chromium before the whole machine: `visit("ada")` is a person with a browser, and nothing it does is missed.

Playwright drives the Chromium of this machine, and brings none of its own. Where one of the two is missing, the tests
are skipped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import create_engine, text

from dims_worker import local
from tests.browser.local_stack import TOKENS, Machine, machine
from tests.fixtures.chromium import CHROMIUM

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, expect
else:
    try:
        from playwright.sync_api import expect
    except ImportError:
        expect = None  # no test gets so far: `chromium` skips it

__all__ = ["expect"]

AXE = Path(__file__).parents[2] / "build" / "axe" / "node_modules" / "axe-core" / "axe.min.js"
WATCH = """
window.shift = 0;
new PerformanceObserver(list => {
  for (const one of list.getEntries()) if (!one.hadRecentInput) window.shift += one.value;
}).observe({type: "layout-shift", buffered: true});
"""
"""How far the parts of a page have jumped, by the browser's own measure."""


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    """One browser for all tests; each has contexts of its own."""
    driver = pytest.importorskip("playwright.sync_api", reason="no Playwright: `make test-browser` installs it")
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine")
    driver.expect.set_options(timeout=15_000)
    with driver.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def site(
    chromium: Browser, servers: local.ServerUrls, template: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Machine]:
    """The machine, with a database and a broker of its own."""
    admin = create_engine(str(servers.database_url), isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.execute(text(f"CREATE DATABASE chromium TEMPLATE {template}"))
    base = str(servers.database_url).rpartition("/")[0]
    broker = str(servers.broker_url).rpartition("/")[0]
    with machine(f"{base}/chromium", f"{broker}/15", tmp_path_factory.mktemp("machine")) as made:
        yield made
    with admin.connect() as connection:
        connection.execute(text("DROP DATABASE chromium WITH (FORCE)"))
    admin.dispose()


@dataclass
class Seen:
    """What pages did that nobody should see: dialogs, words on the console, requests to elsewhere."""

    dialogs: list[str] = field(default_factory=list)
    console: list[str] = field(default_factory=list)
    elsewhere: list[str] = field(default_factory=list)

    def hear(self, page: Page, message: ConsoleMessage) -> None:
        """What Chromium says of a page that is itself an answer such as 404 or 409 is no fault; the rest is."""
        of_itself = message.text.startswith("Failed to load resource: ") and message.location["url"] == page.url
        if not of_itself:
            self.console.append(f"{page.url}: {message.text}")

    @property
    def faults(self) -> list[str]:
        return [*self.dialogs, *self.console, *self.elsewhere]


Visit = Callable[..., "Page"]


@pytest.fixture
def seen() -> Seen:
    return Seen()


@pytest.fixture
def visit(chromium: Browser, site: Machine, seen: Seen) -> Iterator[Visit]:
    """`visit("ada")`: a tab of a browser where ada has signed in; `visit()`: of one where nobody has. Keywords go to
    Playwright's `new_context`. At the end no page may have opened a dialog, said anything on the console or asked
    another site for anything."""
    opened: list[BrowserContext] = []

    def made(who: str | None = None, **options: Any) -> Page:
        context = chromium.new_context(base_url=site.url, **{"viewport": {"width": 1280, "height": 900}, **options})
        opened.append(context)
        context.set_default_timeout(15_000)
        if options.get("java_script_enabled", True):
            context.add_init_script(WATCH)
        if who:
            context.request.post("/sign-in", form={"token": TOKENS[who], "next": "/healthz"})
        page = context.new_page()
        page.on("dialog", lambda dialog: (seen.dialogs.append(dialog.message), dialog.dismiss()))
        page.on("console", lambda message: seen.hear(page, message))
        page.on("pageerror", lambda error: seen.console.append(f"{page.url}: {error}"))
        page.on("request", lambda one: one.url.startswith((site.url, "data:")) or seen.elsewhere.append(one.url))
        return page

    yield made
    for context in opened:
        context.close()
    assert not seen.faults


@pytest.fixture(scope="session")
def axe() -> str:
    """axe-core's script, which npm has put there."""
    if not AXE.is_file():
        pytest.skip("no axe-core: `make test-browser` gets it, where there is npm")
    return AXE.read_text(encoding="utf-8")
