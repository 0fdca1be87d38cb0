"""Queries on notifications: the active states, what is still to be sent, and the claims on channels."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
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
        """The kind of state: held, limit, drift, attention, failed or stale."""
        return self.state.partition(":")[0]

    @property
    def request(self) -> int | None:
        """The number of the approval request that a held value waits for."""
        return int(self.state.partition(":")[2]) if self.kind == "held" else None

    @property
    def end_unsent(self) -> bool:
        """Whether the state has ended and the channel is still to be notified of that."""
        return self.ended_at is not None and self.end_sent_at is None

    @property
    def unsent(self) -> bool:
        return self.sent_at is None or self.end_unsent


_COLUMNS = ", ".join(Notification.__slots__)
_UNSENT = "(sent_at IS NULL OR (ended_at IS NOT NULL AND end_sent_at IS NULL))"
_REQUEST = "CASE WHEN n.state LIKE 'held:%' THEN substr(n.state, 6)::bigint END"


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
    """Begin states: channel, metric, state, facts and run_id of each. A state that is already active stays as it is."""
    names = ("channel", "metric", "state", "facts", "run_id")
    connection.execute(
        text(
            f"INSERT INTO dims_notifications ({', '.join(names)}) "
            f"SELECT {', '.join(names)} FROM {recordset(notifications, names)} ON CONFLICT DO NOTHING"
        ),
        {"rows": rows_as_json(rows)},
    )


def end_notifications(connection: Connection, endings: Mapping[int, tuple[Mapping[str, Any], bool]]) -> None:
    """End states by id. Each has the values at the end, and whether to notify its channel of the end."""
    rows = [{"id": number, "ending": ending, "notify": notify} for number, (ending, notify) in endings.items()]
    _lock(connection, endings)
    connection.execute(
        text(
            "UPDATE dims_notifications n SET ended_at = clock_timestamp(), ending = r.ending, "
            "end_sent_at = CASE WHEN NOT r.notify THEN clock_timestamp() END "
            "FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS r(id bigint, ending jsonb, notify boolean) "
            "WHERE n.id = r.id AND n.ended_at IS NULL"
        ),
        {"rows": dumps(rows)},
    )


def _lock(connection: Connection, numbers: Iterable[int]) -> None:
    """Lock rows in order of their ids, so that ending states and marking them as sent cannot deadlock."""
    connection.execute(
        text("SELECT 1 FROM dims_notifications WHERE id = ANY(:ids) ORDER BY id FOR UPDATE"), {"ids": list(numbers)}
    )


# --- states that the sweep finds ----------------------------------------------------------------------


def stale_metrics(connection: Connection, after: Mapping[str, timedelta]) -> dict[str, datetime]:
    """Return those of these metrics whose latest good reading is older than the given span, with its time."""
    rows = connection.execute(
        text(
            "SELECT m.metric, m.as_of FROM dims_metrics m "
            "JOIN jsonb_each_text(CAST(:after AS jsonb)) AS a(metric, seconds) ON m.metric = a.metric "
            "WHERE m.retired_at IS NULL AND m.as_of < clock_timestamp() - a.seconds::float8 * interval '1 second'"
        ),
        {"after": dumps({metric: span.total_seconds() for metric, span in after.items()})},
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


def orphaned_notifications(connection: Connection, channels: Collection[str]) -> list[tuple[Notification, bool]]:
    """Return the active states whose request is closed or whose metric is retired. The flag: it is retired."""
    columns = ", ".join(f"n.{name}" for name in Notification.__slots__)
    rows = connection.execute(
        text(
            f"SELECT {columns}, m.retired_at IS NOT NULL AS retired FROM dims_notifications n "
            f"JOIN dims_metrics m USING (metric) LEFT JOIN dims_approval_requests q ON q.id = {_REQUEST} "
            "WHERE n.ended_at IS NULL AND n.channel = ANY(:channels) "
            "AND (m.retired_at IS NOT NULL OR q.state <> 'open') ORDER BY n.id"
        ),
        {"channels": list(channels)},
    )
    return [(Notification(*row[:-1]), row.retired) for row in rows]


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


def claim_channel(connection: Connection, channel: str, lease: timedelta, *, at_once: bool) -> ClaimedChannel | None:
    """Claim the unsent notifications of a channel. Return None if there are none, or it backs off or is leased.

    `at_once` skips the back-off for a person's request.
    """
    connection.execute(
        text("INSERT INTO dims_channels (channel) VALUES (:channel) ON CONFLICT DO NOTHING"), {"channel": channel}
    )
    free = connection.execute(
        text(
            "SELECT failures FROM dims_channels WHERE channel = :channel "
            "AND coalesce(lease_until < clock_timestamp(), true) "
            "AND (:at_once OR coalesce(not_before <= clock_timestamp(), true)) FOR UPDATE SKIP LOCKED"
        ),
        {"channel": channel, "at_once": at_once},
    ).first()
    if free is None:
        return None
    unsent = connection.execute(
        text(
            f"SELECT {_COLUMNS} FROM dims_notifications WHERE channel = :channel AND {_UNSENT} ORDER BY id LIMIT :limit"
        ),
        {"channel": channel, "limit": MAX_PER_MESSAGE},
    ).fetchall()
    if not unsent:
        return None
    until: datetime = connection.execute(
        text(
            "UPDATE dims_channels SET lease_until = clock_timestamp() + :lease WHERE channel = :channel "
            "RETURNING lease_until"
        ),
        {"channel": channel, "lease": lease},
    ).scalar_one()
    return ClaimedChannel(channel, until, free.failures, tuple(Notification(*row) for row in unsent))


def mark_sent(connection: Connection, claimed: ClaimedChannel) -> None:
    """Record that a channel accepted its message, and release the channel.

    A state that ended after the claim is still to be sent as ended.
    """
    ids = [notification.id for notification in claimed.notifications]
    ended_ids = [notification.id for notification in claimed.notifications if notification.ended_at]
    _lock(connection, ids)
    connection.execute(
        text(
            "UPDATE dims_notifications SET sent_at = coalesce(sent_at, clock_timestamp()), end_sent_at = CASE WHEN "
            "id = ANY(:ended) THEN coalesce(end_sent_at, clock_timestamp()) ELSE end_sent_at END WHERE id = ANY(:ids)"
        ),
        {"ids": ids, "ended": ended_ids},
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
