"""Readings as a table and as JSON."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol

from rich import box
from rich.table import Table
from rich.text import Text

from dims_worker.cli.words import DONE, NOTHING, STYLES, clean, drift_text, value_text
from dims_worker.config import Config
from dims_worker.config.quantities import AGES
from dims_worker.decide import age_of


class Judged(Protocol):
    """A reading with its verdict: an item of a run, or a row of the history."""

    @property
    def metric(self) -> str: ...
    @property
    def value(self) -> Any: ...
    @property
    def unit(self) -> str: ...
    @property
    def method(self) -> str: ...
    @property
    def as_of(self) -> datetime: ...
    @property
    def baseline(self) -> Any: ...
    @property
    def drift_pct(self) -> float | None: ...
    @property
    def status(self) -> str | None: ...
    @property
    def severity(self) -> str | None: ...
    @property
    def tier(self) -> str | None: ...
    @property
    def outcome(self) -> str: ...
    @property
    def reason(self) -> str | None: ...
    @property
    def error(self) -> str | None: ...
    @property
    def details(self) -> Mapping[str, Any] | None: ...


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


def done_text(item: Judged) -> str:
    """What was done with a reading."""
    if item.status == "new" and item.outcome == "accepted":
        return "new: first baseline"
    if item.outcome == "superseded" and item.reason:
        return clean(item.reason if item.error is None else f"failed: {item.error}; {item.reason}")
    said = DONE.get(item.outcome, item.outcome)
    if item.status == "ok" and item.outcome in ("accepted", "looked"):
        said = "ok"
    return said


def reading_json(config: Config, item: Judged) -> dict[str, Any]:
    """A reading as `--json` prints it. An age is a number in its unit, at `as_of`; its instant stands beside it."""
    metric = config.metrics.get(item.metric)
    value, baseline = item.value, item.baseline
    instant = {}
    if metric is not None and metric.is_age:
        instant = {"instant": value}
        value = _age(value, item)
        baseline = _age(baseline, item)
    return {
        "metric": item.metric,
        "value": value,
        "unit": item.unit,
        "baseline": baseline,
        "drift_pct": item.drift_pct,
        "status": item.status,
        "severity": item.severity,
        "tier": item.tier,
        "method": item.method,
        "as_of": item.as_of,
        "error": item.error,
        "outcome": item.outcome,
        "reason": item.reason,
        "details": item.details,
        **instant,
    }


def _age(value: Any, item: Judged) -> float | None:
    seconds = age_of(value, item.as_of)
    return None if seconds is None else seconds / AGES[item.unit]
