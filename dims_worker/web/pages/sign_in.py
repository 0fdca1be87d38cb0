"""Signing in, by a token or by a link that `dims web --link` prints, and out."""

from __future__ import annotations

import logging

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from dims_worker.web.context import viewer_of, web_context
from dims_worker.web.identity import Viewer
from dims_worker.web.middleware import form_of
from dims_worker.web.request_body import form_in

log = logging.getLogger(__name__)

OLD = "This link was used or is too old."
UNKNOWN = "Nobody has this token."
"""What did not open; the page says beside it what to do."""


async def shown(request: Request) -> Response:
    """The form; with a link's code a button that names who signs in."""
    site = web_context(request)
    code, to = request.query_params.get("code", ""), _inside(request.query_params.get("next", "/"))
    if viewer_of(request) and not code:
        return RedirectResponse(to, 303)
    asked = site.access.by_link(code) if code else None
    wrong = OLD if code and not asked else ""
    return _page(request, to, wrong, code if asked else "", asked)


async def sign_in(request: Request) -> Response:
    """Open a session, or say what is wrong."""
    access, form = web_context(request).access, await form_in(request)
    token, code, to = (str(form.get(name, "")).strip() for name in ("token", "code", "next"))
    to = _inside(to)
    viewer = access.by_link(code, use=True) if code else access.by_token(token)
    if viewer is None:
        wrong = OLD if code else UNKNOWN
        log.warning("a sign-in failed, from %s", request.client.host if request.client else "a socket")
        return _page(request, to, wrong, status=403)
    answer = RedirectResponse(to, 303)
    answer.set_cookie(
        access.cookie, access.session(viewer), max_age=int(access.web.session.total_seconds()), httponly=True,
        samesite="lax", secure=_is_tls(request),
    )  # fmt: skip
    return answer


async def sign_out(request: Request) -> Response:
    await form_of(request)
    answer = RedirectResponse("/sign-in", 303)
    answer.delete_cookie(web_context(request).access.cookie, httponly=True, samesite="lax")
    return answer


def _page(
    request: Request, to: str, wrong: str = "", code: str = "", asked: Viewer | None = None, status: int = 200
) -> Response:
    site = web_context(request)
    values = {
        **{"here": "sign-in", "title": "Sign in", "next": to, "code": code, "asked": asked},
        **{"wrong": wrong, "old": wrong == OLD},
        **{
            "tokens": bool(site.access.web.active_tokens),
            "proxy": site.access.web.proxy,
            "anyone": site.access.read_by_anyone,
        },
    }
    return site.page(request, "sign_in.html", values, status)


def _is_tls(request: Request) -> bool:
    """Whether the browser came by TLS, to us or to a proxy before us."""
    first = request.headers.get("x-forwarded-proto", "").partition(",")[0]
    return "https" in (request.url.scheme, first.strip().lower())


def _inside(to: str) -> str:
    """A place on this site: a link must not lead to another one after signing in."""
    fits = to.startswith("/") and not to.startswith("//") and "\\" not in to and to.isprintable()
    return to if fits else "/"


routes = [
    Route("/sign-in", shown),
    Route("/sign-in", sign_in, methods=["POST"]),
    Route("/sign-out", sign_out, methods=["POST"]),
]
