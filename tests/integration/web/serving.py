"""Serve a dashboard on a port as `dims web` does, and open streams of live updates."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

from sqlalchemy import Engine

from dims_worker.config import Config, WebSection
from dims_worker.web.app import build_app
from dims_worker.web.context import WebContext
from dims_worker.web.identity import SignInPolicy, Viewer
from dims_worker.web.live_hub import LiveHub
from dims_worker.web.server import build_server, listen_socket
from tests.conftest import wait_for


@dataclass
class ClientConnection:
    """A connection to the server, with the bytes that it has received."""

    connection: socket.socket
    received: bytes = b""
    ended: bool = False

    def read(self, seconds: float = 10) -> None:
        self.connection.settimeout(seconds)
        try:
            more = self.connection.recv(65536)
        except TimeoutError:
            return
        self.received += more
        self.ended = not more

    def until(self, expected: str, seconds: float = 15) -> None:
        """Read until the text has arrived."""
        end = time.monotonic() + seconds
        while expected.encode() not in self.received:
            assert time.monotonic() < end and not self.ended, f"{expected} did not arrive: {self.received!r}"
            self.read(0.5)

    @property
    def activity(self) -> list[dict[str, Any]]:
        """The data of the `activity` messages."""
        lines = self.received.decode().splitlines()
        return [json.loads(b[6:]) for a, b in pairwise(lines) if a == "event: activity"]


@dataclass
class Served:
    """A dashboard that is served as `dims web` does."""

    hub: LiveHub
    port: int
    cookie: str
    stack: ExitStack = field(repr=False)

    def open(self, path: str = "/live", *, method: str = "GET", cookie: bool = True) -> ClientConnection:
        header = f"Cookie: {self.cookie}\r\n" if cookie else ""
        return self.send(f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n{header}\r\n".encode())

    def send(self, request: bytes) -> ClientConnection:
        """Open a connection and send exactly these bytes."""
        connection = socket.create_connection(("127.0.0.1", self.port), 10)
        self.stack.callback(connection.close)
        connection.sendall(request)
        return ClientConnection(connection)

    def live(self) -> ClientConnection:
        """Open a stream and wait until the hub listens."""
        page = self.open()
        page.until("event: connected")
        page.received = page.received.partition(b"event: connected")[2]  # without "unreachable" from before
        return page


@contextmanager
def serving(engine: Engine, config: Config, port: int = 0, **web: Any) -> Iterator[Served]:
    """Serve a dashboard until the end of the block. `web` are keys of the web section."""
    section = WebSection.model_validate({"tokens": {"ada": "ada-token-" + "x" * 20}, **web})
    access = SignInPolicy(section, "a secret of the tests")
    config = replace(config, web=section)
    hub = LiveHub(engine, config)
    app = build_app(WebContext(config, engine, None, access, section.flower, hub))
    listening = listen_socket("127.0.0.1", port)
    server = build_server(app)
    thread = threading.Thread(target=server.run, args=([listening],))
    thread.start()
    try:
        with ExitStack() as stack:
            wait_for(lambda: server.started)
            cookie = f"{access.cookie}={access.session(Viewer('ada', 'token'))}"
            yield Served(hub, listening.getsockname()[1], cookie, stack)
    finally:
        hub.close()
        server.should_exit = True
        thread.join(15)
        listening.close()
    assert not thread.is_alive()
