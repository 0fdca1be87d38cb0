"""Messages between a scan process and the process that started it: pickles with their length, over a socket."""

from __future__ import annotations

import pickle
import select
import socket
import struct
import threading
from collections.abc import Iterator
from typing import Any

_LENGTH = struct.Struct("!Q")
_BLOCK = 1 << 18


class MessageChannel:
    """One end of the connection. Several threads may send, one thread receives."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._sending = threading.Lock()
        self._received = bytearray()

    def fileno(self) -> int:
        return self._socket.fileno()

    def is_readable(self, seconds: float) -> bool:
        """Wait at most this long for a message, or for the end of the connection. Return whether one has come."""
        ready = select.poll()
        ready.register(self.fileno(), select.POLLIN)
        return bool(ready.poll(seconds * 1000))

    def close(self) -> None:
        self._socket.close()

    def send(self, message: Any) -> None:
        """Send one message. Raises OSError if the other end is closed, and pickle's errors before anything is sent."""
        body = pickle.dumps(message, pickle.HIGHEST_PROTOCOL)
        with self._sending:
            self._socket.sendall(_LENGTH.pack(len(body)) + body)

    def receive(self) -> Iterator[Any]:
        """Read once from the socket, which is readable, and yield the messages that are complete now.

        Raises EOFError if the other end is closed.
        """
        try:
            block = self._socket.recv(_BLOCK)
        except ConnectionResetError:
            block = b""
        if not block:
            raise EOFError
        self._received += block
        while len(self._received) >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._received)
            end = _LENGTH.size + length
            if len(self._received) < end:
                return
            message = pickle.loads(memoryview(self._received)[_LENGTH.size : end])  # noqa: S301 - from our own process
            del self._received[:end]
            yield message

    def wait_for_message(self) -> Any:
        """Block until one message has arrived, and return it. Raises EOFError if the other end is closed."""
        while True:
            for message in self.receive():
                return message
