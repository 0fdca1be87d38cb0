"""Numbers of more than 15 digits, from a query to every output and back."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import openpyxl
import pytest
from sqlalchemy import Engine, text

from dims_worker.approvals.decisions import BaselineInput, set_baselines
from dims_worker.domain.approvers import Decider
from dims_worker.errors import UsageError
from dims_worker.notebook.frames import NotebookData
from dims_worker.probes.base import Deadline
from dims_worker.probes.scan import scan_source
from dims_worker.reports import excel, html, json_csv, markdown
from dims_worker.reports.inventory import gather_report
from dims_worker.reports.prometheus import PrometheusCollector
from dims_worker.store.engine import new_engine, transaction
from dims_worker.text.json_documents import json_text, metric_documents
from dims_worker.web.api.responses import JsonResponse
from tests.integration.helpers import Flow

LONG = 12345678901234567890123456789012345678
EXPONENT = Decimal("10000000000.1234567890123456789")
CONFIG = """
sources: {{db: {{type: sql, url: "{url}"}}}}
metrics:
  m:
    long: {{source: db, query: "SELECT 12345678901234567890123456789012345678::numeric", critical: true}}
    fraction: {{source: db, query: "SELECT 10000000000.1234567890123456789"}}
    price: {{source: db, query: "SELECT 12.50::numeric(12, 2)", unit: USD, critical: true}}
    big: {{source: db, query: "SELECT 9223372036854775807", critical: true}}
    plain: {{source: db, query: "SELECT 0.25"}}
    next: {{derive: "m.long + 1"}}
    total: {{derive: "m.price * 3 + m.plain"}}
    third: {{derive: "m.price / 3"}}
rules: {{}}
"""
VALUES = {
    "m.big": 9223372036854775807,
    "m.fraction": EXPONENT,
    "m.long": LONG,
    "m.next": LONG + 1,
    "m.plain": 0.25,
    "m.price": Decimal("12.50"),
    "m.third": 4.166666666666667,
    "m.total": 37.75,
}


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    """An engine as DIMS has it: it reads JSON without losing a digit."""
    engine = new_engine(database_url, "dims")
    yield engine
    engine.dispose()


@pytest.fixture
def flow(make_flow: Callable[[str], Flow], database_url: str) -> Flow:
    """A configuration whose queries were measured and recorded."""
    flow = make_flow(CONFIG.format(url=database_url))
    config = flow.config
    queried = {name: config.metrics[name] for name in config.metrics_by_source["db"]}
    scanned, error = scan_source(config, "db", queried, Deadline.after(timedelta(seconds=30)))
    assert error is None
    flow.record(flow.claimed(*queried), {each.metric: each.value for each in scanned.readings})
    return flow


def written(values: dict[str, Any]) -> dict[str, tuple[type, str]]:
    return {name: (type(value), str(value)) for name, value in values.items()}


def test_values_keep_their_digits_in_the_database(flow: Flow, engine: Engine) -> None:
    assert written({name: flow.state(name).value for name in VALUES}) == written(VALUES)
    with engine.connect() as connection:
        rows = connection.execute(text("SELECT metric, value_number::text FROM dims_metrics_latest"))
        assert dict(row for row in rows)["m.fraction"] == str(EXPONENT)


def test_json_has_all_digits(flow: Flow, engine: Engine) -> None:
    with transaction(engine) as connection:
        documents = metric_documents(connection, flow.config, sorted(VALUES))
    with transaction(engine) as connection:
        report = json_csv.render_json(gather_report(connection, flow.config, timedelta(days=7)))
    for document in (json_text(documents), JsonResponse(documents).body.decode(), report):
        for digits in (str(LONG), str(LONG + 1), str(EXPONENT), "12.50", "9223372036854775807", "37.75"):
            assert digits in document
    read = json.loads(json_text(documents), parse_float=Decimal)
    assert {each["metric"]: each["value"] for each in read}["m.fraction"] == EXPONENT


def test_files_have_all_digits(flow: Flow, engine: Engine, tmp_path: Path) -> None:
    path = tmp_path / "inventory.xlsx"
    with transaction(engine) as connection:
        report = gather_report(connection, flow.config, timedelta(days=7))
        excel.write_workbook(connection, report, path)
        table = json_csv.render_csv(report)
    page, document = html.render_page(report), markdown.render_master(report)
    assert f"{LONG + 1:,}" in page and f"{LONG + 1:,}" in document and "12.5 USD" in document
    head, *others = openpyxl.load_workbook(path)["latest"].iter_rows(values_only=True)
    cells = {row[head.index("metric")]: row[head.index("value")] for row in others}
    assert (cells["m.long"], cells["m.fraction"], cells["m.big"]) == (str(LONG), str(EXPONENT), "9223372036854775807")
    assert (cells["m.price"], cells["m.plain"]) == (12.5, 0.25)  # up to 15 digits, a number to calculate with
    lines = {row["metric"]: row["value"] for row in csv.DictReader(io.StringIO(table))}
    assert (lines["m.long"], lines["m.fraction"], lines["m.price"]) == (str(LONG), str(EXPONENT), "12.50")


def test_the_notebook_and_prometheus_have_numbers(
    flow: Flow, engine: Engine, database_url: str, broker_url: str
) -> None:
    latest = NotebookData(flow.config, engine).latest().set_index("metric")
    assert latest.loc["m.fraction", "value"] == EXPONENT and latest.loc["m.price", "number"] == 12.5
    families = {family.name: family for family in PrometheusCollector(flow.config, database_url, broker_url).collect()}
    samples = {each.labels["metric"]: each.value for each in families["dims_metric_value"].samples}
    assert samples["m.price"] == 12.5 and samples["m.long"] == float(LONG)


def test_a_drift_of_the_last_digit_is_a_drift(flow: Flow) -> None:
    changed = {"long": LONG + 1, "price": Decimal("12.51"), "big": 9223372036854775806, "fraction": EXPONENT}
    items = flow.serve(**changed)
    assert {name: (items[name].status, items[name].outcome) for name in sorted(items)} == {
        "m.big": ("minor", "accepted"),
        "m.fraction": ("ok", "accepted"),
        "m.long": ("minor", "accepted"),
        "m.next": ("minor", "accepted"),
        "m.price": ("minor", "accepted"),
        "m.third": ("minor", "accepted"),
        "m.total": ("minor", "accepted"),
    }
    assert items["m.price"].drift_pct == pytest.approx(0.08)
    held = flow.serve(price=Decimal("15.00"), long=LONG)
    assert (held["m.price"].outcome, held["m.long"].status) == ("held", "minor")
    same = flow.serve(long=LONG, price=12.51)
    assert (same["m.price"].status, same["m.long"].status) == ("ok", "ok")


def test_a_baseline_by_hand_keeps_its_digits(flow: Flow, engine: Engine) -> None:
    person = Decider("ana", "option")
    set_baselines(engine, flow.config, [BaselineInput("m.fraction", EXPONENT + 1, "by hand")], person)
    assert flow.state("m.fraction").baseline == EXPONENT + 1
    refused = {"not a measurement": Decimal("1e400"), "more than 64 KiB": "x" * 65537, "cannot contain NUL": "a\0b"}
    for reason, value in refused.items():
        with pytest.raises(UsageError, match=reason):
            set_baselines(engine, flow.config, [BaselineInput("m.fraction", value, "by hand")], person)
