"""Before every page: whose request it is, whether it may pass, and what a browser may do with the answer."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import TypeVar
from urllib.parse import quote, urlsplit

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import FormData, Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection, Request
from starlette.responses import PlainTextResponse, RedirectResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dims_worker.web import errors as problem
from dims_worker.web.context import viewer_of, web_context
from dims_worker.web.identity import SignInPolicy, Viewer
from dims_worker.web.request_body import form_in

T = TypeVar("T")

OPEN = ("/sign-in", "/static/", "/healthz")
"""What anybody may ask for: else nobody could sign in."""
EVENTS = "/api/events"
API = "/api"
SAFE = ("GET", "HEAD", "OPTIONS")

HEADERS = {
    # No script and no style but our own files; nothing is loaded from, sent to or framed by anybody else
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
    """ASGI middleware: names the viewer in the scope, turns away who may not pass, sets the headers."""

    def __init__(self, app: ASGIApp, access: SignInPolicy, hosts: Collection[str]) -> None:
        self.app, self.access, self.hosts = app, access, hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        connection = HTTPConnection(scope)
        scope["viewer"] = self._viewer(connection)
        refused = self._refusal(scope, connection)

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(raw=message["headers"])
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
                headers.setdefault("cache-control", "no-store")
            await send(message)

        await (refused or self.app)(scope, receive, guarded)

    def _viewer(self, connection: HTTPConnection) -> Viewer | None:
        kind, _, token = connection.headers.get("authorization", "").partition(" ")
        if kind.lower() == "bearer" and connection.scope["path"].startswith(API):
            return self.access.by_token(token.strip())  # a script says who it is; a browser's cookie is not looked at
        client = connection.client
        return self.access.by_proxy(client.host if client else None, connection.headers) or self.access.by_session(
            connection.cookies.get(self.access.cookie, "")
        )

    def _refusal(self, scope: Scope, connection: HTTPConnection) -> ASGIApp | None:
        """What is answered in the place of the site; None: the request may pass."""
        path, method = scope["path"], scope["method"]
        if self.hosts and _host(connection.headers) not in self.hosts:
            said = "this site is not known by that name: web.hosts in its configuration adds it"
            return problem.problem_json(400, said) if path.startswith(API) else PlainTextResponse(f"{said}\n", 400)
        if path == EVENTS and method == "POST":
            return None  # the producers' own token is asked for there
        if method not in SAFE and not _from_here(connection.headers):
            return problem.problem_response(connection, 403, "the form was sent from another site")
        unknown = path.startswith(API) and "authorization" in connection.headers  # a wrong token is told, not passed by
        reads = method in SAFE and self.access.read_by_anyone and not unknown
        return None if scope["viewer"] or reads or path.startswith(OPEN) else _sign_in_first(path, method, connection)


def _sign_in_first(path: str, method: str, connection: HTTPConnection) -> ASGIApp:
    if path.startswith(API):
        return problem.problem_json(401, "who asks? Authorization: Bearer TOKEN", {"www-authenticate": "Bearer"})
    if method not in SAFE:
        return RedirectResponse("/sign-in", 303) if path == "/sign-out" else _signed_out
    back = f"{path}?{connection.url.query}" if connection.url.query else path
    return RedirectResponse(f"/sign-in?next={quote(back)}", 303)


async def _signed_out(scope: Scope, receive: Receive, send: Send) -> None:
    """What is told to who presses a button after their session: nothing was done, and what they wrote is not lost."""
    request = Request(scope, receive)
    try:
        note = (await form_in(request)).get("note", "")
    except HTTPException:
        note = ""  # no form of ours: so nobody wrote anything into one
    place = request.url.path.rpartition("/")[0] or "/"  # the page that has the button
    values = {"here": "sign-in", "title": "Signed out", "note": note, "next": place}
    await web_context(request).page(request, "signed_out.html", values, 403)(scope, receive, send)


def _host(headers: Headers) -> str:
    """The name that a request calls this site by, without its port."""
    try:
        return urlsplit(f"//{headers.get('host', '')}").hostname or ""
    except ValueError:
        return ""


def _from_here(headers: Headers) -> bool:
    """Whether a browser says that one of our own pages sent this; what is no browser says nothing."""
    if site := headers.get("sec-fetch-site"):
        return site in ("same-origin", "none")
    origin = headers.get("origin")
    return origin is None or origin.partition("://")[2] == headers.get("host")


async def form_of(request: Request) -> FormData:
    """The fields of a form that this viewer was shown. Raises HTTPException: 401, 403, and what `form_in` raises."""
    viewer = viewer_of(request)
    if viewer is None:
        raise HTTPException(401, "sign in first")
    form = await form_in(request)
    token = form.get("form_token")
    if not isinstance(token, str) or not web_context(request).access.is_form_of(viewer, token):
        raise HTTPException(403, "the form is too old or was not made for you: load the page again")
    return form


async def aside(work: Callable[..., T], *arguments: object) -> T:
    """The result of work that waits for the database, done in a thread, so that nobody else waits."""
    return await run_in_threadpool(work, *arguments)
