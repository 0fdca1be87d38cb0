"""The way to the broker: one round trip that appends events to the stream, bounded in time.

A message that reached the stream is safe; everything before that is the spool's (see `producers.spool`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

from dims_worker.errors import BrokerUnreachable, ConfigError
from dims_worker.events import FIELD, STREAM, Event

if TYPE_CHECKING:
    from redis import Redis

ENV_FILE = "producer.env"
"""What `dims up` writes into the home, so that a producer finds the broker without any configuration."""

_VARIABLE = "DIMS_BROKER_URL"
_SCHEMES = {"redis": "redis", "valkey": "redis", "rediss": "rediss", "valkeys": "rediss"}
_SOCKETS = ("redis+socket", "valkey+socket", "unix")


def publish(events: Sequence[Event], url: str, *, timeout: float = 2.0) -> list[str]:
    """Append `events` to the stream in their order, in one round trip; the ids of their stream entries.

    `timeout` (seconds) bounds the connecting and each answer, and nothing is tried again: against a broker
    that is gone or hangs the call ends after at most about twice that. Raises BrokerUnreachable naming host
    and port (never the password) when the broker is away or refuses; then some of the events may have
    arrived all the same, and sending all of them again is right: the event's id makes it one.
    Raises ConfigError where `url` is none that a broker has.
    """
    return append([event.to_json() for event in events], url, timeout=timeout)


def append(envelopes: Sequence[str], url: str, *, timeout: float = 2.0) -> list[str]:
    """The same for envelopes in JSON, which are sent as they are."""
    if not envelopes:
        return []
    with _reaching(url, timeout) as client, client.pipeline(transaction=False) as pipe:
        for envelope in envelopes:
            pipe.xadd(STREAM, {FIELD: envelope})
        return [entry.decode() for entry in pipe.execute()]


def reach(url: str, *, timeout: float = 2.0) -> None:
    """Connect to the broker, and send nothing. Raises as `publish` does."""
    with _reaching(url, timeout) as client:
        client.connection_pool.release(client.connection_pool.get_connection())


@contextmanager
def _reaching(url: str, timeout: float) -> Iterator[Redis]:
    """A client for a broker's URL; what it meets is told as BrokerUnreachable."""
    place = _place(url)
    client = connect(url, timeout)
    from redis.exceptions import RedisError

    try:
        with client:
            yield client
    except (RedisError, OSError) as error:
        raise BrokerUnreachable(
            f"the broker at {place} cannot be reached or refuses: {_reason(error)}. "
            "Is it running? See DIMS_BROKER_URL, or start one with `dims up`."
        ) from error


def broker_url(env: Mapping[str, str], home: Path | None) -> str:
    """The broker's URL: `DIMS_BROKER_URL` of `env`, else that line of `home`/producer.env.

    Raises ConfigError, which says what to do, where neither has one or it is no broker's URL.
    """
    file = home / ENV_FILE if home else None
    if url := env.get(_VARIABLE, "").strip() or (_from_file(file) if file else ""):
        _redis_url(url)
        return url
    where = f" and {file} does not name one" if file else " and there is no DIMS home (set DIMS_HOME)"
    raise ConfigError(
        f"no broker is known: {_VARIABLE} is not set{where}. "
        f"Set {_VARIABLE} (such as redis://:PASSWORD@HOST:6379/0), or start one with `dims up`."
    )


def _from_file(file: Path) -> str:
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return ""
    except (OSError, UnicodeError) as error:
        raise ConfigError(f"{file} cannot be read: {error}") from None
    for line in lines:
        name, _, value = line.strip().removeprefix("export ").partition("=")
        if name.strip() == _VARIABLE:
            return value.strip().strip("'\"")
    return ""


def connect(url: str, timeout: float) -> Redis:
    """A client for a broker's URL whose connecting and answers are each bounded by `timeout` seconds.

    Nothing is tried again by itself. Raises ConfigError where `url` is none that a broker has.
    """
    # Lazily: redis takes 0.2 s to import, and who only spools does not need it.
    from redis import Redis
    from redis.backoff import NoBackoff
    from redis.retry import Retry

    options: dict[str, Any] = {
        "socket_timeout": timeout,
        "socket_connect_timeout": timeout,
        "retry": Retry(NoBackoff(), 0),  # the spool tries again, later; a producer does not wait
        "protocol": 2,  # no HELLO and what follows it: fewer round trips before the one that counts
    }
    try:
        client: Redis = Redis.from_url(_redis_url(url), **options)
    except ValueError:
        raise _unfit() from None  # the original quotes the URL, and with it the password
    return client


def _redis_url(url: str) -> str:
    """`url` in the words of redis-py: Celery's socket form and valkey's names are translated.

    Of the query only what names the database and the TLS files is kept: redis-py would let the rest
    (`socket_timeout=60`) override the bound that a caller relies on.
    """
    try:
        parts = urlsplit(url)
        given = dict(parse_qsl(parts.query))
        query = {k: v.lower().removeprefix("cert_") if k == "ssl_cert_reqs" else v
                 for k, v in given.items() if k.startswith("ssl_")}  # fmt: skip
        database = given.get("virtual_host", given.get("db", "")).strip("/")
        if database:
            query["db"] = str(int(database))
        _ = parts.port  # raises where it is not a number
    except ValueError:
        raise _unfit() from None
    tail = f"?{urlencode(query)}" if query else ""
    if parts.scheme in _SCHEMES and parts.hostname:
        return f"{_SCHEMES[parts.scheme]}://{parts.netloc}{parts.path}{tail}"
    if parts.scheme in _SOCKETS and parts.path.startswith("/") and not parts.hostname:
        return f"unix://{parts.netloc}{quote(unquote(parts.path))}{tail}"
    raise _unfit()


def _unfit() -> ConfigError:
    return ConfigError(
        f"{_VARIABLE} is not a URL of a broker: redis://, rediss://, valkey:// or valkeys:// with a host, or "
        "redis+socket://:PASSWORD@/path/to/socket is taken (special characters of a password as %XX)"
    )


def _place(url: str) -> str:
    """Host and port, or the socket's path: what may be shown of a URL."""
    parts = urlsplit(_redis_url(url))
    return unquote(parts.path) if parts.scheme == "unix" else f"{parts.hostname}:{parts.port or 6379}"


def _reason(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return (text or type(error).__name__).rstrip(".")[:300]
