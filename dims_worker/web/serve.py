"""The site as a server: one process, one event loop; pages are made in threads beside it."""

from __future__ import annotations

import errno
import logging
import socket
from types import FrameType

import uvicorn
from starlette.applications import Starlette

from dims_worker.errors import ServiceError

GRACE = 5
"""Seconds that requests under way have when the server stops."""


class Server(uvicorn.Server):
    """Ends the open streams first: else they would keep a server that stops waiting."""

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self.config.app.state.site.live.close()  # type: ignore[union-attr]
        super().handle_exit(sig, frame)


def listen(address: str, port: int) -> socket.socket:
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


def serve(app: Starlette, listening: socket.socket) -> None:
    """Serve until SIGINT or SIGTERM. Nothing of a request's query is logged: it may hold a sign-in code."""
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
    options = uvicorn.Config(
        app, http="h11", ws="none", loop="asyncio", lifespan="on", access_log=False, log_config=None,
        proxy_headers=False, server_header=False, timeout_graceful_shutdown=GRACE, timeout_keep_alive=30,
    )  # fmt: skip
    Server(options).run(sockets=[listening])
