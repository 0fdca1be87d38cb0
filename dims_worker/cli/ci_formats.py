"""Format the readings of `dims verify` for a build: as workflow commands of GitHub, and as JUnit XML.

Formats: https://docs.github.com/actions/reference/workflows-and-actions/workflow-commands and
https://github.com/testmoapp/junitxml (the parts that every reader supports).
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from xml.etree import ElementTree

from dims_worker.cli.verify_result import VerifiedMetric, VerifyResult
from dims_worker.config import Config
from dims_worker.formatting import escape_control, format_drift, format_value
from dims_worker.text.readings import reading_text

_COMMANDS = {"error": "error", "failure": "error", "drift": "warning"}
"""The workflow command of each level that has an annotation."""


def annotation_text(config: Config, verified: VerifiedMetric, now: datetime) -> str:
    """Return one line: `12 files, baseline 18 files, -33.3 %: lost: down 33.3 %, incident 7; accepted`.

    A metric that makes the exit code 1 ends with the reason: ` (fails: severity high)`.
    """
    item, reasons = verified.reading, ", ".join(verified.reasons)
    fails = f" (fails: {reasons})" if reasons else ""
    if item is None:
        return f"unchanged: {verified.health.explained()}{fails}"
    state = reading_text(item, verified.health)
    if item.method == "failed":
        return state
    metric = config.metrics.get(item.metric)
    value, baseline = (format_value(each, item.unit, metric, now) for each in (item.value, item.baseline))
    comparison = f", baseline {baseline}, {format_drift(item.value, item.baseline, item.drift_pct)}"
    return f"{value}{comparison if item.drift_pct is not None else ''}: {state}{fails}"


def github(result: VerifyResult) -> Iterator[str]:
    """Yield an annotation for each metric with a problem, then the summary as a notice."""
    for verified in result.metrics:
        if (level := verified.level) != "fine":
            text = _data(annotation_text(result.config, verified, result.now))
            yield f"::{_COMMANDS[level]} title={_property(verified.metric)}::{text}"
    yield f"::notice title=dims verify::{_data(result.summary())}"


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")


def junit(result: VerifyResult) -> str:
    """Return XML with a test case for each metric, whose class is its category.

    The output of the suite is the summary. It says why the exit code is not 0.
    """
    levels = [verified.level for verified in result.metrics]
    totals = {
        "tests": str(len(levels)),
        "failures": str(levels.count("failure")),
        "errors": str(levels.count("error")),
        "time": f"{result.duration.total_seconds():.3f}",
    }
    suites = ElementTree.Element("testsuites", totals)
    stamp = result.now.astimezone(UTC).isoformat(timespec="seconds")
    suite = ElementTree.SubElement(suites, "testsuite", {"name": "dims verify", "timestamp": stamp, **totals})
    for verified, level in zip(result.metrics, levels, strict=True):
        category, _, name = escape_control(verified.metric).partition(".")
        case = ElementTree.SubElement(suite, "testcase", {"classname": category, "name": name})
        line = annotation_text(result.config, verified, result.now)
        if level in ("error", "failure"):
            problem = ElementTree.SubElement(case, level, {"message": line, "type": verified.health.label})
            problem.text = escape_control((verified.reading and verified.reading.reason) or line)
        else:
            ElementTree.SubElement(case, "system-out").text = line
    ElementTree.SubElement(suite, "system-out").text = escape_control(result.summary())
    ElementTree.indent(suites)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(suites, encoding="unicode")
