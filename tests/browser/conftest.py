"""Run a real Chromium against a complete local stack. `visit("ada")` opens a tab in which ada has signed in.

Playwright uses the Chromium that is installed. Without Playwright or Chromium, the tests are skipped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import create_engine, text

from dims_worker import local
from tests.browser.local_stack import TOKENS, LocalStack, local_stack
from tests.fixtures.chromium import CHROMIUM

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Dialog, Page, Request, expect
else:
    try:
        from playwright.sync_api import expect
    except ImportError:
        expect = None  # unused: the fixture `chromium` skips every test

__all__ = ["expect"]

AXE = Path(__file__).parents[2] / "build" / "axe" / "node_modules" / "axe-core" / "axe.min.js"
WATCH = """
window.shift = 0;
new PerformanceObserver(list => {
  for (const one of list.getEntries()) if (!one.hadRecentInput) window.shift += one.value;
}).observe({type: "layout-shift", buffered: true});
"""
"""Sums the layout shifts that Chromium reports: how far the parts of a page have jumped."""


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    """One browser for all tests. Each test opens its own contexts."""
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
) -> Iterator[LocalStack]:
    """A local stack with its own database and broker."""
    admin = create_engine(str(servers.database_url), isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.execute(text(f"CREATE DATABASE chromium TEMPLATE {template}"))
    base = str(servers.database_url).rpartition("/")[0]
    broker = str(servers.broker_url).rpartition("/")[0]
    with local_stack(f"{base}/chromium", f"{broker}/15", tmp_path_factory.mktemp("stack")) as open_tab:
        yield open_tab
    with admin.connect() as connection:
        connection.execute(text("DROP DATABASE chromium WITH (FORCE)"))
    admin.dispose()


@dataclass
class Faults:
    """What pages must not do: open dialogs, write to the console, send requests to other sites."""

    dialogs: list[str] = field(default_factory=list)
    console: list[str] = field(default_factory=list)
    elsewhere: list[str] = field(default_factory=list)

    def record(self, page: Page, message: ConsoleMessage) -> None:
        """Record a message, unless Chromium only reports that the page itself is a 404 or 409."""
        of_itself = message.text.startswith("Failed to load resource: ") and message.location["url"] == page.url
        if not of_itself:
            self.console.append(f"{page.url}: {message.text}")

    @property
    def all(self) -> list[str]:
        return [*self.dialogs, *self.console, *self.elsewhere]


Visit = Callable[..., "Page"]


@pytest.fixture
def seen() -> Faults:
    return Faults()


@pytest.fixture
def visit(chromium: Browser, site: LocalStack, seen: Faults) -> Iterator[Visit]:
    """`visit("ada")` opens a tab in which ada has signed in, and `visit()` one without a session.

    Keywords go to Playwright's `new_context`. At the end no page may have opened a dialog, written to the console or
    sent a request to another site.
    """
    opened: list[BrowserContext] = []

    def open_tab(person: str | None = None, **options: Any) -> Page:
        context = chromium.new_context(base_url=site.url, **({"viewport": {"width": 1280, "height": 900}} | options))
        opened.append(context)
        context.set_default_timeout(15_000)
        if options.get("java_script_enabled", True):
            context.add_init_script(WATCH)
        if person:
            context.request.post("/sign-in", form={"token": TOKENS[person], "next": "/healthz"})
        page = context.new_page()

        def dismiss(dialog: Dialog) -> None:
            seen.dialogs.append(dialog.message)
            dialog.dismiss()

        def note_foreign(request: Request) -> None:
            if not request.url.startswith((site.url, "data:")):
                seen.elsewhere.append(request.url)

        page.on("dialog", dismiss)
        page.on("console", lambda message: seen.record(page, message))
        page.on("pageerror", lambda error: seen.console.append(f"{page.url}: {error}"))
        page.on("request", note_foreign)
        return page

    yield open_tab
    for context in opened:
        context.close()
    assert not seen.all


@pytest.fixture(scope="session")
def axe() -> str:
    """The script of axe-core, which `make test-browser` installs with npm."""
    if not AXE.is_file():
        pytest.skip("no axe-core: `make test-browser` installs it if npm is available")
    return AXE.read_text(encoding="utf-8")
