"""Open pages are told what happens: one listener on the database, however many look."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import SQLAlchemyError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import BaseRoute, Route

from dims_worker.config import Config
from dims_worker.errors import DimsError
from dims_worker.sentences.follow import Follower
from dims_worker.store.bells import heard, listening
from dims_worker.store.requests import Standing, standing
from dims_worker.web.site import site_of, viewer_of

log = logging.getLogger(__name__)

PERIOD = 3.0
"""Seconds after which the database is looked at without a bell: what a lost one costs."""
SPACE = 0.25
"""Seconds between two looks: a burst of events makes few messages."""
BACK_OFF = (0.5, 10.0)
"""Seconds between two tries while the database is away: at first, at most."""
STREAMS = 500
"""So many pages may be open; one more is told to come back."""
WAITING = 16
"""So many messages wait for a slow page; then it misses them, and is told that it did."""
PING = 15.0
"""Seconds after which a silent stream says how it is: so we notice who is gone, and a page that we are."""
LONGEST = 3600.0
"""Seconds that a stream lasts; its page opens another."""
LISTED = 100
"""A message names so many of each kind at most, the newest: it is a bell with a label, not the log."""


def frame(kind: str, facts: Mapping[str, Any] | None = None) -> bytes:
    """A server-sent event. https://html.spec.whatwg.org/multipage/server-sent-events.html"""
    return f"event: {kind}\ndata: {json.dumps(facts or {})}\n\n".encode()  # escapes all but ASCII: on one line


HERE, AWAY, MISSED = frame("here"), frame("away"), frame("missed")
Stream = asyncio.Queue[bytes | None]
"""What waits for one page; None ends it."""


class Hub:
    """Hands on what one listener hears to every open page.

    A thread listens and reads, on one connection; the event loop hands on. A message is made once for all pages.
    """

    def __init__(self, engine: Engine, config: Config) -> None:
        self.engine, self.config = engine, config
        self.streams: set[Stream] = set()
        self.state = AWAY
        self._number = 0
        self._told_at = time.monotonic()
        self._standing: set[Standing] = set()
        self._over = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    async def start(self) -> None:
        """Begin to listen."""
        self._loop = asyncio.get_running_loop()
        self._ear, self._wake = socket.socketpair()
        self._thread = threading.Thread(target=self._listen, name="live", daemon=True)
        self._thread.start()

    @property
    def closed(self) -> bool:
        return self._over.is_set()

    def close(self) -> None:
        """End every stream; from any thread, and from a signal's handler."""
        self._over.set()
        if self._loop and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._hand_out, None)

    async def stop(self) -> None:
        """End every stream, and the listener."""
        self.close()
        if self._thread:
            self._wake.send(b".")
            await asyncio.to_thread(self._thread.join, 10)  # a connection attempt under way ends within 5 s
            self._ear.close()
            self._wake.close()

    def subscribe(self, age: float = 0.0) -> Stream:
        """What a page is told from now on. `age`: seconds since it was asked for; what has happened meanwhile, it may
        have missed."""
        stream = Stream(WAITING)
        stream.put_nowait(self.state)
        if time.monotonic() - age < self._told_at:
            stream.put_nowait(MISSED)
        if self.closed:
            stream.put_nowait(None)
        self.streams.add(stream)
        return stream

    def _hand_out(self, message: bytes | None) -> None:
        if message is not None and message in (HERE, AWAY):
            self.state = message
        for stream in self.streams:
            if stream.full():
                while not stream.empty():
                    stream.get_nowait()
                stream.put_nowait(self.state)
                stream.put_nowait(MISSED)
            stream.put_nowait(message)

    def _say(self, message: bytes) -> None:
        assert self._loop
        self._told_at = time.monotonic()
        self._loop.call_soon_threadsafe(self._hand_out, message)

    def _listen(self) -> None:
        """The thread: until `stop`, whatever the database does."""
        pause, most = BACK_OFF
        away = False
        while not self._over.is_set():
            try:
                with listening(self.engine) as connection:
                    look = self._look_from_now(connection)
                    self._say(HERE)
                    away, pause = False, BACK_OFF[0]
                    while not self._over.is_set():
                        heard(connection, PERIOD, self._ear)
                        look()
                        self._over.wait(SPACE)
            except (DimsError, SQLAlchemyError) as error:
                if not away:
                    log.warning("open pages are told nothing: %s", str(error).splitlines()[0])
            except Exception:
                log.exception("open pages are told nothing")
            if not away and not self._over.is_set():
                self._say(AWAY)
            away = True
            self._over.wait(pause)
            pause = min(pause * 2, most)

    def _look_from_now(self, connection: Connection) -> Callable[[], None]:
        """What tells the pages of all that is new since the last call."""
        follower = Follower(self.config)
        with connection.begin():
            follower.start(connection)
            self._standing = set(standing(connection))

        def look() -> None:
            with connection.begin():
                news = follower.news(connection)
                now = set(standing(connection))
            changed, self._standing = now ^ self._standing, now
            if not (news.events or news.runs or changed):
                return
            names = {name for event in news.events for name in event.metrics}
            names |= {one.metric for one in news.readings} | {one.metric for one in changed}
            self._number += 1
            facts = {
                "id": self._number,
                "sentences": list(follower.told(news))[-LISTED:],
                "events": [event.seq for event in news.events][-LISTED:],
                "runs": [run.run_id for run in news.runs][-LISTED:],
                "metrics": sorted(names)[:LISTED],
                "open": sum(one.state == "open" for one in now),
            }
            self._say(frame("happened", facts))

        return look


async def live(request: Request) -> Response:
    """The stream of one page, until it leaves, an hour is over, or whoever looks may look no more."""
    hub, said = site_of(request).live, request.query_params.get("age", "")
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


async def _told(hub: Hub, age: float, may_look: Callable[[], bool]) -> AsyncIterator[bytes]:
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
    access, viewer = site_of(request).access, viewer_of(request)
    if access.read_by_anyone or (viewer is not None and viewer.known_by == "proxy"):
        return True
    return access.by_session(request.cookies.get(access.cookie, "")) is not None


routes: list[BaseRoute] = [Route("/live", live)]
