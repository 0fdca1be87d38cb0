"""The HTML of a workflow's report: its Markdown, and nothing that could run."""

from __future__ import annotations

import re

import pytest

from dims_worker.web import workflow_report
from dims_worker.web.workflow_report import report_html
from dims_worker.workflows.markdown import code_span, escape_markdown, markdown_table

HOSTILE = "<script>alert(1)</script>\"'|`\u202e[x](javascript:alert(2))\n# h"


def test_headings_are_lower_than_those_of_the_page() -> None:
    html = report_html("## Games\n\n### One\n\n###### Deep\n")
    assert "<h3>Games</h3>" in html and "<h4>One</h4>" in html and "<h6>Deep</h6>" in html


def test_a_table_scrolls_and_has_column_headers() -> None:
    html = report_html("\n".join(markdown_table(["game", "bytes"], [["a", 1230]], (1,))))
    assert '<div class="scroll" tabindex="0" role="region" aria-label="Table 1">' in html
    assert '<th scope="col">game</th>' in html and '<th class="n" scope="col">bytes</th>' in html
    assert '<td class="n">1,230</td>' in html
    assert html.count("<div") == html.count("</div>") == 1 and "style=" not in html


def test_lists_code_bold_and_links() -> None:
    html = report_html("- **a** `b`\n- c\n\n1. d\n\n```\n<x>\n```\n\n[doc](https://example.org/a?b=1&c=2)\n")
    assert "<li><strong>a</strong> <code>b</code></li>" in html and "<ol>" in html
    assert "<pre><code>&lt;x&gt;\n</code></pre>" in html
    assert '<a href="https://example.org/a?b=1&amp;c=2">doc</a>' in html


@pytest.mark.parametrize("where", ["plain", "code", "cell", "heading", "raw", "block"])
def test_a_hostile_name_is_text_everywhere(where: str) -> None:
    report = {
        "plain": escape_markdown(HOSTILE),
        "code": code_span(HOSTILE),
        "cell": "\n".join(markdown_table(["name"], [[code_span(HOSTILE)], [escape_markdown(HOSTILE)]])),
        "heading": f"## {escape_markdown(HOSTILE)}",
        "raw": HOSTILE,  # a workflow that forgot to escape
        "block": f"<div onclick=alert(1)>\n\n{HOSTILE}\n\n![x](https://evil.example/x.png)\n\n<https://evil.example>",
    }[where]
    html = report_html(report)
    assert "alert(1)" in html and "\u202e" not in html
    assert not re.search(r"<(script|div onclick|img|iframe|style)", html)
    assert not re.search(r'(href|src)="(javascript|data|vbscript):', html)
    assert not re.search(r"<[a-z]+ [^>]*\bon[a-z]+=", html)


def test_a_very_long_report_ends_at_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workflow_report, "LONGEST", 25)
    report = "first line\n\nsecond line, which is cut"
    assert workflow_report.is_long(report) and not workflow_report.is_long("short")
    report_html.cache_clear()
    assert report_html(report) == "<p>first line</p>\n"
    report_html.cache_clear()
