"""A way to a server on which connections can die without a word, as behind a router or a host that loses its power."""

from __future__ import annotations

import contextlib
import socket
import threading


class Proxy:
    """Passes on what goes to and from a port of 127.0.0.1."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._deaf = threading.Event()
        """Set for the connections of today; those of later have an event of their own."""
        self._sockets: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._accept, name="proxy", daemon=True).start()

    def forget_all(self) -> None:
        """Pass on nothing more on the connections that there are, and close none of them. New ones work."""
        self._deaf, deaf = threading.Event(), self._deaf
        deaf.set()

    def close(self) -> None:
        for one in (self._listener, *self._sockets):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return  # closed
            try:
                server = socket.create_connection(("127.0.0.1", self._target))
            except OSError:
                client.close()  # as the server would refuse it
                continue
            self._sockets += [client, server]
            for source, sink in ((client, server), (server, client)):
                threading.Thread(target=_pass_on, args=(source, sink, self._deaf), daemon=True).start()


def _pass_on(source: socket.socket, sink: socket.socket, deaf: threading.Event) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            if not deaf.is_set():
                sink.sendall(data)
    if not deaf.is_set():
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_RDWR)
