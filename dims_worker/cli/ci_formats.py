"""Format the readings of `dims verify` for a build: as workflow commands of GitHub, and as JUnit XML.

Formats: https://docs.github.com/actions/reference/workflows-and-actions/workflow-commands and
https://github.com/testmoapp/junitxml (the parts that every reader supports).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Literal
from xml.etree import ElementTree

from dims_worker.config import Config
from dims_worker.domain.decide import SEVERITIES, Severity, at_least
from dims_worker.domain.run import RunReading
from dims_worker.formatting import escape_control, format_drift, format_value
from dims_worker.text.readings import broken_limit_text, done_text

Level = Literal["error", "failure", "drift", "fine"]


def level(item: RunReading, fail_on: Severity) -> Level:
    """Return what a reading means for a build.

    `error`: it could not be measured. `failure`: it is held, or its drift is at or above `fail_on`. `drift`: its drift
    is below `fail_on`.
    """
    if item.method == "failed":
        return "error"
    severity = next((name for name in SEVERITIES if name == item.severity), SEVERITIES[0])
    if item.outcome == "held" or at_least(severity, fail_on):
        return "failure"
    return "fine" if severity == SEVERITIES[0] else "drift"


def annotation_text(config: Config, item: RunReading, now: datetime) -> str:
    """Return one line: `12 files, baseline 10 files, +20.0 %: accepted`."""
    if item.method == "failed":
        return f"could not be measured: {escape_control(item.error)}"
    metric = config.metrics.get(item.metric)
    value, baseline = (format_value(each, item.unit, metric, now) for each in (item.value, item.baseline))
    comparison = f", baseline {baseline}, {format_drift(item.value, item.baseline, item.drift_pct)}"
    done = done_text(item, broken_limit_text(config, item))
    return f"{value}{comparison if item.drift_pct is not None else ''}: {done}"


def github(
    config: Config, items: Sequence[RunReading], now: datetime, fail_on: Severity, summary: str
) -> Iterator[str]:
    """Yield an annotation for each metric with a problem, then the summary as a notice."""
    commands = {"error": "error", "failure": "error", "drift": "warning"}
    for item in items:
        if (item_level := level(item, fail_on)) != "fine":
            text = _data(annotation_text(config, item, now))
            yield f"::{commands[item_level]} title={_property(item.metric)}::{text}"
    yield f"::notice title=dims verify::{_data(summary)}"


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")


def junit(config: Config, items: Sequence[RunReading], now: datetime, fail_on: Severity, seconds: float) -> str:
    """Return XML with a test case for each metric, whose class is its category. `seconds` is the total duration."""
    levels = [level(item, fail_on) for item in items]
    totals = {
        "tests": str(len(items)),
        "failures": str(levels.count("failure")),
        "errors": str(levels.count("error")),
        "time": f"{seconds:.3f}",
    }
    suites = ElementTree.Element("testsuites", totals)
    stamp = now.astimezone(UTC).isoformat(timespec="seconds")
    suite = ElementTree.SubElement(suites, "testsuite", {"name": "dims verify", "timestamp": stamp, **totals})
    for item, item_level in zip(items, levels, strict=True):
        category, _, name = escape_control(item.metric).partition(".")
        case = ElementTree.SubElement(suite, "testcase", {"classname": category, "name": name})
        line = annotation_text(config, item, now)
        if item_level in ("error", "failure"):
            kind = "failed" if item_level == "error" else item.outcome
            problem = ElementTree.SubElement(case, item_level, {"message": line, "type": kind})
            problem.text = escape_control(item.reason or line)
        else:
            ElementTree.SubElement(case, "system-out").text = line
    ElementTree.indent(suites)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(suites, encoding="unicode")
