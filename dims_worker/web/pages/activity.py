"""Show the events and runs, and the details of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import urlencode

from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from dims_worker.config import Config
from dims_worker.config.runtime import WORKFLOW
from dims_worker.domain.plan import explain_plan
from dims_worker.errors import NotFound
from dims_worker.formatting import NO_VALUE, escape_control, format_drift, format_value
from dims_worker.numbers import dumps
from dims_worker.store import approval_requests
from dims_worker.store.engine import clock
from dims_worker.store.events import ServedMetric, event_at, events_served_by, last_event, list_events, served_metrics
from dims_worker.store.runs import PastReading, last_run, list_runs, readings_of, runs_by_number
from dims_worker.text.activity import format_run
from dims_worker.text.events import event_from_log, format_event
from dims_worker.text.readings import held_requests, past_reading_text, served_text
from dims_worker.web.api.query_parameters import integer_parameter, path_number, query_value
from dims_worker.web.context import web_context

PAGE_SIZE = 50
SEARCH_DEPTH = 50_000
"""Rows that a filtered page searches. Its last link continues the search."""
MAX_EVENTS = 30
"""Events that the page of a run lists."""
LONGEST_DATA = 20_000
"""Characters of an event's data that the page shows. `dims events show --json` has all of it."""
BEFORE = integer_parameter("before", "Only older rows.")
OUTCOMES = ("planned", "unmatched", "rejected")
STATUSES = ("ok", "partial", "superseded")


@dataclass(frozen=True, slots=True)
class ListPage:
    """A page of rows, newest first.

    `older` is the address of the next page. `incomplete` says that the search stopped before the page was full.
    """

    rows: Sequence[Any]
    older: str | None
    incomplete: bool


@dataclass(frozen=True, slots=True)
class ReadingRow:
    """A reading as text. `run` and `request` are numbers."""

    metric: str
    value: str
    baseline: str
    drift: str
    status: str
    verdict: str
    reason: str
    run: int | None = None
    request: int | None = None


def events_page(request: Request) -> Response:
    site, filters, before = web_context(request), _filters(request, "type", "outcome"), query_value(request, BEFORE)
    kind, outcome = filters.get("type"), filters.get("outcome")
    with site.read_transaction() as connection:
        newest = before or last_event(connection) + 1
        indexed = outcome in ("unmatched", "rejected")  # an index finds these, however old they are
        after = newest - 1 - SEARCH_DEPTH if filters and not indexed else 0
        events = list_events(
            connection, limit=PAGE_SIZE, type=kind, outcome=outcome, before=before, after=max(after, 0)
        )
    values = {
        "section": "events",
        "title": "Events",
        "listed": _list_page(request, events, [event.seq for event in events], after, filters),
        "filters": filters,
        "types": sorted({event.type for event in events if event.type} | _configured_types(site.config)),
        "outcomes": OUTCOMES,
        "first_page": before is None,
        "format_event": format_event,
    }
    return site.page(request, "events.html", values)


def event_page(request: Request) -> Response:
    site, seq = web_context(request), path_number(request, "seq", "event")
    with site.read_transaction() as connection:
        event, now = event_at(connection, seq), clock(connection)
        outcomes = served_metrics(connection, event) if event else []
        requests = held_requests(connection, outcomes)
    if event is None:
        raise NotFound(f"there is no event {seq}. DIMS deletes old events after the configured retention")
    reasons = explain_plan(site.config, event_from_log(event)) if event.outcome != "rejected" else {}
    values = {
        "section": "events",
        "title": f"Event {seq}",
        "event": event,
        "summary": format_event(event),
        "rows": [_served_row(site.config, served, reasons.get(served.metric), requests, now) for served in outcomes],
        "unaffected": sorted(
            {name for names in site.config.metrics_by_source.values() for name in names} - set(event.metrics)
        ),
        "data": _pretty_json(event.data),
    }
    return site.page(request, "event.html", values)


def runs_page(request: Request) -> Response:
    site, filters, before = web_context(request), _filters(request, "source", "status"), query_value(request, BEFORE)
    with site.read_transaction() as connection:
        newest = before or last_run(connection) + 1
        after = newest - 1 - SEARCH_DEPTH if filters else 0
        runs = list_runs(connection, limit=PAGE_SIZE, before=before, after=max(after, 0), **filters)
    values = {
        "section": "runs",
        "title": "Runs",
        "listed": _list_page(request, runs, [run.run_id for run in runs], after, filters),
        "filters": filters,
        "sources": sorted(
            {*site.config.metrics_by_source, *site.config.scans, *(run.source for run in runs if run.source)}
        ),
        "statuses": STATUSES,
        "first_page": before is None,
        "format_run": format_run,
    }
    return site.page(request, "runs.html", values)


def run_page(request: Request) -> Response:
    site, number = web_context(request), path_number(request, "run_id", "run")
    with site.read_transaction() as connection:
        runs = runs_by_number(connection, [number])
        if not runs:
            raise NotFound(f"there is no run {number}. DIMS deletes old runs after the configured retention")
        readings = sorted(readings_of(connection, [number]), key=_urgency)
        requests = approval_requests.requests_of_run(connection, number)
        events = events_served_by(connection, number, MAX_EVENTS + 1)
    run = runs[0]
    values = {
        "section": "runs",
        "title": f"Run {number}",
        "run": run,
        "summary": format_run(run),
        "rows": [_reading_row(site.config, reading, requests.get(reading.metric)) for reading in readings],
        "workflow": run.source.removeprefix(WORKFLOW) if run.source and run.source.startswith(WORKFLOW) else None,
        "events": events[:MAX_EVENTS],
        "more_events": len(events) > MAX_EVENTS,
        "format_event": format_event,
    }
    return site.page(request, "run.html", values)


def _served_row(
    config: Config,
    served: ServedMetric,
    reason: str | None,
    requests: Mapping[str, approval_requests.ApprovalRequest],
    now: datetime,
) -> ReadingRow:
    metric = config.metrics.get(served.metric)
    failed = served.outcome == "failed"
    measured = served.as_of is not None and not failed
    return ReadingRow(
        metric=served.metric,
        value=format_value(served.value, served.unit, metric, served.as_of or now) if measured else NO_VALUE,
        baseline=NO_VALUE,
        drift=format_drift(served.value, served.baseline, served.drift_pct),
        status="failed" if failed else served.status or "",
        verdict=served_text(config, served, requests),
        reason=reason or "",
        run=served.run_id,
    )


def _reading_row(config: Config, reading: PastReading, request: approval_requests.ApprovalRequest | None) -> ReadingRow:
    metric = config.metrics.get(reading.metric)
    failed, baseline = reading.method == "failed", reading.baseline
    return ReadingRow(
        metric=reading.metric,
        value=NO_VALUE if failed else format_value(reading.value, reading.unit, metric, reading.as_of),
        baseline=NO_VALUE if baseline is None else format_value(baseline, reading.unit, metric, reading.as_of),
        drift=format_drift(reading.value, baseline, reading.drift_pct),
        status="failed" if failed else reading.status or "",
        verdict=past_reading_text(config, reading, request.id if request and request.state == "open" else None),
        reason=reading.error or reading.reason or "",
        request=request.id if request else None,
    )


def _urgency(reading: PastReading) -> int:
    """Return the sort key of a reading: held first, then failed, then drifted, then the rest."""
    if reading.outcome in ("held", "failed"):
        return 0 if reading.outcome == "held" else 1
    return 3 if reading.status in ("ok", "new") else 2


def _filters(request: Request, *names: str) -> dict[str, str]:
    """Return the filters that are set, without NUL, which PostgreSQL cannot store."""
    texts = {name: request.query_params.get(name, "").replace("\x00", "").strip() for name in names}
    return {name: text for name, text in texts.items() if text}


def _list_page(
    request: Request, rows: Sequence[Any], numbers: Sequence[int], after: int, filters: Mapping[str, str]
) -> ListPage:
    """Return a page of rows with these `numbers`. The search went down to the number `after`."""
    if len(rows) == PAGE_SIZE:
        before = numbers[-1]
    elif after > 0:
        before = after + 1
    else:
        return ListPage(rows, None, incomplete=False)
    older = f"{request.url.path}?{urlencode({**filters, 'before': before})}"
    return ListPage(rows, older, incomplete=len(rows) < PAGE_SIZE)


def _configured_types(config: Config) -> set[str]:
    """Return the event types that rules name without a wildcard."""
    return {kind for rule in config.rules.values() for kind in rule.on if not set(kind) & set("*?[")}


def _pretty_json(data: Mapping[str, Any] | None) -> Markup | None:
    """Return indented JSON. Each line is escaped."""
    if data is None:
        return None
    lines = dumps(data, indent=2, ensure_ascii=False)[:LONGEST_DATA].split("\n")
    return Markup("\n").join(escape_control(line) for line in lines)


routes: list[BaseRoute] = [
    Route("/events", events_page),
    Route("/events/{seq}", event_page),
    Route("/runs", runs_page),
    Route("/runs/{run_id}", run_page),
]
