"""What needs somebody: values that wait, metrics that failed, are beyond a limit, or stale."""

from __future__ import annotations

from collections.abc import Iterator

from dims_worker.analysis.health import MetricHealth, health_labels
from dims_worker.formatting import format_drift, format_utc_short, format_value, pluralize
from dims_worker.reports.html_page.markup import ReportSpan, chip, e, name, table
from dims_worker.reports.inventory import InventoryReport
from dims_worker.store.approval_requests import ApprovalRequest
from dims_worker.text import metric_values


def waiting_section(inventory: InventoryReport, span: ReportSpan) -> Iterator[str]:
    """Each open request with the commands that decide it."""
    if not inventory.requests:
        return
    by_name = {one.metric: one for one in inventory.standings}
    yield '<p class="note">The baseline stays until somebody decides.</p><div class="cards">'
    for request in inventory.requests:
        yield _request(request, by_name.get(request.metric), span)
    yield "</div>"


def _request(request: ApprovalRequest, one: MetricHealth | None, span: ReportSpan) -> str:
    declared = one.declared if one else None
    old, new = (format_value(v, request.unit, declared, span.now) for v in (request.baseline, request.value))
    drift = format_drift(request.value, request.baseline, request.drift_pct)
    evidence = (request.evidence or {}).get("events")
    facts = {
        "why": e(request.reason),
        "since": format_utc_short(request.opened_at),
        "events": e(pluralize(evidence, "event")) if isinstance(evidence, int) else "",
        "ends": format_utc_short(request.expires_at) if request.expires_at else "",
    }
    listed = "".join(f"<dt>{key}</dt><dd>{fact}</dd>" for key, fact in facts.items() if fact)
    number = request.id
    return (
        f'<article class="card ask"><h3 class="name">{e(request.metric)}</h3>'
        f'<p class="from-to"><s>{e(old)}</s> → <b>{e(new)}</b> <span class="chip bad">{e(drift)}</span></p>'
        f"<dl>{listed}</dl><pre>dims approvals show {number}\n{e(metric_values.decide_command(request))}\n"
        f"dims approvals reject {number} --version {request.version}</pre></article>"
    )


def problems_section(inventory: InventoryReport, span: ReportSpan) -> Iterator[str]:
    """What failed, is beyond a limit, stale, or was never measured, with the reason."""
    rows = [
        [name(one, full=True), "".join(map(chip, found)), _why(one), _stands(one, span)]
        for one in inventory.standings
        if (found := [word for word in health_labels(one) if _to_look_at(word)])
    ]
    if rows:
        yield '<p class="note">A metric that failed keeps its last good value; it is never taken for zero.</p>'
        heads = ("metric", "state", "why", "last good value")
        yield f'<div class="card look">{table(heads, rows)}</div>'


def _to_look_at(word: str) -> bool:
    return word in ("failed", "beyond its limit", "stale", "not measured yet")


def _why(one: MetricHealth) -> str:
    said = [one.state.error] if one.failed else []
    said += [one.broken] if one.broken else []
    return e("; ".join(text for text in said if text))


def _stands(one: MetricHealth, span: ReportSpan) -> str:
    if one.state.as_of is None:
        return "-"
    return f"{e(metric_values.metric_value(one, one.state.value, span.now))}, {format_utc_short(one.state.as_of)}"
