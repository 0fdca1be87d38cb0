"""The inventory as one HTML page that loads no other file: no script, no font. It suits phones and dark mode."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import TYPE_CHECKING, Any

from dims_worker import __version__
from dims_worker.analysis.evidence import Gap
from dims_worker.analysis.health import MetricHealth, health_labels, shown_labels
from dims_worker.domain.health import PROBLEMS, Flag
from dims_worker.formatting import format_drift
from dims_worker.reports import svg_charts
from dims_worker.reports.inventory import InventoryReport, WorkflowResult, trend_days
from dims_worker.reports.templating import html_environment
from dims_worker.store.approval_requests import ApprovalRequest
from dims_worker.store.runs import PastReading
from dims_worker.text.metric_values import decide_command, metric_change, metric_value
from dims_worker.workflows import registry

if TYPE_CHECKING:
    from jinja2 import Environment

MAX_LENGTH = 400
"""Longer texts are cut. `dims report json` has them whole."""
MAX_NAMES = 60
"""A gap lists at most this many names."""
ELSEWHERE: tuple[Flag, ...] = ("waiting", "new", "ok")
"""The flags of a metric that has no row under "Needs attention": a held value has a card of its own."""


def render_page(inventory: InventoryReport) -> str:
    """Return the whole document."""
    days = trend_days(inventory.now, inventory.since)
    last = inventory.now.astimezone(UTC).date()
    gap_analysis = inventory.workflow("gap-analysis")
    values = {
        "report": inventory,
        "now": inventory.now,
        "days": days,
        "first": last - timedelta(days=days - 1),
        "last": last,
        "version": __version__,
        "by_name": {health.metric: health for health in inventory.metrics},
        "problems": [metric for metric in inventory.metrics if needs_attention(metric)],
        "gaps": [(health, gap) for health in inventory.metrics for gap in health.gaps],
        "gap_analysis": gap_analysis,
        "seasons": ((gap_analysis.result.get("games") or {}).get("seasons", ()) if gap_analysis else ()),
    }
    return environment().get_template("report.html").render(values)


@cache
def environment() -> Environment:
    environment = html_environment("dims_worker.reports", MAX_LENGTH)
    environment.globals.update(
        MAX_NAMES=MAX_NAMES,
        PROBLEMS=PROBLEMS,
        legend=svg_charts.trends_legend_html,
        sparkline=svg_charts.sparkline,
        trend=svg_charts.metric_trend_svg,
    )
    values = (current_value, decide_command, format_row_drift, gap_title, metric_change, problem_sentences)
    labels = (label_counts, shown_labels)
    results = (result_notes, registry.result_status, registry.result_summary)
    environment.filters.update({function.__name__: function for function in (*values, *labels, *results)})
    return environment


def needs_attention(metric: MetricHealth) -> bool:
    """Return whether a metric has a problem other than a held value, or was never measured."""
    return not metric.measured or not set(metric.health.flags) <= set(ELSEWHERE)


def problem_sentences(metric: MetricHealth) -> str:
    """Return what is wrong with a metric: a sentence for each of its problems."""
    health = metric.health
    listed = zip(health.flags, health.sentences, strict=True)
    return " ".join(sentence for flag, sentence in listed if flag in PROBLEMS or not metric.measured)


def current_value(health: MetricHealth, now: datetime) -> str:
    return metric_value(health, health.state.value, now)


def format_row_drift(row: ApprovalRequest | PastReading) -> str:
    return format_drift(row.value, row.baseline, row.drift_pct)


def label_counts(metrics: Iterable[MetricHealth]) -> Mapping[str, int]:
    """Count the labels of a category's metrics that are not ok."""
    return Counter(label for health in metrics for label in health_labels(health))


def gap_title(gap: Gap, health: MetricHealth) -> str:
    """Return what the names of a gap are. The `rows` of a query are what its metric counts."""
    return health.unit or "names" if gap.name == "rows" else gap.name.replace("_", " ")


def result_notes(workflow: WorkflowResult) -> list[Any]:
    """Return the sources that a workflow did not reach, then what it reports for attention."""
    unreached = sorted(workflow.result["unreached"].items())
    return [*(f"{source} was not reached: {why}" for source, why in unreached), *workflow.result.get("attention", ())]
