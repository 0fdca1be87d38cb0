"""The way to the broker: one round trip that appends events to the stream, bounded in time.

A message that reached the stream is safe; everything before that is the spool's (see `dims_producers.spool`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dims_producers.broker_url import TLS_FILES, BrokerAddress
from dims_worker.errors import BrokerUnreachable, ConfigError
from dims_worker.events import FIELD, STREAM, Event

if TYPE_CHECKING:
    from redis import Redis

ENV_FILE = "producer.env"
"""What `dims up` writes into the home, so that a producer finds the broker without any configuration."""

PRODUCER_URL = "DIMS_PRODUCER_URL"
"""Names a user of the broker that may do nothing but append events; where it is set, producers take it."""

BROKER_URL = "DIMS_BROKER_URL"


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


def check_broker(url: str, *, timeout: float = 2.0) -> None:
    """Connect to the broker, and send nothing. Raises as `publish` does."""
    with _reaching(url, timeout) as client:
        client.connection_pool.release(client.connection_pool.get_connection())


@contextmanager
def _reaching(url: str, timeout: float) -> Iterator[Redis]:
    """A client for a broker's URL; what it meets is told as BrokerUnreachable."""
    place = BrokerAddress.of(url).place
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
    """The broker's URL for a producer: `DIMS_PRODUCER_URL` of `env`, else `DIMS_BROKER_URL`, else the latter's
    line in `home`/producer.env.

    Raises ConfigError, which says what to do, where none has one or it is no broker's URL.
    """
    file = home / ENV_FILE if home else None
    named = env.get(PRODUCER_URL, "").strip() or env.get(BROKER_URL, "").strip()
    if url := named or (_from_file(file) if file else ""):
        BrokerAddress.of(url)
        return url
    where = f" and {file} does not name one" if file else " and there is no DIMS home (set DIMS_HOME)"
    raise ConfigError(
        f"no broker is known: {BROKER_URL} is not set{where}. "
        f"Set {BROKER_URL} (such as redis://:PASSWORD@HOST:6379/0), or start one with `dims up`."
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
        if name.strip() == BROKER_URL:
            return value.strip().strip("'\"")
    return ""


def connect(url: str, timeout: float) -> Redis:
    """A client for a broker's URL whose connecting and answers are each bounded by `timeout` seconds.

    Nothing is tried again by itself. It says AUTH (and SELECT, for another database than 0) and then what it
    is asked for, no more: a user that may only XADD is enough. Raises ConfigError where `url` is none that a
    broker has, or names a file that is not there.
    """
    # Lazily: redis takes 0.2 s to import, and who only spools does not need it.
    from redis import Redis
    from redis.backoff import NoBackoff
    from redis.retry import Retry

    address = BrokerAddress.of(url)
    tls = dict(address.tls or {})
    for option in TLS_FILES:
        if option in tls and not Path(str(tls[option])).is_file():
            raise ConfigError(f"DIMS_BROKER_URL: {option} names {tls[option]}, and there is no such file")
    options: dict[str, Any] = {
        "socket_timeout": timeout,
        "socket_connect_timeout": timeout,
        "retry": Retry(NoBackoff(), 0),  # the spool tries again, later; a producer does not wait
        "protocol": 2,  # no HELLO and what follows it: fewer round trips before the one that counts
        "driver_info": None,  # no CLIENT SETINFO: two round trips, and a producer may not
    }
    client: Redis = Redis.from_url(address.for_redis, **options, **tls)
    return client


def _reason(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return (text or type(error).__name__).rstrip(".")[:300]
