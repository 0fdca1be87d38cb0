"""Sign in with a token or with a link from `dims web --link`, and sign out."""

from __future__ import annotations

import logging

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from dims_worker.web.context import viewer_of, web_context
from dims_worker.web.identity import Viewer
from dims_worker.web.middleware import require_form
from dims_worker.web.request_body import read_form

log = logging.getLogger(__name__)

EXPIRED_LINK = (
    "This link has expired or was used already. Run `dims web --link` on the machine where DIMS runs to get a new link."
)
UNKNOWN_PERSON = (
    "This token is unknown. Check that you copied all of it, or ask the person who runs DIMS for your token."
)


async def sign_in_page(request: Request) -> Response:
    """Show the form. For a link's code, show a button that names the person."""
    site = web_context(request)
    code, target = request.query_params.get("code", ""), _local_path(request.query_params.get("next", "/"))
    if viewer_of(request) and not code:
        return RedirectResponse(target, 303)
    person = site.access.by_link(code) if code else None
    error = EXPIRED_LINK if code and not person else ""
    return _page(request, target, error, code if person else "", person)


async def sign_in(request: Request) -> Response:
    """Start a session, or show why it failed."""
    access, form = web_context(request).access, await read_form(request)
    token, code, target = (form.get(name, "").strip() for name in ("token", "code", "next"))
    target = _local_path(target)
    viewer = access.by_link(code, use=True) if code else access.by_token(token)
    if viewer is None:
        log.warning("sign-in failed, from %s", request.client.host if request.client else "a socket")
        return _page(request, target, EXPIRED_LINK if code else UNKNOWN_PERSON, status=403)
    response = RedirectResponse(target, 303)
    response.set_cookie(
        access.cookie,
        access.session(viewer),
        max_age=int(access.web.session.total_seconds()),
        httponly=True,
        samesite="lax",
        secure=_is_tls(request),
    )
    return response


async def sign_out(request: Request) -> Response:
    await require_form(request)
    response = RedirectResponse("/sign-in", 303)
    response.delete_cookie(web_context(request).access.cookie, httponly=True, samesite="lax")
    return response


def _page(
    request: Request, target: str, error: str = "", code: str = "", person: Viewer | None = None, status: int = 200
) -> Response:
    site = web_context(request)
    values = {
        "section": "sign-in",
        "title": "Sign in",
        "next": target,
        "code": code,
        "person": person,
        "error": error,
        "tokens": bool(site.access.web.active_tokens),
        "proxy": site.access.web.proxy,
        "anyone": site.access.read_by_anyone,
    }
    return site.page(request, "sign_in.html", values, status)


def _is_tls(request: Request) -> bool:
    """Return whether the browser used TLS, to us or to a proxy in front of us."""
    first = request.headers.get("x-forwarded-proto", "").partition(",")[0]
    return "https" in (request.url.scheme, first.strip().lower())


def _local_path(target: str) -> str:
    """Return a path on this site, so that signing in never leads to another site."""
    is_local = target.startswith("/") and not target.startswith("//") and "\\" not in target and target.isprintable()
    return target if is_local else "/"


routes = [
    Route("/sign-in", sign_in_page),
    Route("/sign-in", sign_in, methods=["POST"]),
    Route("/sign-out", sign_out, methods=["POST"]),
]
