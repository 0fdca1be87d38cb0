"""Show the incidents, grouped by story, with the buttons that acknowledge and close them."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urlencode

from sqlalchemy import Connection
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from dims_worker.analysis.evidence import NamedGap
from dims_worker.analysis.incidents import explain_incident
from dims_worker.errors import DatabaseBusy, NotAllowed, NotFound, Refused, UsageError
from dims_worker.store import incidents, metric_states
from dims_worker.store.engine import clock
from dims_worker.store.incidents import KINDS, Incident
from dims_worker.text.evidence import placed_lines
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
from dims_worker.web.incident_cards import CardFacts, IncidentCard, StoryCard, group_stories
from dims_worker.web.incident_decisions import Choice, decide_incident
from dims_worker.web.middleware import require_form
from dims_worker.web.trend_chart import trend_charts

log = logging.getLogger(__name__)

PAGE_SIZE = 50
"""Stories, and closed incidents, of a page."""
STATES = ("all", "open", "acknowledged", "closed")
STATE = choice_parameter("state", "Which incidents to show.", STATES)
KIND = choice_parameter("kind", "Which kind of incidents to show.", ["", *KINDS])
BEFORE = integer_parameter("before", "The number of the last closed incident on the previous page.")
AFTER = integer_parameter("after", "The number of the last story on the previous page.")
MAX_EARLIER = 8
CHART_DAYS = 30
_VERSIONS = re.compile(r"[0-9]{1,19}:[0-9]{1,9}(,[0-9]{1,19}:[0-9]{1,9})*", re.ASCII)


@dataclass(frozen=True, slots=True)
class InboxFilter:
    """The filter of the inbox. An empty text does not filter."""

    state: str
    kind: str
    category: str

    @classmethod
    def of(cls, request: Request) -> InboxFilter:
        category = request.query_params.get("category", "").replace("\0", "")[:200]
        return cls(query_value(request, STATE) or "all", query_value(request, KIND) or "", category)

    def address(self, **changes: object) -> str:
        """Return the address of the inbox with this filter, and other values for some keys."""
        values = {"state": self.state, "kind": self.kind, "category": self.category} | changes
        given = {key: value for key, value in values.items() if value and (key, value) != ("state", "all")}
        return f"/incidents?{urlencode(given)}" if given else "/incidents"

    def matches(self, incident: Incident) -> bool:
        """Return whether an incident that is not closed is shown."""
        if self.state not in ("all", incident.state) or self.kind not in ("", incident.kind):
            return False
        return not self.category or incident.metric.startswith(f"{self.category}.")


def inbox_page(request: Request) -> Response:
    """Show the incidents that are not closed by story, newest first, then those that are closed."""
    site, viewer, wanted = web_context(request), viewer_of(request), InboxFilter.of(request)
    before, after = query_value(request, BEFORE), query_value(request, AFTER)
    with site.read_transaction() as connection:
        active = incidents.open_incidents(connection)
        facts = CardFacts.load(connection, site.config, active, clock(connection), viewer)
        closed = _closed(connection, wanted, before)
    shown = [each for each in active if wanted.matches(each) and not before]
    stories = [each for each in group_stories(facts, shown) if after is None or each.number < after]
    values = {
        "section": "incidents",
        "title": "Incidents",
        "now": facts.now,
        "filter": wanted,
        "states": STATES,
        "kinds": KINDS,
        "categories": list(dict.fromkeys(name.partition(".")[0] for name in site.config.definitions)),
        "number_open": sum(each.state == "open" for each in active),
        "number_acknowledged": sum(each.state == "acknowledged" for each in active),
        "newest": max(active, key=lambda each: each.id, default=None),
        "stories": stories[:PAGE_SIZE],
        "next_stories": stories[PAGE_SIZE - 1].number if len(stories) > PAGE_SIZE else None,
        "before": before,
        "closed": [IncidentCard.of(facts, each) for each in closed[:PAGE_SIZE]],
        "next_closed": closed[PAGE_SIZE - 1].id if len(closed) > PAGE_SIZE else None,
    }
    return site.page(request, "incidents.html", values)


def _closed(connection: Connection, wanted: InboxFilter, before: int | None) -> list[Incident]:
    if wanted.state not in ("all", "closed"):
        return []
    kind = next((kind for kind in KINDS if kind == wanted.kind), None)
    category = wanted.category or None
    return incidents.list_incidents(
        connection, limit=PAGE_SIZE + 1, state="closed", kind=kind, category=category, before=before
    )


@dataclass(frozen=True, slots=True)
class PendingDecision:
    """What a person chose, and the versions of the incidents that they saw, by number."""

    choice: Choice
    number: int
    versions: Mapping[int, int]
    note: str


@dataclass(frozen=True, slots=True)
class Conflict:
    """A decision that was not carried out for some incidents. `refused` has a reason for each."""

    pending: PendingDecision
    refused: Sequence[str]
    done: int
    status: int


def incident_page(request: Request) -> Response:
    """Show one incident, and the others of its story. Raises NotFound."""
    return _page(request, web_context(request), None)


def _page(request: Request, site: WebContext, conflict: Conflict | None) -> Response:
    number, viewer = path_number(request, "id", "incident"), viewer_of(request)
    with site.read_transaction() as connection:
        incident = incidents.find_incident(connection, number)
        if incident is None:
            raise NotFound(f"there is no incident {number}")
        active, metric = incidents.open_incidents(connection), incident.metric
        facts = CardFacts.load(connection, site.config, active, clock(connection), viewer)
        now = facts.now
        earlier = incidents.list_incidents(connection, limit=MAX_EARLIER, state="all", metrics=[metric])
        state = metric_states.read_states(connection, [metric]).get(metric)
        chart = trend_charts(connection, site.config, state, now, CHART_DAYS) if state else ""
        known = explain_incident(connection, site.config, incident)
    (story,) = group_stories(facts, (incident, *known.others))
    card = next(each for each in story.cards if each.incident.id == number)
    rest = [each for each in group_stories(facts, active) if each.number != incident.story]
    values = {
        "section": "incidents",
        "title": f"{card.name}: {card.label}",
        "page_url": f"/incidents/{number}",
        "now": now,
        "card": card,
        "alone": StoryCard(story.number, [card]),
        "story": story,
        "conflict": conflict,
        "days": CHART_DAYS,
        "chart": chart,
        "changes": list(placed_lines(known.evidence, now)) if known.evidence else [],
        "gaps": [NamedGap(gap, incident.unit or "") for gap in known.gaps],
        "earlier": [IncidentCard.of(facts, each) for each in earlier if each.id != number],
        "next": rest[0] if rest else None,
        "number_of_stories": len(rest),
    }
    return site.page(request, "incident.html", values, conflict.status if conflict else 200)


async def redirect_to_incident(request: Request) -> Response:
    """Redirect from the address of a button to its incident."""
    return RedirectResponse(f"/incidents/{path_number(request, 'id', 'incident')}", 303)


async def decide(request: Request) -> Response:
    """Acknowledge or close, by the address of the button, the incidents that the form names."""
    choice: Choice = "close" if request.url.path.endswith("/close") else "ack"
    form = await require_form(request)
    number = path_number(request, "id", "incident")
    note = parse_note(form.get("note", ""))
    if choice == "close" and not note:
        raise UsageError("write why you close it, so that others can see the reason. Go back and try again")
    pending = PendingDecision(choice, number, parse_versions(form.get(f"to_{choice}", "")), note)
    return await run_in_threadpool(_decide, request, pending)


def parse_versions(text: str) -> dict[int, int]:
    """Return the version of each incident in a form: `12:1,13:4`. Raises UsageError."""
    if not _VERSIONS.fullmatch(text):
        raise UsageError("the form does not say which version you saw. Reload the page and try again")
    pairs = (pair.split(":") for pair in text.split(","))
    versions = {parse_whole_number(number): int(version) for number, version in pairs}
    return {number: version for number, version in versions.items() if number is not None}


def _decide(request: Request, pending: PendingDecision) -> Response:
    """Decide about each incident, or show the current state of those that have changed. Raises NotFound."""
    site, viewer = web_context(request), viewer_of(request)
    assert viewer is not None  # require_form has checked it
    refused: list[str] = []
    statuses = {200}
    for number, version in pending.versions.items():
        try:
            decide_incident(site, viewer, pending.choice, number, version, pending.note)
        except (Refused, NotAllowed, DatabaseBusy) as error:
            if isinstance(error, Refused) and _is_repeated(site, viewer, pending, number):
                continue
            log.info("incident %s was not changed: %s", number, error)
            refused.append(str(error).partition("\n")[0])
            statuses.add(503 if isinstance(error, DatabaseBusy) else 403 if isinstance(error, NotAllowed) else 409)
    if refused:
        status = next(each for each in (409, 403, 503) if each in statuses)
        return _page(request, site, Conflict(pending, refused, len(pending.versions) - len(refused), status))
    return RedirectResponse(f"/incidents/{pending.number}", 303)


def _is_repeated(site: WebContext, viewer: Viewer, pending: PendingDecision, number: int) -> bool:
    """Return whether this person has just decided exactly this: they pressed the button twice."""
    with site.read_transaction() as connection:
        incident = incidents.find_incident(connection, number)
    if incident is None or incident.version != pending.versions[number] + 1:
        return False
    if pending.choice == "close":
        return (incident.closed_by, incident.closing_reason) == (viewer.name, pending.note)
    return (incident.acknowledged_by, incident.note or "") == (viewer.name, pending.note)


routes = [
    Route("/incidents", inbox_page),
    Route("/incidents/{id}", incident_page),
    Route("/incidents/{id}/ack", decide, methods=["POST"]),
    Route("/incidents/{id}/close", decide, methods=["POST"]),
    Route("/incidents/{id}/ack", redirect_to_incident),
    Route("/incidents/{id}/close", redirect_to_incident),
]
