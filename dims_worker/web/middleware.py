"""Check every request before it reaches a page: its host, its viewer and its origin. Set the security headers."""

from __future__ import annotations

from collections.abc import Collection
from urllib.parse import quote, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection, Request
from starlette.responses import PlainTextResponse, RedirectResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dims_worker.web.context import viewer_of, web_context
from dims_worker.web.errors import problem_json, problem_response
from dims_worker.web.identity import SignInPolicy, Viewer
from dims_worker.web.request_body import read_form

PUBLIC = ("/sign-in", "/static/", "/healthz")
"""Paths that need no sign-in."""
EVENTS = "/api/events"
API = "/api"
SAFE_METHODS = ("GET", "HEAD", "OPTIONS")

HEADERS = {
    # Scripts and styles only from our own files. Nothing is loaded from, sent to, or framed by another site
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
}


class AccessMiddleware:
    """ASGI middleware that identifies the viewer, refuses requests that are not allowed, and sets the headers."""

    def __init__(self, app: ASGIApp, access: SignInPolicy, hosts: Collection[str]) -> None:
        self.app, self.access, self.hosts = app, access, hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        connection = HTTPConnection(scope)
        scope["viewer"] = self._viewer(connection)
        refusal = self._refusal(scope, connection)

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(raw=message["headers"])
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
                headers.setdefault("cache-control", "no-store")
            await send(message)

        await (refusal or self.app)(scope, receive, send_with_headers)

    def _viewer(self, connection: HTTPConnection) -> Viewer | None:
        kind, _, token = connection.headers.get("authorization", "").partition(" ")
        if kind.lower() == "bearer" and connection.scope["path"].startswith(API):
            return self.access.by_token(token.strip())  # a token takes the place of a browser's cookie
        client = connection.client
        return self.access.by_proxy(client.host if client else None, connection.headers) or self.access.by_session(
            connection.cookies.get(self.access.cookie, "")
        )

    def _refusal(self, scope: Scope, connection: HTTPConnection) -> ASGIApp | None:
        """Return the response to a request that is not allowed, or None if it is."""
        path, method = scope["path"], scope["method"]
        if self.hosts and _host(connection.headers) not in self.hosts:
            detail = "this host name is not allowed. Add it to web.hosts in the configuration"
            return problem_json(400, detail) if path.startswith(API) else PlainTextResponse(f"{detail}\n", 400)
        if path == EVENTS and method == "POST":
            return None  # the endpoint checks the events token itself
        if method not in SAFE_METHODS and not _is_same_origin(connection.headers):
            return problem_response(connection, 403, "the form was sent from another site")
        has_token = path.startswith(API) and "authorization" in connection.headers  # a wrong token is always an error
        reads = method in SAFE_METHODS and self.access.read_by_anyone and not has_token
        return None if scope["viewer"] or reads or path.startswith(PUBLIC) else _sign_in_first(path, method, connection)


def _sign_in_first(path: str, method: str, connection: HTTPConnection) -> ASGIApp:
    if path.startswith(API):
        detail = "Authentication required: send `Authorization: Bearer <token>`."
        return problem_json(401, detail, {"www-authenticate": "Bearer"})
    if method not in SAFE_METHODS:
        return RedirectResponse("/sign-in", 303) if path == "/sign-out" else _signed_out
    back = f"{path}?{connection.url.query}" if connection.url.query else path
    return RedirectResponse(f"/sign-in?next={quote(back)}", 303)


async def _signed_out(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer a button that was pressed after the session ended. The page keeps the note that the person wrote."""
    request = Request(scope, receive)
    try:
        note = (await read_form(request)).get("note", "")
    except HTTPException:
        note = ""  # not one of our forms, so there is no note
    button_page = request.url.path.rpartition("/")[0] or "/"
    values = {"section": "sign-in", "title": "Signed out", "note": note, "next": button_page}
    await web_context(request).page(request, "signed_out.html", values, 403)(scope, receive, send)


def _host(headers: Headers) -> str:
    """Return the host name of a request, without the port."""
    try:
        return urlsplit(f"//{headers.get('host', '')}").hostname or ""
    except ValueError:
        return ""


def _is_same_origin(headers: Headers) -> bool:
    """Return whether one of our own pages sent this. Clients that are not browsers send neither header."""
    if site := headers.get("sec-fetch-site"):
        return site in ("same-origin", "none")
    origin = headers.get("origin")
    return origin is None or origin.partition("://")[2] == headers.get("host")


async def require_form(request: Request) -> dict[str, str]:
    """Return the fields of a form whose CSRF token belongs to this viewer.

    Raises HTTPException: 401, 403, and those of `read_form`.
    """
    viewer = viewer_of(request)
    if viewer is None:
        raise HTTPException(401, "sign in first")
    form = await read_form(request)
    if not web_context(request).access.is_form_of(viewer, form.get("form_token", "")):
        raise HTTPException(403, "this form has expired or belongs to another person. Reload the page and try again")
    return form
