"""Parse a broker's URL, for redis-py, for kombu, and for messages that must not show a password."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from dims_worker.errors import ConfigError

_PLAIN = ("redis", "valkey")
_ENCRYPTED = ("rediss", "valkeys")
_SOCKETS = ("redis+socket", "valkey+socket", "unix")

TLS_FILES = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
_TLS = frozenset({*TLS_FILES, "ssl_password", "ssl_cert_reqs", "ssl_check_hostname"})
_CERT_REQS = ("required", "optional", "none")


@dataclass(frozen=True, slots=True)
class BrokerAddress:
    """Where a broker is, and how to sign in. Its text and its repr show the place and no secret."""

    place: str
    """Host and port, or the path of the socket. Safe to show."""
    database: int
    _login: str = field(repr=False)
    """`USER:PASSWORD@` as in the URL, with special characters as %XX."""
    _socket: str = field(repr=False)
    tls: Mapping[str, str | bool] | None = field(repr=False)
    """The TLS options, in the names of redis-py and of Celery's `broker_use_ssl`. None if there is no encryption."""

    @classmethod
    def of(cls, url: str) -> BrokerAddress:
        """Parse `url`. Raises ConfigError, which quotes no part of it.

        Of the query, this reads only the database and the TLS options. redis-py would let the rest
        (`socket_timeout=60`) override the time limit that a caller relies on.
        """
        try:
            parts = urlsplit(url)
            query = dict(parse_qsl(parts.query))
            database = query.get("virtual_host") or query.get("db") or ("" if parts.scheme in _SOCKETS else parts.path)
            number = int(database.strip("/") or 0)
            place = f"{parts.hostname}:{parts.port or 6379}"
        except ValueError:
            raise _invalid() from None
        if "@" in parts.path + parts.query + parts.fragment:
            raise _invalid()  # a password with a plain /, ? or #: its first half would be taken for host and port
        login = parts.netloc.rpartition("@")[0]
        login += "@" if login else ""
        if parts.scheme in (*_PLAIN, *_ENCRYPTED) and parts.hostname:
            tls = _tls(query, encrypted=parts.scheme in _ENCRYPTED)
            place = f"[{parts.hostname}]:{parts.port or 6379}" if ":" in parts.hostname else place
            return cls(place, number, login, "", tls)
        if parts.scheme in _SOCKETS and parts.path.startswith("/") and not parts.hostname:
            return cls(unquote(parts.path), number, login, unquote(parts.path), _tls(query, encrypted=False))
        raise _invalid()

    def __str__(self) -> str:
        return self.place

    @property
    def for_redis(self) -> str:
        """The URL for redis-py. It holds the password. Pass `tls` separately."""
        if self._socket:
            return f"unix://{self._login}{quote(self._socket)}?db={self.database}"
        return f"{'redis' if self.tls is None else 'rediss'}://{self._login}{self.place}/{self.database}"

    @property
    def for_kombu(self) -> str:
        """The URL for kombu. It holds the password. Pass `tls` separately."""
        if self._socket:
            return f"redis+socket://{self._login}{quote(self._socket)}?virtual_host={self.database}"
        return self.for_redis


def _tls(query: Mapping[str, str], *, encrypted: bool) -> dict[str, str | bool] | None:
    """Return the TLS options of the query, or None if the scheme is not encrypted.

    By default the certificate and its name are verified. Both options are always set, because the defaults of kombu
    (verify nothing) and redis-py (verify everything) differ.
    """
    given = {name: value for name, value in query.items() if name.startswith("ssl_")}
    if not encrypted:
        if given:
            raise ConfigError("DIMS_BROKER_URL has ssl_ options. They need rediss:// or valkeys://.")
        return None
    if unknown := sorted(given.keys() - _TLS):
        raise ConfigError(f"DIMS_BROKER_URL has an unknown option {unknown[0]}. Known are {', '.join(sorted(_TLS))}.")
    reqs = given.get("ssl_cert_reqs", "required").lower().removeprefix("cert_")
    if reqs not in _CERT_REQS:
        raise ConfigError(f"DIMS_BROKER_URL: ssl_cert_reqs must be one of {', '.join(_CERT_REQS)}.")
    check = given.get("ssl_check_hostname", "true").lower() not in ("0", "f", "false", "n", "no")
    return {**given, "ssl_cert_reqs": reqs, "ssl_check_hostname": check and reqs != "none"}


def _invalid() -> ConfigError:
    return ConfigError(
        "DIMS_BROKER_URL is not the URL of a broker. Use redis://, rediss://, valkey:// or valkeys:// with a host, or "
        "redis+socket://:PASSWORD@/path/to/socket. Write special characters of a password as %XX."
    )
