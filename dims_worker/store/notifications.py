"""Queries on notifications: the active states, what is still to be sent, and the claims on channels."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import Connection, text

from dims_worker.store.bulk import dumps, recordset, rows_as_json
from dims_worker.store.models import notifications

MAX_PER_MESSAGE = 5_000
"""The most notifications that one message covers."""


@dataclass(frozen=True, slots=True)
class Notification:
    """A row of `dims_notifications`: a state of a metric that one channel is notified of."""

    id: int
    channel: str
    metric: str
    state: str
    facts: Mapping[str, Any]
    run_id: int | None
    since: datetime
    ended_at: datetime | None
    ending: Mapping[str, Any] | None
    sent_at: datetime | None
    end_sent_at: datetime | None

    @property
    def kind(self) -> str:
        """The kind of state: that of an incident, flapping or attention."""
        return self.state.partition(":")[0]

    @property
    def incident(self) -> int | None:
        """The number of the incident that it is about. None for `attention`."""
        number: int | None = self.facts.get("incident")
        return number

    @property
    def request(self) -> int | None:
        """The number of the approval request that a held value waits for."""
        number: int | None = self.facts.get("request")
        return number

    @property
    def changed_at(self) -> datetime:
        """When the change happened that is the next to be sent: its end if its begin was sent, else its begin."""
        return self.ended_at if self.ended_at is not None and self.sent_at is not None else self.since

    @property
    def changes(self) -> int:
        """How many changes are still to be sent: its begin, its end, or both."""
        return (self.sent_at is None) + self.end_unsent

    @property
    def end_unsent(self) -> bool:
        """Whether the state has ended and the channel is still to be notified of that."""
        return self.ended_at is not None and self.end_sent_at is None

    @property
    def not_sent(self) -> str | None:
        """Why no message about the state was sent and none will be, or None."""
        reason: str | None = (self.ending or {}).get("not_sent")
        return reason

    @property
    def unsent(self) -> bool:
        return self.not_sent is None and (self.sent_at is None or self.end_unsent)


_COLUMNS = ", ".join(Notification.__slots__)
_UNSENT = (
    "((sent_at IS NULL OR (ended_at IS NOT NULL AND end_sent_at IS NULL)) "
    "AND (ending IS NULL OR NOT ending ? 'not_sent'))"
)
"""`ending.not_sent` is the reason why nothing about a state is ever sent. `ending.quiet` says that only its end is
not sent."""


def active_notifications(
    connection: Connection, channels: Collection[str], metrics: Collection[str] | None = None
) -> list[Notification]:
    """Return the active states of these channels. Without `metrics`: of all metrics."""
    rows = connection.execute(
        text(
            f"SELECT {_COLUMNS} FROM dims_notifications WHERE ended_at IS NULL AND channel = ANY(:channels) "
            "AND (CAST(:metrics AS text[]) IS NULL OR metric = ANY(:metrics)) ORDER BY id"
        ),
        {"channels": list(channels), "metrics": None if metrics is None else list(metrics)},
    )
    return [Notification(*row) for row in rows]


def begin_notifications(connection: Connection, rows: Iterable[Mapping[str, Any]]) -> None:
    """Begin states: channel, metric, state, facts, run_id and since. A state that is already active stays as it is."""
    names = ("channel", "metric", "state", "facts", "run_id", "since")
    connection.execute(
        text(
            f"INSERT INTO dims_notifications ({', '.join(names)}) "
            f"SELECT {', '.join(names)} FROM {recordset(notifications, names)} ON CONFLICT DO NOTHING"
        ),
        {"rows": rows_as_json(rows)},
    )


@dataclass(frozen=True, slots=True)
class StateEnd:
    """How a state ends: the values at its end, whether its channel gets a message about that, and why it gets none at
    all if no message about its begin was sent. `not_sent` is such a reason, and None if the begin is still sent."""

    values: Mapping[str, Any]
    notify: bool
    not_sent: str | None = None


def end_notifications(connection: Connection, endings: Mapping[int, StateEnd], now: datetime) -> None:
    """End states by id."""
    rows = [
        {"id": number, "ending": dict(end.values), "notify": end.notify, "not_sent": end.not_sent}
        for number, end in endings.items()
    ]
    _lock(connection, endings)
    connection.execute(
        text(
            "UPDATE dims_notifications n SET ended_at = :now, "
            "end_sent_at = CASE WHEN NOT r.notify OR (n.sent_at IS NULL AND r.not_sent IS NOT NULL) THEN :now END, "
            "ending = r.ending || CASE "
            "WHEN n.sent_at IS NULL AND r.not_sent IS NOT NULL THEN jsonb_build_object('not_sent', r.not_sent) "
            "WHEN NOT r.notify THEN jsonb_build_object('quiet', true) ELSE '{}' END "
            "FROM jsonb_to_recordset(CAST(:rows AS jsonb)) "
            "AS r(id bigint, ending jsonb, notify boolean, not_sent text) "
            "WHERE n.id = r.id AND n.ended_at IS NULL"
        ),
        {"rows": dumps(rows), "now": now},
    )


def _lock(connection: Connection, numbers: Iterable[int]) -> None:
    """Lock rows in order of their ids, so that ending states and marking them as sent cannot deadlock."""
    connection.execute(
        text("SELECT 1 FROM dims_notifications WHERE id = ANY(:ids) ORDER BY id FOR UPDATE"), {"ids": list(numbers)}
    )


# --- states that the sweep finds ----------------------------------------------------------------------


def stale_metrics(connection: Connection, after: Mapping[str, timedelta], now: datetime) -> dict[str, datetime]:
    """Return those of these metrics whose latest good reading is older at `now` than the given span, with its time."""
    rows = connection.execute(
        text(
            "SELECT m.metric, m.as_of FROM dims_metrics m "
            "JOIN jsonb_each_text(CAST(:after AS jsonb)) AS a(metric, seconds) ON m.metric = a.metric "
            "WHERE m.retired_at IS NULL AND m.as_of < :now - a.seconds::float8 * interval '1 second'"
        ),
        {"after": dumps({metric: span.total_seconds() for metric, span in after.items()}), "now": now},
    )
    return {row.metric: row.as_of for row in rows}


class LatestValue(NamedTuple):
    """The last good value of a metric, and when it was measured."""

    value: Any
    unit: str
    as_of: datetime


def latest_values(connection: Connection, metrics: Collection[str]) -> dict[str, LatestValue]:
    """Return the last good values of these metrics."""
    rows = connection.execute(
        text(
            "SELECT metric, value, unit, as_of FROM dims_metrics "
            "WHERE metric = ANY(:metrics) AND retired_at IS NULL AND as_of IS NOT NULL"
        ),
        {"metrics": list(metrics)},
    )
    return {row.metric: LatestValue(row.value, row.unit, row.as_of) for row in rows}


def lock_free_metrics(connection: Connection, metrics: Iterable[str]) -> list[str]:
    """Lock the rows of these metrics that no other transaction has locked. Return their names."""
    rows = connection.execute(
        text(
            "SELECT metric FROM dims_metrics WHERE metric = ANY(:metrics) "
            'ORDER BY metric COLLATE "C" FOR UPDATE SKIP LOCKED'
        ),
        {"metrics": list(metrics)},
    )
    return [row.metric for row in rows]


# --- sending ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ClaimedChannel:
    """The right to send to a channel until `lease_until`, and the notifications to send."""

    channel: str
    lease_until: datetime
    failures: int
    notifications: tuple[Notification, ...]
    digest: bool = False


def unsent_notifications(connection: Connection, channel: str) -> list[Notification]:
    """Return what is still to be sent to a channel, oldest first."""
    rows = connection.execute(
        text(
            f"SELECT {_COLUMNS} FROM dims_notifications WHERE channel = :channel AND {_UNSENT} ORDER BY id LIMIT :limit"
        ),
        {"channel": channel, "limit": MAX_PER_MESSAGE},
    )
    return [Notification(*row) for row in rows]


def message_times(
    connection: Connection, channel: str, metrics: Collection[str], after: datetime
) -> dict[str, list[datetime]]:
    """Return when a channel accepted messages about each of these metrics after a time. A message counts once."""
    rows = connection.execute(
        text(
            "SELECT DISTINCT n.metric, m.sent FROM dims_notifications n CROSS JOIN LATERAL (VALUES (n.sent_at), "
            "(CASE WHEN NOT coalesce(n.ending, '{}') ?| ARRAY['quiet', 'not_sent'] "
            "THEN n.end_sent_at END)) AS m(sent) "
            "WHERE n.channel = :channel AND n.metric = ANY(:metrics) AND m.sent > :after"
        ),
        {"channel": channel, "metrics": list(metrics), "after": after},
    )
    times: dict[str, list[datetime]] = {}
    for row in rows:
        times.setdefault(row.metric, []).append(row.sent)
    return times


def any_due_between(connection: Connection, since: datetime, until: datetime) -> bool:
    """Return whether a metric that became due between two times still waits for its first attempt to measure it."""
    waits: bool = connection.execute(
        text(
            "SELECT EXISTS (SELECT FROM dims_metrics WHERE requested_gen > measured_gen AND retired_at IS NULL "
            "AND failures = 0 AND due_since > :since AND due_since <= :until)"
        ),
        {"since": since, "until": until},
    ).scalar_one()
    return waits


def free_channel(connection: Connection, channel: str, *, at_once: bool) -> int | None:
    """Lock a channel that can be claimed. Return its failures in a row. None: it backs off, or is leased or locked.

    `at_once` skips the back-off for a person's request.
    """
    connection.execute(
        text("INSERT INTO dims_channels (channel) VALUES (:channel) ON CONFLICT DO NOTHING"), {"channel": channel}
    )
    failures: int | None = connection.execute(
        text(
            "SELECT failures FROM dims_channels WHERE channel = :channel "
            "AND coalesce(lease_until < clock_timestamp(), true) "
            "AND (:at_once OR coalesce(not_before <= clock_timestamp(), true)) FOR UPDATE SKIP LOCKED"
        ),
        {"channel": channel, "at_once": at_once},
    ).scalar_one_or_none()
    return failures


def claim_channel(
    connection: Connection, channel: str, failures: int, rows: Sequence[Notification], lease: timedelta, *, digest: bool
) -> ClaimedChannel:
    """Lease a channel that `free_channel` has locked, to send these notifications."""
    until: datetime = connection.execute(
        text(
            "UPDATE dims_channels SET lease_until = clock_timestamp() + :lease WHERE channel = :channel "
            "RETURNING lease_until"
        ),
        {"channel": channel, "lease": lease},
    ).scalar_one()
    return ClaimedChannel(channel, until, failures, tuple(rows), digest)


def mark_sent(connection: Connection, claimed: ClaimedChannel, now: datetime) -> None:
    """Record that a channel accepted its message, and release the channel.

    A state that ended after the claim is still to be sent as ended.
    """
    ids = [notification.id for notification in claimed.notifications]
    ended_ids = [notification.id for notification in claimed.notifications if notification.ended_at]
    _lock(connection, ids)
    connection.execute(
        text(
            "UPDATE dims_notifications SET sent_at = coalesce(sent_at, :now), end_sent_at = CASE "
            "WHEN id = ANY(:ended) THEN coalesce(end_sent_at, :now) "
            "WHEN sent_at IS NULL AND ending ? 'not_sent' THEN NULL ELSE end_sent_at END, "
            "ending = ending - 'not_sent' WHERE id = ANY(:ids)"
        ),
        {"ids": ids, "ended": ended_ids, "now": now},
    )
    _release(connection, claimed, "failures = 0, not_before = NULL, error = NULL, sent_at = clock_timestamp()")


def mark_failed(connection: Connection, claimed: ClaimedChannel, error: str, wait: timedelta) -> None:
    """Record that a message to a channel failed. The next attempt is after `wait`."""
    _release(
        connection,
        claimed,
        "failures = failures + 1, not_before = clock_timestamp() + :wait, error = :error",
        {"wait": wait, "error": error},
    )


def _release(
    connection: Connection, claimed: ClaimedChannel, assignments: str, values: Mapping[str, Any] | None = None
) -> None:
    """Release a claim. If it has expired, another process may hold the channel, and nothing changes."""
    connection.execute(
        text(
            f"UPDATE dims_channels SET lease_until = NULL, {assignments} "
            "WHERE channel = :channel AND lease_until = :until"
        ),
        {"channel": claimed.channel, "until": claimed.lease_until, **(values or {})},
    )


# --- lists --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ChannelRow:
    """A row of `dims_channels`, and the number of its unsent notifications."""

    channel: str
    unsent: int
    failures: int
    error: str | None
    not_before: datetime | None
    sent_at: datetime | None


def channels_with_pending(connection: Connection, channels: Collection[str]) -> list[str]:
    """Return the channels with unsent notifications that can be claimed now: not leased and not backing off."""
    rows = connection.execute(
        text(
            "SELECT w.channel FROM unnest(CAST(:channels AS text[])) AS w(channel) LEFT JOIN dims_channels c "
            "USING (channel) WHERE coalesce(c.lease_until < clock_timestamp(), true) "
            "AND coalesce(c.not_before <= clock_timestamp(), true) AND EXISTS "
            f"(SELECT FROM dims_notifications n WHERE n.channel = w.channel AND {_UNSENT}) ORDER BY 1"
        ),
        {"channels": list(channels)},
    )
    return [row.channel for row in rows]


def channel_rows(connection: Connection, channels: Collection[str]) -> list[ChannelRow]:
    """Return the state of these channels, in order of their names."""
    rows = connection.execute(
        text(
            "SELECT w.channel, (SELECT count(*) FROM dims_notifications n WHERE n.channel = w.channel "
            f"AND {_UNSENT}) AS unsent, coalesce(c.failures, 0), c.error, c.not_before, c.sent_at "
            "FROM unnest(CAST(:channels AS text[])) AS w(channel) LEFT JOIN dims_channels c USING (channel) ORDER BY 1"
        ),
        {"channels": list(channels)},
    )
    return [ChannelRow(*row) for row in rows]


def list_notifications(connection: Connection, *, limit: int) -> list[Notification]:
    """Return the active and the unsent notifications of all channels, newest first."""
    rows = connection.execute(
        text(
            f"SELECT {_COLUMNS} FROM dims_notifications WHERE ended_at IS NULL OR {_UNSENT} "
            "ORDER BY id DESC LIMIT :limit"
        ),
        {"limit": limit},
    )
    return [Notification(*row) for row in rows]
