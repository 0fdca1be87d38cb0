"""Test the output for builds. Texts with control characters or markup stay in their line and element."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from dims_worker.cli import ci_formats
from dims_worker.cli.verify_result import VerifiedMetric, VerifyResult
from dims_worker.config import Config, load_config
from dims_worker.domain.decide import Judge
from dims_worker.domain.health import HealthInputs, health_of
from dims_worker.domain.run import Run, RunReading
from dims_worker.store.incidents import Incident
from dims_worker.store.metric_states import MetricState

NOW = datetime(2026, 11, 26, tzinfo=UTC)
HOSTILE = "a\n::error::b\r%0A<x a='1'>]]>&\x00\ud800"


def item(metric: str = "lake.files", **facts: Any) -> RunReading:
    defaults: dict[str, Any] = {
        "value": 107,
        "unit": "files",
        "method": "exact",
        "as_of": NOW,
        "outcome": "looked",
        "status": "moderate",
        "severity": "medium",
        "baseline": 100,
        "drift_pct": 7.0,
    }
    return RunReading(metric=metric, **(defaults | facts))


@pytest.fixture
def config(tmp_path: Path) -> Config:
    (tmp_path / "dims.yaml").write_text(
        "sources: {here: {type: files, path: .}}\nmetrics: {lake: {files: {source: here, measure: count}}}\n"
    )
    return load_config(None, {}, tmp_path)


FAILED = {"method": "failed", "outcome": "failed", "value": None, "severity": None, "drift_pct": None}


def verified(reading: RunReading | None, *incidents: Incident, state: dict[str, Any] | None = None) -> VerifiedMetric:
    """Return a measured metric whose row has the columns `state`, with the health that follows from them."""
    good = {"value": 107, "baseline": 107, "as_of": NOW, "baseline_as_of": NOW, "status": "ok", "severity": "none"}
    name = reading.metric if reading else "lake.files"
    known = MetricState(name, "here", **(good | (state or {})))
    health = health_of(HealthInputs(known, incidents, Judge(), True, timedelta(hours=1)), NOW)
    return VerifiedMetric(name, health, reading, "high")


def incident(kind: str = "drift", **columns: Any) -> Incident:
    values = {"id": 7, "metric": "lake.files", "kind": kind, "state": "open", "severity": "high", "flaps": 0}
    values |= {"reason": "down 33 %", "value": 70, "anchor": 105, "anchor_as_of": NOW, "opened_at": NOW, "request": 4}
    return Incident(**(dict.fromkeys(Incident.__slots__) | values | columns))


def result(config: Config, *metrics: VerifiedMetric) -> VerifyResult:
    items = tuple(each.reading for each in metrics if each.reading)
    run = Run(1, "verify", "here", "ok", NOW, NOW + timedelta(seconds=1.5), 0, items)
    return VerifyResult(config, [run], metrics, "high", NOW)


@pytest.mark.parametrize(
    ("facts", "level"),
    [
        ({"severity": "none", "status": "ok", "drift_pct": 0.0}, "fine"),
        ({"severity": None, "status": "new", "drift_pct": None}, "fine"),
        ({"severity": "low"}, "drift"),
        ({"severity": "medium"}, "drift"),
        ({"severity": "high"}, "failure"),
        ({"severity": "urgent"}, "failure"),
        ({"severity": "low", "outcome": "held"}, "failure"),
        ({**FAILED, "error": "unreachable"}, "error"),
        ({**FAILED, "error": "unreachable", "outcome": "superseded"}, "error"),
    ],
)
def test_the_level_of_a_reading(facts: dict[str, Any], level: str) -> None:
    assert verified(item(**facts)).level == level


FINE = {"severity": "none", "status": "ok", "drift_pct": 0.0, "baseline": 107, "outcome": "accepted"}


@pytest.mark.parametrize(
    ("metric", "level", "reasons"),
    [
        (verified(item(**FINE)), "fine", []),
        (verified(item(**FINE), incident()), "failure", ["high incident 7 is open"]),
        (verified(None, incident()), "failure", ["high incident 7 is open"]),
        (verified(item(**FINE), incident(state="acknowledged")), "failure", ["high incident 7 is acknowledged"]),
        (verified(item(**FINE), incident(severity="medium")), "drift", []),
        (verified(item(**FINE), incident("approval", severity="low")), "failure", ["request 4"]),
        (verified(item(**(FINE | {"severity": "high"}))), "failure", ["severity high"]),
    ],
)
def test_an_open_incident_fails_a_run_whatever_its_reading_is(
    config: Config, metric: VerifiedMetric, level: str, reasons: list[str]
) -> None:
    assert (metric.level, metric.reasons) == (level, reasons)
    found = result(config, metric)
    assert found.exit_code == int(level == "failure")
    summary = found.summary()
    assert (f"exit code 1: lake.files ({metric.health.label}: {reasons[0]})" in summary) if reasons else True
    assert ("exit code" in summary) == bool(reasons)
    assert list(ci_formats.github(found))[-1].endswith(summary.replace("%", "%25"))
    assert ElementTree.fromstring(ci_formats.junit(found)).findtext("testsuite/system-out") == summary
    assert found.document()["exit_reason"] == (summary.partition("; ")[2] or None)


def test_the_summary_names_at_most_three_metrics(config: Config) -> None:
    failing = [verified(item(f"lake.n{number}", **(FINE | {"severity": "high"}))) for number in range(5)]
    assert result(config, *failing).exit_reason().endswith("lake.n2 (ok: severity high) and 2 more")


def test_what_could_not_be_measured_comes_before_the_other_reasons(config: Config) -> None:
    failed = verified(item("lake.lost", **FAILED, error="unreachable"), state={"error": "unreachable"})
    found = result(config, verified(item(**FINE), incident()), failed)
    assert (found.exit_code, found.exit_reason()) == (3, "exit code 3: lake.lost (failing)")


def test_each_annotation_is_one_line_with_any_text(config: Config) -> None:
    failed = verified(item("lake.a,b:c", **FAILED, error=HOSTILE), state={"error": HOSTILE})
    fine = verified(item("lake.fine", **FINE))
    lines = list(ci_formats.github(result(config, verified(item()), failed, fine)))
    assert lines == [
        "::warning title=lake.files::107 files, baseline 100 files, +7.0 %25: ok; checked, baseline kept",
        r"::error title=lake.a%2Cb%3Ac::failing: a\x0a::error::b\x0d%250A<x a='1'>]]>&\x00\xd800",
        "::notice title=dims verify::run 1 ok: 3 metrics in 1.5 s: 2 ok, 1 failing; exit code 3: lake.a,b:c (failing)",
    ]


def test_junit_is_valid_xml_with_any_text(config: Config) -> None:
    held = verified(item(severity="high", outcome="held", reason=HOSTILE), incident("approval", reason=HOSTILE))
    failed = verified(item("lake.lost", **FAILED, error=HOSTILE), state={"error": HOSTILE})
    written = ci_formats.junit(result(config, verified(item()), held, failed))
    root = ElementTree.fromstring(written.encode("utf-8"))
    assert root.attrib == {"tests": "3", "failures": "1", "errors": "1", "time": "1.500"}
    cases = root.findall("testsuite/testcase")
    names = [("lake", "files"), ("lake", "files"), ("lake", "lost")]
    assert [(case.get("classname"), case.get("name")) for case in cases] == names
    assert [[child.tag for child in case] for case in cases] == [["system-out"], ["failure"], ["error"]]
    failure, error = cases[1][0], cases[2][0]
    hostile = r"a\x0a::error::b\x0d%0A<x a='1'>]]>&\x00\xd800"
    assert (failure.get("type"), failure.text) == ("waits for approval", hostile)
    assert "failing: a" in (error.get("message") or "")
