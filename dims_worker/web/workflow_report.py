"""Render a workflow's Markdown report as HTML."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

from markdown_it import MarkdownIt
from markdown_it.token import Token
from markupsafe import Markup

from dims_worker.formatting import escape_control
from dims_worker.web.context import trusted_html

LONGEST = 400_000
"""Characters of a report that the page shows. `dims workflow NAME --last` prints all of it."""


def is_long(report: str) -> bool:
    """Return whether the page shows only the beginning of the report."""
    return len(report) > LONGEST


@lru_cache(maxsize=16)
def report_html(report: str, heading_offset: int = 1) -> Markup:
    """Return a report as HTML. Its headings move down by `heading_offset` levels, to fit below the page's own.

    HTML in the report is shown as text, images are not loaded, and links lead to http, https or mail only. Number
    columns get a class instead of a style, because the content security policy forbids styles within a page.
    """
    lines = report[:LONGEST].split("\n")
    text = "\n".join(map(escape_control, lines[:-1] if is_long(report) else lines))
    tokens = _parser().parse(text)
    return trusted_html(_parser().renderer.render(list(_adapted(tokens, heading_offset)), _parser().options, {}))


@lru_cache(maxsize=1)
def _parser() -> MarkdownIt:
    return MarkdownIt("commonmark", {"html": False}).enable("table").disable(["image", "html_block", "html_inline"])


def _adapted(tokens: Iterable[Token], heading_offset: int) -> Iterable[Token]:
    """Yield the tokens with lower headings, scrolling tables, and cells with a class and a scope."""
    tables = 0
    for token in tokens:
        if token.type in ("heading_open", "heading_close"):
            token.tag = f"h{min(int(token.tag[1]) + heading_offset, 6)}"
        if token.type in ("th_open", "td_open"):
            right_aligned = "right" in str(token.attrs.pop("style", ""))
            token.attrs |= {"class": "n"} if right_aligned else {}
            token.attrs |= {"scope": "col"} if token.type == "th_open" else {}
        if token.type == "table_open":
            tables += 1
            yield Token("html_block", "", 0, content=_scroll_region(tables))
        yield token
        if token.type == "table_close":
            yield Token("html_block", "", 0, content="</div>\n")


def _scroll_region(number: int) -> str:
    """Return the start of a region that scrolls. It can have the keyboard focus, so it needs a name."""
    return f'<div class="scroll" tabindex="0" role="region" aria-label="Table {number}">\n'
