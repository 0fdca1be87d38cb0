"""Show the last report of each workflow, with the button that starts it."""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from dims_producers.publish import publish
from dims_worker import workflows
from dims_worker.config import Config
from dims_worker.config.runtime import WORKFLOW
from dims_worker.domain.schedule import next_tick
from dims_worker.errors import BrokerUnreachable, NotFound, UsageError
from dims_worker.events import WORKFLOW_REQUESTED, Event
from dims_worker.formatting import escape_control, format_utc_compact
from dims_worker.store import leases, metric_states
from dims_worker.store.engine import clock
from dims_worker.store.events import LoggedEvent, ServedMetric, event_by_id, served_metrics
from dims_worker.store.runs import RunRow, last_result, runs_of
from dims_worker.web.context import WebContext, viewer_of, web_context
from dims_worker.web.middleware import require_form
from dims_worker.web.workflow_report import is_long, report_html
from dims_worker.workflows.registry import report_body

PRODUCER = "dims:web"
EVENT_ID = re.compile(r"(\d{8}T\d{6}Z)-[0-9a-f]{16}", re.ASCII)
"""The id of a form's event: the time when the form was rendered, and random digits."""
MAX_RUNS, MAX_ATTENTION = 10, 5
"""Past runs on the page of a workflow, and sentences about each workflow in the list."""


@dataclass(frozen=True, slots=True)
class WorkflowCard:
    """A workflow and its last run, if there is one. `next` is its next tick and the rule that ticks."""

    name: str
    about: str
    run: RunRow | None
    result: Mapping[str, Any] | None
    next: tuple[datetime, str] | None
    due: bool
    running: bool

    @property
    def status(self) -> str:
        """ok, attention, failed or `never run`."""
        return workflows.result_status(self.result) if self.result else "never run"

    @property
    def figures(self) -> list[tuple[str, str]]:
        return workflows.result_summary(self.result) if self.result else []

    @property
    def attention(self) -> list[str]:
        return [str(sentence) for sentence in self.result.get("attention", ())] if self.result else []

    @property
    def unreached(self) -> list[tuple[str, str]]:
        return sorted(self.result["unreached"].items()) if self.result else []

    @property
    def progress(self) -> str:
        """`running`, `requested` (it waits for a worker), or empty."""
        return "running" if self.running else "requested" if self.due else ""


@dataclass(frozen=True, slots=True)
class RequestedRun:
    """What happened to the event of a form.

    `event` is None until it is ingested. `served` is None if it does not concern this workflow, and has no `run_id`
    while the run is due. `again`: a run had already answered the event when the form was sent.
    """

    event: LoggedEvent | None
    served: ServedMetric | None
    again: bool


def list_workflows_page(request: Request) -> Response:
    """Show every configured workflow with its latest figures."""
    site = web_context(request)
    with site.read_transaction() as connection:
        now = clock(connection)
        cards = [_card(site.config, connection, name, now) for name in site.config.configured_workflows]
    values = {
        "section": "workflows",
        "title": "Workflows",
        "can_start": site.broker_url is not None,
        "file": site.config.file,
        "cards": cards,
        "event_ids": {card.name: _new_event_id() for card in cards},
        "max_attention": MAX_ATTENTION,
    }
    return site.page(request, "workflows.html", values)


def workflow_page(request: Request) -> Response:
    """Show a workflow's last report, its past runs and its button."""
    site, name = web_context(request), request.path_params["name"]
    _require_configured(site.config, name)
    event_id, again = request.query_params.get("event", ""), "again" in request.query_params
    with site.read_transaction() as connection:
        card = _card(site.config, connection, name, clock(connection))
        runs = runs_of(connection, f"{WORKFLOW}{name}", limit=MAX_RUNS)
        requested = _requested_run(connection, name, event_id, again=again) if _rendered_at(event_id) else None
    report = report_body(card.result) if card.result else ""
    values = {
        "section": "workflows",
        "title": name,
        "can_start": site.broker_url is not None,
        "card": card,
        "runs": runs,
        "more_runs": len(runs) == MAX_RUNS,
        "requested": requested,
        "report": report_html(report) if report else "",
        "truncated": is_long(report),
        "event_id": _new_event_id(),
    }
    return site.page(request, "workflow.html", values)


async def start(request: Request) -> Response:
    """Request a run by an event. Its id and time come from the form, so that a double click is one event."""
    form = await require_form(request)
    site, name, viewer = web_context(request), request.path_params["name"], viewer_of(request)
    _require_configured(site.config, name)
    assert viewer is not None  # require_form has checked it
    if site.broker_url is None:
        raise BrokerUnreachable(
            "the dashboard cannot start workflows, because no broker is configured. "
            f"Set DIMS_BROKER_URL for `dims web`, or run `dims workflow {name}`"
        )
    event_id = form.get("event_id", "")
    rendered_at = _rendered_at(event_id)
    if rendered_at is None:
        raise UsageError("the form has no valid event id. Reload the page and try again")
    if await run_in_threadpool(_is_served, site, name, event_id):  # the form was sent again after the Back button
        return RedirectResponse(f"/workflows/{name}?event={event_id}&again", 303)
    data = {"workflow": name, "by": viewer.name}
    event = Event.new(WORKFLOW_REQUESTED, PRODUCER, now=rendered_at, data=data, id=event_id)
    await run_in_threadpool(publish, [event], site.broker_url)
    return RedirectResponse(f"/workflows/{name}?event={event_id}", 303)


def _require_configured(config: Config, name: str) -> None:
    if name not in config.configured_workflows:
        configured = ", ".join(config.configured_workflows) or "none"
        raise NotFound(f"the workflow {escape_control(name)} is not configured. Configured workflows: {configured}")


def _card(config: Config, connection: Connection, name: str, now: datetime) -> WorkflowCard:
    source = f"{WORKFLOW}{name}"
    run, result = last_result(connection, source) or (None, None)
    state = metric_states.read_states(connection, [source]).get(source)
    return WorkflowCard(
        name,
        " ".join((type(config.workflow_of(source)).__doc__ or "").split()),
        run,
        result,
        _next_tick(config, name, now),
        due=state is not None and state.due,
        running=leases.is_leased(connection, source),
    )


def _next_tick(config: Config, name: str, now: datetime) -> tuple[datetime, str] | None:
    """Return the time of the next scheduled run and the name of its rule."""
    rules = ((key, rule) for key, rule in config.rules.items() if rule.schedule and name in rule.workflows)
    return min(((next_tick(rule, now), key) for key, rule in rules), default=None)


def _requested_run(connection: Connection, name: str, event_id: str, *, again: bool) -> RequestedRun:
    event = event_by_id(connection, event_id)
    served = served_metrics(connection, event) if event else []
    return RequestedRun(event, next((each for each in served if each.metric == f"{WORKFLOW}{name}"), None), again)


def _is_served(site: WebContext, name: str, event_id: str) -> bool:
    """Return whether a run has already answered the event of a form."""
    with site.read_transaction() as connection:
        served = _requested_run(connection, name, event_id, again=False).served
    return served is not None and served.run_id is not None


def _new_event_id() -> str:
    return f"{format_utc_compact(datetime.now(UTC))}-{secrets.token_hex(8)}"


def _rendered_at(event_id: str) -> datetime | None:
    """Return when the form with this event id was rendered, or None if the id is not valid."""
    match = EVENT_ID.fullmatch(event_id)
    try:
        return datetime.strptime(match[1], "%Y%m%dT%H%M%S%z") if match else None
    except ValueError:
        return None


routes = [
    Route("/workflows", list_workflows_page),
    Route("/workflows/{name}", workflow_page),
    Route("/workflows/{name}/start", start, methods=["POST"]),
]
