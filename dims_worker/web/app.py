"""The site as an ASGI application: its pages, its API, and what stands before them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.resources import files

import anyio.to_thread
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import FileResponse, PlainTextResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from dims_worker.errors import DimsError
from dims_worker.local.ports import is_loopback
from dims_worker.web import errors as problem
from dims_worker.web import live_updates
from dims_worker.web.api import routes as api_routes
from dims_worker.web.context import WebContext
from dims_worker.web.middleware import HEADERS, AccessMiddleware
from dims_worker.web.pages import activity, approvals, metric, overview, sign_in, workflows

THREADS = 12
"""So many pages are made at once."""
LOCAL = ("localhost", "127.0.0.1", "::1")


async def healthz(request: Request) -> Response:
    """Alive, whatever the database is doing."""
    return PlainTextResponse("ok\n")


async def bug(request: Request, error: Exception) -> Response:
    """An error that nobody foresaw: it is in the log, with its place; the page tells nothing of it."""
    found = problem.problem_response(request, 500, "something went wrong here; the log of `dims web` says what")
    found.headers.update(HEADERS)  # what stands outside of all else answers, so outside of the guard too
    return found


async def page_css(request: Request) -> Response:
    """The report's own style: a report and the site look alike."""
    return FileResponse(str(files("dims_worker.reports").joinpath("templates", "page.css")))


def hosts(address: str, named: tuple[str, ...]) -> frozenset[str]:
    """The names that a request may call this site by; none: any. On this machine alone they are bounded, so that no
    page of another site can reach it under a name of its own (DNS rebinding)."""
    local = is_loopback(address)
    return frozenset((*named, *LOCAL, *((address,) if local else ()))) if named or local else frozenset()


def build_app(site: WebContext, address: str = "127.0.0.1") -> Starlette:
    """The application of a site that listens on `address`."""

    @asynccontextmanager
    async def life(app: Starlette) -> AsyncIterator[None]:
        # No more pages at once than connections: one that waits for its turn is better than one that waits for the pool
        anyio.to_thread.current_default_thread_limiter().total_tokens = THREADS
        await site.live.start()
        try:
            yield
        finally:
            await site.live.stop()

    rooms = (overview, metric, activity, approvals, workflows, live_updates, api_routes, sign_in)
    app = Starlette(
        routes=[
            *(route for room in rooms for route in room.routes),
            Route("/healthz", healthz),
            Route("/static/page.css", page_css),
            Mount("/static", StaticFiles(packages=[("dims_worker.web", "static")]), name="static"),
        ],
        middleware=[
            Middleware(AccessMiddleware, access=site.access, hosts=hosts(address, site.access.web.hosts)),
            Middleware(GZipMiddleware, minimum_size=2000, compresslevel=5),
        ],
        exception_handlers={HTTPException: problem.http_error, DimsError: problem.dims_error, Exception: bug},
        lifespan=life,
    )
    app.router.redirect_slashes = False  # where to would be said with the scheme that we see, not the browser's
    app.state.site = site
    return app
