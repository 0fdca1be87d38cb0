"""The JSON API: what is known, to be read by programs, and the way in for producers that speak HTTP."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from starlette.endpoints import HTTPEndpoint
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from dims_producers.publish import append
from dims_worker.analysis.explanation import explain_metric
from dims_worker.analysis.health import DOCUMENT_STATES
from dims_worker.errors import BrokerUnreachable, NotFound
from dims_worker.events import MAX_TEXT
from dims_worker.store.approval_requests import list_requests
from dims_worker.store.events import list_events
from dims_worker.store.history import metric_trend
from dims_worker.store.runs import list_runs
from dims_worker.text.explanation import explanation_document
from dims_worker.text.json_documents import Document, event_document, facts, metric_documents, point_document
from dims_worker.web.api.cloudevents_http import MAX_BODY, content_mode, parse_envelopes
from dims_worker.web.api.openapi import openapi_document
from dims_worker.web.api.query_parameters import (
    LARGEST,
    Parameter,
    choice_parameter,
    integer_parameter,
    parse_query,
    text_parameter,
)
from dims_worker.web.context import web_context
from dims_worker.web.middleware import aside
from dims_worker.web.request_body import body_of

LIMIT = integer_parameter("limit", "At most so many items.", 500, 50)
BEFORE = integer_parameter("before", "Only older items: the `next` of the list before.", LARGEST)
METRICS = (
    text_parameter("category", "Metrics of one category."),
    choice_parameter("state", "Metrics of which this is true.", list(DOCUMENT_STATES)),
    text_parameter("q", "Metrics whose name and description have all these words, in any case."),
)
METRIC = (
    integer_parameter("days", "How far back the history goes.", 3650, 30),
    integer_parameter("limit", "At most so many points, the newest.", 10_000, 1000),
)
EVENTS = (
    text_parameter("type", "Events of one type, written in full.", MAX_TEXT),
    choice_parameter("outcome", "Events of which this became.", ["planned", "unmatched", "rejected"]),
    BEFORE,
    LIMIT,
)
RUNS = (
    text_parameter("source", "Runs of one source."),
    choice_parameter("status", "Runs that ended so.", ["ok", "partial", "superseded"]),
    BEFORE,
    LIMIT,
)
REQUESTS = (
    choice_parameter(
        "state", "Requests in one state.", ["open", "approved", "rejected", "superseded", "withdrawn", "expired"]
    ),
    text_parameter("metric", "Requests of one metric."),
    BEFORE,
    LIMIT,
)


class JsonResponse(Response):
    """A JSON document: numbers keep their type, times are ISO 8601 in UTC, what is no number is null."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        return json.dumps(_plain(content), ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _plain(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def get_metrics(request: Request) -> Response:
    """Every metric as it stands, by name."""
    said, site = parse_query(request, METRICS), web_context(request)
    with site.reading() as connection:
        found: Iterable[Document] = metric_documents(connection, site.config, sorted(site.config.metrics))
    if category := said["category"]:
        found = (one for one in found if one["category"] == category)
    if state := said["state"]:
        found = (one for one in found if DOCUMENT_STATES[state](one))
    for word in (said["q"] or "").casefold().split():
        found = [one for one in found if word in f"{one['metric']}\n{one['description']}".casefold()]
    return JsonResponse({"items": list(found), "next": None})


def get_metric(request: Request) -> Response:
    """One metric: as it stands, how it went, and the facts of its verdict. Raises NotFound."""
    said, site, name = parse_query(request, METRIC), web_context(request), request.path_params["name"]
    if "\0" in name:
        raise NotFound("no metric is called so: GET /api/metrics lists them")
    with site.reading() as connection:
        explained = explanation_document(site.config, explain_metric(connection, site.config, name))
        (now,) = metric_documents(connection, site.config, [name])
        points = metric_trend(connection, name, timedelta(days=said["days"]), said["limit"] + 1)
    shown = [point_document(site.config, name, point) for point in points[-said["limit"] :]]
    history = {"days": said["days"], "points": shown, "left_off": len(points) > len(shown)}
    return JsonResponse({**now, "history": history, "explanation": explained})


def get_runs(request: Request) -> Response:
    """The newest runs."""
    return _listed(request, RUNS, list_runs, facts, "run_id")


def get_requests(request: Request) -> Response:
    """The newest requests."""
    return _listed(request, REQUESTS, list_requests, facts, "id")


class EventsEndpoint(HTTPEndpoint):
    """The event log: reading it, and sending to it."""

    def get(self, request: Request) -> Response:
        """The newest events."""
        return _listed(request, EVENTS, list_events, event_document, "seq")

    async def post(self, request: Request) -> Response:
        """Publish events, all or none: answered 202 once they are in the stream. A producer's token is needed."""
        site = web_context(request)
        refused = _refusal(request)
        body = await body_of(request, 0 if refused else MAX_BODY)
        if refused:
            raise refused
        if body is None:
            raise HTTPException(413, f"a body has at most {MAX_BODY:,} bytes", {"connection": "close"})
        parse_query(request, ())
        taken = await aside(parse_envelopes, content_mode(request.headers), request.headers, body)
        if site.broker_url is None:
            raise BrokerUnreachable("no broker is known here, so nothing was sent: set DIMS_BROKER_URL")
        await aside(append, [envelope for _, envelope in taken], site.broker_url)
        return JsonResponse({"accepted": len(taken), "ids": [event.id for event, _ in taken]}, 202)


def _listed(
    request: Request,
    parameters: Sequence[Parameter],
    list_: Callable[..., Sequence[Any]],
    document_of: Callable[[Any], Document],
    number: str,
) -> Response:
    """A page of a list, newest first, and from where the next one goes on."""
    said = parse_query(request, parameters)
    with web_context(request).reading() as connection:
        found = list_(connection, **{**said, "limit": said["limit"] + 1})
    items = found[: said["limit"]]
    more = len(found) > len(items)
    return JsonResponse({"items": list(map(document_of, items)), "next": getattr(items[-1], number) if more else None})


def _refusal(request: Request) -> HTTPException | None:
    """Why who sends may not: 403 where no producer may, 401 where it is none."""
    access = web_context(request).access
    if not access.web.events_token.get_secret_value():
        return HTTPException(403, "nobody may send events over HTTP here: set web.events_token in the configuration")
    kind, _, token = request.headers.get("authorization", "").partition(" ")
    if kind.lower() == "bearer" and access.may_send_events(token.strip()):
        return None
    said = "events are sent with the token of producers: Authorization: Bearer TOKEN"
    return HTTPException(401, said, {"www-authenticate": "Bearer"})


PATHS = {
    "/api/metrics": ("Every metric as it stands.", METRICS, "Metrics"),
    "/api/metrics/{name}": ("A metric, its history and its explanation.", METRIC, "WholeMetric"),
    "/api/events": ("Events, newest first.", EVENTS, "Events"),
    "/api/runs": ("Runs, newest first.", RUNS, "Runs"),
    "/api/requests": ("Requests, newest first.", REQUESTS, "Requests"),
}


def described(request: Request) -> Response:
    """What this API is, for programs."""
    parse_query(request, ())
    access = web_context(request).access
    return JsonResponse(openapi_document(PATHS, access.read_by_anyone, access.cookie))


routes = [
    Route("/api/openapi.json", described),
    Route("/api/metrics", get_metrics),
    Route("/api/metrics/{name}", get_metric),
    Route("/api/events", EventsEndpoint),
    Route("/api/runs", get_runs),
    Route("/api/requests", get_requests),
]
