"""Open pages are told what happens: one listener on the database, however many look."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import BaseRoute, Route

from dims_worker.web.context import viewer_of, web_context
from dims_worker.web.live_hub import LiveHub

STREAMS = 500
"""So many pages may be open; one more is told to come back."""
PING = 15.0
"""Seconds after which a silent stream says how it is: so we notice who is gone, and a page that we are."""
LONGEST = 3600.0
"""Seconds that a stream lasts; its page opens another."""


async def live(request: Request) -> Response:
    """The stream of one page, until it leaves, an hour is over, or whoever looks may look no more."""
    hub, said = web_context(request).live, request.query_params.get("age", "")
    if hub.closed:
        raise HTTPException(503, "the site is about to stop", {"retry-after": "5"})
    if len(hub.streams) >= STREAMS:
        raise HTTPException(503, f"{STREAMS} pages are open: come back later", {"retry-after": "30"})
    if request.method == "HEAD":
        return Response(media_type="text/event-stream")
    age = int(said) / 1000 if said.isdecimal() and len(said) < 10 else 0.0
    told = _told(hub, age, lambda: _may_look(request))
    return StreamingResponse(told, headers={"cache-control": "no-store", "x-accel-buffering": "no"},
                             media_type="text/event-stream")  # fmt: skip


async def _told(hub: LiveHub, age: float, may_look: Callable[[], bool]) -> AsyncIterator[bytes]:
    stream = hub.subscribe(age)
    end = time.monotonic() + LONGEST
    try:
        yield b"retry: 3000\n\n"
        while time.monotonic() < end and may_look():
            try:
                message = await asyncio.wait_for(stream.get(), PING)
            except TimeoutError:
                message = hub.state
            if message is None:
                return
            yield message
    finally:
        hub.streams.discard(stream)


def _may_look(request: Request) -> bool:
    """Whether the session that opened a stream still stands. A proxy answers for its own."""
    access, viewer = web_context(request).access, viewer_of(request)
    if access.read_by_anyone or (viewer is not None and viewer.known_by == "proxy"):
        return True
    return access.by_session(request.cookies.get(access.cookie, "")) is not None


routes: list[BaseRoute] = [Route("/live", live)]
