"""Serve incidents and accepted changes as JSON, and acknowledge and close incidents."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import Connection
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from dims_worker.analysis.changes import recent_changes
from dims_worker.config import Config
from dims_worker.errors import NotFound, UsageError
from dims_worker.formatting import format_number
from dims_worker.store.engine import clock
from dims_worker.store.incidents import KINDS, find_incident, incidents_of_story, list_incidents
from dims_worker.text.changes import change_document
from dims_worker.text.incidents import incident_document
from dims_worker.text.json_documents import Document
from dims_worker.web.api.cloudevents_http import unique_names
from dims_worker.web.api.query_parameters import (
    BEFORE,
    LARGEST_VERSION,
    LIMIT,
    LONGEST_NOTE,
    choice_parameter,
    integer_parameter,
    parse_note,
    parse_query,
    text_parameter,
)
from dims_worker.web.api.responses import JsonResponse
from dims_worker.web.context import viewer_of, web_context
from dims_worker.web.incident_decisions import Choice, decide_incident
from dims_worker.web.request_body import MAX_FORM, read_body

JSON = "application/json"
ID = integer_parameter("id", "The number of an incident.")
STATES = ("active", "open", "acknowledged", "closed", "all")
INCIDENTS = (
    choice_parameter("state", "Only incidents in this state. `active`: open or acknowledged.", STATES, "active"),
    choice_parameter("kind", "Only incidents of this kind.", KINDS),
    text_parameter("category", "Only incidents of metrics of this category."),
    text_parameter("metric", "Only incidents of this metric. A silence has `rule:NAME`."),
    BEFORE,
    LIMIT,
)
CHANGES = (
    integer_parameter("days", "How many days to look back.", 3650, 7),
    integer_parameter("limit", "The most changes to return, the largest first.", 500, 50),
)
PATHS = {
    "/api/incidents": ("Incidents, newest first.", INCIDENTS, "Incidents"),
    "/api/incidents/{id}": ("One incident.", (), "Incident"),
    "/api/changes": ("The changes that became baselines, largest first.", CHANGES, "Changes"),
}


def get_incidents(request: Request) -> Response:
    """Return one page of incidents, newest first."""
    query, site = parse_query(request, INCIDENTS), web_context(request)
    metric, limit = query.pop("metric"), query.pop("limit")
    with site.read_transaction() as connection:
        rows = list_incidents(connection, **query, metrics=[metric] if metric else None, limit=limit + 1)
        now = clock(connection)
    items = [incident_document(site.config, incident, now) for incident in rows[:limit]]
    return JsonResponse({"items": items, "next": rows[limit - 1].id if len(rows) > limit else None})


def get_incident(request: Request) -> Response:
    """Return one incident. Raises NotFound."""
    parse_query(request, ())
    site, number = web_context(request), ID.parse(request.path_params["id"])
    with site.read_transaction() as connection:
        return JsonResponse(_document(connection, site.config, number))


def _document(connection: Connection, config: Config, number: int) -> Document:
    incident = find_incident(connection, number)
    if incident is None:
        raise NotFound(f"there is no incident {number}. GET /api/incidents?state=all lists all incidents")
    size = len(incidents_of_story(connection, incident.story))
    return incident_document(config, incident, clock(connection), size)


async def acknowledge(request: Request) -> Response:
    """Acknowledge an incident. The body is `{"version": 3, "note": "the note"}`. The note can be missing."""
    decision = _decision(await _read_json(request), "note")
    return await run_in_threadpool(_decide, request, "ack", decision)


async def close(request: Request) -> Response:
    """Close an incident as expected. The body is `{"version": 3, "reason": "the reason"}`."""
    decision = _decision(await _read_json(request), "reason")
    if not decision.text:
        raise UsageError("`reason` is missing or empty: say why you close the incident")
    return await run_in_threadpool(_decide, request, "close", decision)


@dataclass(frozen=True, slots=True)
class _DecisionBody:
    version: int
    text: str


def _decide(request: Request, choice: Choice, decision: _DecisionBody) -> Response:
    """Decide, and return the incident as it is then. Raises NotFound, NotAllowed, DatabaseBusy and Refused."""
    site, viewer, number = web_context(request), viewer_of(request), ID.parse(request.path_params["id"])
    assert viewer is not None  # AccessMiddleware refuses a request that changes something without a viewer
    decide_incident(site, viewer, choice, number, decision.version, decision.text)
    with site.read_transaction() as connection:
        return JsonResponse(_document(connection, site.config, number))


async def _read_json(request: Request) -> Mapping[str, Any]:
    """Return the JSON object in the body.

    A form of another site cannot send this content type, so a session cookie alone decides nothing. Raises
    HTTPException 413 and 415, and UsageError.
    """
    parse_query(request, ())
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    body = await read_body(request, MAX_FORM if kind == JSON else 0)
    if kind != JSON:
        raise HTTPException(415, f"send the decision as {JSON}")
    if body is None:
        raise HTTPException(413, f"a body has at most {format_number(MAX_FORM)} bytes", {"connection": "close"})
    try:
        content = json.loads(body.decode(), object_pairs_hook=unique_names)
    except RecursionError:
        raise UsageError("the body is nested too deeply. Send one JSON object") from None
    except ValueError as error:  # not UTF-8, or not JSON
        raise UsageError(f"the body is not valid JSON: {error}") from None
    if not isinstance(content, dict):
        raise UsageError("the body must be a JSON object")
    return content


def _decision(content: Mapping[str, Any], key: str) -> _DecisionBody:
    """Return the version that the person saw, and the text of `key`. Raises UsageError."""
    if unknown := sorted(content.keys() - {"version", key}):
        raise UsageError(f"unknown key {unknown[0]!r:.80}. Known here: version, {key}")
    version, text = content.get("version"), content.get(key)
    if isinstance(version, float) and version.is_integer():
        version = int(version)  # JSON has one type of number
    if type(version) is not int or not 1 <= version <= LARGEST_VERSION:
        raise UsageError("`version` must be the version that you saw, a whole number from 1")
    if text is not None and not isinstance(text, str):
        raise UsageError(f"`{key}` must be a text")
    if text and len(text) > LONGEST_NOTE:
        raise UsageError(f"`{key}` has {format_number(len(text))} characters. Shorten it to {LONGEST_NOTE:,} or fewer")
    return _DecisionBody(version, parse_note(text or ""))


def get_changes(request: Request) -> Response:
    """Return the changes that became baselines, largest first, each with its evidence."""
    query, site = parse_query(request, CHANGES), web_context(request)
    with site.read_transaction() as connection:
        now = clock(connection)
        since = now - timedelta(days=query["days"])
        changes = recent_changes(connection, site.config, since, query["limit"] + 1)
    items = [change_document(site.config, change, now) for change in changes[: query["limit"]]]
    return JsonResponse({"items": items, "since": since, "left_off": len(changes) > len(items)})


routes = [
    Route("/api/incidents", get_incidents),
    Route("/api/incidents/{id}", get_incident),
    Route("/api/incidents/{id}/ack", acknowledge, methods=["POST"]),
    Route("/api/incidents/{id}/close", close, methods=["POST"]),
    Route("/api/changes", get_changes),
]
