"""What a page says of what is known."""

from __future__ import annotations

from dims_worker.reports.html_page.metrics import share_bar


def test_a_season_that_lacks_a_game_is_not_shown_as_whole() -> None:
    assert share_bar(100.0).startswith('<span class="bar ok">') and share_bar(100.0).endswith(">100.0 %")
    lacking = share_bar(100 * 2459 / 2460)
    assert lacking.startswith('<span class="bar warn">') and lacking.endswith("99.96 %")
    assert share_bar(None) == "-"
