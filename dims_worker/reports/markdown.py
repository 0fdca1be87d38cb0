"""The inventory as Markdown to be kept in git: in the order of the configuration, and nothing in it that changes
while nothing is measured. So there is no time of making and no age: an age is told as the moment it counts from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from dims_worker.analysis.evidence import Gap
from dims_worker.analysis.health import MetricHealth, health_labels
from dims_worker.formatting import (
    NO_VALUE,
    count_metrics,
    format_day,
    format_drift,
    format_utc,
    format_value,
    pluralize,
)
from dims_worker.reports.inventory import CategoryHealth, InventoryReport, WorkflowResult
from dims_worker.text import metric_values
from dims_worker.workflows import registry
from dims_worker.workflows.markdown import code_span, escape_markdown, markdown_table

MASTER = "MASTER_DATA_INVENTORY.md"
COLLECTION = "DATA_COLLECTION_INVENTORY.md"
NAMED = 20
"""So many names of what is missing are told."""


def render_documents(inventory: InventoryReport) -> dict[str, str]:
    """The documents by the names of their files; that of the feeds only where there are any."""
    found = {MASTER: render_master(inventory)}
    return found | {COLLECTION: render_collection(inventory)} if inventory.feeds else found


def render_master(inventory: InventoryReport) -> str:
    """All categories, after what needs a person."""
    lines = [
        "# Data inventory",
        "",
        f"{count_metrics(len(inventory.standings))} in {_categories(len(inventory.categories))}. {_read(inventory)}",
        "",
        *_waiting(inventory),
        *_failed(inventory.standings),
        *_contents(inventory.categories),
    ]
    for category in inventory.categories:
        lines += _category(category, inventory)
    if inventory.off:
        lines += [
            "## Off",
            "",
            "Measured only when they are named.",
            "",
            *(f"- {code_span(name)}" for name in inventory.off),
        ]
        lines.append("")
    lines += _workflows(inventory.workflows)
    return _document(lines)


def render_collection(inventory: InventoryReport) -> str:
    """The feeds side by side, then each with what it lacks by name."""
    feeds = inventory.feeds
    standings = [one for category in feeds for one in category.standings]
    lines = [
        "# Data collection inventory",
        "",
        f"{pluralize(len(feeds), 'feed')}, {count_metrics(len(standings))}. {_read(inventory)}",
        "",
        *_beside(feeds),
        *_failed(standings),
    ]
    for category in feeds:
        lines += _category(category, inventory)
        lines += [line for one in category.standings for line in _missing(one)]
    return _document(lines)


def _document(lines: Sequence[str]) -> str:
    return "\n".join(lines).rstrip() + "\n"


def _categories(number: int) -> str:
    return "1 category" if number == 1 else f"{number} categories"


def _read(inventory: InventoryReport) -> str:
    newest = f"The newest reading is of {format_utc(inventory.newest)}." if inventory.newest else "Nothing is measured."
    return f"{newest} Change is since {format_utc(inventory.since)}. Ages and stale metrics: `dims metrics`."


def _waiting(inventory: InventoryReport) -> Iterator[str]:
    if not inventory.requests:
        return
    by_name = {one.metric: one for one in inventory.standings}
    yield from ("## Waits for a person", "")
    rows = []
    for request in inventory.requests:
        one = by_name.get(request.metric)
        declared = one.declared if one else None
        rows.append(
            [
                request.id,
                code_span(request.metric),
                escape_markdown(format_value(request.baseline, request.unit, declared, request.as_of)),
                escape_markdown(format_value(request.value, request.unit, declared, request.as_of)),
                format_drift(request.value, request.baseline, request.drift_pct),
                escape_markdown(request.reason),
                format_day(request.opened_at),
                code_span(metric_values.decide_command(request)),
            ]
        )
    heads = ("request", "metric", "baseline", "proposed", "drift", "why", "since", "to accept")
    yield from markdown_table(heads, rows, (0, 2, 3, 4))
    yield ""


def _failed(standings: Sequence[MetricHealth]) -> Iterator[str]:
    failed = [one for one in standings if one.failed]
    if failed:
        yield from ("## Could not be measured", "", "The last good value of these still stands; it is not zero.", "")
        for one in failed:
            since = f" (good until {format_utc(one.state.as_of)})" if one.state.as_of else " (never measured)"
            yield f"- {code_span(one.metric)}: {escape_markdown(one.state.error or '')}{since}"
        yield ""


def _contents(categories: Sequence[CategoryHealth]) -> Iterator[str]:
    yield from ("## Categories", "")
    rows = []
    for category in categories:
        asks = sum(bool(health_labels(one, lasting=True)) for one in category.standings)
        rows.append([f"[{category.name}](#{category.name})", len(category.standings), asks or ""])
    yield from markdown_table(("category", "metrics", "to look at"), rows, (1, 2))
    yield ""


def _category(category: CategoryHealth, inventory: InventoryReport) -> Iterator[str]:
    yield from (f"## {category.name}", "")
    heads = ("metric", "value", "change", "baseline", "drift", "state", "what it is")
    latest = format_day(inventory.newest) if inventory.newest else ""
    yield from markdown_table(heads, [_row(one, latest) for one in category.standings], (1, 2, 3, 4))
    yield ""


def _row(one: MetricHealth, latest: str) -> list[object]:
    """A row that stays as it is while the metric does: when it was measured is told where others are newer."""
    state = one.state
    said = health_labels(one, lasting=True) or ["ok"]
    if state.as_of and format_day(state.as_of) != latest:
        said.append(f"of {format_day(state.as_of)}")
    drift = NO_VALUE if one.declared.is_age else format_drift(state.value, state.baseline, state.drift_pct)
    return [
        f"**{code_span(one.name)}**" if one.critical else code_span(one.name),
        escape_markdown(metric_values.metric_instant(one, state.value)),
        metric_values.metric_change(one),
        escape_markdown(metric_values.metric_instant(one, state.baseline))
        if state.baseline_as_of and not one.declared.is_age
        else NO_VALUE,
        drift,
        escape_markdown(", ".join(said)),
        escape_markdown(one.declared.description),
    ]


def _beside(feeds: Sequence[CategoryHealth]) -> Iterator[str]:
    """What several feeds measure alike, a column a feed."""
    names = dict.fromkeys(one.name for category in feeds for one in category.standings)
    columns = [{one.name: one for one in category.standings} for category in feeds]
    shared = [name for name in names if sum(name in column for column in columns) > 1]
    if shared:
        yield from ("## Side by side", "")
        rows = [[code_span(name), *(_told(column.get(name)) for column in columns)] for name in shared]
        heads = ("", *(category.name for category in feeds))
        yield from markdown_table(heads, rows, range(1, len(heads)))
        yield ""


def _told(one: MetricHealth | None) -> str:
    if one is None:
        return ""
    worst = health_labels(one, lasting=True)[:1]
    return escape_markdown(metric_values.metric_instant(one, one.state.value)) + "".join(
        f" (**{escape_markdown(word)}**)" for word in worst
    )


def _missing(one: MetricHealth) -> Iterator[str]:
    for gap in one.gaps:
        yield f"- {code_span(one.metric)}, {gap_words(gap)}: {', '.join(code_span(str(name)) for name in gap.named[:NAMED])}"
        yield ""


def gap_words(gap: Gap) -> str:
    """`missing ids, 20 of 1,204`."""
    shown = min(len(gap.named), NAMED)
    number = f"{shown:,}" if shown == gap.total else f"{shown:,} of {gap.total:,}"
    return f"{gap.name.replace('_', ' ')}, {number}"


def _workflows(found: Sequence[WorkflowResult]) -> Iterator[str]:
    if not found:
        return
    yield from ("## Workflows", "", "What the last run of each found.", "")
    rows = [
        [
            one.name,
            registry.result_status(one.result),
            format_utc(one.run.started_at),
            escape_markdown(", ".join(f"{what}: {figure}" for what, figure in registry.result_summary(one.result))),
        ]
        for one in found
    ]
    yield from markdown_table(("workflow", "state", "run", "figures"), rows)
    yield ""
