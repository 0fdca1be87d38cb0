"""A TCP proxy whose connections can die silently, as behind a router or a host that loses power."""

from __future__ import annotations

import contextlib
import socket
import threading


class Proxy:
    """Forwards data to and from a port of 127.0.0.1."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._silenced = threading.Event()
        """Set for the present connections. Later connections have their own event."""
        self._sockets: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._accept, name="proxy", daemon=True).start()

    def drop_silently(self) -> None:
        """Stop forwarding on the present connections without closing them. New connections work."""
        self._silenced, silenced = threading.Event(), self._silenced
        silenced.set()

    def close(self) -> None:
        for connection in (self._listener, *self._sockets):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return  # closed
            try:
                server = socket.create_connection(("127.0.0.1", self._target))
            except OSError:
                client.close()  # the server would refuse it, too
                continue
            self._sockets += [client, server]
            for source, sink in ((client, server), (server, client)):
                threading.Thread(target=_forward, args=(source, sink, self._silenced), daemon=True).start()


def _forward(source: socket.socket, sink: socket.socket, silenced: threading.Event) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            if not silenced.is_set():
                sink.sendall(data)
    if not silenced.is_set():
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_RDWR)
