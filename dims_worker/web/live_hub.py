"""Listen to the database on one connection and send updates to every open page."""

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

from dims_worker.broker.outage_log import DATABASE, outages
from dims_worker.config import Config
from dims_worker.errors import DimsError
from dims_worker.store.approval_requests import RequestVersion, request_versions
from dims_worker.store.listener import subscribe, wait_for_notification
from dims_worker.store.sessions import is_pooled
from dims_worker.text.activity import ActivityFollower

log = logging.getLogger(__name__)

POLL_SECONDS = 3.0
"""How often the database is read without a notification. A lost notification delays an update by this much."""
POOLED_POLL_SECONDS = 1.0
"""The same behind a connection pooler, where no notification can come."""
MIN_SECONDS = 0.25
"""Seconds between two reads, so that a burst of events makes few messages."""
RETRY_SECONDS = (0.5, 10.0)
"""The first and the longest pause between attempts to reach the database."""
QUEUE_SIZE = 16
"""Messages that wait for a slow page. After that the page is notified that it missed some."""
MAX_LISTED = 100
"""A message names at most this many items of each kind, the newest. Pages load the rest."""


def sse_frame(kind: str, facts: Mapping[str, Any] | None = None) -> bytes:
    """Return a server-sent event. https://html.spec.whatwg.org/multipage/server-sent-events.html"""
    return f"event: {kind}\ndata: {json.dumps(facts or {})}\n\n".encode()  # JSON escapes line ends


CONNECTED = sse_frame("connected")
UNREACHABLE = sse_frame("unreachable")
MISSED = sse_frame("missed")

_PART = "live updates"

Stream = asyncio.Queue[bytes | None]
"""The messages for one page. None ends the stream."""


class LiveHub:
    """Sends what one database listener sees to every open page.

    A thread listens and reads on one connection. The event loop sends. Each message is built once for all pages.
    """

    def __init__(self, engine: Engine, config: Config) -> None:
        self.engine, self.config = engine, config
        self.streams: set[Stream] = set()
        self.state = UNREACHABLE
        self._last_id = 0
        self._last_sent = time.monotonic()
        self._request_versions: set[RequestVersion] = set()
        self._stopping = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    async def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._interrupted, self._interrupt = socket.socketpair()
        self._thread = threading.Thread(target=self._listen, name="live", daemon=True)
        self._thread.start()

    @property
    def closed(self) -> bool:
        return self._stopping.is_set()

    def close(self) -> None:
        """End every stream. Safe to call from any thread and from a signal handler."""
        self._stopping.set()
        if self._loop and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._deliver, None)

    async def stop(self) -> None:
        """End every stream and the listener."""
        self.close()
        if self._thread:
            self._interrupt.send(b".")
            await asyncio.to_thread(self._thread.join, 10)  # an attempt to connect ends within 5 s
            self._interrupted.close()
            self._interrupt.close()

    def subscribe(self, age: float = 0.0) -> Stream:
        """Return a new stream for a page that is `age` seconds old, with a message if the page may have missed some."""
        stream = Stream(QUEUE_SIZE)
        stream.put_nowait(self.state)
        if time.monotonic() - age < self._last_sent:
            stream.put_nowait(MISSED)
        if self.closed:
            stream.put_nowait(None)
        self.streams.add(stream)
        return stream

    def _deliver(self, message: bytes | None) -> None:
        """Put a message into every stream. A full stream is cleared and marked as missed."""
        if message is not None and message in (CONNECTED, UNREACHABLE):
            self.state = message
        for stream in self.streams:
            if stream.full():
                while not stream.empty():
                    stream.get_nowait()
                stream.put_nowait(self.state)
                stream.put_nowait(MISSED)
            stream.put_nowait(message)

    def _send(self, message: bytes) -> None:
        assert self._loop
        self._last_sent = time.monotonic()
        self._loop.call_soon_threadsafe(self._deliver, message)

    def _listen(self) -> None:
        """Run the thread: listen until `stop`, and reconnect whenever the connection is lost."""
        pause, longest = RETRY_SECONDS
        unreachable = False
        while not self._stopping.is_set():
            try:
                with subscribe(self.engine) as connection:
                    send_changes = self._start_following(connection)
                    period = POOLED_POLL_SECONDS if is_pooled(connection) else POLL_SECONDS
                    self._send(CONNECTED)
                    outages.succeeded(DATABASE, _PART)
                    unreachable, pause = False, RETRY_SECONDS[0]
                    while not self._stopping.is_set():
                        wait_for_notification(connection, period, self._interrupted)
                        send_changes()
                        self._stopping.wait(MIN_SECONDS)
            except (DimsError, SQLAlchemyError) as error:
                outages.failed(DATABASE, _PART, f"live updates are paused: {str(error).splitlines()[0]}")
            except Exception:
                log.exception("live updates failed; reconnecting")
            if not unreachable and not self._stopping.is_set():
                self._send(UNREACHABLE)
            unreachable = True
            self._stopping.wait(pause)
            pause = min(pause * 2, longest)

    def _start_following(self, connection: Connection) -> Callable[[], None]:
        """Return a function that sends everything that is new since its last call."""
        follower = ActivityFollower(self.config)
        with connection.begin():
            follower.start(connection)
            self._request_versions = set(request_versions(connection))

        def send_changes() -> None:
            with connection.begin():
                activity = follower.read_new(connection)
                versions = set(request_versions(connection))
            changed, self._request_versions = versions ^ self._request_versions, versions
            if not (activity.events or activity.runs or activity.incidents or changed):
                return
            names = {name for event in activity.events for name in event.metrics}
            names |= {reading.metric for reading in activity.readings} | {version.metric for version in changed}
            names |= {change.incident.metric for change in activity.incidents}
            self._last_id += 1
            facts = {
                "id": self._last_id,
                "sentences": list(follower.describe(activity))[-MAX_LISTED:],
                "events": [event.seq for event in activity.events][-MAX_LISTED:],
                "runs": [run.run_id for run in activity.runs][-MAX_LISTED:],
                "metrics": sorted(names)[:MAX_LISTED],
                "open": sum(version.state == "open" for version in versions),
            }
            self._send(sse_frame("activity", facts))

        return send_changes
