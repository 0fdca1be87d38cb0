"""A site served on a port as `dims web` serves it, and open pages' streams."""

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
class Open:
    """An open page's stream: what it was told so far."""

    connection: socket.socket
    said: bytes = b""
    ended: bool = False

    def read(self, seconds: float = 10) -> None:
        self.connection.settimeout(seconds)
        try:
            more = self.connection.recv(65536)
        except TimeoutError:
            return
        self.said += more
        self.ended = not more

    def until(self, what: str, seconds: float = 15) -> None:
        end = time.monotonic() + seconds
        while what.encode() not in self.said:
            assert time.monotonic() < end and not self.ended, f"{what} was not told: {self.said!r}"
            self.read(0.5)

    @property
    def happened(self) -> list[dict[str, Any]]:
        lines = self.said.decode().splitlines()
        return [json.loads(b[6:]) for a, b in pairwise(lines) if a == "event: happened"]


@dataclass
class Served:
    """A site that is served as `dims web` serves it."""

    hub: LiveHub
    port: int
    cookie: str
    stack: ExitStack = field(repr=False)

    def open(self, path: str = "/live", *, method: str = "GET", cookie: bool = True) -> Open:
        said = f"Cookie: {self.cookie}\r\n" if cookie else ""
        return self.send(f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n{said}\r\n".encode())

    def send(self, said: bytes) -> Open:
        """A connection on which this is said, and no more."""
        connection = socket.create_connection(("127.0.0.1", self.port), 10)
        self.stack.callback(connection.close)
        connection.sendall(said)
        return Open(connection)

    def live(self) -> Open:
        found = self.open()
        found.until("event: here")
        found.said = found.said.partition(b"event: here")[2]  # before it, "away" while nobody listened yet
        return found


@contextmanager
def serving(engine: Engine, config: Config, port: int = 0, **web: Any) -> Iterator[Served]:
    """The site, until the end of the block; `web`: keys of its section of the configuration."""
    said = WebSection.model_validate({"tokens": {"ada": "ada-token-" + "x" * 20}, **web})
    access = SignInPolicy(said, "a secret of the tests")
    config = replace(config, web=said)
    hub = LiveHub(engine, config)
    app = build_app(WebContext(config, engine, None, access, said.flower, hub))
    listening = listen_socket("127.0.0.1", port)
    serves = build_server(app)
    thread = threading.Thread(target=serves.run, args=([listening],))
    thread.start()
    try:
        with ExitStack() as stack:
            wait_for(lambda: serves.started)
            signed = f"{access.cookie}={access.session(Viewer('ada', 'token'))}"
            yield Served(hub, listening.getsockname()[1], signed, stack)
    finally:
        hub.close()
        serves.should_exit = True
        thread.join(15)
        listening.close()
    assert not thread.is_alive()
