"""Events and runs, as they happen, and the whole story of each."""

from __future__ import annotations

import json
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
from dims_worker.errors import NotFound, UsageError
from dims_worker.formatting import NO_VALUE, escape_control, format_drift, format_duration, format_value
from dims_worker.store import approval_requests
from dims_worker.store.engine import clock
from dims_worker.store.events import ServedMetric, event_at, events_served_by, last_event, list_events, served_metrics
from dims_worker.store.runs import PastReading, last_run, list_runs, readings_of, runs_by_number
from dims_worker.text.activity import format_run
from dims_worker.text.events import DONE, event_from_log, format_event, format_served
from dims_worker.web.context import web_context

PAGE = 50
"""Rows on a page."""
REACH = 50_000
"""So many rows a page of one type, source or status looks back through; a link goes on from there."""
EVENTS = 30
"""So many events of a run are named."""
LONGEST = 20_000
"""Characters of an event's data that are shown; `dims events show --json` has all."""
OUTCOMES = ("planned", "unmatched", "rejected")
STATUSES = ("ok", "partial", "superseded")


@dataclass(frozen=True, slots=True)
class ListPage:
    """A page of rows, newest first. `older`: where the next page is; `looked_back`: where this one gave up looking."""

    rows: Sequence[Any]
    older: str | None
    looked_back: bool


@dataclass(frozen=True, slots=True)
class ReadingRow:
    """A reading in words: of a run, or what served an event's metric. `run` and `request`: their numbers."""

    metric: str
    value: str
    baseline: str
    drift: str
    status: str
    verdict: str
    why: str
    run: int | None = None
    request: int | None = None


def events_page(request: Request) -> Response:
    site, wanted = web_context(request), _asked(request, "type", "outcome")
    before = _before(request)
    few = wanted.get("outcome") in ("unmatched", "rejected")  # found by an index, however long ago they came
    with site.reading() as connection:
        top = before or last_event(connection) + 1
        after = top - 1 - REACH if wanted and not few else 0
        kind, outcome = wanted.get("type"), wanted.get("outcome")
        found = list_events(connection, limit=PAGE, type=kind, outcome=outcome, before=before, after=max(after, 0))
    listed = _listed(request, found, [event.seq for event in found], after, wanted)
    types = sorted({event.type for event in found if event.type} | _types(site.config))
    values = {"here": "events", "title": "Events", "listed": listed, "wanted": wanted, "words": format_event}
    return site.page(request, "events.html", {**values, "types": types, "outcomes": OUTCOMES, "newest": before is None})


def event_page(request: Request) -> Response:
    site, seq = web_context(request), _number(request.path_params["seq"], "event")
    with site.reading() as connection:
        event, now = event_at(connection, seq), clock(connection)
        outcomes = served_metrics(connection, event) if event else []
    if event is None:
        raise NotFound(f"there is no event {seq}; it may be so old that it was forgotten")
    reasons = explain_plan(site.config, event_from_log(event)) if event.outcome != "rejected" else {}
    alone = sorted({name for names in site.config.metrics_by_source.values() for name in names} - set(event.metrics))
    values = {
        **{"here": "events", "title": f"Event {seq}", "event": event, "said": format_event(event)},
        "rows": [_served_row(site.config, one, reasons.get(one.metric), now) for one in outcomes],
        "alone": alone,
        "data": _pretty(event.data),
    }
    return site.page(request, "event.html", values)


def runs_page(request: Request) -> Response:
    site, wanted = web_context(request), _asked(request, "source", "status")
    before = _before(request)
    with site.reading() as connection:
        top = before or last_run(connection) + 1
        after = top - 1 - REACH if wanted else 0
        found = list_runs(connection, limit=PAGE, before=before, after=max(after, 0), **wanted)
    listed = _listed(request, found, [run.run_id for run in found], after, wanted)
    sources = sorted({*site.config.metrics_by_source, *site.config.scans, *(run.source for run in found if run.source)})
    values = {"here": "runs", "title": "Runs", "listed": listed, "wanted": wanted, "words": format_run}
    more = {"sources": sources, "statuses": STATUSES, "newest": before is None}
    return site.page(request, "runs.html", {**values, **more})


def run_page(request: Request) -> Response:
    site, number = web_context(request), _number(request.path_params["run_id"], "run")
    with site.reading() as connection:
        found = runs_by_number(connection, [number])
        if not found:
            raise NotFound(f"there is no run {number}; it may be so old that it was forgotten")
        readings = sorted(readings_of(connection, [number]), key=_rank)
        asked = approval_requests.requests_of_run(connection, number)
        events = events_served_by(connection, number, EVENTS + 1)
    run = found[0]
    values = {
        **{"here": "runs", "title": f"Run {number}", "run": run, "said": format_run(run)},
        "rows": [_reading_row(site.config, one, asked.get(one.metric)) for one in readings],
        "workflow": run.source.removeprefix(WORKFLOW) if run.source and run.source.startswith(WORKFLOW) else None,
        **{"events": events[:EVENTS], "more": len(events) > EVENTS, "words": format_event},
        "took": format_duration(run.finished_at - run.started_at),
    }
    return site.page(request, "run.html", values)


def _served_row(config: Config, one: ServedMetric, why: str | None, now: datetime) -> ReadingRow:
    metric = config.metrics.get(one.metric)
    read = one.as_of is not None and one.outcome != "failed"
    return ReadingRow(
        metric=one.metric,
        value=format_value(one.value, one.unit, metric, one.as_of or now) if read else NO_VALUE,
        baseline=NO_VALUE,
        drift=format_drift(one.value, one.baseline, one.drift_pct),
        status="failed" if one.outcome == "failed" else one.status or "",
        verdict=str(one.outcome) if one.status and one.outcome != "failed" else format_served(one),
        why=why or "",
        run=one.run_id,
    )


def _reading_row(config: Config, one: PastReading, request: approval_requests.ApprovalRequest | None) -> ReadingRow:
    metric = config.metrics.get(one.metric)
    failed = one.method == "failed"
    return ReadingRow(
        metric=one.metric,
        value=NO_VALUE if failed else format_value(one.value, one.unit, metric, one.as_of),
        baseline=NO_VALUE if one.baseline is None else format_value(one.baseline, one.unit, metric, one.as_of),
        drift=format_drift(one.value, one.baseline, one.drift_pct),
        status="failed" if failed else one.status or "",
        verdict=DONE.get(one.outcome, one.outcome),
        why=one.error or one.reason or "",
        request=request.id if request else None,
    )


def _rank(one: PastReading) -> int:
    """Where a reading stands among a run's: what waits for a person, what failed, what drifted, and then the rest."""
    if one.outcome in ("held", "failed"):
        return 0 if one.outcome == "held" else 1
    return 3 if one.status in ("ok", "new") else 2


def _asked(request: Request, *names: str) -> dict[str, str]:
    """The filters that are set. No text of a database holds a NUL."""
    said = {name: request.query_params.get(name, "").replace("\x00", "").strip() for name in names}
    return {name: text for name, text in said.items() if text}


def _before(request: Request) -> int | None:
    said = request.query_params.get("before", "")
    return _number(said, "page") if said else None


def _number(said: str, what: str) -> int:
    if not (said.isascii() and said.isdecimal() and len(said) < 19):
        raise (UsageError if what == "page" else NotFound)(
            f"there is no {what} {escape_control(said)[:40]}: it is a number"
        )
    return int(said)


def _listed(
    request: Request, rows: Sequence[Any], numbers: Sequence[int], after: int, wanted: Mapping[str, str]
) -> ListPage:
    """A page of rows whose `numbers` are these, looked for down to the number `after`."""
    if len(rows) == PAGE:
        before = numbers[-1]
    elif after > 0:
        before = after + 1
    else:
        return ListPage(rows, None, looked_back=False)
    older = f"{request.url.path}?{urlencode({**wanted, 'before': before})}"
    return ListPage(rows, older, looked_back=len(rows) < PAGE)


def _types(config: Config) -> set[str]:
    """The types that rules name in full."""
    return {kind for rule in config.rules.values() for kind in rule.on if not set(kind) & set("*?[")}


def _pretty(data: Mapping[str, Any] | None) -> Markup | None:
    """JSON on lines of its own, each of them only text."""
    if data is None:
        return None
    lines = json.dumps(data, indent=2, ensure_ascii=False)[:LONGEST].split("\n")
    return Markup("\n").join(escape_control(line) for line in lines)


routes: list[BaseRoute] = [
    Route("/events", events_page),
    Route("/events/{seq}", event_page),
    Route("/runs", runs_page),
    Route("/runs/{run_id}", run_page),
]
