"""Readings as a table."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime

from rich import box
from rich.table import Table
from rich.text import Text

from dims_worker.cli.words import NOTHING, STYLES, clean, drift_text, value_text
from dims_worker.config import Config
from dims_worker.sentences.readings import Judged, done_text

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


def readings_table(config: Config, items: Iterable[Judged], now: datetime, *, verbose: bool) -> Table:
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
            Text("unavailable", "magenta") if failed else value_text(item.value, item.unit, metric, now),
            value_text(item.baseline, item.unit, metric, now) if known else NOTHING,
            Text(NOTHING if failed else drift_text(item.value, item.baseline, item.drift_pct), style),
            Text(f"failed: {clean(item.error)}" if failed else done_text(item), style),
            *(
                (item.status or NOTHING, item.severity or NOTHING, item.tier or NOTHING, item.method,
                 item.as_of.isoformat(timespec="seconds"), clean(item.reason or ""))
                if verbose else ()
            ),
        )  # fmt: skip
    return table
