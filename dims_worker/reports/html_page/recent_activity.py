"""What happened: drift, decisions, runs, events."""

from __future__ import annotations

from collections.abc import Iterator

from dims_worker.formatting import format_drift, format_utc, format_utc_short, format_value, pluralize
from dims_worker.reports.html_page.markup import ReportSpan, chip, e, folded, table
from dims_worker.reports.inventory import InventoryReport
from dims_worker.store.events import LoggedEvent


def activity_section(inventory: InventoryReport, span: ReportSpan) -> Iterator[str]:
    """The newest of each, folded."""
    since = f"since {format_utc(inventory.since)}"
    if inventory.drifts:
        yield folded("drift", f"{pluralize(len(inventory.drifts), 'reading')} {since}", _drifts(inventory))
    if inventory.decided:
        yield folded("decisions", f"the last {len(inventory.decided)}", _decided(inventory, span))
    if inventory.runs:
        failed = sum(one.status == "partial" for one in inventory.runs)
        aside = chip("partial" if failed == 1 else f"{failed} partial") if failed else ""
        yield folded("runs", f"the last {len(inventory.runs)}", _runs(inventory), chips=aside)
    if inventory.events:
        told = ", ".join(f"{number:,} {outcome}" for outcome, number in inventory.received.items()) or "none"
        yield folded("events", f"{told} {since}", _events(inventory))


def _drifts(inventory: InventoryReport) -> str:
    declared = {one.metric: one.declared for one in inventory.standings}
    rows = [
        [
            format_utc_short(one.as_of),
            f'<span class="name">{e(one.metric)}</span>',
            e(format_value(one.baseline, one.unit, declared.get(one.metric), one.as_of)),
            e(format_value(one.value, one.unit, declared.get(one.metric), one.as_of)),
            e(format_drift(one.value, one.baseline, one.drift_pct)),
            chip(one.status or "-"),
            chip(one.outcome),
        ]
        for one in inventory.drifts
    ]
    return table(("when", "metric", "judged against", "value", "drift", "status", "done"), rows, (2, 3, 4))


def _decided(inventory: InventoryReport, span: ReportSpan) -> str:
    declared = {one.metric: one.declared for one in inventory.standings}
    rows = [
        [
            str(one.id),
            f'<span class="name">{e(one.metric)}</span>',
            e(format_value(one.value, one.unit, declared.get(one.metric), span.now)),
            chip("set by hand" if one.kind == "baseline" else one.state),
            e(one.decided_by or "-"),
            format_utc_short(one.decided_at) if one.decided_at else "-",
            e(one.note or ""),
        ]
        for one in inventory.decided
    ]
    return table(("request", "metric", "value", "state", "by", "when", "why"), rows, (0, 2))


def _runs(inventory: InventoryReport) -> str:
    rows = [
        [
            str(one.run_id),
            format_utc_short(one.started_at),
            e(one.trigger),
            e(one.source or "several"),
            chip(one.status),
            f"{one.readings:,}",
            f"{one.failed:,}",
            f"{one.held:,}",
            f"{(one.finished_at - one.started_at).total_seconds():,.2f} s",
        ]
        for one in inventory.runs
    ]
    heads = ("run", "when", "trigger", "source", "status", "readings", "failed", "held", "took")
    return table(heads, rows, (0, 5, 6, 7, 8))


def _events(inventory: InventoryReport) -> str:
    rows = [
        [
            str(one.seq),
            format_utc_short(one.received_at),
            e(one.type or "-"),
            e(_about(one)),
            chip(one.outcome),
        ]
        for one in inventory.events
    ]
    return table(("event", "received", "type", "about", "outcome"), rows, (0,))


def _about(one: LoggedEvent) -> str:
    return one.reason or "" if one.outcome == "rejected" else f"{one.subject or ''} from {one.producer or '?'}".strip()
