"""Markdown, JSON, CSV and HTML from the same inventory."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from html.parser import HTMLParser
from pathlib import Path

import pytest
from markupsafe import escape
from sqlalchemy import Engine, event, text

from dims_worker.config import Config, load_config
from dims_worker.reports import html, json_csv, markdown
from dims_worker.reports.inventory import InventoryReport, gather_report
from dims_worker.reports.templating import chip
from dims_worker.store.engine import transaction
from tests.integration.reports.conftest import HOSTILE

WEEK = timedelta(days=7)
ONE = """
sources: {lake: {type: s3, bucket: b}}
metrics: {s3_storage: {total_objects: {source: lake, measure: count}}}
"""


@pytest.fixture(scope="module")
def inventory(filled: Engine, year: Config) -> InventoryReport:
    with transaction(filled) as connection:
        return gather_report(connection, year, WEEK)


@contextmanager
def counted(engine: Engine) -> Iterator[list[str]]:
    """Yield the list of statements that the block runs."""
    run: list[str] = []

    def note(connection: object, cursor: object, statement: str, *_: object) -> None:
        run.append(statement)

    event.listen(engine, "before_cursor_execute", note)
    yield run
    event.remove(engine, "before_cursor_execute", note)


def test_the_number_of_queries_does_not_depend_on_the_number_of_metrics(
    filled: Engine, year: Config, tmp_path: Path
) -> None:
    (tmp_path / "dims.yaml").write_text(ONE, encoding="utf-8")
    made = []
    for config in (year, load_config(None, {}, tmp_path)):
        with counted(filled) as run, transaction(filled) as connection:
            assert gather_report(connection, config, WEEK).metrics
        made.append(len(run))
    assert made[0] == made[1] <= 22


def test_json_has_the_values_of_the_database(inventory: InventoryReport, filled: Engine, year: Config) -> None:
    document = json.loads(json_csv.render_json(inventory))
    metrics = {row["metric"]: row for category in document["categories"] for row in category["metrics"]}
    with filled.connect() as connection:
        rows = connection.execute(text("SELECT metric, value, baseline FROM dims_metrics")).fetchall()
    assert metrics.keys() == {row.metric for row in rows}
    for row in rows:
        if not year.metrics[row.metric].is_age:
            assert (metrics[row.metric]["value"], type(metrics[row.metric]["value"])) == (row.value, type(row.value))
            assert metrics[row.metric]["baseline"] == row.baseline
    assert document["health"]["waiting"] == ["s3_storage.total_objects"]
    assert len(document["health"]["failed"]) == 4
    assert all(80 < len(row["days"]) <= 90 for row in metrics.values())  # a day with a failure has none
    assert document["requests"][0]["decide"].startswith("dims approvals approve ")


def test_every_format_begins_with_the_number_of_open_incidents(inventory: InventoryReport) -> None:
    active = [reported.incident for reported in inventory.incidents]
    assert len(active) == 6 and sum(incident.state == "acknowledged" for incident in active) == 1
    sentence = "6 incidents are open, 1 of them acknowledged."
    assert inventory.sentence.startswith(f"{sentence} 4 metrics are failing; 1 value waits for approval")
    assert f'<p class="verdict">{sentence}' in html.render_page(inventory)
    assert json_csv.json_document(inventory)["verdict"].startswith(sentence)
    assert markdown.render_master(inventory).startswith(f"# Data inventory\n\n{sentence} ")


def test_open_incidents_come_first_and_then_those_that_ended_in_the_span(
    inventory: InventoryReport, filled: Engine
) -> None:
    with filled.connect() as connection:
        rows = connection.execute(text("SELECT id, state, closed_at FROM dims_incidents")).fetchall()
    active = {row.id for row in rows if row.state != "closed"}
    recent = {row.id for row in rows if row.state == "closed" and row.closed_at > inventory.since}
    listed = json_csv.json_document(inventory)["incidents"]
    assert {each["id"] for each in listed[: len(active)]} == active
    assert {each["id"] for each in listed[len(active) :]} == recent and recent
    page = html.render_page(inventory)
    section = page[page.index('<section id="incidents"') : page.index('<section id="waiting"')]
    numbers = [int(number) for number in re.findall(r"<tr><td(?: class=\"n\")?>(\d+)", section)]
    assert numbers == [each["id"] for each in listed]
    for ended in ("recovered", "drifted, acknowledged", "by grace"):
        assert ended in section
    document = markdown.render_master(inventory)
    assert all(f"\n| {number} | " in document for number in numbers)


def test_changes_are_the_accepted_drifts_the_largest_first(inventory: InventoryReport, filled: Engine) -> None:
    with filled.connect() as connection:
        query = (
            "SELECT metric, value FROM dims_metrics_history WHERE status = 'major' "
            "AND outcome IN ('accepted', 'approved') AND as_of > :since"
        )
        rows = connection.execute(text(query), {"since": inventory.since}).fetchall()
    changes = json_csv.json_document(inventory)["changes"]
    assert {(change["metric"], change["after"]) for change in changes} >= {(row.metric, row.value) for row in rows}
    sizes = [change["size"] for change in changes]
    assert rows and sizes == sorted(sizes, reverse=True)
    page = html.render_page(inventory)
    section = page[page.index('<section id="changes"') : page.index('<section id="categories"')]
    for change in changes:
        assert change["metric"] in section


def test_every_format_shows_the_label_and_the_sentence_of_the_health(inventory: InventoryReport) -> None:
    page, document = html.render_page(inventory), markdown.render_master(inventory)
    rows = {row["metric"]: row for row in csv.DictReader(io.StringIO(json_csv.render_csv(inventory)))}
    listed = {row["metric"]: row for each in json_csv.json_document(inventory)["categories"] for row in each["metrics"]}
    labels = set()
    for metric in inventory.metrics:
        health = metric.health
        labels.add(health.label)
        assert rows[metric.metric]["state"] == health.label == listed[metric.metric]["health"]["label"]
        assert rows[metric.metric]["sentence"].lstrip("'") == health.sentence == listed[metric.metric]["sentence"]
        if not health.healthy:
            assert str(chip(health.label)) in page
            assert str(escape(health.sentence)) in page
            assert health.label in document
    assert labels >= {"ok", "failing", "waits for approval"}


def test_csv_has_a_row_per_metric_and_no_formula(inventory: InventoryReport) -> None:
    rows = list(csv.DictReader(io.StringIO(json_csv.render_csv(inventory))))
    assert [row["metric"] for row in rows] == [metric.metric for metric in inventory.metrics]
    assert rows[0]["value"] == str(inventory.metrics[0].state.value)
    cells = [cell for row in rows for cell in row.values()]
    assert not [cell for cell in cells if re.match(r"[=+@\t\r]|-(?![\d.])", cell)]
    assert f"'{HOSTILE}" in cells


def test_markdown_changes_only_with_the_measurements(filled: Engine, year: Config) -> None:
    made = []
    for _ in range(2):
        with transaction(filled) as connection:
            made.append(markdown.render_documents(gather_report(connection, year, WEEK, from_newest=True)))
    assert made[0] == made[1]
    assert list(made[0]) == ["MASTER_DATA_INVENTORY.md", "DATA_COLLECTION_INVENTORY.md"]
    master, collection = made[0].values()
    titles = re.findall(r"^## (\w+)$", master, re.MULTILINE)
    categories = list(dict.fromkeys(name.partition(".")[0] for name in year.metrics))
    assert [title for title in titles if title in categories] == categories
    assert re.findall(r"^## (\w+)$", collection, re.MULTILINE) == [
        "espn_data",
        "hoopr_data",
        "basketball_reference_data",
    ]
    assert "script" in master
    assert not re.search(r"(?<!\\)(?:<script|[|]`x`)", master)


class Tags(HTMLParser):
    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.urls: list[str] = []
        self.texts: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.urls += [value or "" for name, value in attrs if name in ("src", "href", "action")]
        assert not [name for name, _ in attrs if name.startswith("on")]

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def test_the_html_is_small_loads_nothing_and_shows_hostile_texts_as_text(inventory: InventoryReport) -> None:
    page = html.render_page(inventory)
    assert len(page.encode()) < 2_000_000
    parsed = Tags(page)
    assert "script" not in parsed.tags
    assert not [url for url in parsed.urls if not url.startswith(("#", "data:"))]
    assert any(HOSTILE in part for part in parsed.texts)
    assert parsed.tags.count("svg") > len(inventory.metrics) / 2
    for metric in inventory.metrics:
        assert metric.name in page


def test_an_empty_database_has_a_report_too(engine: Engine, year: Config) -> None:
    with transaction(engine) as connection:
        empty = gather_report(connection, year, WEEK)
    assert "were never measured" in html.render_page(empty)
    assert "Nothing is measured" in markdown.render_master(empty)
    assert len(json_csv.render_csv(empty).splitlines()) == 1 + len(empty.metrics)
