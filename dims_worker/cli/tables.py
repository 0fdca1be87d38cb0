"""Build the tables that several commands print."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

from rich import box
from rich.table import Table
from rich.text import Text

from dims_worker.config import Config
from dims_worker.domain.health import Flag
from dims_worker.formatting import NO_VALUE, escape_control, format_drift, format_value, pluralize
from dims_worker.store.retention import RetentionRun
from dims_worker.text.readings import JudgedReading

FOLDED_COLUMNS = ("what", "why", "done", "verdict", "state")
"""Columns of prose, which can take several lines. Names and numbers never fold."""
STYLES = {
    "new": "cyan",
    "ok": "green",
    "minor": "green",
    "moderate": "yellow",
    "major": "red",
    "extreme": "bold red",
    "failed": "bold magenta",
}
"""The colour of each status of a reading."""
HEALTH_STYLES: Mapping[Flag | None, str] = {
    "failing": "bold magenta",
    "waiting": "yellow",
    "limit": "bold red",
    "drifted": "red",
    "stale": "yellow",
    "overdue": "yellow",
    "new": "cyan",
    "ok": "green",
    "off": "dim",
    None: "dim",
}
"""The colour of the worst flag of a metric. None: a reading that was not judged."""


def plain_table(*columns: str, numbers: Sequence[str] = ()) -> Table:
    """Return a table without borders. The columns in `numbers` are aligned right."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for column in columns:
        folded = column in FOLDED_COLUMNS
        table.add_column(
            column,
            justify="right" if column in numbers else "left",
            overflow="fold" if folded else "ellipsis",
            no_wrap=not folded,
        )
    return table


def readings_table(
    config: Config, rows: Iterable[tuple[JudgedReading, str, Flag | None]], now: datetime, *, verbose: bool
) -> Table:
    """Return a table of readings. With `verbose`, it has every part of the verdict.

    Each row has a reading, its state as text, and the flag that gives its colour.
    """
    extra = ("status", "severity", "tier", "method", "as of", "why") if verbose else ()
    table = plain_table("metric", "value", "baseline", "drift", "state", *extra, numbers=("value", "baseline", "drift"))
    for item, state, flag in rows:
        metric, style = config.metrics.get(item.metric), HEALTH_STYLES[flag]
        value: str | Text = format_value(item.value, item.unit, metric, now)
        baseline = format_value(item.baseline, item.unit, metric, now)
        drift = format_drift(item.value, item.baseline, item.drift_pct)
        if item.method == "failed":
            value, drift = Text("unavailable", "magenta"), NO_VALUE
        if item.status in (None, "new") or (item.method == "failed" and item.baseline is None):
            baseline = NO_VALUE
        cells = [item.metric, value, baseline, Text(drift, style), Text(state, style)]
        if verbose:
            cells += [item.status or NO_VALUE, item.severity or NO_VALUE, item.tier or NO_VALUE, item.method]
            cells += [item.as_of.isoformat(timespec="seconds"), escape_control(item.reason or "")]
        table.add_row(*cells)
    return table


def format_retention(run: RetentionRun | None) -> str:
    """Return when old rows were last deleted, and how many."""
    if run is None:
        return "not run yet: the first sweep of each day runs it"
    state = "last run" if run.finished_at else "running"
    if not (run.readings or run.events or run.runs):
        return f"{state} {run.day}: nothing deleted"
    deleted = (pluralize(run.readings, "reading"), pluralize(run.events, "event"), pluralize(run.runs, "run"))
    return f"{state} {run.day}: {', '.join(deleted)} deleted"
