"""Answer errors: a page for people and problem details (RFC 9457) for programs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from http import HTTPStatus

from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse, Response

from dims_worker.errors import (
    BrokerUnreachable,
    DatabaseForbidden,
    DatabaseUnreachable,
    DimsError,
    EventError,
    NotAllowed,
    NotFound,
    Refused,
    UsageError,
)
from dims_worker.web.context import web_context

SIMILARITY = 0.75
"""How similar a metric's name must be, from 0 to 1, to be suggested. Names of one category share their beginning."""
ITEM_PATHS = ("metrics", "incidents", "requests", "events", "runs", "workflows")
"""First parts of addresses such as /metrics/NAME."""
STATUS: Mapping[type[DimsError], int] = {
    NotFound: 404,
    UsageError: 400,
    EventError: 400,
    Refused: 409,
    NotAllowed: 403,
    DatabaseForbidden: 403,
    DatabaseUnreachable: 503,
    BrokerUnreachable: 503,
}
_TITLES = {
    400: "The request is not valid",
    401: "Sign in first",
    403: "You may not do this",
    405: "You cannot do this here",
    409: "This has changed",
    413: "The form is too long",
    503: "A server is unreachable",
}
_DETAILS = {404: "there is no page at this address", 405: "this address does not support this method"}
"""Sentences for errors of Starlette that have no detail of their own."""


def problem_json(status: int, detail: str, headers: Mapping[str, str] | None = None) -> Response:
    """Return problem details: `type`, `title`, `status` and `detail`."""
    problem = {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status, "detail": detail}
    return JSONResponse(problem, status, headers, media_type="application/problem+json")


def problem_response(connection: HTTPConnection, status: int, detail: str) -> Response:
    """Return the problem as JSON under /api, else as a page.

    A page has a title and suggests metrics with similar names. It shows the first line of a database driver's message.
    """
    if connection.url.path.startswith("/api"):
        return problem_json(status, detail)
    request = Request(connection.scope)
    title = _TITLES.get(status, HTTPStatus(status).phrase)
    values = {"section": "", "title": title, "detail": detail.partition("\n")[0], "similar": []}
    if status == 404:
        values |= {"title": _not_found_title(request.url.path), "similar": _similar_metrics(request)}
    return web_context(request).page(request, "problem.html", values, status)


def _not_found_title(path: str) -> str:
    """Return `Metric not found` for /metrics/NAME."""
    first, _, name = path.strip("/").partition("/")
    noun = first.removesuffix("s") if name and first in ITEM_PATHS else "page"
    return f"{noun.capitalize()} not found"


def _similar_metrics(request: Request) -> Sequence[str]:
    """Return the metrics whose names resemble the one in the address, most similar first."""
    _, _, name = request.url.path.partition("/metrics/")
    return get_close_matches(name, web_context(request).config.definitions, cutoff=SIMILARITY) if name else []


def http_error(request: Request, error: Exception) -> Response:
    """Answer an HTTPException, of DIMS or of Starlette."""
    assert isinstance(error, HTTPException)
    has_no_detail = error.detail == HTTPStatus(error.status_code).phrase
    detail = _DETAILS.get(error.status_code, error.detail) if has_no_detail else error.detail
    response = problem_response(request, error.status_code, detail)
    response.headers.update(error.headers or {})
    return response


def dims_error(request: Request, error: Exception) -> Response:
    """Answer an error of DIMS with its message."""
    assert isinstance(error, DimsError)
    status = next((code for kind, code in STATUS.items() if isinstance(error, kind)), 500)
    response = problem_response(request, status, str(error))
    if status == 503:
        response.headers["retry-after"] = "5"
    return response
