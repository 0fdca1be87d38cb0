"""The last report of each workflow, and the button that starts one."""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection
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
from dims_worker.web.middleware import aside, form_of
from dims_worker.web.workflow_report import is_long, report_html
from dims_worker.workflows.registry import report_body

PRODUCER = "dims:web"
ID = re.compile(r"(\d{8}T\d{6}Z)-[0-9a-f]{16}", re.ASCII)
"""An event's id as a form has it: when the form was shown, and what makes it the only one."""
PAST = 10
"""So many past runs are listed; `/runs` has them all."""
FEW = 5
"""So many sentences for people are in the list of all workflows; a workflow's own page has them all."""


@dataclass(frozen=True, slots=True)
class WorkflowCard:
    """A workflow as it stands. `run` and `result` None: it was never run. `next`: its tick and the rule of it."""

    name: str
    about: str
    run: RunRow | None
    result: Mapping[str, Any] | None
    next: tuple[datetime, str] | None
    waits: bool
    busy: bool

    @property
    def status(self) -> str:
        """ok, attention or failed; or that it was never run."""
        return workflows.result_status(self.result) if self.result else "never run"

    @property
    def figures(self) -> list[tuple[str, str]]:
        return workflows.result_summary(self.result) if self.result else []

    @property
    def attention(self) -> list[str]:
        return [str(one) for one in self.result.get("attention", ())] if self.result else []

    @property
    def unreached(self) -> list[tuple[str, str]]:
        return sorted(self.result["unreached"].items()) if self.result else []

    @property
    def now(self) -> str:
        """What is going on: it runs, it waits for a worker, or nothing."""
        return "" if not self.waits and not self.busy else "running" if self.busy else "asked for"


@dataclass(frozen=True, slots=True)
class RequestedRun:
    """What became of the event of a form. `event` None: nobody has taken it in yet; `answer` None: it asked for no run
    of this workflow; without a `run_id`, for one that is still due. `again`: it was served before this click."""

    event: LoggedEvent | None
    answer: ServedMetric | None
    again: bool


def list_workflows_page(request: Request) -> Response:
    """Every configured workflow with its last figures."""
    site = web_context(request)
    with site.reading() as connection:
        now = clock(connection)
        shown = [_shown(site.config, connection, name, now) for name in site.config.configured_workflows]
    ids = {one.name: _drawn() for one in shown}
    values = {**_said(site), "shown": shown, "ids": ids, "few": FEW, "title": "Workflows"}
    return site.page(request, "workflows.html", values)


def workflow_page(request: Request) -> Response:
    """A workflow's last report, its past runs and its button."""
    site, name = web_context(request), request.path_params["name"]
    _known(site.config, name)
    with site.reading() as connection:
        now = clock(connection)
        shown = _shown(site.config, connection, name, now)
        past = runs_of(connection, f"{WORKFLOW}{name}", limit=PAST)
        event_id = request.query_params.get("asked", "")
        asked = (
            _asked(connection, name, event_id, again="again" in request.query_params) if _shown_at(event_id) else None
        )
    report = report_body(shown.result) if shown.result else ""
    values = {
        **{**_said(site), "title": name, "one": shown, "past": past, "more": len(past) == PAST, "asked": asked},
        **{"report": report_html(report) if report else "", "cut": is_long(report), "event_id": _drawn()},
    }
    return site.page(request, "workflow.html", values)


async def start(request: Request) -> Response:
    """Ask for a run: an event like any other. Its id and time are the form's, so that two clicks are one event."""
    form = await form_of(request)
    site, name, viewer = web_context(request), request.path_params["name"], viewer_of(request)
    _known(site.config, name)
    assert viewer is not None  # form_of turned everybody else away
    if site.broker_url is None:
        raise BrokerUnreachable("nothing can be started from here: the site was not told where the broker is. "
                                "Set DIMS_BROKER_URL for `dims web`, or start the workflow with "
                                f"`dims workflow {name}`.")  # fmt: skip
    event_id = str(form.get("event_id", ""))
    shown_at = _shown_at(event_id)
    if shown_at is None:
        raise UsageError("the form has no event's id: load the page again")
    if await aside(_is_served, site, name, event_id):  # by the Back button: to send it again would start nothing
        return RedirectResponse(f"/workflows/{name}?asked={event_id}&again", 303)
    data = {"workflow": name, "by": viewer.name}
    event = Event.new(WORKFLOW_REQUESTED, PRODUCER, now=shown_at, data=data, id=event_id)
    await aside(publish, [event], site.broker_url)
    return RedirectResponse(f"/workflows/{name}?asked={event_id}", 303)


def _said(site: WebContext) -> dict[str, Any]:
    return {"here": "workflows", "can_start": site.broker_url is not None, "file": site.config.file}


def _known(config: Config, name: str) -> None:
    """Raises NotFound for what is no configured workflow."""
    if name not in config.configured_workflows:
        there_are = ", ".join(config.configured_workflows) or "none"
        raise NotFound(f"the workflow {escape_control(name)} is not configured; there are: {there_are}")


def _shown(config: Config, connection: Connection, name: str, now: datetime) -> WorkflowCard:
    source = f"{WORKFLOW}{name}"
    run, result = last_result(connection, source) or (None, None)
    state = metric_states.read_states(connection, [source]).get(source)
    declared = config.workflow_of(source)
    return WorkflowCard(
        name,
        " ".join((type(declared).__doc__ or "").split()),
        run,
        result,
        _next(config, name, now),
        waits=state is not None and state.due,
        busy=leases.is_leased(connection, source),
    )


def _next(config: Config, name: str, now: datetime) -> tuple[datetime, str] | None:
    """The next tick that runs it, and the rule whose tick it is; None where no schedule does."""
    ticks = [
        (next_tick(rule, now), called)
        for called, rule in config.rules.items()
        if rule.schedule and name in rule.workflows
    ]
    return min(ticks, default=None)


def _asked(connection: Connection, name: str, event_id: str, *, again: bool) -> RequestedRun:
    event = event_by_id(connection, event_id)
    of = served_metrics(connection, event) if event else []
    return RequestedRun(event, next((one for one in of if one.metric == f"{WORKFLOW}{name}"), None), again)


def _is_served(site: WebContext, name: str, event_id: str) -> bool:
    """Whether a run has answered the form's event already."""
    with site.reading() as connection:
        answer = _asked(connection, name, event_id, again=False).answer
    return answer is not None and answer.run_id is not None


def _drawn() -> str:
    """A new event's id."""
    return f"{format_utc_compact(datetime.now(UTC))}-{secrets.token_hex(8)}"


def _shown_at(event_id: str) -> datetime | None:
    """When the form with this event's id was shown; None where it is no id of ours."""
    found = ID.fullmatch(event_id)
    try:
        return datetime.strptime(found[1], "%Y%m%dT%H%M%S%z") if found else None
    except ValueError:
        return None


routes = [
    Route("/workflows", list_workflows_page),
    Route("/workflows/{name}", workflow_page),
    Route("/workflows/{name}/start", start, methods=["POST"]),
]
