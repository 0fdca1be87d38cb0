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
from sqlalchemy import Engine, event, text

from dims_worker.config import Config, load_config
from dims_worker.reports import html, json_csv, markdown
from dims_worker.reports.inventory import InventoryReport, gather_report
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
