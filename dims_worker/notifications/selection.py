"""Choose which unsent notifications of a channel are sent now, and which wait. Pure.

What waits stays stored, so nothing is lost:

- *Muted* metrics wait until the mute ends.
- The begin of an incident that a person has *acknowledged* is not sent. Its end is, if its begin was.
- A metric that had `max_messages_per_day` messages in the 24 hours before a change is *over the limit*. The change
  waits for the digest: one message about everything that has waited, a day after the first of it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from dims_worker.store.notifications import Notification

DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class SendingLimits:
    """What decides whether a notification is sent at `now`.

    `sent`: when the channel got messages about each metric, in the last two days at least. `muted`: names.
    `acknowledged`: numbers of incidents.
    """

    now: datetime
    max_per_day: int
    sent: Mapping[str, Sequence[datetime]] = field(default_factory=dict)
    muted: Collection[str] = frozenset()
    acknowledged: Collection[int] = frozenset()

    def is_over(self, metric: str, changed_at: datetime) -> bool:
        """Return whether a metric had as many messages as allowed, in the day before its change or in the last one."""
        times = self.sent.get(metric, ())
        before_change = sum(changed_at - DAY < time <= changed_at for time in times)
        return max(before_change, sum(self.now - DAY < time for time in times)) >= self.max_per_day


@dataclass(frozen=True, slots=True)
class SendSelection:
    """Unsent notifications by what happens to them now."""

    immediate: tuple[Notification, ...] = ()
    muted: tuple[Notification, ...] = ()
    acknowledged: tuple[Notification, ...] = ()
    over_limit: tuple[Notification, ...] = ()

    @property
    def digest_at(self) -> datetime | None:
        """When the digest is due: a day after the first change that waits for it. None: nothing waits."""
        return min((each.changed_at + DAY for each in self.over_limit), default=None)

    @property
    def waiting(self) -> int:
        """How many notifications wait, for the end of a mute or for the digest."""
        return len(self.muted) + len(self.over_limit)

    def next_message(self, now: datetime, *, digest_now: bool = False) -> tuple[tuple[Notification, ...], bool]:
        """Return the notifications of the next message, and whether it is the digest. Empty: there is none to send.

        `digest_now`: a person asks for the digest before it is due.
        """
        if self.immediate:
            return self.immediate, False
        due = self.digest_at is not None and (digest_now or self.digest_at <= now)
        return (self.over_limit, True) if due else ((), False)


def select_notifications(unsent: Iterable[Notification], limits: SendingLimits) -> SendSelection:
    """Return what happens to each unsent notification of a channel, in the order given."""
    immediate: list[Notification] = []
    muted: list[Notification] = []
    acknowledged: list[Notification] = []
    over: list[Notification] = []
    for each in unsent:
        if each.metric in limits.muted:
            muted.append(each)
        elif each.sent_at is None and each.ended_at is None and each.incident in limits.acknowledged:
            acknowledged.append(each)
        elif limits.is_over(each.metric, each.changed_at):
            over.append(each)
        else:
            immediate.append(each)
    return SendSelection(tuple(immediate), tuple(muted), tuple(acknowledged), tuple(over))
