"""The inventory as Markdown for a Git repository.

The text changes only when DIMS measures something, or when an incident opens or ends, or a person acknowledges it. It
has no time of creation, and an age is the time it counts from.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from dims_worker.analysis.evidence import Gap
from dims_worker.analysis.health import MetricHealth, health_labels, shown_labels
from dims_worker.formatting import (
    NO_VALUE,
    count_metrics,
    format_day,
    format_drift,
    format_holding_drift,
    format_number,
    format_utc,
    format_value,
    pluralize,
)
from dims_worker.reports.inventory import (
    CategoryHealth,
    InventoryReport,
    ReportedIncident,
    WorkflowResult,
    count_incidents,
)
from dims_worker.text.metric_values import decide_command, metric_change, metric_instant
from dims_worker.workflows import registry
from dims_worker.workflows.markdown import code_span, escape_markdown, markdown_table

MASTER = "MASTER_DATA_INVENTORY.md"
COLLECTION = "DATA_COLLECTION_INVENTORY.md"
MAX_NAMES = 20
"""A gap lists at most this many names."""


def render_documents(inventory: InventoryReport) -> dict[str, str]:
    """Return the documents by file name. Without feeds there is only the master document."""
    documents = {MASTER: render_master(inventory)}
    return documents | {COLLECTION: render_collection(inventory)} if inventory.feeds else documents


def render_master(inventory: InventoryReport) -> str:
    """Return the document of all categories. It starts with what needs a person."""
    categories = len(inventory.categories)
    lines = [
        "# Data inventory",
        "",
        f"{_open_incidents(inventory)} "
        f"{count_metrics(len(inventory.metrics))} in {categories} {'category' if categories == 1 else 'categories'}"
        f"{f', {len(inventory.off)} disabled' if inventory.off else ''}. {_about(inventory)}",
        "",
        *_incidents(inventory),
        *_waiting(inventory),
        *_failed(inventory.metrics),
        *_changes(inventory),
        *_ended_incidents(inventory),
        *_contents(inventory.categories),
    ]
    for category in inventory.categories:
        lines += _category(category, inventory)
    lines += _left_out(inventory.metrics)
    if inventory.off:
        lines += ["## Off", "", "DIMS measures these only when you name them.", ""]
        lines += [*(f"- {code_span(name)}" for name in inventory.off), ""]
    return _document([*lines, *_workflows(inventory.workflows)])


def render_collection(inventory: InventoryReport) -> str:
    """Return the document of the feeds: first side by side, then each feed with the names of what is missing."""
    feeds = inventory.feeds
    metrics = [metric for category in feeds for metric in category.metrics]
    counts = f"{pluralize(len(feeds), 'feed')}, {count_metrics(len(metrics))}."
    lines = [
        "# Data collection inventory",
        "",
        f"{_open_incidents(inventory)} {counts} {_about(inventory)}",
        "",
        *_side_by_side(feeds),
        *_failed(metrics),
    ]
    for category in feeds:
        lines += _category(category, inventory)
        lines += [line for metric in category.metrics for line in _missing(metric)]
    return _document(lines)


def _document(lines: Sequence[str]) -> str:
    return "\n".join(lines).rstrip() + "\n"


def _about(inventory: InventoryReport) -> str:
    newest = (
        f"The newest reading is from {format_utc(inventory.newest)}."
        if inventory.newest
        else "Nothing is measured yet."
    )
    since = format_utc(inventory.since)
    return f"{newest} Changes are since {since}. For ages and stale metrics, run `dims metrics`."


def _open_incidents(inventory: InventoryReport) -> str:
    return count_incidents([reported.incident for reported in inventory.incidents])


def _incidents(inventory: InventoryReport) -> Iterator[str]:
    if inventory.incidents:
        yield from ("## Incidents", "", "An incident lasts until the metric recovers or a person closes it.", "")
        heads = ("incident", "state", "severity", "metric", "what", "since", "acknowledged")
        yield from markdown_table(heads, [_incident(reported) for reported in inventory.incidents], (0,))
        yield ""


def _ended_incidents(inventory: InventoryReport) -> Iterator[str]:
    if inventory.ended:
        yield from ("## Incidents that ended", "")
        rows = []
        for reported in inventory.ended:
            ended = reported.incident.closed_at
            *first, outcome = _incident(reported)
            rows.append([*first, format_utc(ended) if ended else "", outcome])
        ended_heads = ("incident", "state", "severity", "metric", "what", "since", "ended", "how")
        yield from markdown_table(ended_heads, rows, (0,))
        yield ""


def _incident(reported: ReportedIncident) -> list[object]:
    """Return the row of an incident: its number, state, severity, metric, what is wrong, its start and its outcome."""
    incident = reported.incident
    return [
        incident.id,
        escape_markdown(reported.label),
        escape_markdown(incident.severity),
        code_span(incident.metric),
        escape_markdown(reported.what),
        format_utc(reported.document["since"]),
        escape_markdown(reported.outcome),
    ]


def _changes(inventory: InventoryReport) -> Iterator[str]:
    if not inventory.changes:
        return
    yield from ("## What changed", "", "Values that drifted and are the baseline now, the largest change first.", "")
    rows = []
    for change in inventory.changes:
        drift = change.drift
        rows.append(
            [
                code_span(drift.metric),
                escape_markdown(change.what),
                format_utc(drift.as_of),
                escape_markdown(change.accepted),
                drift.incident.id if drift.incident else None,
            ]
        )
    yield from markdown_table(("metric", "change", "measured", "accepted", "incident"), rows, (4,))
    yield ""


def _waiting(inventory: InventoryReport) -> Iterator[str]:
    if not inventory.requests:
        return
    metrics = {metric.metric: metric for metric in inventory.metrics}
    yield from ("## Waiting for approval", "")
    rows = []
    for request in inventory.requests:
        metric = metrics.get(request.metric)
        baseline, value = (
            escape_markdown(format_value(value, request.unit, metric.declared if metric else None, request.as_of))
            for value in (request.baseline, request.value)
        )
        rows.append(
            [
                request.id,
                code_span(request.metric),
                baseline,
                value,
                escape_markdown(format_holding_drift(request, metric.declared if metric else None, request.as_of)),
                escape_markdown(request.reason),
                format_day(request.opened_at),
                code_span(decide_command(request)),
            ]
        )
    heads = ("request", "metric", "baseline", "proposed", "drift", "reason", "since", "to approve")
    yield from markdown_table(heads, rows, (0, 2, 3, 4))
    yield ""


def _failed(metrics: Sequence[MetricHealth]) -> Iterator[str]:
    failed = [metric for metric in metrics if metric.failed]
    if not failed:
        return
    yield from ("## Failed measurements", "", "These metrics keep their last good value. A failure is never zero.", "")
    for metric in failed:
        as_of = metric.state.as_of
        last = f"last good value from {format_utc(as_of)}" if as_of else "never measured"
        yield f"- {code_span(metric.metric)}: {escape_markdown(metric.state.error or '')} ({last})"
    yield ""


def _contents(categories: Sequence[CategoryHealth]) -> Iterator[str]:
    yield from ("## Categories", "")
    rows = []
    for category in categories:
        problems = sum(bool(health_labels(metric, lasting=True)) for metric in category.metrics)
        rows.append([f"[{category.name}](#{category.name})", len(category.metrics), problems or ""])
    yield from markdown_table(("category", "metrics", "need attention"), rows, (1, 2))
    yield ""


def _category(category: CategoryHealth, inventory: InventoryReport) -> Iterator[str]:
    yield from (f"## {category.name}", "")
    heads = ("metric", "value", "change", "baseline", "drift", "state", "description")
    newest_day = format_day(inventory.newest) if inventory.newest else ""
    yield from markdown_table(heads, [_row(metric, newest_day) for metric in category.metrics], (1, 2, 3, 4))
    yield ""


def _row(metric: MetricHealth, newest_day: str) -> list[object]:
    """Return a metric's row. It has the day of its reading only where other metrics are newer."""
    state = metric.state
    labels = shown_labels(metric, lasting=True)
    if state.as_of and format_day(state.as_of) != newest_day:
        labels.append(f"from {format_day(state.as_of)}")
    has_baseline = state.baseline_as_of is not None and not metric.declared.is_age
    return [
        f"**{code_span(metric.name)}**" if metric.critical else code_span(metric.name),
        escape_markdown(metric_instant(metric, state.value)),
        metric_change(metric),
        escape_markdown(metric_instant(metric, state.baseline)) if has_baseline else NO_VALUE,
        NO_VALUE if metric.declared.is_age else format_drift(state.value, state.baseline, state.drift_pct),
        escape_markdown("; ".join(labels)),
        escape_markdown(metric.declared.description),
    ]


def _side_by_side(feeds: Sequence[CategoryHealth]) -> Iterator[str]:
    """Yield a table of the metrics that several feeds share, with a column per feed."""
    columns = [{metric.name: metric for metric in category.metrics} for category in feeds]
    names = dict.fromkeys(name for column in columns for name in column)
    shared = [name for name in names if sum(name in column for column in columns) > 1]
    if shared:
        yield from ("## Side by side", "")
        rows = [[code_span(name), *(_brief(column.get(name)) for column in columns)] for name in shared]
        heads = ("", *(category.name for category in feeds))
        yield from markdown_table(heads, rows, range(1, len(heads)))
        yield ""


def _brief(metric: MetricHealth | None) -> str:
    """Return a metric's value and its worst label."""
    if metric is None:
        return ""
    worst = [f" (**{escape_markdown(label)}**)" for label in shown_labels(metric, lasting=True)[:1] if label != "ok"]
    return escape_markdown(metric_instant(metric, metric.state.value)) + "".join(worst)


def _left_out(metrics: Sequence[MetricHealth]) -> Iterator[str]:
    """Yield what readings leave out, with the metrics that do."""
    by_text: dict[str, list[str]] = {}
    for metric in metrics:
        for text in metric.left_out:
            by_text.setdefault(text, []).append(code_span(metric.metric))
    if by_text:
        yield from ("## Left out", "", "These readings do not count everything.", "")
        yield from (f"- {escape_markdown(text)}: {', '.join(names)}" for text, names in by_text.items())
        yield ""


def _missing(metric: MetricHealth) -> Iterator[str]:
    for gap in metric.gaps:
        names = ", ".join(code_span(str(name)) for name in gap.named[:MAX_NAMES])
        yield f"- {code_span(metric.metric)}, {format_gap(gap)}: {names}"
        yield ""


def format_gap(gap: Gap) -> str:
    """Return the kind and the number of the names: `missing ids, 20 of 1,204`."""
    listed, total = (format_number(number) for number in (min(len(gap.named), MAX_NAMES), gap.total))
    return f"{gap.name.replace('_', ' ')}, {total if listed == total else f'{listed} of {total}'}"


def _workflows(workflows: Sequence[WorkflowResult]) -> Iterator[str]:
    if not workflows:
        return
    yield from ("## Workflows", "", "The last result of each workflow.", "")
    rows = []
    for workflow in workflows:
        figures = ", ".join(f"{what}: {figure}" for what, figure in registry.result_summary(workflow.result))
        status, started = registry.result_status(workflow.result), format_utc(workflow.run.started_at)
        rows.append([workflow.name, status, started, escape_markdown(figures)])
    yield from markdown_table(("workflow", "status", "run", "figures"), rows)
    yield ""
