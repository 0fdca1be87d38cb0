"""Test the output for builds. Texts with control characters or markup stay in their line and element."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from dims_worker.cli import ci_formats
from dims_worker.config import Config, load_config
from dims_worker.domain.run import RunReading

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
    assert ci_formats.level(item(**facts), "high") == level


def test_each_annotation_is_one_line_with_any_text(config: Config) -> None:
    items = [item(), item("lake.a,b:c", **FAILED, error=HOSTILE), item("lake.fine", severity="none", status="ok")]
    lines = list(ci_formats.github(config, items, NOW, "high", "run 1 ok: 100%"))
    assert lines == [
        "::warning title=lake.files::107 files, baseline 100 files, +7.0 %25: checked, baseline kept",
        "::error title=lake.a%2Cb%3Ac::could not be measured: "
        r"a\x0a::error::b\x0d%250A<x a='1'>]]>&\x00\xd800",
        "::notice title=dims verify::run 1 ok: 100%25",
    ]


def test_junit_is_valid_xml_with_any_text(config: Config) -> None:
    held = item(severity="high", outcome="held", reason=HOSTILE)
    failed = item("lake.lost", **FAILED, error=HOSTILE)
    written = ci_formats.junit(config, [item(), held, failed], NOW, "high", 1.5)
    root = ElementTree.fromstring(written.encode("utf-8"))
    assert root.attrib == {"tests": "3", "failures": "1", "errors": "1", "time": "1.500"}
    cases = root.findall("testsuite/testcase")
    names = [("lake", "files"), ("lake", "files"), ("lake", "lost")]
    assert [(case.get("classname"), case.get("name")) for case in cases] == names
    assert [[child.tag for child in case] for case in cases] == [["system-out"], ["failure"], ["error"]]
    failure, error = cases[1][0], cases[2][0]
    assert (failure.get("type"), failure.text) == ("held", r"a\x0a::error::b\x0d%0A<x a='1'>]]>&\x00\xd800")
    assert "could not be measured: a" in (error.get("message") or "")
