"""Who somebody is, and how that is known: a token, a sign-in link, a trusted proxy's header. No request is seen here.

Sessions and forms are signed (itsdangerous, HMAC-SHA-256): nothing is kept on the server, and whoever changes the
secret or a person's token ends the sessions that it signed or opened.
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
"""Characters of a name that a proxy gives."""
LINK_SECONDS = 600
"""A sign-in link opens so long, and once."""


@dataclass(frozen=True, slots=True)
class Viewer:
    """Somebody who signed in."""

    name: str
    known_by: Literal["token", "link", "proxy"]


@dataclass(frozen=True)
class SignInPolicy:
    """What the web section of the configuration allows; `secret` signs."""

    web: WebSection
    secret: str = field(repr=False)
    used: set[str] = field(default_factory=set, repr=False)
    """Links that were opened since `begun`."""
    begun: int = field(default_factory=lambda: int(time.time()), repr=False)
    """Seconds since 1970. No link of before opens: which of them were used, nobody knows any more."""

    @property
    def read_by_anyone(self) -> bool:
        return self.web.read == "anyone"

    @cached_property
    def cookie(self) -> str:
        """The name of a session's cookie: a browser keeps one jar for all ports of a host, so each DIMS there needs a
        name of its own. It stays over restarts, as the secret does, which it tells nothing of."""
        return f"dims_session_{hmac.digest(self.secret.encode(), b'dims.cookie', hashlib.sha256).hex()[:8]}"

    def by_token(self, token: str) -> Viewer | None:
        """The person whose token it is. Each is compared, in a time that tells nothing of how much was right."""
        found = [name for name, known in self.web.active_tokens.items() if _same(token, known)]
        return Viewer(found[0], "token") if found else None

    def may_send_events(self, token: str) -> bool:
        """Whether it is the producers' token."""
        known = self.web.events_token.get_secret_value()
        return bool(known) and _same(token, known)

    def by_proxy(self, peer: str | None, headers: Headers) -> Viewer | None:
        """The person whom a trusted proxy names; nobody where another peer says so, or where two are named: a proxy
        that adds its header to the browser's would let that one choose."""
        proxy = self.web.proxy
        if proxy is None or peer is None:
            return None
        try:
            address = ipaddress.ip_address(peer)
        except ValueError:
            return None
        if not any(address in ipaddress.ip_network(one) for one in proxy.trusted):
            return None
        said = headers.getlist(proxy.header)
        name = _name(said[0]) if len(said) == 1 else ""
        return Viewer(name, "proxy") if name else None

    def session(self, viewer: Viewer) -> str:
        """A cookie's value for somebody who signed in."""
        return self._signer("session").dumps([viewer.name, viewer.known_by, self._seal(viewer)])

    def by_session(self, cookie: str) -> Viewer | None:
        """Whose cookie it is; nobody's, once it is too old or the token that opened it has changed."""
        said = self._read("session", cookie, self.web.session.total_seconds())
        if not isinstance(said, list) or len(said) != 3:
            return None
        viewer = Viewer(said[0], said[1])
        return viewer if _same(said[2], self._seal(viewer)) else None

    def link(self, name: str) -> str:
        """The code of a sign-in link: who can make one can read the secret, and so is this machine's keeper."""
        return self._signer("link").dumps([name, secrets.token_hex(8)])

    def by_link(self, code: str, *, use: bool = False) -> Viewer | None:
        """For whom a link is; nobody, once it was used or is too old."""
        said = self._read("link", code, LINK_SECONDS, since=self.begun)
        if not isinstance(said, list) or len(said) != 2 or said[1] in self.used:
            return None
        if use:
            self.used.add(said[1])
        return Viewer(said[0], "link")

    def form_token(self, viewer: Viewer) -> str:
        """What a form carries, so that it can only have come from a page that this person was shown."""
        return self._signer("form").dumps([viewer.name, viewer.known_by])

    def is_form_of(self, viewer: Viewer, token: str) -> bool:
        said = self._read("form", token, self.web.session.total_seconds())
        return bool(said == [viewer.name, viewer.known_by])

    def _seal(self, viewer: Viewer) -> str:
        """A digest of what opened a session: another token, another digest."""
        token = self.web.active_tokens.get(viewer.name, "") if viewer.known_by == "token" else viewer.known_by
        return hashlib.sha256(f"{self.secret}{token}".encode()).hexdigest()[:16] if token else ""

    def _signer(self, what: str) -> URLSafeTimedSerializer:
        return URLSafeTimedSerializer(self.secret, salt=f"dims.{what}", signer_kwargs={"digest_method": hashlib.sha256})

    def _read(self, what: str, text: str, seconds: float, since: float = 0) -> Any:
        try:
            said, signed = self._signer(what).loads(text, max_age=int(seconds), return_timestamp=True)
        except BadData:  # forged, cut, or too old
            return None
        return said if signed.timestamp() >= since else None


def _name(said: str) -> str:
    """A person's name in a header, which is UTF-8 on the wire; empty where nobody is called so."""
    try:
        name = said.encode("latin-1").decode().strip()
    except UnicodeError:
        return ""
    return name if name.isprintable() and len(name) <= LONGEST_NAME else ""


def _same(one: str, other: str) -> bool:
    return bool(one) and hmac.compare_digest(one.encode(), other.encode())
