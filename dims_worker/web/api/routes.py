"""Serve the JSON API: read metrics, events, runs and requests, and accept events over HTTP."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta

from starlette.concurrency import run_in_threadpool
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
from dims_worker.formatting import format_number
from dims_worker.store.approval_requests import list_requests
from dims_worker.store.events import list_events
from dims_worker.store.history import metric_trend
from dims_worker.store.runs import list_runs
from dims_worker.text.explanation import explanation_document
from dims_worker.text.json_documents import (
    Document,
    event_document,
    facts,
    metric_documents,
    point_document,
    request_document,
)
from dims_worker.web.api import incidents
from dims_worker.web.api.cloudevents_http import MAX_BODY, content_mode, parse_envelopes
from dims_worker.web.api.openapi import openapi_document
from dims_worker.web.api.query_parameters import (
    BEFORE,
    LIMIT,
    choice_parameter,
    integer_parameter,
    parse_query,
    text_parameter,
)
from dims_worker.web.api.responses import JsonResponse, list_response
from dims_worker.web.context import web_context
from dims_worker.web.request_body import read_body

METRICS = (
    text_parameter("category", "Only metrics of this category."),
    choice_parameter("state", "Only enabled metrics in this state.", list(DOCUMENT_STATES)),
    text_parameter("q", "Only metrics whose name or description contains every word. Case does not matter."),
)
METRIC = (
    integer_parameter("days", "The length of the history in days.", 3650, 30),
    integer_parameter("limit", "The most points to return. The newest are kept.", 10_000, 1000),
)
EVENTS = (
    text_parameter("type", "Only events of this exact type.", MAX_TEXT),
    choice_parameter("outcome", "Only events with this outcome.", ["planned", "unmatched", "rejected"]),
    BEFORE,
    LIMIT,
)
RUNS = (
    text_parameter("source", "Only runs of this source."),
    choice_parameter("status", "Only runs with this status.", ["ok", "partial", "superseded"]),
    BEFORE,
    LIMIT,
)
REQUESTS = (
    choice_parameter(
        "state",
        "Only approval requests in this state.",
        ["open", "approved", "rejected", "superseded", "withdrawn", "expired"],
    ),
    text_parameter("metric", "Only approval requests of this metric."),
    BEFORE,
    LIMIT,
)


def get_metrics(request: Request) -> Response:
    """Return the current state of every metric, by name."""
    query, site = parse_query(request, METRICS), web_context(request)
    with site.read_transaction() as connection:
        metrics: Iterable[Document] = metric_documents(connection, site.config, sorted(site.config.metrics))
    if category := query["category"]:
        metrics = (metric for metric in metrics if metric["category"] == category)
    if state := query["state"]:
        metrics = (metric for metric in metrics if metric["enabled"] and DOCUMENT_STATES[state](metric))
    for word in (query["q"] or "").casefold().split():
        metrics = [metric for metric in metrics if word in f"{metric['metric']}\n{metric['description']}".casefold()]
    return JsonResponse({"items": list(metrics), "next": None})


def get_metric(request: Request) -> Response:
    """Return one metric with its history and its explanation. Raises NotFound."""
    query, site, name = parse_query(request, METRIC), web_context(request), request.path_params["name"]
    if "\0" in name:
        raise NotFound("there is no metric with this name. GET /api/metrics lists all metrics")
    with site.read_transaction() as connection:
        explanation = explanation_document(site.config, explain_metric(connection, site.config, name))
        (metric,) = metric_documents(connection, site.config, [name])
        points = metric_trend(connection, name, timedelta(days=query["days"]), query["limit"] + 1)
    newest = [point_document(site.config, name, point) for point in points[-query["limit"] :]]
    history = {"days": query["days"], "points": newest, "left_off": len(points) > len(newest)}
    return JsonResponse({**metric, "history": history, "explanation": explanation})


def get_runs(request: Request) -> Response:
    return list_response(request, RUNS, list_runs, facts, "run_id")


def get_requests(request: Request) -> Response:
    return list_response(request, REQUESTS, list_requests, request_document, "id")


class EventsEndpoint(HTTPEndpoint):
    def get(self, request: Request) -> Response:
        return list_response(request, EVENTS, list_events, event_document, "seq")

    async def post(self, request: Request) -> Response:
        """Publish all events or none. Answers 202 once they are in the stream. Needs the events token."""
        site = web_context(request)
        refusal = _refusal(request)
        body = await read_body(request, 0 if refusal else MAX_BODY)
        if refusal:
            raise refusal
        if body is None:
            raise HTTPException(413, f"a body has at most {format_number(MAX_BODY)} bytes", {"connection": "close"})
        parse_query(request, ())
        events = await run_in_threadpool(parse_envelopes, content_mode(request.headers), request.headers, body)
        if site.broker_url is None:
            raise BrokerUnreachable(
                "nothing was sent, because no broker is configured. Set DIMS_BROKER_URL for `dims web`"
            )
        await run_in_threadpool(append, [envelope for _, envelope in events], site.broker_url)
        return JsonResponse({"accepted": len(events), "ids": [event.id for event, _ in events]}, 202)


def _refusal(request: Request) -> HTTPException | None:
    """Return why this client may not send events: 403 if events over HTTP are off, 401 for a missing or wrong token."""
    access = web_context(request).access
    if not access.web.events_token.get_secret_value():
        return HTTPException(403, "this server does not accept events over HTTP. Set web.events_token to turn it on")
    kind, _, token = request.headers.get("authorization", "").partition(" ")
    if kind.lower() == "bearer" and access.may_send_events(token.strip()):
        return None
    detail = "Authentication required: send the token in web.events_token as `Authorization: Bearer <token>`."
    return HTTPException(401, detail, {"www-authenticate": "Bearer"})


PATHS = {
    "/api/metrics": ("Every metric, by name.", METRICS, "Metrics"),
    "/api/metrics/{name}": ("One metric with its history and its explanation.", METRIC, "WholeMetric"),
    "/api/events": ("Events, newest first.", EVENTS, "Events"),
    "/api/runs": ("Runs, newest first.", RUNS, "Runs"),
    "/api/requests": ("Approval requests, newest first.", REQUESTS, "Requests"),
}
ALL_PATHS = PATHS | incidents.PATHS


def get_openapi(request: Request) -> Response:
    parse_query(request, ())
    access = web_context(request).access
    return JsonResponse(openapi_document(ALL_PATHS, access.read_by_anyone, access.cookie))


routes = [
    Route("/api/openapi.json", get_openapi),
    Route("/api/metrics", get_metrics),
    Route("/api/metrics/{name}", get_metric),
    Route("/api/events", EventsEndpoint),
    Route("/api/runs", get_runs),
    Route("/api/requests", get_requests),
]
