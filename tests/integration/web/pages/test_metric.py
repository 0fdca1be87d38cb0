"""The page of a metric, for every kind of metric and for hostile texts."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from html import unescape

import pytest

from tests.integration.helpers import Down, Flow, event
from tests.integration.web.conftest import Visit

HOSTILE = "<script>alert('x')</script>\"&\u202eevil"
Make = Callable[[str], Flow]


def visible_text(page: str) -> str:
    """Return the text of a page without tags, on one line."""
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", page)).split())


def test_a_metric_shows_its_value_reasons_and_definition(flow: Flow, visit: Visit) -> None:
    flow.serve(c=100)
    flow.serve(c=103)
    answer = visit(flow.config, "ada").get("/metrics/m.c")
    assert answer.status_code == 200
    content = visible_text(answer.text)
    assert "103 files" in content
    assert "drift |103 - 100| / 100 x 100 = 3.0 %" in content
    assert "minor" in content
    assert "require_approval_pct 15 default" in content
    assert "source: one measure: count" in content
    assert "critical yes metric" in content
    assert 'href="/runs/2"' in answer.text
    assert answer.text.count("<h1") == 1
    assert 'class="trend wide"' in answer.text and 'class="trend narrow"' in answer.text


def test_an_open_request_comes_first_with_a_link_to_decide(flow: Flow, visit: Visit) -> None:
    flow.serve(c=100)
    flow.serve(c=150)
    page = visit(flow.config, "ada").get("/metrics/m.c").text
    assert "waits for approval" in page
    assert page.index('href="/requests/1">Review and decide') < page.index("History")

    assert "147 to 153 files" in visible_text(page)


def test_the_chart_distinguishes_held_and_failed_readings(flow: Flow, visit: Visit) -> None:
    flow.serve(c=100)
    flow.serve(c=150)
    flow.serve(c=Down("no such folder"))
    page = visit(flow.config, "ada").get("/metrics/m.c").text
    assert re.search(r'<path class="held"[^>]*><title>[^<]*held: 150 files \(\+50.0 %\)</title>', page)
    assert re.search(r'<path class="failed"[^>]*><title>[^<]*failed: no such folder</title>', page)
    assert '<path class="base"' in page
    assert '<circle class="dot"' in page
    assert "The last attempt failed" in page
    assert "no such folder" in page


@pytest.mark.parametrize(("query", "days"), [("7", 7), ("30", 30), ("365", 365), ("1", 30), ("x", 30), ("-7", 30)])
def test_the_span_is_in_the_address(flow: Flow, visit: Visit, query: str, days: int) -> None:
    flow.serve(c=100)
    page = visit(flow.config, "ada").get(f"/metrics/m.c?days={query}").text
    assert f'<a href="?days={days}" aria-current="true">{days} days</a>' in page
    assert page.count('aria-current="true"') == 1


def test_what_changed_is_linked_to_its_events(flow: Flow, visit: Visit) -> None:
    flow.serve(c=100)
    commit = {"commit": "3f2a9c1d", "subject": HOSTILE, "branch": "main", "paths": ["one/a"], "metrics": ["m.c"]}
    flow.store(event("dims.scraper.complete"))
    flow.do(
        "UPDATE dims_event_log SET type = 'dims.git.commit', data = CAST(:d AS jsonb) WHERE type LIKE '%complete'",
        d=json.dumps(commit),
    )
    flow.serve(c=150)
    page = visit(flow.config, "ada").get("/metrics/m.c").text
    seq = flow.scalar("SELECT seq FROM dims_event_log WHERE type = 'dims.git.commit'")
    link = re.search(rf'<a href="/events/{seq}">([^<]*)</a>', page)
    assert link
    assert "&lt;script&gt;" in link[1]
    assert "<script>alert" not in page
    assert "\u202e" not in page


def test_a_derived_metric_shows_its_formula_and_links_both_ways(flow: Flow, visit: Visit) -> None:
    flow.serve(a=2)
    flow.serve(b=3, e=5)
    client = visit(flow.config, "ada")
    page = client.get("/metrics/m.sum").text
    assert "m.a + m.b = 2 + 3 = 5" in visible_text(page)
    assert 'href="/metrics/m.a"' in page and 'href="/metrics/m.b"' in page
    assert 'Used by: <a class="name" href="/metrics/m.ratio"' in page
    assert 'Used by: <a class="name" href="/metrics/m.sum"' in client.get("/metrics/m.a").text


def test_an_unknown_name_is_a_page_that_says_so(flow: Flow, visit: Visit) -> None:
    client = visit(flow.config, "ada")
    for name in ("m.unknown", "%3Cscript%3E", "a%00b", "x" * 3000):
        answer = client.get(f"/metrics/{name}")
        assert answer.status_code == 404
        assert "<script>" not in answer.text.replace('<script src="/static/live.js" type="module"></script>', "")


def test_a_metric_that_was_never_measured_says_what_to_do(flow: Flow, visit: Visit) -> None:
    page = visit(flow.config, "ada").get("/metrics/m.c").text
    content = visible_text(page)
    assert "DIMS has not measured it yet." in content
    assert "dims verify -m m.c" in content
    assert "not measured yet" in content
    assert "<svg class" not in page


def test_a_metric_that_is_no_longer_configured_keeps_its_history(flow: Flow, restart: Make, visit: Visit) -> None:
    flow.serve(c=100)
    later = restart(
        "sources: {one: {type: files, path: one}}\nmetrics: {m: {a: {source: one, measure: count}}}\nrules: {}"
    )
    page = visit(later.config, "ada").get("/metrics/m.c").text
    content = visible_text(page)
    assert "retired" in content
    assert "100 files" in content
    assert "The configuration no longer has it" in content
    assert "Definition" not in content


def test_a_stale_metric_is_labelled_stale(flow: Flow, visit: Visit) -> None:
    flow.serve(c=100)
    flow.do("UPDATE dims_metrics SET as_of = as_of - interval '8 days'")
    flow.do("UPDATE dims_metrics_history SET as_of = as_of - interval '8 days'")
    page = visit(flow.config, "ada").get("/metrics/m.c").text
    content = visible_text(page)
    assert re.search(r'<span class="chip[^"]*">stale</span>', page)
    assert "longer than stale_after = 1 week (default)" in content


@pytest.mark.parametrize(
    ("value", "expected"), [(HOSTILE, "&lt;script&gt;"), (None, "null"), (True, "true"), (0, "0 f")]
)
def test_values_of_every_kind_are_readable(flow: Flow, visit: Visit, value: object, expected: str) -> None:
    flow.serve(c=value)
    page = visit(flow.config, "ada").get("/metrics/m.c").text
    assert f'<b class="value">{expected}' in page
    assert "<script>alert" not in page
    assert "\u202e" not in page
    assert ("<svg class" in page) == (value == 0 and value is not False)


def test_an_age_is_drawn_in_its_unit(make_flow: Make, visit: Visit) -> None:
    flow = make_flow(
        "sources: {one: {type: files, path: one}}\nmetrics: {m: {c: {source: one, measure: newest_age}}}\nrules: {}"
    )
    flow.serve(c="2026-01-01T00:00:00+00:00")
    page = visit(flow.config, "ada").get("/metrics/m.c").text.replace("<wbr>", "")
    assert re.search(r'<b class="value">[\d,.]+ hours</b>', page)
    assert 'class="trend wide"' in page
    assert "since 2026-01-01" in visible_text(page)


def test_the_names_in_a_reading_are_listed_and_escaped(flow: Flow, visit: Visit) -> None:
    flow.serve(c=100)
    flow.do(
        "UPDATE dims_metrics_history SET details = jsonb_build_object('missing_ids', CAST(:ids AS jsonb), "
        "'missing', 300)",
        ids=json.dumps([HOSTILE, *map(str, range(250))]),
    )
    page = visit(flow.config, "ada").get("/metrics/m.c").text
    assert "<code>&lt;script&gt;" in page
    assert page.count("<code>") < 100
    assert "and 240 more" in visible_text(page)


def test_the_readings_are_a_table_with_links_to_their_runs(flow: Flow, visit: Visit) -> None:
    for value in range(100, 160):
        flow.look(c=value)
    page = visit(flow.config, "ada").get("/metrics/m.c").text
    table = page.split('id="readings"')[1].split("</table>")[0]
    assert table.count("<tr>") == 51
    assert 'href="/runs/60"' in table and 'href="/runs/10"' not in table


def test_queries_do_not_grow_with_the_history(flow: Flow, visit: Visit, queries: list[str]) -> None:
    client = visit(flow.config, "ada")
    flow.serve(c=100)
    queries.clear()
    client.get("/metrics/m.c")
    few = len(queries)
    for value in range(101, 140):
        flow.serve(c=value)
    queries.clear()
    client.get("/metrics/m.c")
    assert len(queries) <= few + 7  # the first reading has no evidence
    assert len(queries) < 28


def test_a_visitor_is_redirected_to_the_sign_in(flow: Flow, visit: Visit) -> None:
    answer = visit(flow.config).get("/metrics/m.c?days=7")
    assert (answer.status_code, answer.headers["location"]) == (303, "/sign-in?next=/metrics/m.c%3Fdays%3D7")


def test_a_workflows_outcome_has_a_page_too(make_flow: Make, visit: Visit) -> None:
    flow = make_flow(
        "sources: {one: {type: files, path: one}}\nmetrics: {m: {a: {source: one, measure: count}}}\nrules: {}\n"
        "workflows: {file_inventory: {source: one}}"
    )
    assert "workflow.file-inventory" in flow.config.definitions
    page = visit(flow.config, "ada").get("/metrics/workflow.file-inventory").text
    assert 'href="/workflows/file-inventory"' in page
    assert "dims workflow file-inventory" in page
