"""Texts from outside are always shown as text."""

from __future__ import annotations

import pytest

from tests.browser.conftest import Visit, expect
from tests.browser.local_stack import LocalStack

SHOWN = ("<script>alert(1)</", "script>\"'\\x202egnp.exe\\x2066long")
"""The object's name on pages, whole or split at its slashes. Characters that reverse text are shown as codes."""


@pytest.mark.parametrize("where", ["/events", "event", "/metrics/s3_storage.hostile", "request"])
def test_a_hostile_key_is_text(where: str, site: LocalStack, visit: Visit) -> None:
    key = site.scalar("SELECT seq FROM dims_event_log WHERE subject LIKE 'hostile/<%'")
    path = {"event": f"/events/{key}", "request": f"/requests/{site.request('s3_storage.hostile').id}"}.get(
        where, where
    )
    page = visit("ada")
    page.goto(f"{path}?type=com.amazonaws.s3.ObjectCreated:Put" if where == "/events" else path)
    for part in SHOWN:
        expect(page.locator("#main")).to_contain_text(part)
    assert "\u202e" not in page.content() and "\u2066" not in page.content()
    assert page.evaluate("document.querySelectorAll('main script, main img').length") == 0


def test_a_hostile_commit_is_text(site: LocalStack, visit: Visit) -> None:
    seq = site.scalar("SELECT seq FROM dims_event_log WHERE type = 'dims.git.commit' ORDER BY seq LIMIT 1")
    page = visit("ada")
    page.goto(f"/events/{seq}")
    expect(page.locator("#main")).to_contain_text("<img src=x onerror=alert(2)>")
    assert page.locator("main img").count() == 0 and "\u202e" not in page.content()


def test_a_hostile_address_is_text(visit: Visit) -> None:
    page = visit("ada")
    page.goto("/?q=%3Cscript%3Ealert(3)%3C%2Fscript%3E%22%27&state=%22onfocus%3Dalert(4)")
    assert page.locator("main script").count() == 0
    assert page.evaluate("document.querySelectorAll('[onfocus]').length") == 0


def test_the_content_security_policy_blocks_an_injected_script(visit: Visit, seen: object) -> None:
    """The tests above would prove nothing if the browser ran an injected script silently."""
    page = visit("ada")
    page.goto("/events")
    page.evaluate("document.body.append(Object.assign(document.createElement('script'), {textContent: 'alert(5)'}))")
    expect(page.locator("body > script")).to_have_count(1)
    assert any("Content Security Policy" in message for message in seen.console)  # type: ignore[attr-defined]
    seen.console.clear()  # type: ignore[attr-defined]
    assert not seen.dialogs  # type: ignore[attr-defined]
