"""What waits for a person, and the buttons that decide it."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from datetime import datetime

from sqlalchemy.exc import OperationalError
from starlette.datastructures import FormData
from starlette.requests import Request as Asked
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from dims_worker.analysis.evidence import NamedGap
from dims_worker.analysis.explanation import explain_request
from dims_worker.approvals.decisions import Choice, Decider, approvers_of, decide_request, may_decide
from dims_worker.config import Config, Policy
from dims_worker.errors import NotFound, Refused, UsageError
from dims_worker.formatting import NO_VALUE, escape_control, format_drift, format_value
from dims_worker.reports import svg_charts
from dims_worker.store import approval_requests as store
from dims_worker.store import metric_states
from dims_worker.store.approval_requests import ApprovalRequest
from dims_worker.store.engine import clock, is_busy
from dims_worker.text.evidence import placed_lines
from dims_worker.text.phrases import band_text
from dims_worker.web.api.query_parameters import LARGEST
from dims_worker.web.context import WebContext, trusted_html, viewer_of, web_context
from dims_worker.web.identity import Viewer
from dims_worker.web.middleware import aside, form_of
from dims_worker.web.trend_chart import pictures

log = logging.getLogger(__name__)

PAGE = 50
"""So many requests stand on a page."""
LONGEST = 2000
"""A note has so many characters at most."""
STATES = ("all", "open", "decided")
BEFORE = 6
"""So many earlier requests of the same metric are told."""
DAYS = 30
"""The picture of a request's metric shows so many days."""


@dataclass(frozen=True, slots=True)
class RequestCard:
    """A request in words. `seen`: its values, as a form carries them back. `why` it waits. `band`: other values that it
    stands for. `others`: who may decide, where the viewer may not."""

    request: ApprovalRequest
    old: str
    new: str
    drift: str
    why: str
    band: str
    others: str = ""

    @property
    def seen(self) -> str:
        return f"{self.old} → {self.new}"

    @property
    def by(self) -> str:
        """Who decided: `ada (token)`."""
        return f"{self.request.decided_by} ({self.request.known_by})" if self.request.decided_by else "by itself"

    @property
    def state(self) -> str:
        return "set by hand" if self.request.kind == "baseline" else self.request.state

    @classmethod
    def of(cls, config: Config, request: ApprovalRequest, now: datetime, viewer: Viewer | None = None) -> RequestCard:
        metric = config.metrics.get(request.metric)
        none = request.kind == "baseline" and request.baseline_as_of is None
        new, old = (format_value(value, request.unit, metric, now) for value in (request.value, request.baseline))
        policy = config.policy_of(request.metric) if request.metric in config.definitions else None
        may = viewer is None or may_decide(config, request.metric, viewer.name)
        return cls(
            request,
            NO_VALUE if none else old,
            new,
            format_drift(request.value, request.baseline, request.drift_pct),
            _why(request, policy),
            band_text(request.anchor, policy.tolerance_pct if policy else 0, request.unit),
            "" if may else ", ".join(approvers_of(config, request.metric)),
        )


def _why(request: ApprovalRequest, policy: Policy | None) -> str:
    """Why a person is asked; that it drifted stands beside it already."""
    drift = request.drift_pct
    if policy is None or not policy.critical or drift is None or drift < policy.require_approval_pct:
        return request.reason
    return f"it is critical, and at {policy.require_approval_pct:g} % or more a person decides"


@dataclass(frozen=True, slots=True)
class PendingChoice:
    """What somebody chose: of which request and version, and what that said when it was seen. `busy`: why it could not
    be done now."""

    choice: Choice
    number: int
    version: int
    seen: str
    note: str
    busy: bool = False


def list_requests_page(request: Asked) -> Response:
    """`/requests`: what waits, the longest waiting first; then what was decided, the newest first."""
    site, viewer = web_context(request), viewer_of(request)
    state = request.query_params.get("state", "all")
    if state not in STATES:
        raise UsageError(f"state is one of {', '.join(STATES)}")
    before, after = _number(request, "before"), _number(request, "after")
    with site.reading() as connection:
        now = clock(connection)
        everything = list(store.open_requests(connection).values())
        decided = store.decided_requests(connection, limit=PAGE + 1, before=before) if state != "open" else []
    waiting = [one for one in everything if one.id > (after or 0)] if state != "decided" and not before else []
    values = {
        **{"here": "requests", "title": "Requests", "state": state, "states": STATES, "now": now, "older": before},
        **{"number": len(everything), "newest": max(everything, key=lambda one: one.updated_at, default=None)},
        **{"waiting": [RequestCard.of(site.config, one, now, viewer) for one in waiting[:PAGE]]},
        **{"next_open": waiting[PAGE - 1].id if len(waiting) > PAGE else None},
        **{"decided": [RequestCard.of(site.config, one, now) for one in decided[:PAGE]]},
        **{"next_decided": decided[PAGE - 1].id if len(decided) > PAGE else None},
    }
    return site.page(request, "requests.html", values)


def request_page(request: Asked) -> Response:
    """`/requests/{id}`; raises NotFound."""
    return _page(request, web_context(request), None)


def _page(request: Asked, site: WebContext, conflict: PendingChoice | None) -> Response:
    """Everything that a reviewer needs, as it stands now."""
    number = _path(request)
    with site.reading() as connection:
        found = store.requests_by_number(connection, [number]).get(number)
        if found is None:
            raise NotFound(f"there is no request {number}")
        waiting = store.open_requests(connection)
        if conflict and found.state != "open" and found.decided_by is None:
            found = waiting.get(found.metric, found)  # what took its place is what they want to decide on
        number, now = found.id, clock(connection)
        evidence, gaps = explain_request(connection, site.config, found)
        others = [one for one in store.list_requests(connection, limit=BEFORE, metric=found.metric) if one.id != number]
        known = metric_states.read_states(connection, [found.metric]).get(found.metric)
        picture = pictures(connection, site.config, known, now, DAYS) if known else ""
    one, then = RequestCard.of(site.config, found, now, viewer_of(request)), waiting.get(found.metric)
    following = [each for each in waiting.values() if each.id > number] or [*waiting.values()]
    values = {
        **{"here": "requests", "title": f"{found.metric}: {one.seen}", "now": now, "conflict": conflict, "one": one},
        **{
            "days": DAYS,
            "picture": picture,
            "legend": trusted_html(svg_charts.legend_html()),
            "at": f"/requests/{number}",
        },
        **{"next": next(iter(following), None), "number_open": len(waiting)},
        **{"changes": list(placed_lines(evidence, now)) if evidence else []},
        **{"gaps": [NamedGap(gap, found.unit) for gap in gaps]},
        **{"others": [RequestCard.of(site.config, each, now) for each in others]},
        **{"open": then.id if then and then.id != number else None, "known_by": KNOWN_BY, "ended": ENDED},
    }
    return site.page(request, "request.html", values, (503 if conflict.busy else 409) if conflict else 200)


async def back(request: Asked) -> Response:
    """The address of a button, loaded: its request as it stands."""
    return RedirectResponse(f"/requests/{_path(request)}", 303)


async def approve(request: Asked) -> Response:
    return await _decided(request, "approved")


async def reject(request: Asked) -> Response:
    return await _decided(request, "rejected")


async def _decided(request: Asked, choice: Choice) -> Response:
    form = await form_of(request)
    made = PendingChoice(choice, _path(request), _version(form), _text(form, "seen")[:400], _note(form))
    return await aside(_decide, request, made)


def _decide(request: Asked, made: PendingChoice) -> Response:
    """The decision, once; who came too late is shown what stands now. Raises NotFound, NotAllowed."""
    site, viewer, number = web_context(request), viewer_of(request), made.number
    assert viewer is not None  # form_of has asked
    person = Decider(viewer.name, viewer.known_by)
    try:
        decision = decide_request(
            site.engine, site.config, str(number), made.choice,
            version=made.version, person=person, note=made.note or None,
        )  # fmt: skip
    except Refused:
        return _page(request, site, made)
    except OperationalError as error:
        if not is_busy(error):
            raise
        log.warning("request %s was not decided: %s", number, str(error.orig).splitlines()[0])
        return _page(request, site, replace(made, busy=True))
    if decision.already and decision.request.decided_by != viewer.name:
        return _page(request, site, made)
    return RedirectResponse(f"/requests/{number}", 303)


def _path(request: Asked) -> int:
    """The number in a request's address. Raises NotFound."""
    said = request.path_params["id"]
    if not (said.isascii() and said.isdecimal() and len(said) < 20 and int(said) <= LARGEST):
        raise NotFound(f"there is no request {escape_control(said)[:40]}")
    return int(said)


def _text(form: FormData, name: str) -> str:
    value = form.get(name, "")
    return value if isinstance(value, str) else ""


def _version(form: FormData) -> int:
    said = _text(form, "version")
    if not (said.isascii() and said.isdecimal() and len(said) < 19):
        raise UsageError("the form does not say which version was seen: load the page again")
    return int(said)


def _note(form: FormData) -> str:
    """Why, as one paragraph; raises UsageError where it cannot be kept."""
    note = " ".join(_text(form, "note").split())
    if len(note) > LONGEST:
        raise UsageError(f"the note has {len(note):,} characters; {LONGEST:,} are kept at most")
    if "\0" in note:
        raise UsageError("the note holds a NUL character, which no database keeps")
    return note


def _number(request: Asked, name: str) -> int | None:
    """A cursor out of the address: the number of a request."""
    said = request.query_params.get(name)
    if said is None:
        return None
    if not (said.isascii() and said.isdecimal() and len(said) < 20 and int(said) <= LARGEST):
        raise UsageError(f"{name} is the number of a request")
    return int(said)


ENDED = {
    "superseded": "A reading outside of its band came, and another request took its place.",
    "withdrawn": "It needs no decision any more: a reading was accepted, the baseline was set, or the metric changed.",
    "expired": "Nobody decided in time.",
}
"""How a request ends by itself."""
KNOWN_BY = {
    **{"token": "signed in with a token", "link": "signed in by a link of `dims web --link`"},
    **{"proxy": "named by the sign-in proxy", "option": "named by `--as`", "environment": "named by DIMS_USER"},
    **{"system": "the system's user"},
}
"""How who decided is known."""

routes = [
    Route("/requests", list_requests_page),
    Route("/requests/{id}", request_page),
    Route("/requests/{id}/approve", approve, methods=["POST"]),
    Route("/requests/{id}/reject", reject, methods=["POST"]),
    Route("/requests/{id}/approve", back),
    Route("/requests/{id}/reject", back),
]
