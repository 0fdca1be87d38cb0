"""Queries on what people are told: the states that stand, what is still to be sent, and who sends to a channel."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, text

from dims_worker.store.bulk import dumps, recordset, rows_as_json
from dims_worker.store.models import notifications

MOST = 5_000
"""Notifications that one message speaks for at most."""


@dataclass(frozen=True, slots=True)
class Notification:
    """A row of `dims_notifications`: a state of a metric, as one channel is told of it."""

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
        """What sort of state it is: held, limit, drift, attention, failed, stale."""
        return self.state.partition(":")[0]

    @property
    def request(self) -> int | None:
        """The number of the request that a held value waits for."""
        return int(self.state.partition(":")[2]) if self.kind == "held" else None

    @property
    def over(self) -> bool:
        """Whether its end is still to be told."""
        return self.ended_at is not None and self.end_sent_at is None

    @property
    def unsent(self) -> bool:
        return self.sent_at is None or self.over


_COLUMNS = ", ".join(Notification.__slots__)
_UNSENT = "(sent_at IS NULL OR (ended_at IS NOT NULL AND end_sent_at IS NULL))"
_REQUEST = "CASE WHEN n.state LIKE 'held:%' THEN substr(n.state, 6)::bigint END"


def active_notifications(
    connection: Connection, channels: Collection[str], metrics: Collection[str] | None = None
) -> list[Notification]:
    """The states that stand, as these channels were or will be told; of all metrics where none are named."""
    found = connection.execute(
        text(
            f"SELECT {_COLUMNS} FROM dims_notifications WHERE ended_at IS NULL AND channel = ANY(:channels) "
            "AND (CAST(:metrics AS text[]) IS NULL OR metric = ANY(:metrics)) ORDER BY id"
        ),
        {"channels": list(channels), "metrics": None if metrics is None else list(metrics)},
    )
    return [Notification(*row) for row in found]


def begin_notifications(connection: Connection, rows: Iterable[Mapping[str, Any]]) -> None:
    """States that stand from now on: channel, metric, state, facts, run_id. One that stands already is left alone."""
    names = ("channel", "metric", "state", "facts", "run_id")
    connection.execute(
        text(
            f"INSERT INTO dims_notifications ({', '.join(names)}) "
            f"SELECT {', '.join(names)} FROM {recordset(notifications, names)} ON CONFLICT DO NOTHING"
        ),
        {"rows": rows_as_json(rows)},
    )


def end_notifications(connection: Connection, endings: Mapping[int, tuple[Mapping[str, Any], bool]]) -> None:
    """States that are over, by number: the values at the end, and whether people are to hear of it."""
    rows = [{"id": number, "ending": ending, "told": told} for number, (ending, told) in endings.items()]
    _lock(connection, endings)
    connection.execute(
        text(
            "UPDATE dims_notifications n SET ended_at = clock_timestamp(), ending = r.ending, "
            "end_sent_at = CASE WHEN NOT r.told THEN clock_timestamp() END "
            "FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS r(id bigint, ending jsonb, told boolean) "
            "WHERE n.id = r.id AND n.ended_at IS NULL"
        ),
        {"rows": dumps(rows)},
    )


def _lock(connection: Connection, numbers: Iterable[int]) -> None:
    """In one order, so that who ends states and who marks them as told cannot wait for each other."""
    connection.execute(
        text("SELECT 1 FROM dims_notifications WHERE id = ANY(:ids) ORDER BY id FOR UPDATE"), {"ids": list(numbers)}
    )


# --- what no reading tells ----------------------------------------------------------------------------


def stale_metrics(connection: Connection, after: Mapping[str, timedelta]) -> dict[str, datetime]:
    """Of these metrics those whose latest good reading is older than this, and when that was."""
    found = connection.execute(
        text(
            "SELECT m.metric, m.as_of FROM dims_metrics m "
            "JOIN jsonb_each_text(CAST(:after AS jsonb)) AS a(metric, seconds) ON m.metric = a.metric "
            "WHERE m.retired_at IS NULL AND m.as_of < clock_timestamp() - a.seconds::float8 * interval '1 second'"
        ),
        {"after": dumps({metric: span.total_seconds() for metric, span in after.items()})},
    )
    return {row.metric: row.as_of for row in found}


def latest_values(connection: Connection, metrics: Collection[str]) -> dict[str, tuple[Any, str]]:
    """The latest good values of these metrics, with their units."""
    found = connection.execute(
        text(
            "SELECT metric, value, unit FROM dims_metrics "
            "WHERE metric = ANY(:metrics) AND retired_at IS NULL AND as_of IS NOT NULL"
        ),
        {"metrics": list(metrics)},
    )
    return {row.metric: (row.value, row.unit) for row in found}


def orphaned_notifications(connection: Connection, channels: Collection[str]) -> list[tuple[Notification, bool]]:
    """States that stand though their request was closed, or their metric is no longer configured (True)."""
    columns = ", ".join(f"n.{name}" for name in Notification.__slots__)
    found = connection.execute(
        text(
            f"SELECT {columns}, m.retired_at IS NOT NULL AS retired FROM dims_notifications n "
            f"JOIN dims_metrics m USING (metric) LEFT JOIN dims_approval_requests q ON q.id = {_REQUEST} "
            "WHERE n.ended_at IS NULL AND n.channel = ANY(:channels) "
            "AND (m.retired_at IS NOT NULL OR q.state <> 'open') ORDER BY n.id"
        ),
        {"channels": list(channels)},
    )
    return [(Notification(*row[:-1]), row.retired) for row in found]


def lock_free_metrics(connection: Connection, metrics: Iterable[str]) -> list[str]:
    """Lock the rows of these metrics that nobody else works at now. Returns their names."""
    found = connection.execute(
        text(
            "SELECT metric FROM dims_metrics WHERE metric = ANY(:metrics) "
            'ORDER BY metric COLLATE "C" FOR UPDATE SKIP LOCKED'
        ),
        {"metrics": list(metrics)},
    )
    return [row.metric for row in found]


# --- sending ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ClaimedChannel:
    """The right to send to a channel until `lease_until`, and what it is to be told."""

    channel: str
    lease_until: datetime
    failures: int
    notifications: tuple[Notification, ...]


def claim_channel(connection: Connection, channel: str, lease: timedelta, *, at_once: bool) -> ClaimedChannel | None:
    """Claim what a channel is still to be told, or None: nothing is, it was tried a moment ago, or another sends.

    `at_once` waits for no back-off: a person asked.
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
            f"SELECT {_COLUMNS} FROM dims_notifications WHERE channel = :channel AND {_UNSENT} ORDER BY id LIMIT :most"
        ),
        {"channel": channel, "most": MOST},
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
    """A channel has taken its message: of what it was told nothing is to be sent again, and it is free.

    What has ended since it was claimed is still to be told as ended.
    """
    _lock(connection, [one.id for one in claimed.notifications])
    connection.execute(
        text(
            "UPDATE dims_notifications SET sent_at = coalesce(sent_at, clock_timestamp()), end_sent_at = CASE WHEN "
            "id = ANY(:over) THEN coalesce(end_sent_at, clock_timestamp()) ELSE end_sent_at END WHERE id = ANY(:ids)"
        ),
        {
            "ids": [one.id for one in claimed.notifications],
            "over": [one.id for one in claimed.notifications if one.ended_at],
        },
    )
    _release(connection, claimed, "failures = 0, not_before = NULL, error = NULL, sent_at = clock_timestamp()")


def mark_failed(connection: Connection, claimed: ClaimedChannel, error: str, wait: timedelta) -> None:
    """A channel has not taken its message: it is tried again after `wait`."""
    _release(
        connection,
        claimed,
        "failures = failures + 1, not_before = clock_timestamp() + :wait, error = :error",
        {"wait": wait, "error": error},
    )


def _release(
    connection: Connection, claimed: ClaimedChannel, assignments: str, values: Mapping[str, Any] | None = None
) -> None:
    """Give a claim back; one that has run out belongs to whoever sends now, and is left to them."""
    connection.execute(
        text(
            f"UPDATE dims_channels SET lease_until = NULL, {assignments} "
            "WHERE channel = :channel AND lease_until = :until"
        ),
        {"channel": claimed.channel, "until": claimed.lease_until, **(values or {})},
    )


# --- looking ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ChannelRow:
    """A row of `dims_channels`, and how many notifications are still to be sent there."""

    channel: str
    unsent: int
    failures: int
    error: str | None
    not_before: datetime | None
    sent_at: datetime | None


def channels_with_pending(connection: Connection, channels: Collection[str]) -> list[str]:
    """The channels that are to be told something now: nobody sends, and no failure is too fresh."""
    found = connection.execute(
        text(
            "SELECT w.channel FROM unnest(CAST(:channels AS text[])) AS w(channel) LEFT JOIN dims_channels c "
            "USING (channel) WHERE coalesce(c.lease_until < clock_timestamp(), true) "
            "AND coalesce(c.not_before <= clock_timestamp(), true) AND EXISTS "
            f"(SELECT FROM dims_notifications n WHERE n.channel = w.channel AND {_UNSENT}) ORDER BY 1"
        ),
        {"channels": list(channels)},
    )
    return [row.channel for row in found]


def channel_rows(connection: Connection, channels: Collection[str]) -> list[ChannelRow]:
    """How it stands with these channels, in the order of their names."""
    found = connection.execute(
        text(
            "SELECT w.channel, (SELECT count(*) FROM dims_notifications n WHERE n.channel = w.channel "
            f"AND {_UNSENT}) AS unsent, coalesce(c.failures, 0), c.error, c.not_before, c.sent_at "
            "FROM unnest(CAST(:channels AS text[])) AS w(channel) LEFT JOIN dims_channels c USING (channel) ORDER BY 1"
        ),
        {"channels": list(channels)},
    )
    return [ChannelRow(*row) for row in found]


def list_notifications(connection: Connection, *, limit: int) -> list[Notification]:
    """What stands or is still to be sent, of any channel, newest first."""
    found = connection.execute(
        text(
            f"SELECT {_COLUMNS} FROM dims_notifications WHERE ended_at IS NULL OR {_UNSENT} "
            "ORDER BY id DESC LIMIT :limit"
        ),
        {"limit": limit},
    )
    return [Notification(*row) for row in found]
