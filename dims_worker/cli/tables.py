"""Readings as a table."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime

from rich import box
from rich.table import Table
from rich.text import Text

from dims_worker.config import Config
from dims_worker.formatting import (
    NO_VALUE,
    escape_control,
    format_drift,
    format_value,
    pluralize,
)
from dims_worker.store.retention import RetentionRun
from dims_worker.text.readings import JudgedReading, done_text

FOLDS = ("what", "why", "done", "verdict", "state")
"""Columns of prose, which may take several lines; names and numbers never do."""


def plain_table(*columns: str, numbers: Sequence[str] = ()) -> Table:
    """A table without walls, whose `numbers` columns are flush right."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for column in columns:
        prose = column in FOLDS
        table.add_column(
            column,
            justify="right" if column in numbers else "left",
            overflow="fold" if prose else "ellipsis",
            no_wrap=not prose,
        )
    return table


def readings_table(config: Config, items: Iterable[JudgedReading], now: datetime, *, verbose: bool) -> Table:
    """metric, value, baseline, drift and what was done; all of the verdict where `verbose`."""
    extra = ("status", "severity", "tier", "method", "as of", "why") if verbose else ()
    table = plain_table("metric", "value", "baseline", "drift", "done", *extra, numbers=("value", "baseline", "drift"))
    for item in items:
        metric = config.metrics.get(item.metric)
        failed = item.method == "failed"
        style = STYLES.get(item.status or "", "dim")
        known = item.status not in (None, "new") and not (failed and item.baseline is None)
        table.add_row(
            item.metric,
            Text("unavailable", "magenta") if failed else format_value(item.value, item.unit, metric, now),
            format_value(item.baseline, item.unit, metric, now) if known else NO_VALUE,
            Text(NO_VALUE if failed else format_drift(item.value, item.baseline, item.drift_pct), style),
            Text(f"failed: {escape_control(item.error)}" if failed else done_text(item), style),
            *(
                (item.status or NO_VALUE, item.severity or NO_VALUE, item.tier or NO_VALUE, item.method,
                 item.as_of.isoformat(timespec="seconds"), escape_control(item.reason or ""))
                if verbose else ()
            ),
        )  # fmt: skip
    return table


STYLES = {
    **{"new": "cyan", "ok": "green", "minor": "green", "moderate": "yellow", "major": "red"},
    **{"extreme": "bold red", "failed": "bold magenta"},
}


def format_retention(kept: RetentionRun | None) -> str:
    """When the work of a day was last done, and how much was forgotten."""
    if kept is None:
        return "not yet; a worker's first sweep of a day begins it"
    done = "done" if kept.finished_at else "under way"
    gone = f"{pluralize(kept.readings, 'reading')}, {pluralize(kept.events, 'event')} and {pluralize(kept.runs, 'run')}"
    return f"{done} for {kept.day}, {gone} forgotten"
