"""What happened: drift, decisions, runs, events."""

from __future__ import annotations

from collections.abc import Iterator

from dims_worker.report import words
from dims_worker.report.inventory import Inventory
from dims_worker.report.page.markup import chip, e, folded, table
from dims_worker.report.page.span import Span
from dims_worker.store.events import Logged
from dims_worker.wording import count, drift_text, value_text


def lately(inventory: Inventory, span: Span) -> Iterator[str]:
    """The newest of each, folded."""
    since = f"since {words.when(inventory.since)}"
    if inventory.drifts:
        yield folded("drift", f"{count(len(inventory.drifts), 'reading')} {since}", _drifts(inventory))
    if inventory.decided:
        yield folded("decisions", f"the last {len(inventory.decided)}", _decided(inventory, span))
    if inventory.runs:
        failed = sum(one.status == "partial" for one in inventory.runs)
        aside = chip("partial" if failed == 1 else f"{failed} partial") if failed else ""
        yield folded("runs", f"the last {len(inventory.runs)}", _runs(inventory), chips=aside)
    if inventory.events:
        told = ", ".join(f"{number:,} {outcome}" for outcome, number in inventory.received.items()) or "none"
        yield folded("events", f"{told} {since}", _events(inventory))


def _drifts(inventory: Inventory) -> str:
    declared = {one.metric: one.declared for one in inventory.standings}
    rows = [
        [
            words.short(one.as_of),
            f'<span class="name">{e(one.metric)}</span>',
            e(value_text(one.baseline, one.unit, declared.get(one.metric), one.as_of)),
            e(value_text(one.value, one.unit, declared.get(one.metric), one.as_of)),
            e(drift_text(one.value, one.baseline, one.drift_pct)),
            chip(one.status or "-"),
            chip(one.outcome),
        ]
        for one in inventory.drifts
    ]
    return table(("when", "metric", "judged against", "value", "drift", "status", "done"), rows, (2, 3, 4))


def _decided(inventory: Inventory, span: Span) -> str:
    declared = {one.metric: one.declared for one in inventory.standings}
    rows = [
        [
            str(one.id),
            f'<span class="name">{e(one.metric)}</span>',
            e(value_text(one.value, one.unit, declared.get(one.metric), span.now)),
            chip("set by hand" if one.kind == "baseline" else one.state),
            e(one.decided_by or "-"),
            words.short(one.decided_at) if one.decided_at else "-",
            e(one.note or ""),
        ]
        for one in inventory.decided
    ]
    return table(("request", "metric", "value", "state", "by", "when", "why"), rows, (0, 2))


def _runs(inventory: Inventory) -> str:
    rows = [
        [
            str(one.run_id),
            words.short(one.started_at),
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


def _events(inventory: Inventory) -> str:
    rows = [
        [str(one.seq), words.short(one.received_at), e(one.type or "-"), e(_about(one)), chip(one.outcome)]
        for one in inventory.events
    ]
    return table(("event", "received", "type", "about", "outcome"), rows, (0,))


def _about(one: Logged) -> str:
    return one.reason or "" if one.outcome == "rejected" else f"{one.subject or ''} from {one.producer or '?'}".strip()
