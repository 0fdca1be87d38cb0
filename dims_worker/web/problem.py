"""What went wrong, as a page for people and as problem details (RFC 9457) for programs."""

from __future__ import annotations

from collections.abc import Mapping
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
from dims_worker.web.site import site_of

STATUS: dict[type[DimsError], int] = {
    **{NotFound: 404, UsageError: 400, EventError: 400, Refused: 409, NotAllowed: 403},
    **{DatabaseUnreachable: 503, BrokerUnreachable: 503},
}


def json(status: int, detail: str, headers: Mapping[str, str] | None = None, **more: Any) -> Response:
    """Problem details: `type`, `title`, `status`, `detail`."""
    said = {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status, "detail": detail, **more}
    return JSONResponse(said, status, headers, media_type="application/problem+json")


def page_or_json(connection: HTTPConnection, status: int, detail: str) -> Response:
    """The same words in the form that fits whoever asked."""
    if connection.url.path.startswith("/api"):
        return json(status, detail)
    request = Request(connection.scope)
    values = {"here": "", "title": HTTPStatus(status).phrase, "detail": detail}
    return site_of(request).page(request, "problem.html", values, status)


def of_http(request: Request, error: Exception) -> Response:
    """Starlette's own: no such page, no such method, a form that is too long."""
    assert isinstance(error, HTTPException)
    unsaid = error.detail == HTTPStatus(error.status_code).phrase
    detail = _UNSAID.get(error.status_code, error.detail) if unsaid else error.detail
    found = page_or_json(request, error.status_code, detail)
    found.headers.update(error.headers or {})
    return found


def of_dims(request: Request, error: Exception) -> Response:
    """An error of ours: its sentence names the place and the remedy."""
    assert isinstance(error, DimsError)
    status = next((code for kind, code in STATUS.items() if isinstance(error, kind)), 500)
    found = page_or_json(request, status, str(error))
    if status == 503:
        found.headers["retry-after"] = "5"
    return found


_UNSAID = {404: "there is no such page", 405: "that is not done here"}
