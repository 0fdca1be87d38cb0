"""Every output counts the same metrics, requests and events, or its words say how the questions differ."""

from __future__ import annotations

import csv
import io
import json
import re
from datetime import timedelta

import openpyxl
import pytest
from prometheus_client import CollectorRegistry
from sqlalchemy import Engine

from dims_worker.analysis.explanation import explain_request
from dims_worker.config import load_config
from dims_worker.notebook.figures import health_chart
from dims_worker.notebook.frames import NotebookData
from dims_worker.reports.excel import write_workbook
from dims_worker.reports.html import render_page
from dims_worker.reports.inventory import gather_report
from dims_worker.reports.json_csv import json_document, render_csv
from dims_worker.reports.markdown import render_master
from dims_worker.reports.prometheus import PrometheusCollector
from dims_worker.reports.templating import chip
from dims_worker.store.engine import transaction
from dims_worker.store.incidents import count_open
from tests.conftest import Project
from tests.integration.helpers import Down, Flow
from tests.integration.web.conftest import Visit, visit  # noqa: F401 - a fixture

METRICS = {
    "ok": "{source: one, measure: count}",
    "held": "{source: one, measure: count, critical: true}",
    "drifted": "{source: one, measure: count}",
    "limit": "{source: one, measure: count, max: 5}",
    "failed": "{source: one, measure: count}",
    "due": "{source: one, measure: count}",
    "never": "{source: one, measure: count}",
    "sum": "{derive: m.ok + m.due}",
    "off": "{source: one, measure: count, enabled: false}",
    "off_failed": "{source: one, measure: count, enabled: false}",
    "retired": "{source: one, measure: count}",
}
COUNTED = 8
"""The enabled metrics, after one is retired."""


def _config(*names: str) -> str:
    listed = "".join(f"    {name}: {METRICS[name]}\n" for name in names)
    return (
        "sources:\n  one: {type: files, path: one}\n"
        f"metrics:\n  m:\n{listed}"
        "workflows:\n  file_inventory: {source: one}\n"
        "rules:\n  scraped: {on: dims.scraper.complete, metrics: [m.ok]}\n"
    )


@pytest.fixture
def flow(project: Project, engine: Engine) -> Flow:
    """A project with a metric in every state. Another worker has retired one of them."""
    project.write({"dims.yaml": _config(*METRICS)})
    first = Flow(engine, project.config)
    first.serve(ok=1, due=1, held=100, drifted=100, limit=1, off=1, off_failed=1, retired=1, failed=1)
    for _ in range(3):
        first.serve(ok=1, held=150, drifted=110, limit=6, failed=Down("gone"), off_failed=Down("gone"))
    first.serve(drifted=50)
    first.ask("m.due")
    project.write({"dims.yaml": _config(*(name for name in METRICS if name != "retired"))})
    return Flow(engine, load_config(None, project.env, project.folder), first=False)


def _page(flow: Flow, visit: Visit) -> dict[str, int]:  # noqa: F811
    """Return the numbers on the tiles of the dashboard, and those of the filters that have no tile."""
    client = visit(flow.config, "ada")
    counts = {
        state: int(n) for state, n in re.findall(r'href="/\?state=(\w+)"[^>]*><b>(\d+)</b>', client.get("/").text)
    }
    for state in ("well", "unmeasured"):
        total = re.search(r"<b>(\d+)</b> of (\d+) metrics \((\d+) disabled", client.get(f"/?state={state}").text)
        assert total
        counts |= {state: int(total[1]), "metrics": int(total[2]), "disabled": int(total[3])}
    return counts


def test_every_output_has_the_same_totals(
    flow: Flow,
    project: Project,
    visit: Visit,  # noqa: F811
    broker_url: str,
) -> None:
    page = _page(flow, visit)
    assert page == {
        "metrics": COUNTED,
        "disabled": 2,
        "failing": 1,
        "waiting": 1,
        "limit": 1,
        "drifted": 2,  # with the one beyond its limit, whose value rose from 1 to 6
        "stale": 0,
        "overdue": 0,
        "new": 2,  # with the unmeasured one
        "unmeasured": 1,
        "due": 2,  # with the failing one
        "ok": 2,
        "well": 3,  # with the new one
    }

    status = json.loads(project.dims("status", "--json").stdout)["numbers"]
    assert (status["metrics"], status["disabled"], status["workflows"]) == (COUNTED, 2, 2)
    assert [len(status[key]) for key in ("failed", "drifted", "stale")] == [1, page["drifted"], 0]
    assert (status["due"], status["requests"]) == (page["due"], page["waiting"])

    with transaction(flow.engine) as connection:
        report = gather_report(connection, flow.config, timedelta(days=7))
    assert f"{COUNTED} metrics in 1 category, 2 disabled." in render_master(report)
    health = json_document(report)["health"]
    assert (health["metrics"], health["disabled"], health["well"]) == (COUNTED, 2, page["well"])
    names = {"limit": "beyond limits", "failing": "failed"}
    states = ("waiting", "failing", "limit", "stale", "overdue", "drifted", "unmeasured", "due")
    assert [len(health[names.get(state, state)]) for state in states] == [page[state] for state in states]

    latest = NotebookData(flow.config, flow.engine).latest()
    assert len(latest) == COUNTED and latest["well"].sum() == page["well"]
    assert latest["request"].notna().sum() == page["waiting"] and (latest["flag"] == "failing").sum() == page["failing"]
    assert f"{page['well']} of {COUNTED} metrics are well" in health_chart(latest).layout.title.text

    with visit(flow.config, "ada") as api:
        listed = api.get("/api/metrics").json()["items"]
        assert (sum(each["enabled"] for each in listed), len(listed)) == (COUNTED, COUNTED + 2)
        assert {state: len(api.get(f"/api/metrics?state={state}").json()["items"]) for state in states} == {
            state: page[state] for state in states
        }

    registry = CollectorRegistry()
    url = project.env["DIMS_DATABASE_URL"]
    registry.register(PrometheusCollector(flow.config, url, broker_url))
    assert registry.get_sample_value("dims_metrics", {"state": "enabled"}) == COUNTED
    assert registry.get_sample_value("dims_metrics", {"state": "disabled"}) == 2
    assert registry.get_sample_value("dims_approvals_pending") == page["waiting"]
    with transaction(flow.engine) as connection:
        counted = count_open(connection)
    labels = [{"kind": kind, "severity": severity} for kind, severity in counted]
    assert (
        counted
        and {tuple(each.values()): registry.get_sample_value("dims_incidents_open", each) for each in labels} == counted
    )
    assert len(report.incidents) == sum(counted.values())
    assert len(NotebookData(flow.config, flow.engine).incidents()) == sum(counted.values())
    failed = [
        sample for metric in registry.collect() for sample in metric.samples if sample.name == "dims_metric_failed"
    ]
    assert (len(failed), sum(sample.value for sample in failed)) == (COUNTED, page["failing"])


def test_every_output_shows_the_same_state_of_a_metric(flow: Flow, project: Project, broker_url: str) -> None:
    with transaction(flow.engine) as connection:
        report = gather_report(connection, flow.config, timedelta(days=7))
    labels = {metric.metric: metric.health.label for metric in report.metrics}
    assert labels == {
        "m.ok": "ok",
        "m.held": "waits for approval",
        "m.drifted": "lost",
        "m.limit": "beyond its limit",
        "m.failed": "failing",
        "m.due": "new",
        "m.never": "not measured yet",
        "m.sum": "ok",
    }
    rows = csv.DictReader(io.StringIO(render_csv(report)))
    assert {row["metric"]: row["state"] for row in rows} == labels
    latest = NotebookData(flow.config, flow.engine).latest()
    assert dict(zip(latest["metric"], latest["state"], strict=True)) == labels
    registry = CollectorRegistry()
    registry.register(PrometheusCollector(flow.config, project.env["DIMS_DATABASE_URL"], broker_url))
    (family,) = [family for family in registry.collect() if family.name == "dims_metric_health"]
    shown = {sample.labels["metric"]: sample.labels["label"] for sample in family.samples}
    # A disabled metric is off, unless it has an incident
    assert shown == labels | {"m.off": "off", "m.off_failed": "failing"}
    write_path = project.folder / "book.xlsx"
    with transaction(flow.engine) as connection:
        write_workbook(connection, gather_report(connection, flow.config, timedelta(days=7)), write_path)
    sheet = openpyxl.load_workbook(write_path)["latest"]
    head, *cells = sheet.iter_rows(values_only=True)
    metric, state = head.index("metric"), head.index("state")
    assert {row[metric]: row[state] for row in cells} == labels
    page, document = render_page(report), render_master(report)
    for name, label in labels.items():
        row = "| **`held`**" if name == "m.held" else f"| `{name.partition('.')[2]}`"
        assert label in next(line for line in document.splitlines() if line.startswith(row)), name
        assert str(chip(label)) in page


def test_every_output_counts_the_same_events_of_a_request(flow: Flow, project: Project, visit: Visit) -> None:  # noqa: F811
    request = flow.open("m.held")
    assert request is not None
    number = len(flow.rows("SELECT FROM dims_event_log WHERE 'm.held' = ANY(metrics)"))
    assert number == 4
    with transaction(flow.engine) as connection:
        evidence, _ = explain_request(connection, flow.config, request)
    assert evidence is not None and evidence.reported.number == (request.evidence or {})["events"] == 1
    page = visit(flow.config, "ada").get(f"/requests/{request.id}").text
    assert re.findall(r"(\d+) (?:events? )?between the", page) == ["1", "1"]
    shown = project.dims("approvals", "show", str(request.id)).stdout
    explained = project.dims("explain", "m.held").stdout
    assert "1 event between the baseline" in shown and "1 event between the baseline" in explained
