"""Send the notifications that `outbox` has written, at least once, all of a channel in one message.

1. *Claim.* A transaction leases the channel for a minute, reads its pending notifications, and chooses what is sent now
   (`selection`). If another sender has the lease, there is nothing to do.
2. *Send.* One message, outside a transaction, within half a lease.
3. *Mark.* A second transaction marks the notifications as sent and releases the channel. If the service did not accept
   the message, all stay pending. DIMS tries again after 10 s, 20 s, and so on up to 15 minutes, without end.

If a sender is killed before step 3, its lease expires and another sender sends the message. If the service had accepted
it already, people get it twice. A state that ends after the claim is marked as begun only: the next message ends it.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection, Engine

from dims_worker.config import Channel, Config
from dims_worker.domain.backoff import retry_delay
from dims_worker.errors import NotSent
from dims_worker.formatting import pluralize
from dims_worker.notifications.messages import LONGEST, MessageFacts, build_test_message, compose_message
from dims_worker.notifications.mutes import mutes_of
from dims_worker.notifications.outbox import write_overdue_notifications
from dims_worker.notifications.rules import ACKNOWLEDGED
from dims_worker.notifications.selection import DAY, SendingLimits, SendSelection, select_notifications
from dims_worker.notifications.transport import Transport
from dims_worker.store import notifications
from dims_worker.store.approval_requests import requests_by_number
from dims_worker.store.engine import clock, transaction
from dims_worker.store.incidents import count_story_metrics, incidents_by_number
from dims_worker.store.notifications import ClaimedChannel, Notification

log = logging.getLogger(__name__)

LEASE = timedelta(seconds=60)
"""Another sender takes over from a killed one after this, or after `settings.lease` if that is shorter."""
COLLECT = timedelta(seconds=15)
"""How long a message waits while other sources are still measured for the same events, so that they are one message."""
SAME_EVENTS = timedelta(minutes=1)
"""What became due this long before a change may be due because of the same events."""


@dataclass(slots=True)
class SendResult:
    """What one call sent: `sent` notifications in `messages` messages. `error`: why the last message failed.

    `muted` notifications wait for the end of a mute, and `over_limit` ones for the digest.
    """

    sent: int = 0
    messages: int = 0
    error: str | None = None
    muted: int = 0
    over_limit: int = 0

    def __str__(self) -> str:
        done = f"{pluralize(self.sent, 'notification')} sent in {pluralize(self.messages, 'message')}"
        if self.error:
            return f"{done}; not sent: {self.error}" if self.sent else f"not sent: {self.error}"
        waiting = [f"{self.muted:,} muted"] if self.muted else []
        waiting += [f"{self.over_limit:,} for the digest"] if self.over_limit else []
        return "; ".join(
            [done if self.sent else "nothing to send", *([f"waiting: {', '.join(waiting)}"] if waiting else [])]
        )


def queue_overdue(connection: Connection, config: Config, now: datetime | None = None) -> list[str]:
    """Write the notifications that need no reading. Return the channels that have something to send now.

    `now` is the time of the database by default.
    """
    now = now or clock(connection)
    write_overdue_notifications(connection, config, now)
    if not config.notify.on:
        return []
    pending = notifications.channels_with_pending(connection, config.notify.on)
    messages = {name: read_selection(connection, config, name, now).next_message(now)[0] for name in pending}
    return [name for name, rows in messages.items() if rows and not _is_collecting(connection, config, rows, now)]


def _is_collecting(connection: Connection, config: Config, rows: Sequence[Notification], now: datetime) -> bool:
    """Return whether a message waits for measurements of the same events. A sweep sends it, if sweeps are frequent."""
    first = min(each.changed_at for each in rows)
    if now - first >= COLLECT or config.settings.sweep > COLLECT:
        return False
    return notifications.any_due_between(connection, first - SAME_EVENTS, first)


def read_selection(connection: Connection, config: Config, name: str, now: datetime) -> SendSelection:
    """Return what is sent to a channel at `now`, and what waits."""
    unsent = notifications.unsent_notifications(connection, name)
    if not unsent:
        return SendSelection()
    metrics = {each.metric for each in unsent}
    numbers = {each.incident for each in unsent if each.incident is not None}
    known = incidents_by_number(connection, numbers) if numbers else {}
    limits = SendingLimits(
        now,
        config.notify.max_messages_per_day,
        sent=notifications.message_times(connection, name, metrics, min(each.changed_at for each in unsent) - DAY),
        muted=mutes_of(connection, config, now).keys(),
        acknowledged={number for number, incident in known.items() if incident.state == ACKNOWLEDGED},
    )
    return select_notifications(unsent, limits)


def send_pending(
    engine: Engine,
    config: Config,
    name: str,
    *,
    at_once: bool = False,
    digest_now: bool = False,
    now: datetime | None = None,
) -> SendResult:
    """Send the pending notifications of a channel until none is left or sending fails. Skip a channel that is off.

    `at_once` waits for nothing, for a person who asks for it. `digest_now` sends the digest before it is due. `now`
    is the time of the database by default.
    """
    result, lease = SendResult(), min(LEASE, config.settings.lease)
    channel = config.notify.on.get(name)
    while channel is not None and result.error is None:
        with transaction(engine) as connection:
            failures = notifications.free_channel(connection, name, at_once=at_once)
            if failures is None:
                break
            time = now or clock(connection)
            selection = read_selection(connection, config, name, time)
            rows, digest = selection.next_message(time, digest_now=digest_now)
            result.muted, result.over_limit = len(selection.muted), 0 if digest else len(selection.over_limit)
            if not rows or not (at_once or digest or not _is_collecting(connection, config, rows, time)):
                break
            claimed = notifications.claim_channel(connection, name, failures, rows, lease, digest=digest)
        result.error = _send(engine, config, channel, claimed, lease / 2, now)
        with transaction(engine) as connection:
            if result.error is None:
                notifications.mark_sent(connection, claimed, now or clock(connection))
            else:
                notifications.mark_failed(connection, claimed, result.error, retry_delay(claimed.failures))
        if result.error is None:
            result.sent, result.messages = result.sent + len(claimed.notifications), result.messages + 1
        else:
            log.warning("cannot send to the channel %s; DIMS tries again: %s", name, result.error)
    return result


def _send(
    engine: Engine,
    config: Config,
    channel: Channel,
    claimed: ClaimedChannel,
    timeout: timedelta,
    now: datetime | None,
) -> str | None:
    """Send one message. Return why it failed, or None."""
    with transaction(engine) as connection:
        facts = _read_facts(connection, claimed.notifications, now or clock(connection))
    try:
        transport = Transport(channel.url)
        longest = min(transport.longest, LONGEST)
        message = compose_message(config, claimed.notifications, facts, longest=longest, digest=claimed.digest)
        transport.send(message.title, message.body, message.tone, timeout)
    except NotSent as error:
        return str(error)
    return None


def _read_facts(connection: Connection, rows: Sequence[Notification], now: datetime) -> MessageFacts:
    """Read incidents and requests as they are now: people decide on what they read."""
    incidents = incidents_by_number(connection, {each.incident for each in rows if each.incident is not None})
    numbers = {each.request for each in rows if each.request is not None}
    numbers |= {each.request for each in incidents.values() if each.request is not None}
    stories = count_story_metrics(connection, {each.story for each in incidents.values()})
    return MessageFacts(now, incidents, requests_by_number(connection, numbers), stories)


def send_test(config: Config, name: str) -> str:
    """Send a test message to a channel that is on. Return the kind of its service. Raises NotSent."""
    transport = Transport(config.notify.on[name].url)
    message = build_test_message(config, name)
    transport.send(message.title, message.body, message.tone)
    return transport.service
