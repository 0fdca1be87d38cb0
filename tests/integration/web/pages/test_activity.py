"""The pages of events and runs, their filters, and their escaping."""

from __future__ import annotations

import re
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import quote

import pytest
from sqlalchemy import create_engine
from starlette.testclient import TestClient

from dims_worker.config import load_config
from dims_worker.pipeline.ingest import ReceivedEnvelope, store_events
from dims_worker.store.engine import transaction
from dims_worker.web.pages import activity
from tests.integration.helpers import CONFIG, Down, Flow, event
from tests.integration.web.conftest import Visit

HOSTILE = "</pre><script>alert('x')</script>\u202e\"'&\n"


@pytest.fixture
def flow(tmp_path: Path, engine: object) -> Flow:
    (tmp_path / "dims.yaml").write_text(CONFIG)
    return Flow(engine, load_config(None, {}, tmp_path))  # type: ignore[arg-type]


@pytest.fixture
def site(visit: Visit, flow: Flow) -> TestClient:
    return visit(flow.config, "ada")


class Page(HTMLParser):
    """The tags, links, ids and text of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.ids: list[str] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        attributes = dict(attrs)
        assert not [name for name in attributes if name.startswith("on") or name == "style"]
        self.links += [attributes["href"] or ""] if tag == "a" else []
        self.ids += [attributes["id"] or ""] if "id" in attributes else []

    def handle_data(self, data: str) -> None:
        self.text += data


def open_page(site: TestClient, path: str, status: int = 200) -> Page:
    answer = site.get(path)
    assert answer.status_code == status, answer.text
    page = Page(answer.text)
    assert page.tags.count("h1") == 1 and page.tags.count("script") == 1
    assert len(page.ids) == len(set(page.ids))
    assert "style=" not in answer.text
    return page


def test_empty_pages_say_what_to_do(site: TestClient) -> None:
    assert "dims hook install" in open_page(site, "/events").text
    assert "dims enqueue" in open_page(site, "/runs").text
    assert "No events match." in open_page(site, "/events?outcome=rejected").text
    assert "No runs match." in open_page(site, "/runs?status=partial").text


def test_an_event_links_to_its_run_and_back(site: TestClient, flow: Flow) -> None:
    flow.serve(a=5, c=10)
    flow.store(event("dims.scraper.complete", id="scraped", games=12))
    seq = flow.scalar("SELECT max(seq) FROM dims_event_log")
    before = open_page(site, f"/events/{seq}")
    assert "due: not measured yet" in before.text and "/metrics/m.a" in before.links
    claim = flow.claim("one")
    run = flow.record(claim, {"m.a": 5, "m.c": 900}).run_id
    page = open_page(site, f"/events/{seq}")
    assert f"/runs/{run}" in page.links and re.search(r"extreme\s+waits for approval: request 1", page.text)
    assert '"games": 12' in page.text and "scraped" in page.text
    run_page = open_page(site, f"/runs/{run}")
    assert f"/events/{seq}" in run_page.links and f"/events/{seq - 1}" not in run_page.links
    assert {"/metrics/m.c", "/requests/1", "/runs?source=one"} <= set(run_page.links)
    assert "waits for approval: request 1" in run_page.text
    assert f"/events/{seq}" in open_page(site, "/events").links
    assert f"/runs/{run}" in open_page(site, "/runs").links


def test_a_failed_reading_has_no_value_on_its_events_page(site: TestClient, flow: Flow) -> None:
    flow.serve(a=10, c=10)
    flow.serve(a=Down("bucket away"), c=10)
    page = open_page(site, f"/events/{flow.scalar('SELECT max(seq) FROM dims_event_log')}").text
    assert "failing: bucket away; still due" in page and "null" not in page


def test_a_run_lists_only_the_events_since_the_previous_reading(site: TestClient, flow: Flow) -> None:
    def newest() -> int:
        return int(flow.scalar("SELECT max(seq) FROM dims_event_log"))

    flow.ask("m.a")
    flow.ask("m.a")
    first = newest()
    claim = flow.claim("one")
    flow.ask("m.a")  # arrives while the run measures, so the next run covers it
    late = newest()
    item = flow.record(claim, {"m.a": 5}).run_id
    failed = flow.record(flow.claim("one"), {"m.a": Down("the disk is gone")}).run_id
    flow.do("UPDATE dims_metrics SET not_before = NULL")
    two = flow.record(flow.claim("one"), {"m.a": 6}).run_id
    served = {run: set(open_page(site, f"/runs/{run}").links) for run in (item, failed, two)}
    assert {f"/events/{first}", f"/events/{first - 1}"} <= served[item] and f"/events/{late}" not in served[item]
    assert f"/events/{late}" in served[two] and f"/events/{first}" not in served[two]
    assert not [link for link in served[failed] if link.startswith("/events/")]
    assert "the disk is gone" in open_page(site, f"/runs/{failed}").text


def test_a_rejected_event_shows_why_and_how_to_replay_it(site: TestClient, flow: Flow) -> None:
    with transaction(flow.engine) as connection:
        store_events(connection, flow.planner, [ReceivedEnvelope("1-1", b"not json <script>alert(1)</script>")])
    seq = flow.scalar("SELECT seq FROM dims_event_log")
    page = open_page(site, f"/events/{seq}")
    assert f"dims events replay {seq}" in page.text and "not json <script>alert(1)</script>" in page.text
    flow.do("UPDATE dims_event_log SET replayed_at = now()")
    assert "It was replayed" in open_page(site, f"/events/{seq}").text
    assert f"/events/{seq}" in open_page(site, "/events?outcome=rejected").links


def test_an_unmatched_event_shows_how_to_match_it(site: TestClient, flow: Flow) -> None:
    flow.store(event("org.example.other"))
    seq = flow.scalar("SELECT seq FROM dims_event_log")
    page = open_page(site, f"/events/{seq}")
    assert "dims plan org.example.other" in page.text and "not affected" in page.text


def test_a_hostile_type_is_one_word_of_the_command(site: TestClient, flow: Flow) -> None:
    flow.store(event("x; touch /tmp/y; $(id)'!\t<b>"))
    page = open_page(site, f"/events/{flow.scalar('SELECT seq FROM dims_event_log')}")
    command = page.text.partition("dims plan ")[2].splitlines()[0]
    done = subprocess.run(["sh", "-c", f"printf '%s' {command}"], capture_output=True, check=True)
    assert done.stdout == b"x; touch /tmp/y; $(id)'!\t<b>"


def test_pages_of_a_list_follow_each_other(site: TestClient, flow: Flow) -> None:
    flow.store(*(event("dims.scraper.complete") for _ in range(120)))
    seen: list[str] = []
    path = "/events"
    pages = 0
    while path:
        page = open_page(site, path)
        seen += [link for link in page.links if re.fullmatch(r"/events/\d+", link)]
        path = next((link for link in page.links if "before=" in link), "")
        pages += 1
    assert pages == 3 and len(seen) == len(set(seen)) == 120
    assert seen == sorted(seen, key=lambda link: -int(link.rpartition("/")[2]))


def test_a_rare_type_is_searched_step_by_step(site: TestClient, flow: Flow, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(activity, "SEARCH_DEPTH", 30)
    flow.store(event("org.example.rare"))
    rare = flow.scalar("SELECT seq FROM dims_event_log")
    flow.store(*(event("dims.scraper.complete") for _ in range(70)))
    path, pages = "/events?type=org.example.rare", 0
    while f"/events/{rare}" not in (page := open_page(site, path)).links:
        assert "Search older events" in page.text
        path = next(link for link in page.links if "before=" in link)
        assert "type=org.example.rare" in path
        pages += 1
    assert pages == 2
    # An index finds unmatched events at once
    assert f"/events/{rare}" in open_page(site, "/events?outcome=unmatched").links
    flow.do(
        "INSERT INTO dims_verification_runs (trigger, source, status, started_at)"
        " SELECT 'event', CASE n WHEN 1 THEN 'rare' ELSE 'one' END, 'ok', now() FROM generate_series(1, 40) n"
    )
    page = open_page(site, "/runs?source=rare")
    assert "/runs/1" not in page.links
    older = next(link for link in page.links if "before=" in link)
    assert "/runs/1" in open_page(site, older).links


def test_a_filter_of_runs_shows_exactly_the_matching_runs(site: TestClient, flow: Flow) -> None:
    flow.do(
        "INSERT INTO dims_verification_runs (trigger, source, status, started_at)"
        " SELECT 'event', source, status, now() FROM unnest(ARRAY['one', 'two']) source,"
        " unnest(ARRAY['ok', 'partial']) status ORDER BY source, status"
    )

    def links_of(query: str) -> set[str]:
        return {link for link in open_page(site, f"/runs{query}").links if re.fullmatch(r"/runs/\d+", link)}

    assert links_of("") == {"/runs/1", "/runs/2", "/runs/3", "/runs/4"}
    assert links_of("?source=two") == {"/runs/3", "/runs/4"}
    assert links_of("?status=partial") == {"/runs/2", "/runs/4"}
    assert links_of("?source=one&status=ok") == {"/runs/1"}


def test_no_row_is_lost_where_a_search_stopped(site: TestClient, flow: Flow, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(activity, "SEARCH_DEPTH", 10)
    for number in range(25):
        flow.store(event("org.example.rare" if number % 2 else "dims.scraper.complete"))
    seen, path = [], "/events?type=org.example.rare"
    while path:
        page = open_page(site, path)
        seen += [link for link in page.links if re.fullmatch(r"/events/\d+", link)]
        path = next((link for link in page.links if "before=" in link), "")
    assert len(seen) == len(set(seen)) == 12


def test_a_run_with_many_events_lists_the_newest_and_says_so(
    site: TestClient, flow: Flow, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(activity, "MAX_EVENTS", 3)
    for _ in range(3):
        flow.ask("m.a")
    few = flow.record(flow.claim("one"), {"m.a": 5}).run_id
    assert "There were more" not in open_page(site, f"/runs/{few}").text
    for _ in range(4):
        flow.ask("m.a")
    many = flow.record(flow.claim("one"), {"m.a": 6}).run_id
    page = open_page(site, f"/runs/{many}")
    assert "These are the newest 3. There were more." in page.text
    newest = flow.scalar("SELECT max(seq) FROM dims_event_log")
    assert [link for link in page.links if re.fullmatch(r"/events/\d+", link)] == [
        f"/events/{newest - place}" for place in range(3)
    ]


def test_an_event_lists_all_unaffected_metrics(site: TestClient, flow: Flow) -> None:
    flow.ask("m.a")
    page = open_page(site, "/events/1")
    concerned = set(flow.scalar("SELECT metrics FROM dims_event_log"))
    everything = {name for names in flow.config.metrics_by_source.values() for name in names}
    assert concerned and everything - concerned
    assert f"{len(everything - concerned)} metric" in page.text


def test_a_list_shortens_a_long_event_and_shows_no_zero(site: TestClient, flow: Flow) -> None:
    flow.store(event("org.example.other"))
    flow.do("UPDATE dims_event_log SET subject = :it", it="long " * 100 + "end")
    listed = site.get("/events").text
    assert "long long" in listed and "…</a>" in listed and "end from" not in listed
    assert max(len(text) for text in re.findall(r'class="what"[^>]*>([^<]*)<', listed)) <= 120
    assert "0 metrics" not in listed and '<span class="chip quiet">unmatched</span>' in listed
    seq = flow.scalar("SELECT max(seq) FROM dims_event_log")
    assert "end from" in open_page(site, f"/events/{seq}").text


@pytest.mark.parametrize(
    ("path", "title"),
    [("/events/0", "Event"), ("/runs/7", "Run"), ("/metrics/m.x", "Metric"), ("/events/0/x", "Event"), ("/x", "Page")],
)
def test_the_page_of_a_missing_item_has_a_title_that_says_so(site: TestClient, path: str, title: str) -> None:
    page = site.get(path).text
    assert f"<h1>{title} not found</h1>" in page and f"<title>{title} not found · " in page


def test_a_misspelled_metric_suggests_the_right_one(site: TestClient) -> None:
    page = open_page(site, "/metrics/m.aa", 404)
    assert "Did you mean m.a" in page.text and "/metrics/m.a" in page.links
    assert "Did you mean" not in open_page(site, "/metrics/wholly.else", 404).text
    assert "Did you mean" not in open_page(site, "/events/0", 404).text
    attributes = site.get("/metrics/%3Cb%3E").text
    assert "no metric is called &lt;b&gt;: <code>dims metrics</code> lists them" in attributes


def test_only_the_first_line_of_a_drivers_message_is_shown(visit: Visit, flow: Flow) -> None:
    away = create_engine("postgresql+psycopg2://dims@127.0.0.1:1/none")
    page = open_page(visit(flow.config, "ada", on=away), "/events", 503)
    assert "A server is unreachable" in page.text and "127.0.0.1" in page.text
    assert r"\x0a" not in page.text and "Is the server" not in page.text


ODD = ("/events/x", "/events/0", "/events/99999999999999999999", "/events/%C2%B2", "/runs/-1", "/runs/7", "/runs/%00")


@pytest.mark.parametrize("path", ODD)
def test_a_missing_event_or_run_is_404(site: TestClient, path: str) -> None:
    assert "there is no" in open_page(site, path, 404).text


@pytest.mark.parametrize("query", ["type=%00", "type=%00x%F0%9F", "outcome=%27--", "before=1"])
def test_unusual_filters_find_nothing_and_cause_no_error(site: TestClient, flow: Flow, query: str) -> None:
    open_page(site, f"/events?{query}")
    open_page(site, f"/runs?{query.replace('type', 'source').replace('outcome', 'status')}")
    assert (
        "before must be a whole number from 1 to 9223372036854775807, not"
        in open_page(site, "/events?before=x", 400).text
    )


def test_hostile_texts_are_only_text(site: TestClient, flow: Flow) -> None:
    flow.store(
        event(
            f"dims.git.{HOSTILE[:40].strip()}", subject_=HOSTILE, commit=HOSTILE, subject=HOSTILE * 40, paths=[HOSTILE]
        )
    )
    flow.do(
        "UPDATE dims_event_log SET subject = :it, producer = :it, event_id = :it, reason = :it, payload = :it,"
        " rules = ARRAY[CAST(:it AS text)]",
        it=HOSTILE,
    )
    flow.serve(a=1)
    flow.do("UPDATE dims_verification_runs SET worker = :it, source = :it, trigger = :it", it=HOSTILE)
    flow.do("UPDATE dims_metrics_history SET error = :it, reason = :it", it=HOSTILE)
    seq = flow.scalar("SELECT min(seq) FROM dims_event_log")
    for path in ("/events", f"/events/{seq}", "/runs", "/runs/1"):
        page = open_page(site, path)
        assert "\u202e" not in page.text
        assert "<script>alert('x')</script>" in page.text, path
    for path in ("/events?type=", "/runs?source="):
        open_page(site, f"{path}{quote(HOSTILE)}")
    flow.do("UPDATE dims_event_log SET outcome = 'rejected'")
    open_page(site, f"/events/{seq}")


def test_the_number_of_queries_does_not_depend_on_the_number_of_rows(site: TestClient, flow: Flow) -> None:
    from sqlalchemy.event import listen, remove

    counted: list[str] = []

    def note(connection: object, cursor: object, statement: str, *_: object) -> None:
        if "min(since)" not in statement:  # the stall warning is cached for all pages
            counted.append(statement)

    numbers: list[dict[str, int]] = []
    for size in (1, 60):
        flow.store(*(event("dims.scraper.complete") for _ in range(size)))
        run = flow.record(flow.claim("one"), {"m.a": size, "m.c": 1}).run_id
        seq = flow.scalar("SELECT max(seq) FROM dims_event_log")
        queries: dict[str, int] = {}
        for name, path in {"e": "/events", "r": "/runs", "event": f"/events/{seq}", "run": f"/runs/{run}"}.items():
            counted.clear()
            listen(flow.engine, "before_cursor_execute", note)
            open_page(site, path)
            remove(flow.engine, "before_cursor_execute", note)
            queries[name] = len(counted)
        numbers.append(queries)
    assert numbers[0] == numbers[1] and max(numbers[0].values()) <= 7


def test_a_page_that_shows_the_newest_is_live_and_an_older_one_is_not(site: TestClient, flow: Flow) -> None:
    flow.store(*(event("dims.scraper.complete") for _ in range(60)))
    assert "data-live" in site.get("/events").text
    older = site.get("/events?before=30").text.partition("<main")[2]
    assert "data-live" not in older.partition("<footer")[0]
