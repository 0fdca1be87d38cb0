"""A TCP proxy whose connections can die or pause silently, as behind a router or a host that loses its network."""

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
        self._flowing = threading.Event()
        self._flowing.set()
        self._refusing = False
        self._sockets: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._accept, name="proxy", daemon=True).start()

    def drop_silently(self) -> None:
        """Stop forwarding on the present connections without closing them. New connections work."""
        self._silenced, silenced = threading.Event(), self._silenced
        silenced.set()

    def cut(self) -> None:
        """Hold back all data, also that of new connections, until `restore`. No client gets an answer or an error."""
        self._flowing.clear()

    def refuse(self) -> None:
        """Close the present connections, and each new one at once, until `restore`."""
        self._refusing = True
        self._close_connections()

    def restore(self) -> None:
        """Forward again. Data that a cut has held back arrives now."""
        self._refusing = False
        self._flowing.set()

    def close(self) -> None:
        self._flowing.set()
        _close(self._listener)
        self._close_connections()

    def _close_connections(self) -> None:
        connections, self._sockets = self._sockets, []
        for connection in connections:
            _close(connection)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return  # closed
            self._flowing.wait()
            try:
                if self._refusing:
                    raise ConnectionRefusedError
                server = socket.create_connection(("127.0.0.1", self._target))
            except OSError:
                client.close()  # the server would refuse it, too
                continue
            self._sockets = [known for known in self._sockets if known.fileno() >= 0] + [client, server]
            for source, sink in ((client, server), (server, client)):
                threading.Thread(
                    target=_forward, args=(source, sink, self._silenced, self._flowing), daemon=True
                ).start()


def _close(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
    connection.close()


def _forward(source: socket.socket, sink: socket.socket, silenced: threading.Event, flowing: threading.Event) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            flowing.wait()
            if not silenced.is_set():
                sink.sendall(data)
    flowing.wait()
    if not silenced.is_set():
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_RDWR)
