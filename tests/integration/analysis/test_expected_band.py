"""Test that the expected band of a real run is the same in explain, history, the API, the chart and suggest."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from datetime import timedelta

import pytest

from dims_worker.analysis.explanation import explain_metric
from dims_worker.config import load_config
from dims_worker.domain.approvers import Decider
from dims_worker.incidents.decisions import close_incident
from dims_worker.pipeline.record import record_run
from dims_worker.store import incidents
from dims_worker.store.engine import transaction
from dims_worker.text.explanation import explanation_document, explanation_lines
from dims_worker.web.trend_chart import trend_charts
from tests.conftest import Project
from tests.integration.helpers import Flow

CONFIG = """
sources:
  one: {type: files, path: one}
metrics:
  m:
    a: {source: one, measure: count}
    newest: {source: one, measure: newest_age}
rules:
  changed: {on: dims.files.changed}
"""
ADA = Decider("ada", "option")
STEADY = [1000 + 10 * n for n in range(30)]
DAY = timedelta(days=1)


@pytest.fixture
def flow(make_flow: Callable[[str], Flow]) -> Flow:
    return make_flow(CONFIG)


def serve_days(flow: Flow, values: Sequence[int | str]) -> None:
    """Record one accepted value of m.a a day, the last one today."""
    until = flow.clock()
    for days_ago, value in zip(range(len(values) - 1, -1, -1), values, strict=True):
        claim = flow.claimed("m.a")
        as_of = until - days_ago * DAY if days_ago else flow.clock()
        with transaction(flow.engine) as connection:
            record_run(connection, flow.config, flow.measured({"m.a": value}, claim, as_of), as_of)


def explained(flow: Flow, text: str | None = None) -> dict[str, list[str]]:
    """Return the sentences of `dims explain m.a` by topic."""
    config = flow.config
    if text is not None:
        (config.project / "dims.yaml").write_text(text)
        config = load_config(None, {}, config.project)
    with transaction(flow.engine) as connection:
        explanation = explain_metric(connection, config, "m.a")
    found: dict[str, list[str]] = {}
    topic = ""
    for name, sentence in explanation_lines(config, explanation):
        topic = name or topic
        found.setdefault(topic, []).append(sentence)
    return found


def band_of(flow: Flow) -> tuple[float, float]:
    state = flow.state("m.a")
    assert state.expected_low is not None
    assert state.expected_high is not None
    return state.expected_low, state.expected_high


def test_a_loss_is_explained_by_the_band_that_judged_it(flow: Flow) -> None:
    serve_days(flow, [*STEADY, 700])
    low, high = band_of(flow)
    assert 1290 == low < 1300 < high < 1350  # the last value, because the growth of a day may come late
    found = explained(flow)
    assert found["expected"][0] == f"{low:,.0f} to {high:,.0f} files, learned from 30 accepted daily values"
    last_day = (flow.clock() - DAY).date()
    parts = found["expected"][1].split("; ")
    assert parts[0] == f"the last of them is 1,290, of {last_day}"
    assert re.fullmatch(r"it usually changes by \+1[\d.]+ a day", parts[1])
    assert parts[2] == "when it changes, half of its steps are 10 or less"
    assert re.fullmatch(r"urgent: [\d.]+ band widths below the expected band", found["severity"][0])
    assert "policy" not in found


def test_the_explanation_computes_the_band_again_with_the_present_policy(flow: Flow) -> None:
    serve_days(flow, [*STEADY, 1200])
    found = explained(flow, CONFIG.replace("a: {", "a: {expect: drift, "))
    assert found["expected"] == ["none: expect = drift (metric) makes the drift alone count"]
    assert found["severity"] == ["medium: a moderate drift of a volatile metric (volatility: default)"]
    assert found["policy"][0].startswith(
        "or the expected band has changed since; the recorded verdict is moderate, urgent"
    )


def test_too_few_days_and_texts_have_no_band(flow: Flow) -> None:
    serve_days(flow, STEADY[:10])
    assert explained(flow)["expected"] == ["none: 9 of 14 accepted daily values, so the drift alone counts"]
    assert flow.state("m.a").expected_low is None
    serve_days(flow, ["synced"])
    assert explained(flow)["expected"] == ["none: the value is no number"]


def test_an_open_incident_does_not_teach_until_a_person_calls_it_expected(flow: Flow) -> None:
    serve_days(flow, [*STEADY, 700, 705, 710])
    with transaction(flow.engine) as connection:
        (incident,) = incidents.open_incidents(connection)
    found = explained(flow)
    assert found["expected"][0].endswith("learned from 30 accepted daily values")
    assert found["expected"][-1] == f"values of incident {incident.id} (open) do not teach"
    close_incident(
        flow.engine, flow.config, incident.id, version=incident.version, person=ADA, reason="moved to the archive"
    )
    found = explained(flow)
    assert found["expected"][0].endswith("learned from 32 accepted daily values")
    assert not any("do not teach" in sentence for sentence in found["expected"])


def test_every_output_has_the_same_band(flow: Flow, project: Project) -> None:
    serve_days(flow, [*STEADY, 700])
    low, high = band_of(flow)
    expected = f"{low:,.0f} to {high:,.0f}"
    project.write({"dims.yaml": CONFIG})
    table = project.dims("history", "m.a", "--table", check=True).stdout.splitlines()
    assert any(line.split()[:5] == ["as", "of", "run", "value", "expected"] for line in table)
    assert expected in next(line for line in table if " 700 files " in line)
    chart = project.dims("history", "m.a", "--chart", "--days", "31", check=True).stdout
    assert "░" in chart
    assert any(line.startswith("░ expected") and "■ 1 outside" in line for line in chart.splitlines())
    readings = json.loads(project.dims("history", "m.a", "--json", check=True).stdout)["readings"]
    assert (readings[-1]["expected_low"], readings[-1]["expected_high"]) == (low, high)
    assert readings[0]["expected_low"] is None
    with transaction(flow.engine) as connection:
        explanation = explain_metric(connection, flow.config, "m.a")
        svg = trend_charts(connection, flow.config, explanation.state, explanation.now, 30)
    document = explanation_document(flow.config, explanation)["expected"]
    assert (document["low"], document["high"], document["values"], document["why_none"]) == (low, high, 30, None)
    assert svg.count('class="expected"') == 3  # two sizes, and the legend
    assert svg.count(f"expected {expected}</title>") == 2


def test_history_without_a_band_has_no_column_for_it(flow: Flow, project: Project) -> None:
    serve_days(flow, STEADY[:5])
    project.write({"dims.yaml": CONFIG})
    assert "expected" not in project.dims("history", "m.a", "--table", check=True).stdout
    assert "expected" not in project.dims("history", "m.a", "--chart", check=True).stdout


def test_suggest_replays_an_incident_under_other_policies(flow: Flow, project: Project) -> None:
    serve_days(flow, [*STEADY, *range(1300, 1500, 10), 1430, 1510, 1520])
    project.write({"dims.yaml": CONFIG})
    with transaction(flow.engine) as connection:
        (incident,) = incidents.list_incidents(connection, limit=5, state="all")
    assert (incident.value, incident.resolution) == (1430, "recovered")
    lines = project.dims("suggest", "m.a", check=True).stdout.splitlines()
    table = {line[4:27].strip(): line[27:].split(maxsplit=2) for line in lines if line.startswith("    ")}
    assert table["the current one"] == ["2", "0", "none"]
    assert table["expect: drift"] == ["0", "0", f"incident {incident.id} (recovered)"]
    (document,) = json.loads(project.dims("suggest", "m.a", "--json", check=True).stdout)["suggestions"]
    policies = {json.dumps(each["changes"]): each for each in document["replay"]["policies"]}
    assert policies["{}"]["missed"] == []
    (missed,) = policies['{"expect": "drift"}']["missed"]
    assert missed == {"kind": "incident", "number": incident.id, "result": "recovered", "value": 1430}


def test_the_report_draws_the_band(flow: Flow, project: Project) -> None:
    serve_days(flow, [*STEADY, 700])
    project.write({"dims.yaml": CONFIG})
    html = project.dims("report", "html", check=True).stdout
    assert html.count('class="expected"') == 2  # the chart of m.a, and the legend
    assert html.count('class="outside"') == 2


# --- what teaches

WEEK = [2, 11, 6, 9, 14, 1, 0]
"""A flow: commits of seven days. Each day is a drift from the day before."""


def teaching_sentence(flow: Flow) -> str:
    return explained(flow)["expected"][0]


def test_a_flow_that_drifts_every_day_gets_a_band(flow: Flow) -> None:
    serve_days(flow, [value + n * 5 % 3 for n, value in enumerate(WEEK * 4)])
    low, high = band_of(flow)
    assert low < 2 < high < 60
    assert teaching_sentence(flow).endswith("learned from 27 accepted daily values")


def test_a_flow_learns_from_a_drift_that_recovered(flow: Flow) -> None:
    serve_days(flow, [*WEEK * 6, 2, 90, 6, 9, 14, 1, 0])
    with transaction(flow.engine) as connection:
        known = incidents.list_incidents(connection, limit=50, state="all")
    (spike,) = [each for each in known if each.low is not None]
    assert (spike.value, spike.resolution) == (90, "recovered")
    assert teaching_sentence(flow).endswith("learned from 48 accepted daily values")
    assert not any("do not teach" in sentence for sentence in explained(flow)["expected"])


def test_a_stock_does_not_learn_from_a_loss_that_was_repaired(flow: Flow) -> None:
    serve_days(flow, [*STEADY, 700, 1310, 1320])
    assert teaching_sentence(flow).endswith("learned from 31 accepted daily values")
    assert "(recovered) do not teach" in explained(flow)["expected"][-1]


def test_an_early_loss_of_a_stock_lasts_and_does_not_teach(flow: Flow) -> None:
    serve_days(flow, [40, 40, *[1] * 20])
    assert teaching_sentence(flow).startswith("none: 2 of 14 accepted daily values")
    with transaction(flow.engine) as connection:
        (incident,) = incidents.open_incidents(connection)
    assert (incident.anchor, incident.state, incident.low) == (40, "open", None)
