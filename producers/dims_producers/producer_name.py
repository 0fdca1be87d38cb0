"""A producer's name: the `source` of its events, which with the id makes an event unique for ever."""

from __future__ import annotations

import hashlib
import os
import socket
from urllib.parse import quote

from dims_worker.events import MAX_TEXT


def producer_name(kind: str, path: str | None = None, *, host: str | None = None) -> str:
    """`dims:KIND.HOST`, and where a `path` is given `:` and that path, percent-quoted (RFC 3986).

    `host` defaults to this machine's name. A path that would make the name longer than an envelope takes
    (2,048 characters) is named by its SHA-256 instead, so that no folder is too deep to be watched.
    """
    name = f"dims:{kind}.{quote(host or socket.gethostname(), safe='')}"
    if path is None:
        return name
    raw = os.fsencode(path)
    full = f"{name}:{quote(raw)}"
    return full if len(full) <= MAX_TEXT else f"{name}:sha256-{hashlib.sha256(raw).hexdigest()}"
