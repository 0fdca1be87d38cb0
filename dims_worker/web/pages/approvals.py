"""Show the approval requests, with the buttons that approve and reject them."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from datetime import datetime

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from dims_worker.analysis.evidence import NamedGap
from dims_worker.analysis.explanation import explain_request
from dims_worker.approvals.decisions import Choice, decide_request
from dims_worker.config import Config, Policy
from dims_worker.domain.approvers import Decider, approvers_of, may_decide
from dims_worker.errors import DatabaseBusy, NotFound, Refused, UsageError
from dims_worker.formatting import NO_VALUE, format_holding_drift, format_number, format_value
from dims_worker.store import approval_requests, metric_states
from dims_worker.store.approval_requests import ApprovalRequest
from dims_worker.store.engine import clock
from dims_worker.text.evidence import placed_lines
from dims_worker.text.phrases import band_text
from dims_worker.web.api.query_parameters import (
    choice_parameter,
    integer_parameter,
    parse_note,
    parse_whole_number,
    path_number,
    query_value,
)
from dims_worker.web.context import WebContext, viewer_of, web_context
from dims_worker.web.identity import Viewer
from dims_worker.web.middleware import require_form
from dims_worker.web.trend_chart import trend_charts

log = logging.getLogger(__name__)

PAGE_SIZE = 50
STATES = ("all", "open", "decided")
STATE = choice_parameter("state", "Which requests to show.", STATES)
BEFORE = integer_parameter("before", "The number of the last decided request on the previous page.")
AFTER = integer_parameter("after", "The number of the last open request on the previous page.")
MAX_OTHERS = 6
CHART_DAYS = 30


@dataclass(frozen=True, slots=True)
class RequestCard:
    """A request as text.

    `band` are the values that this request also covers. `others` are the people who may decide, if the viewer may not.
    """

    request: ApprovalRequest
    old: str
    new: str
    drift: str
    reason: str
    band: str
    others: str = ""

    @property
    def change(self) -> str:
        """The values, as a form sends them back."""
        return f"{self.old} → {self.new}"

    @property
    def decider(self) -> str:
        """Who decided: `ada (token)`."""
        request = self.request
        return f"{request.decided_by} ({request.known_by})" if request.decided_by else "automatic"

    @property
    def state(self) -> str:
        return "set by hand" if self.request.kind == "baseline" else self.request.state

    @classmethod
    def of(cls, config: Config, request: ApprovalRequest, now: datetime, viewer: Viewer | None = None) -> RequestCard:
        metric = config.metrics.get(request.metric)
        has_no_baseline = request.kind == "baseline" and request.baseline_as_of is None
        new, old = (format_value(value, request.unit, metric, now) for value in (request.value, request.baseline))
        policy = config.policy_of(request.metric) if request.metric in config.definitions else None
        allowed = viewer is None or may_decide(config, request.metric, viewer.name)
        return cls(
            request,
            NO_VALUE if has_no_baseline else old,
            new,
            format_holding_drift(request, metric, now),
            _reason(request, policy),
            band_text(request.anchor, policy.tolerance_pct if policy else 0, request.unit),
            "" if allowed else ", ".join(approvers_of(config, request.metric)),
        )


def _reason(request: ApprovalRequest, policy: Policy | None) -> str:
    """Return why the request needs a person. The card shows the drift itself."""
    drift = request.drift_pct
    if policy is None or not policy.critical or drift is None or drift < policy.require_approval_pct:
        return request.reason
    limit = format_number(policy.require_approval_pct)
    return f"the metric is critical, and a drift of {limit} % or more needs approval"


@dataclass(frozen=True, slots=True)
class PendingChoice:
    """What a person chose, and which version they saw. `change` is what it showed. `busy`: a lock prevented it."""

    choice: Choice
    number: int
    version: int
    change: str
    note: str
    busy: bool = False


def list_requests_page(request: Request) -> Response:
    """Show open requests, oldest first, then decided ones, newest first."""
    site, viewer = web_context(request), viewer_of(request)
    state = query_value(request, STATE) or "all"
    before, after = query_value(request, BEFORE), query_value(request, AFTER)
    with site.read_transaction() as connection:
        now = clock(connection)
        every_open = list(approval_requests.open_requests(connection).values())
        decided = []
        if state != "open":
            decided = approval_requests.decided_requests(connection, limit=PAGE_SIZE + 1, before=before)
    shows_open = state != "decided" and not before
    open_requests = [each for each in every_open if each.id > (after or 0)] if shows_open else []
    values = {
        "section": "requests",
        "title": "Approval requests",
        "state": state,
        "states": STATES,
        "now": now,
        "before": before,
        "number_open": len(every_open),
        "newest": max(every_open, key=lambda each: each.updated_at, default=None),
        "open_cards": [RequestCard.of(site.config, each, now, viewer) for each in open_requests[:PAGE_SIZE]],
        "next_open": open_requests[PAGE_SIZE - 1].id if len(open_requests) > PAGE_SIZE else None,
        "decided": [RequestCard.of(site.config, each, now) for each in decided[:PAGE_SIZE]],
        "next_decided": decided[PAGE_SIZE - 1].id if len(decided) > PAGE_SIZE else None,
    }
    return site.page(request, "requests.html", values)


def request_page(request: Request) -> Response:
    """Show one request. Raises NotFound."""
    return _page(request, web_context(request), None)


def _page(request: Request, site: WebContext, conflict: PendingChoice | None) -> Response:
    """Show everything that a person needs to decide."""
    number = path_number(request, "id", "request")
    with site.read_transaction() as connection:
        current = approval_requests.requests_by_number(connection, [number]).get(number)
        if current is None:
            raise NotFound(f"there is no request {number}")
        open_requests = approval_requests.open_requests(connection)
        if conflict and current.state != "open" and current.decided_by is None:
            current = open_requests.get(current.metric, current)  # show the request that replaced it
        number, metric, now = current.id, current.metric, clock(connection)
        evidence, gaps = explain_request(connection, site.config, current)
        others = approval_requests.list_requests(connection, limit=MAX_OTHERS, metric=metric)
        state = metric_states.read_states(connection, [metric]).get(metric)
        chart = trend_charts(connection, site.config, state, now, CHART_DAYS) if state else ""
    card, open_request = RequestCard.of(site.config, current, now, viewer_of(request)), open_requests.get(metric)
    later = [each for each in open_requests.values() if each.id > number] or [*open_requests.values()]
    values = {
        "section": "requests",
        "title": f"{metric}: {card.change}",
        "page_url": f"/requests/{number}",
        "now": now,
        "card": card,
        "conflict": conflict,
        "days": CHART_DAYS,
        "chart": chart,
        "changes": list(placed_lines(evidence, now)) if evidence else [],
        "gaps": [NamedGap(gap, current.unit) for gap in gaps],
        "others": [RequestCard.of(site.config, each, now) for each in others if each.id != number],
        "open_request": open_request.id if open_request and open_request.id != number else None,
        "next": later[0] if later else None,
        "number_open": len(open_requests),
    }
    return site.page(request, "request.html", values, (503 if conflict.busy else 409) if conflict else 200)


async def redirect_to_request(request: Request) -> Response:
    """Redirect from the address of a button to its request."""
    return RedirectResponse(f"/requests/{path_number(request, 'id', 'request')}", 303)


async def decide(request: Request) -> Response:
    """Approve or reject, by the address of the button."""
    choice: Choice = "approved" if request.url.path.endswith("/approve") else "rejected"
    form = await require_form(request)
    number = path_number(request, "id", "request")
    version = parse_whole_number(form.get("version", ""))
    if version is None:
        raise UsageError("the form does not say which version you saw. Reload the page and try again")
    pending = PendingChoice(choice, number, version, form.get("seen", "")[:400], parse_note(form.get("note", "")))
    return await run_in_threadpool(_decide, request, pending)


def _decide(request: Request, pending: PendingChoice) -> Response:
    """Decide, or show the current state if someone else was faster. Raises NotFound, NotAllowed."""
    site, viewer, number = web_context(request), viewer_of(request), pending.number
    assert viewer is not None  # require_form has checked it
    try:
        decision = decide_request(
            site.engine,
            site.config,
            str(number),
            pending.choice,
            version=pending.version,
            person=Decider(viewer.name, viewer.known_by),
            note=pending.note or None,
        )
    except Refused:
        return _page(request, site, pending)
    except DatabaseBusy as error:
        log.warning("request %s was not decided; it can be tried again: %s", number, error)
        return _page(request, site, replace(pending, busy=True))
    if decision.already and decision.request.decided_by != viewer.name:
        return _page(request, site, pending)
    return RedirectResponse(f"/requests/{number}", 303)


routes = [
    Route("/requests", list_requests_page),
    Route("/requests/{id}", request_page),
    Route("/requests/{id}/approve", decide, methods=["POST"]),
    Route("/requests/{id}/reject", decide, methods=["POST"]),
    Route("/requests/{id}/approve", redirect_to_request),
    Route("/requests/{id}/reject", redirect_to_request),
]
