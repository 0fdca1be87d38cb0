"""Run the web server: one process and one event loop. Threads render the pages."""

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

STOP_SECONDS = 5
"""How long running requests may take to finish when the server stops."""
MAX_CONNECTIONS = 800
"""Connections that are open at the same time. Further ones are closed."""
REQUEST_SECONDS = 20.0
"""How long a client may take to send the head of its request."""
RESERVED_FILES = 200
"""Files and connections that the process needs for itself."""


class GuardedConnection(H11Protocol):
    """A connection that is closed if there are too many, or if the head of its request does not arrive in time."""

    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > max_connections():
            transport.abort()
        else:
            self._update_deadline()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._update_deadline()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._deadline:
            self._deadline.cancel()
        super().connection_lost(exc)

    def _update_deadline(self) -> None:
        """Set a deadline until the head of a request is complete. Single bytes do not extend it."""
        in_progress = self.cycle is not None and not self.cycle.response_complete
        if in_progress and self._deadline:
            self._deadline.cancel()
            self._deadline = None
        elif not in_progress and not self._deadline:
            self._deadline = self.loop.call_later(REQUEST_SECONDS, self.transport.abort)


def max_connections() -> int:
    """Return `MAX_CONNECTIONS`, or fewer if the system limits the open files of a process."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MAX_CONNECTIONS if soft == resource.RLIM_INFINITY else min(MAX_CONNECTIONS, max(soft - RESERVED_FILES, 1))


class WebServer(uvicorn.Server):
    """Ends the live streams first, because a server that stops waits for open streams."""

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self.config.app.state.site.live.close()  # type: ignore[union-attr]
        super().handle_exit(sig, frame)


def listen_socket(address: str, port: int) -> socket.socket:
    """Return a socket that listens on this address. Raises ServiceError."""
    try:
        family, kind, protocol, _, endpoint = socket.getaddrinfo(address, port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family, kind, protocol)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(endpoint)
        listening.listen()  # clients that connect from now on wait for the server
    except OSError as error:
        problem = f"cannot listen on {address}:{port}: {error.strerror or error}."
        fix = " Use `dims web --link` if the dashboard runs already, or `--port 0` for a free port."
        raise ServiceError(problem + fix * (error.errno == errno.EADDRINUSE)) from None
    return listening


def build_server(app: Starlette) -> WebServer:
    """Return the server of an application. It logs no queries, because a query may contain a sign-in code."""
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
    options = uvicorn.Config(
        app,
        http=GuardedConnection,
        ws="none",
        loop="asyncio",
        lifespan="on",
        access_log=False,
        log_config=None,
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=STOP_SECONDS,
        timeout_keep_alive=30,
    )
    return WebServer(options)


def run_server(app: Starlette, listening: socket.socket) -> None:
    """Serve until SIGINT or SIGTERM."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = MAX_CONNECTIONS + RESERVED_FILES
    wanted = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    build_server(app).run(sockets=[listening])
