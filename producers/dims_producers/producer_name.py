"""The name of a producer: the `source` of its events. Together with the id it makes an event unique."""

from __future__ import annotations

import hashlib
import os
import socket
from urllib.parse import quote

from dims_worker.events import MAX_TEXT


def producer_name(kind: str, path: str | None = None, *, host: str | None = None) -> str:
    """Return `dims:KIND.HOST`, followed by `:` and the percent-quoted `path` (RFC 3986) if there is one.

    `host` defaults to this machine's name. If the path would make the name longer than an envelope allows (2,048
    characters), its SHA-256 replaces it. So no folder is too deep to be watched.
    """
    name = f"dims:{kind}.{quote(host or socket.gethostname(), safe='')}"
    if path is None:
        return name
    raw = os.fsencode(path)
    full = f"{name}:{quote(raw)}"
    return full if len(full) <= MAX_TEXT else f"{name}:sha256-{hashlib.sha256(raw).hexdigest()}"
