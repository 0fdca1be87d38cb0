"""Send events to the broker: one round trip, limited in time, that appends them to the stream.

An event in the stream is safe. Until then, the spool keeps it (see `dims_producers.spool`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dims_producers.broker_refusal import broker_reason, fix_of_refusal, wrong_type
from dims_producers.broker_url import TLS_FILES, BrokerAddress
from dims_worker.errors import BrokerUnreachable, ConfigError
from dims_worker.events import FIELD, STREAM, Event

if TYPE_CHECKING:
    from redis import Redis

ENV_FILE = "producer.env"
"""The file that `dims up` writes into the data directory, so that producers find the broker without configuration."""

PRODUCER_URL = "DIMS_PRODUCER_URL"
"""The broker's URL with a user that may only append events. Producers prefer it to DIMS_BROKER_URL."""

BROKER_URL = "DIMS_BROKER_URL"


def publish(events: Sequence[Event], url: str, *, timeout: float = 2.0) -> list[str]:
    """Append `events` to the stream in their order, in one round trip. Return the ids of their stream entries.

    Args:
        timeout: seconds for the connection and for each answer. Nothing is tried again, so the call ends after about
            twice that at most, even if the broker hangs.

    Raises:
        BrokerUnreachable: the broker is unreachable or refuses. It names host and port, never the password. Some of the
            events may have arrived. Send all of them again: DIMS stores each id once.
        ConfigError: `url` is not the URL of a broker.
    """
    return append([event.to_json() for event in events], url, timeout=timeout)


def append(envelopes: Sequence[str], url: str, *, timeout: float = 2.0) -> list[str]:
    """Do what `publish` does, for envelopes that are JSON already."""
    if not envelopes:
        return []
    with _connection(url, timeout) as client, client.pipeline(transaction=False) as pipe:
        for envelope in envelopes:
            pipe.xadd(STREAM, {FIELD: envelope})
        return [entry.decode() for entry in pipe.execute()]


def check_broker(url: str, *, timeout: float = 2.0) -> None:
    """Connect to the broker and send nothing. Raises what `publish` raises."""
    with _connection(url, timeout) as client:
        client.connection_pool.release(client.connection_pool.get_connection())


@contextmanager
def _connection(url: str, timeout: float) -> Iterator[Redis]:
    """Yield a client for a broker's URL. Its errors become BrokerUnreachable."""
    place = BrokerAddress.of(url).place
    client = connect(url, timeout)
    from redis.exceptions import RedisError

    try:
        with client:
            yield client
    except (RedisError, OSError) as error:
        raise BrokerUnreachable(f"the broker at {place} is unreachable or refuses: {_reason(error)}.") from error


def broker_url(env: Mapping[str, str], home: Path | None) -> str:
    """Return the broker's URL for a producer.

    It is `DIMS_PRODUCER_URL` of `env`, else `DIMS_BROKER_URL` of `env`, else the `DIMS_BROKER_URL` in
    `home`/producer.env.

    Raises:
        ConfigError: there is no URL, or it is not the URL of a broker.
    """
    file = home / ENV_FILE if home else None
    named = env.get(PRODUCER_URL, "").strip() or env.get(BROKER_URL, "").strip()
    if url := named or (_from_file(file) if file else ""):
        BrokerAddress.of(url)
        return url
    reason = f" and {file} does not name one" if file else " and there is no data directory (set DIMS_HOME)"
    raise ConfigError(
        f"no broker is known: {BROKER_URL} is not set{reason}. "
        f"Set {BROKER_URL} (such as redis://:PASSWORD@HOST:6379/0), or start one with `dims up`."
    )


def _from_file(file: Path) -> str:
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return ""
    except (OSError, UnicodeError) as error:
        raise ConfigError(f"cannot read {file}: {error}") from None
    for line in lines:
        name, _, value = line.strip().removeprefix("export ").partition("=")
        if name.strip() == BROKER_URL:
            return value.strip().strip("'\"")
    return ""


def connect(url: str, timeout: float) -> Redis:
    """Return a client for a broker's URL. `timeout` (seconds) limits the connection and each answer.

    The client retries nothing. It sends AUTH (and SELECT, if the database is not 0) and your commands, so a user that
    may only XADD is enough. Raises ConfigError if `url` is not the URL of a broker, or names a file that does not
    exist.
    """
    # Imported here: redis takes 0.2 s to import, and a producer that only writes to the spool does not need it.
    from redis import Redis
    from redis.backoff import NoBackoff
    from redis.retry import Retry

    address = BrokerAddress.of(url)
    tls = dict(address.tls or {})
    for option in TLS_FILES:
        if option in tls and not Path(str(tls[option])).is_file():
            raise ConfigError(f"DIMS_BROKER_URL: {option} names {tls[option]}, which does not exist. Correct the path.")
    options: dict[str, Any] = {
        "socket_timeout": timeout,
        "socket_connect_timeout": timeout,
        "retry": Retry(NoBackoff(), 0),  # the spool retries later, and a producer does not wait
        "protocol": 2,  # no HELLO and what follows it: fewer round trips before the commands
        "driver_info": None,  # no CLIENT SETINFO: it costs two round trips, and a producer has no right to it
    }
    client: Redis = Redis.from_url(address.for_redis, **options, **tls)
    return client


def _reason(error: BaseException) -> str:
    """Return what the broker answered and the fix, which is to start it or to name another one if none is known."""
    if "WRONGTYPE" in str(error):
        return wrong_type(STREAM, "stream")
    reason = broker_reason(error)
    return reason if fix_of_refusal(error) else f"{reason}. Start it with `dims up`, or set DIMS_BROKER_URL"
