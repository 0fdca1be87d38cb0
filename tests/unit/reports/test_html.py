"""Parts of the HTML report."""

from __future__ import annotations

from dims_worker.reports.html import environment
from dims_worker.reports.templating import chip, html_environment, visible_text


def share_bar(share: float | None) -> str:
    macro = getattr(environment().get_template("macros.html").module, "share_bar")  # noqa: B009 - mypy knows no macro
    return str(macro(share))


def test_a_season_that_lacks_a_game_is_not_shown_as_complete() -> None:
    assert share_bar(100.0).startswith('<span class="bar ok">') and share_bar(100.0).endswith(">100.0 %")
    lacking = share_bar(100 * 2459 / 2460)
    assert lacking.startswith('<span class="bar warn">') and lacking.endswith("99.96 %")
    assert share_bar(None) == "-"


def test_values_in_a_page_are_escaped_visible_and_cut() -> None:
    template = html_environment("dims_worker.reports", 20).from_string("{{ text }}")
    assert template.render(text="<b>\u202e\x1b") == "&lt;b&gt;\\x202e\\x1b"
    assert template.render(text="x" * 21) == f"{'x' * 20}…"
    assert template.render(text=5) == "5"
    assert visible_text("x" * 500) == "x" * 500


def test_a_state_is_a_chip_in_its_colour() -> None:
    assert chip("major") == '<span class="chip bad">major</span>'
    assert chip("waits: request 12") == '<span class="chip warn">waits: request 12</span>'
    assert chip("3 lost") == '<span class="chip bad">3 lost</span>'
    assert chip("lost, acknowledged") == '<span class="chip bad acknowledged">lost, acknowledged</span>'
    assert chip("failing") == '<span class="chip lost">failing</span>'
    assert chip("waits for approval") == '<span class="chip warn">waits for approval</span>'
    assert chip("<i>") == '<span class="chip quiet">&lt;i&gt;</span>'
