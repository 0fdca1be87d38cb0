"""What waits for a person, and the buttons that decide it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from starlette.datastructures import FormData
from starlette.requests import Request as Asked
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from dims_worker.approvals import Choice, Person, approvers_of, decide, may_decide
from dims_worker.config import Config
from dims_worker.errors import NotFound, Refused, UsageError
from dims_worker.explain import explain_request
from dims_worker.sentences.evidence import placed_lines
from dims_worker.sentences.shown import band
from dims_worker.store import requests as store
from dims_worker.store import states
from dims_worker.store.engine import clock
from dims_worker.store.requests import Request
from dims_worker.web.access import Viewer
from dims_worker.web.course import pictures
from dims_worker.web.guard import aside, form_of
from dims_worker.web.named import Named
from dims_worker.web.site import Site, site_of, viewer_of
from dims_worker.wording import NOTHING, drift_text, value_text

PAGE = 50
"""So many requests stand on a page."""
LONGEST = 2000
"""A note has so many characters at most."""
LARGEST = 2**63 - 1
"""The largest number that the database counts to."""
STATES = ("all", "open", "decided")
BEFORE = 6
"""So many earlier requests of the same metric are told."""
DAYS = 30
"""The picture of a request's metric shows so many days."""


@dataclass(frozen=True, slots=True)
class Ask:
    """A request in words. `seen`: its values, as a form carries them back. `band`: other values that it stands for.
    `others`: who may decide, where the viewer may not."""

    request: Request
    old: str
    new: str
    drift: str
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
    def of(cls, config: Config, request: Request, now: datetime, viewer: Viewer | None = None) -> Ask:
        metric = config.metrics.get(request.metric)
        none = request.kind == "baseline" and request.baseline_as_of is None
        new, old = (value_text(value, request.unit, metric, now) for value in (request.value, request.baseline))
        tolerance = config.policy_of(request.metric).tolerance_pct if request.metric in config.definitions else 0
        may = viewer is None or may_decide(config, request.metric, viewer.name)
        return cls(
            request,
            NOTHING if none else old,
            new,
            drift_text(request.value, request.baseline, request.drift_pct),
            band(request.anchor, tolerance, request.unit),
            "" if may else ", ".join(approvers_of(config, request.metric)),
        )


@dataclass(frozen=True, slots=True)
class Conflict:
    """A decision that came too late: what was chosen, of which version, and what that said when it was seen."""

    choice: Choice
    version: int
    seen: str
    note: str


def listed(request: Asked) -> Response:
    """`/requests`: what waits, the longest waiting first; then what was decided, the newest first."""
    site, viewer = site_of(request), viewer_of(request)
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
        **{"waiting": [Ask.of(site.config, one, now, viewer) for one in waiting[:PAGE]]},
        **{"next_open": waiting[PAGE - 1].id if len(waiting) > PAGE else None},
        **{"decided": [Ask.of(site.config, one, now) for one in decided[:PAGE]]},
        **{"next_decided": decided[PAGE - 1].id if len(decided) > PAGE else None},
    }
    return site.page(request, "requests.html", values)


def shown(request: Asked) -> Response:
    """`/requests/{id}`; raises NotFound."""
    return _page(request, site_of(request), None)


def _page(request: Asked, site: Site, conflict: Conflict | None) -> Response:
    """Everything that a reviewer needs, as it stands now."""
    number = request.path_params["id"]
    with site.reading() as connection:
        found = store.requests_by_number(connection, [number]).get(number) if number <= LARGEST else None
        if found is None:
            raise NotFound(f"there is no request {number}")
        now = clock(connection)
        evidence, gaps = explain_request(connection, site.config, found)
        others = [one for one in store.list_requests(connection, limit=BEFORE, metric=found.metric) if one.id != number]
        known = states.read(connection, [found.metric]).get(found.metric)
        picture = pictures(connection, site.config, known, now, DAYS) if known else ""
    values = {
        **{"here": "requests", "title": f"Request {number}", "now": now, "conflict": conflict},
        **{"one": Ask.of(site.config, found, now, viewer_of(request)), "days": DAYS, "picture": picture},
        **{"changes": list(placed_lines(evidence, now)) if evidence else []},
        **{"gaps": [Named(gap, found.unit) for gap in gaps]},
        **{"others": [Ask.of(site.config, each, now) for each in others]},
        **{"open": next((each.id for each in others if each.state == "open"), None), "known_by": KNOWN_BY},
    }
    return site.page(request, "request.html", values, 409 if conflict else 200)


async def back(request: Asked) -> Response:
    """The address of a button, loaded: its request as it stands."""
    return RedirectResponse(f"/requests/{request.path_params['id']}", 303)


async def approve(request: Asked) -> Response:
    return await _decided(request, "approved")


async def reject(request: Asked) -> Response:
    return await _decided(request, "rejected")


async def _decided(request: Asked, choice: Choice) -> Response:
    form = await form_of(request)
    return await aside(_decide, request, Conflict(choice, _version(form), _text(form, "seen")[:400], _note(form)))


def _decide(request: Asked, made: Conflict) -> Response:
    """The decision, once; who came too late is shown what stands now. Raises NotFound, NotAllowed."""
    site, viewer, number = site_of(request), viewer_of(request), request.path_params["id"]
    assert viewer is not None  # form_of has asked
    person = Person(viewer.name, viewer.known_by)
    try:
        decision = decide(
            site.engine, site.config, str(number), made.choice,
            version=made.version, person=person, note=made.note or None,
        )  # fmt: skip
    except Refused:
        return _page(request, site, made)
    if decision.already and decision.request.decided_by != viewer.name:
        return _page(request, site, made)
    return RedirectResponse(f"/requests/{number}", 303)


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


KNOWN_BY = {
    **{"token": "signed in with a token", "link": "signed in by a link of `dims web --link`"},
    **{"proxy": "named by the sign-in proxy", "option": "named by `--as`", "environment": "named by DIMS_USER"},
    **{"system": "the system's user"},
}
"""How who decided is known."""

routes = [
    Route("/requests", listed),
    Route("/requests/{id:int}", shown),
    Route("/requests/{id:int}/approve", approve, methods=["POST"]),
    Route("/requests/{id:int}/reject", reject, methods=["POST"]),
    Route("/requests/{id:int}/approve", back),
    Route("/requests/{id:int}/reject", back),
]
