"""Queries on leases: a claim of a source's due metrics, fenced by an epoch (DESIGN section 3, 6)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection, text

from dims_worker.store.engine import clock
from dims_worker.store.runs import RunRow, runs_by_number


@dataclass(frozen=True, slots=True)
class Claim:
    """The right to measure a source's due metrics: `generations` were read BEFORE the measurement."""

    source: str
    epoch: int
    as_of: datetime
    generations: Mapping[str, int]


def claim(
    connection: Connection, source: str, names: Sequence[str], holder: str, lease: timedelta, *, at_once: bool
) -> Claim | None:
    """Claim what is due of a source, or None: nothing is due, it cools down, or another holds the lease.

    `at_once` waits for no cooldown and no back-off: a person asked.
    """
    row = connection.execute(
        text(
            "SELECT lease_epoch FROM dims_sources WHERE source = :source "
            "AND coalesce(lease_until < clock_timestamp(), true) "
            "AND (:at_once OR coalesce(not_before <= clock_timestamp(), true)) FOR UPDATE SKIP LOCKED"
        ),
        {"source": source, "at_once": at_once},
    ).first()
    if row is None:
        return None
    due = connection.execute(
        text(
            "SELECT metric, requested_gen FROM dims_metrics "
            "WHERE source = :source AND requested_gen > measured_gen AND metric = ANY(:names) "
            "AND (:at_once OR coalesce(not_before <= clock_timestamp(), true))"
        ),
        {"source": source, "names": list(names), "at_once": at_once},
    )
    generations = {row.metric: row.requested_gen for row in due}
    if not generations:
        return None
    epoch = row.lease_epoch + 1
    connection.execute(
        text(
            "UPDATE dims_sources SET lease_epoch = :epoch, lease_holder = :holder, "
            "lease_until = clock_timestamp() + :lease WHERE source = :source"
        ),
        {"source": source, "epoch": epoch, "holder": holder, "lease": lease},
    )
    return Claim(source, epoch, clock(connection), generations)


def renew(connection: Connection, claimed: Claim, lease: timedelta) -> bool:
    """Hold on for another `lease`. False where the lease is no longer ours."""
    renewed = connection.execute(
        text(
            "UPDATE dims_sources SET lease_until = clock_timestamp() + :lease "
            # Once recorded the lease is nobody's: a renewal that waited for that must not take it up again
            "WHERE source = :source AND lease_epoch = :epoch AND lease_until IS NOT NULL RETURNING 1"
        ),
        {"source": claimed.source, "epoch": claimed.epoch, "lease": lease},
    )
    return renewed.first() is not None


def release(connection: Connection, claimed: Claim, cooldown: timedelta) -> bool:
    """Give the lease back inside the record transaction. False, and the row untouched, where it was lost.

    The row stays locked until the transaction ends, so the answer holds for all that it writes.
    """
    released = connection.execute(
        text(
            "UPDATE dims_sources SET lease_until = NULL, lease_holder = NULL, "
            "not_before = clock_timestamp() + :cooldown "
            "WHERE source = :source AND lease_epoch = :epoch AND lease_until IS NOT NULL RETURNING 1"
        ),
        {"source": claimed.source, "epoch": claimed.epoch, "cooldown": cooldown},
    )
    return released.first() is not None


def leased(connection: Connection, source: str) -> bool:
    """Whether somebody scans the source now."""
    return bool(
        connection.execute(
            text("SELECT lease_until >= clock_timestamp() FROM dims_sources WHERE source = :source"),
            {"source": source},
        ).scalar()
    )


def serving_runs(connection: Connection, wanted: Mapping[str, int]) -> list[RunRow]:
    """The runs that first served these generations of these metrics."""
    found = connection.execute(
        text(
            "SELECT DISTINCT ON (h.metric) h.run_id FROM dims_metrics_history h "
            "JOIN unnest(CAST(:names AS text[]), CAST(:generations AS bigint[])) AS w(metric, generation) "
            "ON h.metric = w.metric AND h.generation >= w.generation "
            "WHERE h.method <> 'failed' AND h.outcome <> 'superseded' ORDER BY h.metric, h.id"
        ),
        {"names": list(wanted), "generations": list(wanted.values())},
    )
    return runs_by_number(connection, sorted({row.run_id for row in found}))
