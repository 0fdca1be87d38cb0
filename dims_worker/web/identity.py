"""Identify people: by a token, a sign-in link, or the header of a trusted proxy. This module sees no request.

Sessions and forms are signed (itsdangerous, HMAC-SHA-256), so the server stores nothing. To end sessions, change the
secret, or the token of the person.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import secrets
import time
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

from itsdangerous import BadData, URLSafeTimedSerializer
from starlette.datastructures import Headers

from dims_worker.config import WebSection

LONGEST_NAME = 200
"""Characters of a name from a proxy."""
LINK_SECONDS = 600
"""How long a sign-in link works. It works once."""


@dataclass(frozen=True, slots=True)
class Viewer:
    """A person who is signed in."""

    name: str
    known_by: Literal["token", "link", "proxy"]


@dataclass(frozen=True)
class SignInPolicy:
    """The rules of the configuration's web section. `secret` signs sessions, links and forms."""

    web: WebSection
    secret: str = field(repr=False)
    used_links: set[str] = field(default_factory=set, repr=False)
    """Links that were used since `started_at`."""
    started_at: int = field(default_factory=lambda: int(time.time()), repr=False)
    """Seconds since 1970. Older links do not work, because this process does not know which of them were used."""

    @property
    def read_by_anyone(self) -> bool:
        return self.web.read == "anyone"

    @cached_property
    def cookie(self) -> str:
        """The name of the session cookie.

        A browser shares cookies between all ports of a host, so each DIMS derives its own name from its secret.
        """
        return f"dims_session_{hmac.digest(self.secret.encode(), b'dims.cookie', hashlib.sha256).hex()[:8]}"

    def by_token(self, token: str) -> Viewer | None:
        """Return the person with this token. All tokens are compared, in constant time."""
        names = [name for name, known in self.web.active_tokens.items() if _equal(token, known)]
        return Viewer(names[0], "token") if names else None

    def may_send_events(self, token: str) -> bool:
        known = self.web.events_token.get_secret_value()
        return bool(known) and _equal(token, known)

    def by_proxy(self, peer: str | None, headers: Headers) -> Viewer | None:
        """Return the person whom a trusted proxy names. If the header is repeated, the browser may have sent one."""
        proxy = self.web.proxy
        if proxy is None or peer is None:
            return None
        try:
            address = ipaddress.ip_address(peer)
        except ValueError:
            return None
        if not any(address in ipaddress.ip_network(network) for network in proxy.trusted):
            return None
        names = headers.getlist(proxy.header)
        name = _decode_name(names[0]) if len(names) == 1 else ""
        return Viewer(name, "proxy") if name else None

    def session(self, viewer: Viewer) -> str:
        """Return the value of the session cookie."""
        return self._serializer("session").dumps([viewer.name, viewer.known_by, self._seal(viewer)])

    def by_session(self, cookie: str) -> Viewer | None:
        """Return the owner of a session cookie, or None if it has expired or the person's token has changed."""
        content = self._load("session", cookie, self.web.session.total_seconds())
        if not isinstance(content, list) or len(content) != 3:
            return None
        viewer = Viewer(content[0], content[1])
        return viewer if _equal(content[2], self._seal(viewer)) else None

    def link(self, name: str) -> str:
        """Return the code of a sign-in link. Anyone who can read the secret can create one."""
        return self._serializer("link").dumps([name, secrets.token_hex(8)])

    def by_link(self, code: str, *, use: bool = False) -> Viewer | None:
        """Return the person whom a link signs in, or None if it was used or has expired. `use` uses it up."""
        content = self._load("link", code, LINK_SECONDS, since=self.started_at)
        if not isinstance(content, list) or len(content) != 2 or content[1] in self.used_links:
            return None
        if use:
            self.used_links.add(content[1])
        return Viewer(content[0], "link")

    def form_token(self, viewer: Viewer) -> str:
        """Return the CSRF token of a form. It proves that this viewer loaded the form from this server."""
        return self._serializer("form").dumps([viewer.name, viewer.known_by])

    def is_form_of(self, viewer: Viewer, token: str) -> bool:
        content = self._load("form", token, self.web.session.total_seconds())
        return bool(content == [viewer.name, viewer.known_by])

    def _seal(self, viewer: Viewer) -> str:
        """Return a digest of the credential of a session, so that a new token ends the session."""
        token = self.web.active_tokens.get(viewer.name, "") if viewer.known_by == "token" else viewer.known_by
        return hashlib.sha256(f"{self.secret}{token}".encode()).hexdigest()[:16] if token else ""

    def _serializer(self, kind: str) -> URLSafeTimedSerializer:
        return URLSafeTimedSerializer(self.secret, salt=f"dims.{kind}", signer_kwargs={"digest_method": hashlib.sha256})

    def _load(self, kind: str, text: str, seconds: float, since: float = 0) -> Any:
        try:
            content, signed = self._serializer(kind).loads(text, max_age=int(seconds), return_timestamp=True)
        except BadData:  # forged, truncated or expired
            return None
        return content if signed.timestamp() >= since else None


def _decode_name(header: str) -> str:
    """Return the name in a header, which is UTF-8 on the wire. Empty if it is not a valid name."""
    try:
        name = header.encode("latin-1").decode().strip()
    except UnicodeError:
        return ""
    return name if name.isprintable() and len(name) <= LONGEST_NAME else ""


def _equal(left: str, right: str) -> bool:
    return bool(left) and hmac.compare_digest(left.encode(), right.encode())
