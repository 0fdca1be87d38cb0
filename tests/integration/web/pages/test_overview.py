"""The overview over a real database."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from html import unescape
from html.parser import HTMLParser
from pathlib import Path

import pytest
from sqlalchemy import Engine, event, text
from starlette.testclient import TestClient

from dims_worker.config import Config, load_config
from dims_worker.pipeline.record import record_run
from dims_worker.probes.base import Reading
from dims_worker.store import history
from dims_worker.store.approval_requests import open_requests
from dims_worker.store.engine import transaction
from tests.fixtures.long_history import fill
from tests.integration.helpers import CONFIG as HELPER_CONFIG
from tests.integration.helpers import Down, Flow
from tests.integration.web.conftest import Visit, form_token, hold_requests

NOW = datetime.now(UTC) - timedelta(seconds=5)
HOSTILE = "<script>alert('x')</script>\" onload=\"y &amp; \u202egnp.exe \x07"
CATEGORIES = ("raw", "parsed")

MakeConfig = Callable[..., Config]


@pytest.fixture
def make_config(tmp_path: Path) -> MakeConfig:
    """Write a configuration with `each` metrics in each of two categories. The first metrics are critical."""

    def write(each: int = 5, more: str = "") -> Config:
        lines = ["sources: {lake: {type: s3, bucket: b}}", "metrics:"]
        for category in CATEGORIES:
            lines.append(f"  {category}:")
            lines += [
                f"    m{n}: {{source: lake, prefix: {category}/{n}/, measure: count, description: 'Shard {n} of it', "
                f"critical: {'true' if n == 0 else 'false'}}}"
                for n in range(each)
            ]
        folder = tmp_path / "a <b>lake"  # the folder is the project's name
        folder.mkdir(exist_ok=True)
        (folder / "dims.yaml").write_text("\n".join(lines) + f"\n{more}", encoding="utf-8")
        return load_config(folder / "dims.yaml", {}, folder)

    return write


@pytest.fixture
def config(make_config: MakeConfig, engine: Engine) -> Config:
    """Ten metrics with 40 days of readings. raw.m0 is held and raw.m3 failed."""
    result = make_config()
    fill(engine, result, until=NOW, days=40)
    hold_requests(engine)
    return result


class Tags(HTMLParser):
    """The elements and the text of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str, **wanted: str) -> list[dict[str, str | None]]:
        return [
            attributes for name, attributes in self.elements if name == tag and wanted.items() <= attributes.items()
        ]


def metrics_of(page: str) -> list[str]:
    """Return the metrics in the tables, in order."""
    return re.findall(r'<tr><td><a class="name[^"]*" href="/metrics/([^"]+)"', page)


def counts_of(page: str) -> dict[str, int]:
    result = re.findall(r'href="/\?state=(\w+)"[^>]*><b>(\d+)</b>', page)
    return {name: int(number) for name, number in result}


def test_what_needs_attention_comes_first(visit: Visit, config: Config, engine: Engine) -> None:
    with engine.begin() as connection:
        request = open_requests(connection)["raw.m0"]
        connection.execute(text("UPDATE dims_metrics SET error = :bad WHERE metric = 'raw.m3'"), {"bad": "no answer"})
    page = visit(config, "ada").get("/").text
    attention, rest = page.split('id="tiles"')
    assert f'href="/requests/{request.id}"' in attention and "Review and decide" in attention and "+18.7 %" in attention
    assert f"{request.baseline:,} objects" in attention and f"{request.value:,} objects" in attention
    assert 'href="/metrics/raw.m3"' in attention and "no answer" in attention
    assert "1 metric is failing; 1 value waits for approval." in attention
    assert 'href="/metrics/raw.m1"' not in attention
    assert metrics_of(rest) == list(config.metrics)
    assert counts_of(page) == {
        "failing": 1,
        "waiting": 1,
        "limit": 0,
        "drifted": 0,
        "stale": 0,
        "overdue": 0,
        "new": 0,
        "due": 1,
        "ok": 8,
    }


def test_a_metric_shows_its_value_change_sparkline_and_time(visit: Visit, config: Config, engine: Engine) -> None:
    page = visit(config, "ada").get("/").text
    row = page.split('href="/metrics/raw.m1">')[1].split("</tr>")[0]
    assert not re.search(r">[^<]*\d,\d", row)  # <wbr> after each comma
    row = row.replace("<wbr>", "")
    with engine.begin() as connection:
        value, as_of = connection.execute(text("SELECT value, as_of FROM dims_metrics WHERE metric = 'raw.m1'")).one()
        before = connection.execute(
            text(
                "SELECT value FROM dims_metrics_history WHERE metric = 'raw.m1' AND as_of < :then ORDER BY as_of DESC "
                "LIMIT 1"
            ),
            {"then": NOW - timedelta(hours=23)},
        ).scalar_one()
    assert f"{value:,} objects" in row and f">+{value - before:,}<" in row and value > before
    assert f'<time datetime="{as_of.isoformat(timespec="seconds")}">' in row
    assert row.count("<svg") == 1 and "30 days, from" in row
    assert "Shard 1 of it" in row


def test_a_sparkline_has_the_accepted_value_of_each_day(config: Config, engine: Engine) -> None:
    with engine.begin() as connection:
        for bad, day in (("1e400", 2), ("null", 4), ('"text"', 6)):
            connection.execute(
                text(
                    "UPDATE dims_metrics_history SET value = CAST(:bad AS jsonb), outcome = 'accepted' "
                    "WHERE metric = 'raw.m1' AND as_of = :at"
                ),
                {"bad": bad, "at": NOW - timedelta(days=day)},
            )
        connection.execute(
            text("UPDATE dims_metrics_history SET outcome = 'held' WHERE metric = 'raw.m2' AND as_of = :at"),
            {"at": NOW - timedelta(days=1)},
        )
        names = ["raw.m1", "raw.m2", "raw.unknown"]
        drawn, daily = history.daily_lines(connection, names, 30), history.daily_readings(connection, names, 30)
    assert drawn.keys() == {"raw.m1", "raw.m2"}
    first = min(day.day for day in daily["raw.m1"])
    assert not {27, 25, 23} & set(drawn["raw.m1"].days) and 24 in drawn["raw.m1"].days
    stood = [day for day in daily["raw.m2"] if day.outcome in history.TREND_OUTCOMES]
    assert list(drawn["raw.m2"].days) == [(day.day - first).days for day in stood] and 28 not in drawn["raw.m2"].days
    assert list(drawn["raw.m2"].values) == [day.value for day in stood]


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ("q=shard+3", ["raw.m3", "parsed.m3"]),
        ("q=RAW.M", [f"raw.m{n}" for n in range(5)]),
        ("category=parsed", [f"parsed.m{n}" for n in range(5)]),
        ("state=waiting", ["raw.m0"]),
        ("state=failed", ["raw.m3"]),
        ("category=raw&state=well&q=of", ["raw.m1", "raw.m2", "raw.m4"]),
        ("state=stale", []),
        ("state=no_such", []),
        ("category=no_such", []),
    ],
)
def test_a_filter_shows_the_matching_metrics_and_their_number(
    visit: Visit, config: Config, query: str, names: list[str]
) -> None:
    page = visit(config, "ada").get(f"/?{query}").text
    assert metrics_of(page) == names
    assert f"<b>{len(names)}</b> of 10 metrics" in page
    assert ("Use fewer words" in page) == (not names)
    form, result, tiles = (page.index(part) for part in ('role="search"', 'class="result"', 'id="tiles"'))
    assert form < result < tiles and 'id="attention"' not in page
    assert "Review and decide" not in page and "1 value waits for approval" in page
    categories = {name.partition(".")[0] for name in names}
    assert set(re.findall(r'<section id="c-(\w+)"', page)) == categories


def test_the_form_keeps_what_the_address_says(visit: Visit, config: Config) -> None:
    words = "m3 \"<b>'&"
    page = visit(config, "ada").get("/", params={"q": words, "category": "parsed", "state": "ok"}).text
    tags = Tags(page)
    assert [attributes["value"] for attributes in tags.all("input", name="q")] == [words]
    assert "<b>'&" not in page
    chosen = [attributes.get("value") for attributes in tags.all("option") if "selected" in attributes]
    assert chosen == [None, "ok"]  # the option of a category has no value
    assert "<option selected>parsed</option>" in page
    assert [attributes["href"] for attributes in tags.all("a") if attributes.get("aria-current") == "true"] == [
        "/?state=ok"
    ]
    assert '<option value="well" selected>ok or new</option>' in visit(config, "ada").get("/?state=well").text
    form = tags.all("form", action="/")
    assert [attributes["method"] for attributes in form] == ["get"]


def test_each_count_is_that_of_its_link(visit: Visit, config: Config) -> None:
    client = visit(config, "ada")
    counted = counts_of(client.get("/").text)
    assert len(counted) == 9
    for state, number in counted.items():
        assert len(metrics_of(client.get(f"/?state={state}").text)) == number


def test_hostile_text_is_shown_as_text(visit: Visit, make_config: MakeConfig, engine: Engine) -> None:
    config = make_config(
        more=f"  odd: {{m: {{source: lake, prefix: o/, measure: count, description: {json.dumps(HOSTILE)}}}}}\n"
    )
    fill(engine, config, until=NOW, days=3)
    with engine.begin() as connection:
        connection.execute(text("UPDATE dims_metrics SET error = :bad WHERE error IS NOT NULL"), {"bad": HOSTILE})
        connection.execute(
            text("UPDATE dims_metrics SET value = to_jsonb(CAST(:bad AS text)) WHERE metric = 'parsed.m1'"),
            {"bad": HOSTILE},
        )
        connection.execute(
            text("UPDATE dims_approval_requests SET unit = :bad WHERE state = 'open'"), {"bad": HOSTILE + "x" * 1000}
        )
    page = visit(config, "ada").get("/").text
    tags = Tags(page)
    assert {attributes["src"] for attributes in tags.all("script")} == {"/static/live.js"}
    assert not [attributes for _, attributes in tags.elements if "onload" in attributes or "style" in attributes]
    assert "style" not in {tag for tag, _ in tags.elements}
    assert "\u202e" not in page and "\x07" not in page
    assert unescape(page).count("<script>alert('x')</script>\"") >= 4
    assert r"\x202egnp.exe \x07" in tags.text
    assert "<h1>a &lt;b&gt;lake</h1>" in page


def test_a_long_list_shows_its_first_items_and_links_to_the_rest(
    visit: Visit, make_config: MakeConfig, engine: Engine
) -> None:
    config = make_config(12)
    fill(engine, config, until=NOW, days=3)
    with engine.begin() as connection:
        connection.execute(text("UPDATE dims_metrics SET error = 'no', failed_at = now() WHERE metric LIKE 'parsed.%'"))
        connection.execute(text("UPDATE dims_metrics SET as_of = now() - interval '9 days' WHERE metric = 'raw.m1'"))
        connection.execute(
            text(
                "INSERT INTO dims_approval_requests (metric, state, value, unit, as_of, anchor, baseline, "
                "baseline_as_of, baseline_version, drift_pct, severity, reason, run_id) SELECT metric, 'open', '1', "
                "'x', now(), '1', '2', now(), 1, 50, 'high', 'so', 1 FROM dims_metrics WHERE metric <> 'raw.m0'"
            )
        )
    hold_requests(engine)
    attention = visit(config, "ada").get("/").text.split('id="tiles"')[0]
    assert attention.count("Review and decide") == 5 and '<a href="/requests">and 19 more</a>' in attention
    # Three groups: twelve metrics of one source with the same error, one with another error, and a stale one
    problems = attention.split("Needs attention")[1]
    assert problems.count("<li>") == 3 and len(re.findall(r'<a class="name[^"]*" href', problems)) == 5 + 1 + 1
    assert '<a href="/?state=failing">and 7 more</a>' in problems and "12 metrics of lake" in problems
    assert "state=limit" not in attention and "Show all:" not in attention
    with engine.begin() as connection:
        connection.execute(text("UPDATE dims_metrics SET error = 'no ' || metric WHERE metric LIKE 'parsed.%'"))
    problems = visit(config, "ada").get("/").text.split('id="tiles"')[0].split("Needs attention")[1]
    assert problems.count("<li>") == 10 and "10 of 14." in problems
    assert '<a href="/?state=failing">failing (13)</a>, <a href="/?state=stale">stale (1)</a>' in problems


def test_a_request_of_a_removed_metric_is_still_shown(visit: Visit, config: Config, engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(text("UPDATE dims_approval_requests SET metric = 'gone.m' WHERE state = 'open'"))
    page = visit(config, "ada").get("/").text
    assert "gone.m" in page and "/metrics/gone.m" not in page and "Review and decide" in page


def test_when_all_is_well_one_sentence_says_so(visit: Visit, config: Config, engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(text("UPDATE dims_metrics SET error = NULL, failed_at = NULL"))
        connection.execute(text("UPDATE dims_approval_requests SET state = 'withdrawn' WHERE state = 'open'"))
        connection.execute(text("UPDATE dims_incidents SET state = 'closed'"))
    attention = visit(config, "ada").get("/").text.split('id="tiles"')[0]
    print(attention)
    assert "1 metric is lost or drifted." in attention  # the held value that no one accepted
    with engine.begin() as connection:
        connection.execute(text("UPDATE dims_metrics SET status = 'ok', severity = 'none'"))
    page = visit(config, "ada").get("/").text
    assert "All is well." in page and counts_of(page)["ok"] == 10
    assert "<h2>" not in page.split('id="tiles"')[0]


def row_of(page: str, metric: str) -> list[str]:
    """Return the value, change and states in a metric's row."""
    row = page.replace("<wbr>", "").rpartition(f'href="/metrics/{metric}">')[2].partition("</tr>")[0]
    return [unescape(re.sub("<[^>]+>", " ", cell)).strip() for cell in re.findall(r"<td[^>]*>(.*?)</td>", row, re.S)]


def make_older(flow: Flow, hours: int) -> None:
    """Move all readings into the past."""
    past = f"interval '{hours} hours'"
    flow.do(f"UPDATE dims_metrics_history SET as_of = as_of - {past}, recorded_at = recorded_at - {past}")
    flow.do(f"UPDATE dims_metrics SET as_of = as_of - {past}, baseline_as_of = baseline_as_of - {past}")


def test_a_metric_that_failed_since_has_no_change(flow: Flow, visit: Visit) -> None:
    flow.serve(a=10, c=10)
    make_older(flow, 72)
    client = visit(flow.config, "ada")
    assert row_of(client.get("/").text, "m.a")[:2] == ["10 files", "0"]  # no event reported a change
    flow.serve(a=Down("bucket away"), c=10)
    page = client.get("/").text
    assert row_of(page, "m.a")[:2] == ["10 files", "-"]
    assert row_of(page, "m.c")[:2] == ["10 files", "0"]


def test_a_rounding_error_is_no_change(flow: Flow, visit: Visit) -> None:
    flow.serve(a=0.1 + 0.2, c=1)
    make_older(flow, 30)
    flow.serve(a=0.3, c=1)
    assert row_of(visit(flow.config, "ada").get("/").text, "m.a")[:2] == ["0.3 files", "0"]


def test_a_rejected_value_is_not_compared_with(flow: Flow, visit: Visit) -> None:
    flow.serve(a=10, c=10)
    flow.serve(a=10, c=900)
    client = visit(flow.config, "ada")
    form = {"form_token": form_token(client.get("/requests/1").text), "version": 1}
    assert client.post("/requests/1/reject", data=form).status_code == 303
    make_older(flow, 30)
    flow.serve(a=10, c=10)
    assert row_of(client.get("/").text, "m.c")[:2] == ["10 files", "0"]


SIZED = HELPER_CONFIG.replace(
    "a: {source: one, measure: count}", "a: {source: one, measure: bytes, unit: GB, precision: 2}"
)


def test_a_value_has_the_unit_that_it_was_measured_in(
    make_flow: Callable[..., Flow], restart: Callable[..., Flow], visit: Visit
) -> None:
    flow = make_flow(SIZED)
    in_unit(flow, 187.3, "GB")
    make_older(flow, 30)
    later = restart(SIZED.replace("unit: GB", "unit: MB"))
    client = visit(later.config, "ada")
    assert row_of(client.get("/").text, "m.a")[:2] == ["187.30 GB", "0"]
    result = client.get("/api/metrics/m.a").json()
    assert (result["value"], result["unit"], result["explanation"]["unit"]) == (187.3, "GB", "GB")
    assert "187.30 GB" in client.get("/metrics/m.a").text
    assert "187.30 MB" not in client.get("/metrics/m.a").text
    in_unit(later, 187_300.0, "MB")
    page = client.get("/").text
    assert row_of(page, "m.a")[:2] == ["187,300.00 MB", "-"]
    assert "from 187,300.0 to 187,300.0" in page
    assert "m.a: 1 value from 187,300.0 to 187,300.0 MB" in client.get("/metrics/m.a").text
    with transaction(later.engine) as connection:
        assert [day.value for day in history.daily_readings(connection, ["m.a"], 30)["m.a"]] == [187_300.0]


def in_unit(flow: Flow, value: float, unit: str) -> None:
    """Record a reading of m.a in a unit other than the configured one."""
    measured = flow.measured({}, flow.claimed("m.a"))
    with transaction(flow.engine) as connection:
        record_run(connection, flow.config, replace(measured, readings={"m.a": Reading("m.a", value, unit, "exact")}))


def test_nothing_measured_yet_says_what_to_do(visit: Visit, make_config: MakeConfig) -> None:
    page = visit(make_config(), "ada").get("/").text
    assert (
        "Nothing has been measured yet." in page
        and "<code>dims verify</code>" in page
        and "<code>dims up</code>" in page
    )
    assert "All is well" not in page and "Needs attention" not in page
    assert counts_of(page)["new"] == 10 and len(metrics_of(page)) == 10


def test_a_metric_that_never_succeeded_shows_its_error(visit: Visit, config: Config, engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(
            text("UPDATE dims_metrics SET as_of = NULL, value = NULL, status = NULL, error = 'no access'")
        )
    attention = visit(config, "ada").get("/").text.split('id="tiles"')[0]
    assert "10 metrics are failing; 1 value waits for approval; 10 metrics were never measured." in attention
    assert attention.count("no access") == 1 and "and 5 more" in attention and "Last good reading never" in attention


def test_no_metric_configured_says_what_to_do(visit: Visit, tmp_path: Path) -> None:
    (tmp_path / "dims.yaml").write_text("sources: {}\n", encoding="utf-8")
    page = visit(load_config(tmp_path / "dims.yaml", {}, tmp_path), "ada").get("/").text
    assert "No metrics are configured." in page and "<code>dims init</code>" in page
    assert "<form class" not in page


def test_disabled_metrics_are_listed_at_the_end(visit: Visit, make_config: MakeConfig) -> None:
    config = make_config(more="  odd: {m: {source: lake, prefix: o/, measure: count, enabled: false}}\n")
    client = visit(config, "ada")
    page = client.get("/").text
    assert "odd.m" not in metrics_of(page) and 'href="/metrics/odd.m"' in page.split('class="disabled"')[1]
    assert 'href="/metrics/odd.m"' in client.get("/?q=odd").text
    assert 'href="/metrics/odd.m"' not in client.get("/?q=raw").text
    assert 'href="/metrics/odd.m"' not in client.get("/?q=odd&state=well").text


def test_signing_in_returns_to_the_filtered_overview(visit: Visit, config: Config) -> None:
    answer = visit(config).get("/?q=raw&state=well")
    assert answer.status_code == 303
    assert answer.headers["location"] == "/sign-in?next=/%3Fq%3Draw%26state%3Dwell"
    assert visit(config, read="anyone").get("/?q=raw&state=well").status_code == 200


def test_the_changing_parts_are_marked_for_refresh(visit: Visit, config: Config) -> None:
    def live(query: str) -> list[str | None]:
        """Return the ids of the parts that are refreshed, without the count in the menu and the stall warning."""
        return [
            attributes["id"]
            for _, attributes in Tags(visit(config, "ada").get(query).text).elements
            if "data-live" in attributes
        ][2:]

    assert live("/") == ["attention", "tiles", "c-raw", "c-parsed", "rendered"]
    assert live("/?q=raw") == ["inventory", "tiles", "rendered"]  # a category may appear or disappear


def test_with_many_metrics_only_categories_with_problems_are_unfolded(
    visit: Visit, make_config: MakeConfig, engine: Engine
) -> None:
    config = make_config(40)
    fill(engine, config, until=NOW, days=2)
    with engine.begin() as connection:
        connection.execute(text("UPDATE dims_approval_requests SET state = 'withdrawn' WHERE state = 'open'"))
        connection.execute(text("UPDATE dims_metrics SET status = 'ok', severity = 'none'"))
        connection.execute(
            text(
                "UPDATE dims_metrics SET error = NULL, failed_at = NULL, measured_gen = requested_gen "
                "WHERE metric LIKE 'parsed.%'"
            )
        )
    client = visit(config, "ada")

    def opened(query: str) -> dict[str | None, bool]:
        return {attributes["id"]: "open" in attributes for attributes in Tags(client.get(query).text).all("details")}

    assert opened("/") == {"d-raw": True, "d-parsed": False}
    assert opened("/?q=m1") == {"d-raw": True, "d-parsed": True}
    page = client.get("/").text
    failed = len(metrics_of(client.get("/?state=failed").text))
    assert failed and f'<span class="more">{failed} failing</span>' in page and len(metrics_of(page)) == 80


def test_a_critical_metric_is_marked_for_screen_readers(visit: Visit, config: Config) -> None:
    page = visit(config, "ada").get("/").text
    assert 'm0</a><span class="visually-hidden">, critical</span>' in page
    tables = page.partition('id="inventory"')[2]
    assert tables.count('<span class="visually-hidden">, critical</span>') == 2


@pytest.mark.parametrize("query", ["/", "/?q=shard&state=well"])
def test_two_hundred_metrics_cost_as_many_queries_as_ten(
    visit: Visit, make_config: MakeConfig, engine: Engine, query: str
) -> None:
    few = _queries(visit(make_config(5), "ada"), engine, query)
    config = make_config(100)
    fill(engine, config, until=NOW, days=2)
    client = visit(config, "ada")
    assert _queries(client, engine, query) == few == 11
    assert len(metrics_of(client.get(query).text)) > 180


def _queries(client: TestClient, engine: Engine, query: str) -> int:
    """Return the number of statements that a page sends."""
    sent: list[str] = []

    def note(_: object, __: object, statement: str, *___: object) -> None:
        sent.append(statement)

    event.listen(engine, "before_cursor_execute", note)
    try:
        assert client.get(query).status_code == 200
    finally:
        event.remove(engine, "before_cursor_execute", note)
    return len(sent)
