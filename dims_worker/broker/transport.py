"""kombu's transport for Redis, which survives every error reply of the broker like a lost connection.

kombu calls an error reply (MISCONF, READONLY, NOPERM, ...) a channel error. Celery then ends its worker with
"Unrecoverable error", and its beat too, although the reply says nothing about the message: a full disk, a failover or
a changed password is over after a while. So this transport calls it a connection error, which Celery waits for.
"""

from __future__ import annotations

from kombu.transport import TRANSPORT_ALIASES, redis, virtual
from redis.exceptions import RedisError


class BrokerQoS(redis.QoS):
    """Counts a message as done even if the broker refuses to note it.

    kombu keeps counting it. After a few such messages the worker reads no more, until its connection is lost. The
    broker delivers the message once more later, and the task finds nothing to do.
    """

    def ack(self, delivery_tag: str) -> None:
        try:
            super().ack(delivery_tag)  # type: ignore[no-untyped-call]
        except RedisError:
            virtual.QoS.ack(self, delivery_tag)  # type: ignore[no-untyped-call]
            raise

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:
        try:
            super().reject(delivery_tag, requeue)  # type: ignore[no-untyped-call]
        except RedisError:
            virtual.QoS.ack(self, delivery_tag)  # type: ignore[no-untyped-call]
            raise


class BrokerChannel(redis.Channel):
    """A channel with `BrokerQoS`."""

    QoS = BrokerQoS


class BrokerTransport(redis.Transport):
    """See the module."""

    Channel = BrokerChannel
    connection_errors = (*redis.Transport.connection_errors, RedisError)


def use_broker_transport() -> None:
    """Make kombu use this transport for `redis://`, `rediss://` and `redis+socket://`.

    The setting `broker_transport` would not reach the last of these, whose URL names its transport.
    """
    name = f"{BrokerTransport.__module__}:{BrokerTransport.__name__}"
    TRANSPORT_ALIASES.update(redis=name, rediss=name)
