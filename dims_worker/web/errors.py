"""What went wrong, as a page for people and as problem details (RFC 9457) for programs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from http import HTTPStatus
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse, Response

from dims_worker.errors import (
    BrokerUnreachable,
    DatabaseUnreachable,
    DimsError,
    EventError,
    NotAllowed,
    NotFound,
    Refused,
    UsageError,
)
from dims_worker.web.context import web_context

STATUS: dict[type[DimsError], int] = {
    **{NotFound: 404, UsageError: 400, EventError: 400, Refused: 409, NotAllowed: 403},
    **{DatabaseUnreachable: 503, BrokerUnreachable: 503},
}


def problem_json(status: int, detail: str, headers: Mapping[str, str] | None = None, **more: Any) -> Response:
    """Problem details: `type`, `title`, `status`, `detail`."""
    said = {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status, "detail": detail, **more}
    return JSONResponse(said, status, headers, media_type="application/problem+json")


def problem_response(connection: HTTPConnection, status: int, detail: str, title: str = "") -> Response:
    """The same words in the form that fits whoever asked. A page has a title, the metrics that may be meant, and of
    what a driver says in many lines the first."""
    if connection.url.path.startswith("/api"):
        return problem_json(status, detail)
    request = Request(connection.scope)
    title = title or _TITLES.get(status, HTTPStatus(status).phrase)
    values = {"here": "", "title": title, "detail": detail.partition("\n")[0], "near": []}
    if status == 404:
        values |= {"title": _missing(request.url.path), "near": _near(request)}
    return web_context(request).page(request, "problem.html", values, status)


def _missing(path: str) -> str:
    """What a path would have led to: `No such metric`."""
    part, _, name = path.strip("/").partition("/")
    return f"No such {part.removesuffix('s') if name and part in PARTS else 'page'}"


def _near(request: Request) -> Sequence[str]:
    """The metrics whose names are like the one that was asked for, the most alike first."""
    _, _, asked = request.url.path.partition("/metrics/")
    return get_close_matches(asked, web_context(request).config.definitions, cutoff=ALIKE) if asked else []


def http_error(request: Request, error: Exception) -> Response:
    """Starlette's own: no such page, no such method, a form that is too long."""
    assert isinstance(error, HTTPException)
    unsaid = error.detail == HTTPStatus(error.status_code).phrase
    detail = _UNSAID.get(error.status_code, error.detail) if unsaid else error.detail
    found = problem_response(request, error.status_code, detail)
    found.headers.update(error.headers or {})
    return found


def dims_error(request: Request, error: Exception) -> Response:
    """An error of ours: its sentence names the place and the remedy."""
    assert isinstance(error, DimsError)
    status = next((code for kind, code in STATUS.items() if isinstance(error, kind)), 500)
    title = next((said for kind, said in _AWAY.items() if isinstance(error, kind)), "")
    found = problem_response(request, status, str(error), title)
    if status == 503:
        found.headers["retry-after"] = "5"
    return found


ALIKE = 0.75
"""Names are meant that are alike by so much, of 1; all of a category share their beginning."""
PARTS = ("metrics", "requests", "events", "runs", "workflows")
"""The first parts of addresses that name one thing of many."""
_UNSAID = {404: "there is no such page", 405: "that is not done here"}
_AWAY: dict[type[DimsError], str] = {
    DatabaseUnreachable: "The database cannot be reached",
    BrokerUnreachable: "The broker cannot be reached",
}
_TITLES = {
    **{400: "That cannot be answered", 401: "Sign in first", 403: "That is not allowed", 405: "That is not done here"},
    **{409: "It has changed since", 413: "The form is too long"},
}
