"""Build the ASGI application: the dashboard's pages, the API and their middleware."""

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
from dims_worker.web import live_updates
from dims_worker.web.api import incidents as api_incidents
from dims_worker.web.api import routes as api_routes
from dims_worker.web.context import WebContext
from dims_worker.web.errors import dims_error, http_error, problem_response
from dims_worker.web.middleware import HEADERS, AccessMiddleware
from dims_worker.web.pages import activity, approvals, changes, incidents, metric, overview, sign_in, workflows

THREADS = 12
"""Pages that are rendered at the same time."""
LOCAL_HOSTS = ("localhost", "127.0.0.1", "::1")


async def healthz(request: Request) -> Response:
    """Answer that the process is alive, whatever the state of the database."""
    return PlainTextResponse("ok\n")


async def unhandled_error(request: Request, error: Exception) -> Response:
    """Answer an unexpected error without its details. The traceback is in the log."""
    response = problem_response(request, 500, "an unexpected error occurred. The log of `dims web` has the details")
    response.headers.update(HEADERS)  # Starlette handles this error outside of AccessMiddleware
    return response


async def page_css(request: Request) -> Response:
    """Serve the style sheet of the HTML report, which the dashboard shares."""
    return FileResponse(str(files("dims_worker.reports").joinpath("templates", "page.css")))


def allowed_hosts(address: str, configured: tuple[str, ...]) -> frozenset[str]:
    """Return the host names that a request may use. An empty set allows any name.

    On a loopback address only local names are allowed, so that no other site can use its own name (DNS rebinding).
    """
    local = is_loopback(address)
    return (
        frozenset((*configured, *LOCAL_HOSTS, *((address,) if local else ()))) if configured or local else frozenset()
    )


def build_app(site: WebContext, address: str = "127.0.0.1") -> Starlette:
    """Return the application of a dashboard that listens on `address`."""

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        # No more threads than database connections: it is better to wait for a thread than for the pool
        anyio.to_thread.current_default_thread_limiter().total_tokens = THREADS
        await site.live.start()
        try:
            yield
        finally:
            await site.live.stop()

    pages = (overview, metric, activity, approvals, incidents, changes, workflows, sign_in)
    modules = (*pages, live_updates, api_routes, api_incidents)
    hosts = allowed_hosts(address, site.access.web.hosts)
    app = Starlette(
        routes=[
            *(route for module in modules for route in module.routes),
            Route("/healthz", healthz),
            Route("/static/page.css", page_css),
            Mount("/static", StaticFiles(packages=[("dims_worker.web", "static")]), name="static"),
        ],
        middleware=[
            Middleware(AccessMiddleware, access=site.access, hosts=hosts),
            Middleware(GZipMiddleware, minimum_size=2000, compresslevel=5),
        ],
        exception_handlers={HTTPException: http_error, DimsError: dims_error, Exception: unhandled_error},
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False  # behind a TLS proxy, the redirect would lead to http
    app.state.site = site
    return app
