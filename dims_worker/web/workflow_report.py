"""A workflow's report as HTML: the Markdown that `dims_worker.workflows` writes, and nothing beyond it."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

from markdown_it import MarkdownIt
from markdown_it.token import Token
from markupsafe import Markup

from dims_worker.formatting import escape_control
from dims_worker.web.context import trusted_html

LONGEST = 400_000
"""So many characters of a report are drawn; the whole is what `dims workflow NAME --last` prints."""


def is_long(report: str) -> bool:
    """Whether the page shows the beginning of the report alone."""
    return len(report) > LONGEST


@lru_cache(maxsize=16)
def report_html(report: str, below: int = 1) -> Markup:
    """A report's HTML. Its headings are `below` steps lower, so that they keep their order on the page.

    HTML in the report is text, no image is loaded, and a link leads to http, https or mail alone. Columns of numbers
    have a class instead of a style, because the site's policy has no style within a page.
    """
    lines = report[:LONGEST].split("\n")
    seen = "\n".join(map(escape_control, lines[:-1] if is_long(report) else lines))
    tokens = _reader().parse(seen)
    return trusted_html(_reader().renderer.render(list(_framed(tokens, below)), _reader().options, {}))


@lru_cache(maxsize=1)
def _reader() -> MarkdownIt:
    return MarkdownIt("commonmark", {"html": False}).enable("table").disable(["image", "html_block", "html_inline"])


def _framed(tokens: Iterable[Token], below: int) -> Iterable[Token]:
    """Headings lower, tables in a part that scrolls by itself, cells with a class and a scope."""
    number = 0
    for token in tokens:
        if token.type in ("heading_open", "heading_close"):
            token.tag = f"h{min(int(token.tag[1]) + below, 6)}"
        if token.type in ("th_open", "td_open"):
            to_the_right = "right" in str(token.attrs.pop("style", ""))
            token.attrs |= {"class": "n"} if to_the_right else {}
            token.attrs |= {"scope": "col"} if token.type == "th_open" else {}
        if token.type == "table_open":
            number += 1
            yield Token("html_block", "", 0, content=_scrolls(number))
        yield token
        if token.type == "table_close":
            yield Token("html_block", "", 0, content="</div>\n")


def _scrolls(number: int) -> str:
    """What is wider than the page can be scrolled by keys too, so it has a name."""
    return f'<div class="scroll" tabindex="0" role="region" aria-label="Table {number}">\n'
