"""What a build reads of a look: GitHub's workflow commands, and JUnit's XML.

Formats: https://docs.github.com/actions/reference/workflows-and-actions/workflow-commands and
https://github.com/testmoapp/junitxml (the parts that all readers know).
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
from dims_worker.text.readings import done_text

Level = Literal["error", "failure", "drift", "fine"]


def level(item: RunReading, fail_on: Severity) -> Level:
    """`error`: it could not be measured; `failure`: it was held, or drifted so far that the build fails; `drift`:
    less than that."""
    if item.method == "failed":
        return "error"
    severity = next((one for one in SEVERITIES if one == item.severity), SEVERITIES[0])
    if item.outcome == "held" or at_least(severity, fail_on):
        return "failure"
    return "fine" if severity == SEVERITIES[0] else "drift"


def annotation_text(config: Config, item: RunReading, now: datetime) -> str:
    """One line: `12 files, baseline 10 files, +20.0 %: looked, baseline kept`."""
    if item.method == "failed":
        return f"could not be measured: {escape_control(item.error)}"
    metric = config.metrics.get(item.metric)
    value, baseline = (format_value(one, item.unit, metric, now) for one in (item.value, item.baseline))
    against = f", baseline {baseline}, {format_drift(item.value, item.baseline, item.drift_pct)}"
    return f"{value}{against if item.drift_pct is not None else ''}: {done_text(item)}"


def github(
    config: Config, items: Sequence[RunReading], now: datetime, fail_on: Severity, summary: str
) -> Iterator[str]:
    """An annotation for each metric that is not fine, and the summary as a notice."""
    names = {"error": "error", "failure": "error", "drift": "warning"}
    for item in items:
        if (found := level(item, fail_on)) != "fine":
            yield f"::{names[found]} title={_property(item.metric)}::{_data(annotation_text(config, item, now))}"
    yield f"::notice title=dims verify::{_data(summary)}"


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")


def junit(config: Config, items: Sequence[RunReading], now: datetime, fail_on: Severity, seconds: float) -> str:
    """A test case for each metric, its category as the class. `seconds`: of all of it."""
    levels = [level(item, fail_on) for item in items]
    totals = {
        **{"tests": str(len(items)), "failures": str(levels.count("failure")), "errors": str(levels.count("error"))},
        **{"time": f"{seconds:.3f}"},
    }
    suites = ElementTree.Element("testsuites", totals)
    stamp = now.astimezone(UTC).isoformat(timespec="seconds")
    suite = ElementTree.SubElement(suites, "testsuite", {"name": "dims verify", "timestamp": stamp, **totals})
    for item, found in zip(items, levels, strict=True):
        category, _, name = item.metric.partition(".")
        case = ElementTree.SubElement(
            suite, "testcase", {"classname": escape_control(category), "name": escape_control(name)}
        )
        line = annotation_text(config, item, now)
        if found in ("error", "failure"):
            kind = "failed" if found == "error" else item.outcome
            ElementTree.SubElement(case, found, {"message": line, "type": kind}).text = escape_control(
                item.reason or line
            )
        else:
            ElementTree.SubElement(case, "system-out").text = line
    ElementTree.indent(suites)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(suites, encoding="unicode")
