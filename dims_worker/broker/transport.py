"""kombu's transport for Redis, which survives every error reply of the broker like a lost connection.

kombu calls an error reply (MISCONF, READONLY, NOPERM, ...) a channel error. Celery then ends its worker with
"Unrecoverable error", and its beat too, although the reply says nothing about the message: a full disk, a failover or
a changed password is over after a while. So this transport calls it a connection error, which Celery waits for.
"""

from __future__ import annotations

from kombu.transport import TRANSPORT_ALIASES
from kombu.transport.redis import Transport
from redis.exceptions import RedisError


class BrokerTransport(Transport):
    """See the module."""

    connection_errors = (*Transport.connection_errors, RedisError)


def use_broker_transport() -> None:
    """Make kombu use this transport for `redis://`, `rediss://` and `redis+socket://`.

    The setting `broker_transport` would not reach the last of these, whose URL names its transport.
    """
    name = f"{BrokerTransport.__module__}:{BrokerTransport.__name__}"
    TRANSPORT_ALIASES.update(redis=name, rediss=name)
