"""Send the notifications that `outbox` has written, at least once, all of a channel in one message.

1. *Claim.* A transaction leases the channel for a minute and reads its pending notifications. If another sender has the
   lease, there is nothing to do.
2. *Send.* One message, outside a transaction, within half a lease.
3. *Mark.* A second transaction marks the notifications as sent and releases the channel. If the service did not accept
   the message, all stay pending. DIMS tries again after 10 s, 20 s, and so on up to 15 minutes, without end.

If a sender is killed before step 3, its lease expires and another sender sends the message. If the service had accepted
it already, people get it twice. A state that ends after the claim is marked as begun only: the next message ends it.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import Connection, Engine

from dims_worker.config import Channel, Config
from dims_worker.domain.backoff import retry_delay
from dims_worker.errors import NotSent
from dims_worker.formatting import pluralize
from dims_worker.notifications.messages import LONGEST, build_test_message, compose_message
from dims_worker.notifications.outbox import write_overdue_notifications
from dims_worker.notifications.transport import Transport
from dims_worker.store import notifications
from dims_worker.store.approval_requests import requests_by_number
from dims_worker.store.engine import clock, transaction
from dims_worker.store.notifications import ClaimedChannel

log = logging.getLogger(__name__)

LEASE = timedelta(seconds=60)
"""Another sender takes over from a killed one after this, or after `settings.lease` if that is shorter."""


@dataclass(slots=True)
class SendResult:
    """What one call sent: `sent` notifications in `messages` messages. `error`: why the last message failed."""

    sent: int = 0
    messages: int = 0
    error: str | None = None

    def __str__(self) -> str:
        done = f"{pluralize(self.sent, 'notification')} sent in {pluralize(self.messages, 'message')}"
        if self.error:
            return f"{done}; not sent: {self.error}" if self.sent else f"not sent: {self.error}"
        return done if self.sent else "nothing to send"


def queue_overdue(connection: Connection, config: Config) -> list[str]:
    """Write the notifications that need no reading. Return the channels that have something to send."""
    write_overdue_notifications(connection, config)
    return notifications.channels_with_pending(connection, config.notify.on) if config.notify.on else []


def send_pending(engine: Engine, config: Config, name: str, *, at_once: bool = False) -> SendResult:
    """Send the pending notifications of a channel until none is left or sending fails. Skip a channel that is off.

    `at_once` ignores the back-off, for a person who asks for it.
    """
    result, lease = SendResult(), min(LEASE, config.settings.lease)
    channel = config.notify.on.get(name)
    while channel is not None and result.error is None:
        with transaction(engine) as connection:
            claimed = notifications.claim_channel(connection, name, lease, at_once=at_once)
        if claimed is None:
            break
        result.error = _send(engine, config, channel, claimed, lease / 2)
        with transaction(engine) as connection:
            if result.error is None:
                notifications.mark_sent(connection, claimed)
            else:
                notifications.mark_failed(connection, claimed, result.error, retry_delay(claimed.failures))
        if result.error is None:
            result.sent, result.messages = result.sent + len(claimed.notifications), result.messages + 1
        else:
            log.warning("cannot send to the channel %s; DIMS tries again: %s", name, result.error)
    return result


def _send(engine: Engine, config: Config, channel: Channel, claimed: ClaimedChannel, timeout: timedelta) -> str | None:
    """Send one message. Return why it failed, or None."""
    numbers = [alert.request for alert in claimed.notifications if alert.request is not None]
    with transaction(engine) as connection:  # the requests as they are now: people decide on what they read
        requests, now = requests_by_number(connection, numbers), clock(connection)
    try:
        transport = Transport(channel.url)
        longest = min(transport.longest, LONGEST)
        message = compose_message(config, claimed.notifications, requests, now, longest=longest)
        transport.send(message.title, message.body, message.tone, timeout)
    except NotSent as error:
        return str(error)
    return None


def send_test(config: Config, name: str) -> str:
    """Send a test message to a channel that is on. Return the kind of its service. Raises NotSent."""
    transport = Transport(config.notify.on[name].url)
    message = build_test_message(config, name)
    transport.send(message.title, message.body, message.tone)
    return transport.service
