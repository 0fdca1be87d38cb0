"""One listener on the database that feeds every open dashboard."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import SQLAlchemyError

from dims_worker.config import Config
from dims_worker.errors import DimsError
from dims_worker.store.approval_requests import RequestVersion, request_versions
from dims_worker.store.listener import subscribe, wait_for_notification
from dims_worker.text.activity import ActivityFollower

log = logging.getLogger(__name__)


PERIOD = 3.0
"""Seconds after which the database is looked at without a bell: what a lost one costs."""


SPACE = 0.25
"""Seconds between two looks: a burst of events makes few messages."""


BACK_OFF = (0.5, 10.0)
"""Seconds between two tries while the database is away: at first, at most."""


WAITING = 16
"""So many messages wait for a slow page; then it misses them, and is told that it did."""


LISTED = 100
"""A message names so many of each kind at most, the newest: it is a bell with a label, not the log."""


def sse_frame(kind: str, facts: Mapping[str, Any] | None = None) -> bytes:
    """A server-sent event. https://html.spec.whatwg.org/multipage/server-sent-events.html"""
    return f"event: {kind}\ndata: {json.dumps(facts or {})}\n\n".encode()  # escapes all but ASCII: on one line


HERE = sse_frame("here")


AWAY = sse_frame("away")


MISSED = sse_frame("missed")


Stream = asyncio.Queue[bytes | None]
"""What waits for one page; None ends it."""


class LiveHub:
    """Hands on what one listener hears to every open page.

    A thread listens and reads, on one connection; the event loop hands on. A message is made once for all pages.
    """

    def __init__(self, engine: Engine, config: Config) -> None:
        self.engine, self.config = engine, config
        self.streams: set[Stream] = set()
        self.state = AWAY
        self._number = 0
        self._told_at = time.monotonic()
        self._standing: set[RequestVersion] = set()
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
                with subscribe(self.engine) as connection:
                    look = self._look_from_now(connection)
                    self._say(HERE)
                    away, pause = False, BACK_OFF[0]
                    while not self._over.is_set():
                        wait_for_notification(connection, PERIOD, self._ear)
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
        follower = ActivityFollower(self.config)
        with connection.begin():
            follower.start(connection)
            self._standing = set(request_versions(connection))

        def look() -> None:
            with connection.begin():
                news = follower.read_new(connection)
                now = set(request_versions(connection))
            changed, self._standing = now ^ self._standing, now
            if not (news.events or news.runs or changed):
                return
            names = {name for event in news.events for name in event.metrics}
            names |= {one.metric for one in news.readings} | {one.metric for one in changed}
            self._number += 1
            facts = {
                "id": self._number,
                "sentences": list(follower.describe(news))[-LISTED:],
                "events": [event.seq for event in news.events][-LISTED:],
                "runs": [run.run_id for run in news.runs][-LISTED:],
                "metrics": sorted(names)[:LISTED],
                "open": sum(one.state == "open" for one in now),
            }
            self._say(sse_frame("happened", facts))

        return look
