"""Sends what is to be told (`outbox` writes it), at least once, one message for all that a channel waits for.

1. *Claim.* One transaction takes the channel for a minute, or finds that another has it. What the channel is still to
   be told is read in it.
2. *Carry.* One message, in no transaction, within half a lease.
3. *Mark.* Another transaction marks what was sent as told, and frees the channel. If the message was not taken, all
   stays to be sent, and the channel is tried again after 10 s, 20 s, up to 15 minutes, for ever.

Killed before 2 is done, a sender leaves a lease that runs out: another sends. Killed between 2 and 3 the same, and
people read that message twice, which is the price of never missing one. A state that ended after the claim is marked
as begun, not as ended: that is the next message.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import Connection, Engine

from dims_worker.config import Channel, Config
from dims_worker.domain.retry import retry_wait
from dims_worker.errors import NotSent
from dims_worker.formatting import pluralize
from dims_worker.notifications import messages as message
from dims_worker.notifications.outbox import write_overdue_notifications
from dims_worker.notifications.transport import Transport
from dims_worker.store import notifications
from dims_worker.store.approval_requests import requests_by_number
from dims_worker.store.engine import clock, transaction
from dims_worker.store.notifications import ClaimedChannel

log = logging.getLogger(__name__)

LEASE = timedelta(seconds=60)
"""A sender that was killed is another's after this, or after `settings.lease` where that is less."""


@dataclass(slots=True)
class SendResult:
    """What became of a call: `told` notifications in so many `messages`; `error`: the last was not taken, and why."""

    told: int = 0
    messages: int = 0
    error: str | None = None

    def __str__(self) -> str:
        done = f"{pluralize(self.told, 'notification')} sent in {pluralize(self.messages, 'message')}"
        if self.error:
            return f"{done}; not sent: {self.error}" if self.told else f"not sent: {self.error}"
        return done if self.told else "nothing waits"


def queue_overdue(connection: Connection, config: Config) -> list[str]:
    """Note what is to be told without a reading. Returns the channels that wait for something to be sent."""
    write_overdue_notifications(connection, config)
    return notifications.channels_with_pending(connection, config.notify.on) if config.notify.on else []


def send_pending(engine: Engine, config: Config, name: str, *, at_once: bool = False) -> SendResult:
    """Send a channel what it waits for, until nothing does or it fails. A channel that is off is left alone.

    `at_once` waits for no back-off: a person asked.
    """
    sent, lease = SendResult(), min(LEASE, config.settings.lease)
    channel = config.notify.on.get(name)
    while channel is not None and sent.error is None:
        with transaction(engine) as connection:
            claimed = notifications.claim_channel(connection, name, lease, at_once=at_once)
        if claimed is None:
            break
        sent.error = _carry(engine, config, channel, claimed, lease / 2)
        with transaction(engine) as connection:
            if sent.error is None:
                notifications.mark_sent(connection, claimed)
            else:
                notifications.mark_failed(connection, claimed, sent.error, retry_wait(claimed.failures))
        if sent.error is None:
            sent.told, sent.messages = sent.told + len(claimed.notifications), sent.messages + 1
        else:
            log.warning("the channel %s was not told, and is tried again: %s", name, sent.error)
    return sent


def _carry(engine: Engine, config: Config, channel: Channel, claimed: ClaimedChannel, longest: timedelta) -> str | None:
    """Send one message; None, or why it was not taken."""
    asked = [one.request for one in claimed.notifications if one.request is not None]
    with transaction(engine) as connection:  # as they are now: people decide on what they read
        requests, now = requests_by_number(connection, asked), clock(connection)
    try:
        courier = Transport(channel.url)
        text = message.compose_message(
            config, claimed.notifications, requests, now, longest=min(courier.longest, message.LONGEST)
        )
        courier.carry(text.title, text.body, text.tone, longest)
    except NotSent as error:
        return str(error)
    return None


def send_test(config: Config, name: str) -> str:
    """Send a test to a channel that is on. Returns the kind of service that took it; raises NotSent."""
    courier = Transport(config.notify.on[name].url)
    text = message.build_test_message(config, name)
    courier.carry(text.title, text.body, text.tone)
    return courier.service
