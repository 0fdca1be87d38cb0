"""Serve `/live`: server-sent events that keep an open page up to date."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import BaseRoute, Route

from dims_worker.web.api.query_parameters import parse_whole_number
from dims_worker.web.context import viewer_of, web_context
from dims_worker.web.live_hub import LiveHub

MAX_STREAMS = 500
"""Pages that may be open at the same time."""
PING_SECONDS = 15.0
"""A silent stream repeats its state this often, so that both sides notice a lost connection."""
MAX_SECONDS = 3600.0
"""How long a stream lasts. The page then opens a new one."""


async def live(request: Request) -> Response:
    """Stream updates until the page closes, an hour has passed, or the session ends."""
    hub = web_context(request).live
    if hub.closed:
        raise HTTPException(503, "the server is stopping", {"retry-after": "5"})
    if len(hub.streams) >= MAX_STREAMS:
        raise HTTPException(503, f"{MAX_STREAMS} pages are open already. Try again later", {"retry-after": "30"})
    if request.method == "HEAD":
        return Response(media_type="text/event-stream")
    milliseconds = parse_whole_number(request.query_params.get("age", ""), 999_999_999) or 0
    messages = _messages(hub, milliseconds / 1000, lambda: _may_read(request))
    headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
    return StreamingResponse(messages, headers=headers, media_type="text/event-stream")


async def _messages(hub: LiveHub, age: float, may_read: Callable[[], bool]) -> AsyncIterator[bytes]:
    stream = hub.subscribe(age)
    end = time.monotonic() + MAX_SECONDS
    try:
        yield b"retry: 3000\n\n"
        while time.monotonic() < end and may_read():
            try:
                message = await asyncio.wait_for(stream.get(), PING_SECONDS)
            except TimeoutError:
                message = hub.state
            if message is None:
                return
            yield message
    finally:
        hub.streams.discard(stream)


def _may_read(request: Request) -> bool:
    """Return whether the session that opened a stream is still valid. A proxy checks its own sessions."""
    access, viewer = web_context(request).access, viewer_of(request)
    if access.read_by_anyone or (viewer is not None and viewer.known_by == "proxy"):
        return True
    return access.by_session(request.cookies.get(access.cookie, "")) is not None


routes: list[BaseRoute] = [Route("/live", live)]
