"""The site as a server: one process, one event loop; pages are made in threads beside it."""

from __future__ import annotations

import asyncio
import errno
import logging
import resource
import socket
from types import FrameType

import uvicorn
from starlette.applications import Starlette
from uvicorn.protocols.http.h11_impl import H11Protocol

from dims_worker.errors import ServiceError

GRACE = 5
"""Seconds that requests under way have when the server stops."""

CONNECTIONS = 800
"""So many are open at once; who comes beyond them is hung up on."""
ASKING = 20.0
"""Seconds in which who comes has said what they want."""
FILES = 200
"""So many files and connections of its own the process may have open beside."""


class GuardedConnection(H11Protocol):
    """A connection that is let go where it is one too many, or says nothing whole."""

    _hurry: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > most_connections():
            transport.abort()
        else:
            self._await_a_request()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._await_a_request()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._hurry:
            self._hurry.cancel()
        super().connection_lost(exc)

    def _await_a_request(self) -> None:
        """Until a request's head is whole there is a deadline, which no single byte moves."""
        served = self.cycle is not None and not self.cycle.response_complete
        if served and self._hurry:
            self._hurry.cancel()
            self._hurry = None
        elif not served and not self._hurry:
            self._hurry = self.loop.call_later(ASKING, self.transport.abort)


def most_connections() -> int:
    """`CONNECTIONS`, or fewer where the system lets a process open few files."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return CONNECTIONS if soft == resource.RLIM_INFINITY else min(CONNECTIONS, max(soft - FILES, 1))


class WebServer(uvicorn.Server):
    """Ends the open streams first: else they would keep a server that stops waiting."""

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self.config.app.state.site.live.close()  # type: ignore[union-attr]
        super().handle_exit(sig, frame)


def listen_socket(address: str, port: int) -> socket.socket:
    """A socket on that address. Raises ServiceError where it cannot be had."""
    try:
        family, kind, protocol, _, where = socket.getaddrinfo(address, port, type=socket.SOCK_STREAM)[0]
        found = socket.socket(family, kind, protocol)
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind(where)
        found.listen()  # from now on whoever comes waits for the server, and is not sent away
    except OSError as error:
        said = f"{address}:{port} cannot be listened on: {error.strerror or error}"
        taken = "; a page may be served there already: `dims web --link`; else `--port 0` takes a free port"
        raise ServiceError(said + taken * (error.errno == errno.EADDRINUSE)) from None
    return found


def build_server(app: Starlette) -> WebServer:
    """What serves it. Nothing of a request's query is logged: it may hold a sign-in code."""
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
    options = uvicorn.Config(
        app, http=GuardedConnection, ws="none", loop="asyncio", lifespan="on", access_log=False, log_config=None,
        proxy_headers=False, server_header=False, timeout_graceful_shutdown=GRACE, timeout_keep_alive=30,
    )  # fmt: skip
    return WebServer(options)


def run_server(app: Starlette, listening: socket.socket) -> None:
    """Serve until SIGINT or SIGTERM."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = CONNECTIONS + FILES if hard == resource.RLIM_INFINITY else min(CONNECTIONS + FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    build_server(app).run(sockets=[listening])
