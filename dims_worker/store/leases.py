"""Leases on sources: claim the due metrics of a source, renew and release the claim, each fenced by an epoch.

Every claim raises the epoch of its source. Renewing and recording act only while the epoch is still that of the claim,
so a worker that lost its lease cannot change what its successor records.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Row, text

from dims_worker.store.runs import RunRow, runs_by_number

MAX_SHARED_LOSSES = 2
"""Leases that a metric may lose together with others. After that, a worker measures it alone."""
MAX_ALONE_LOSSES = 3
"""Leases that it may lose alone before it is quarantined."""
QUARANTINE_AFTER = MAX_SHARED_LOSSES + MAX_ALONE_LOSSES

_FREE = (
    "coalesce(s.lease_until < clock_timestamp(), true) "
    "AND (:at_once OR coalesce(s.not_before <= clock_timestamp(), true))"
)
_DUE = (
    "m.source = :source AND m.requested_gen > m.measured_gen "
    "AND m.definition = (CAST(:definitions AS jsonb) ->> m.metric) "
    "AND (:at_once OR coalesce(m.not_before <= clock_timestamp(), true))"
)


@dataclass(frozen=True, slots=True)
class Claim:
    """The right to measure a source's due metrics. `generations` were read BEFORE the measurement.

    `quarantined`: its only metric has crashed too many workers, and this worker must not measure it.
    `states` are what some of the metrics were measured from. Those need no reading if that is still their state.
    """

    source: str
    epoch: int
    as_of: datetime
    generations: Mapping[str, int]
    quarantined: bool = False
    states: Mapping[str, str] = field(default_factory=dict)


def claim_source(
    connection: Connection, source: str, definitions: Mapping[str, str], holder: str, lease: timedelta, *, at_once: bool
) -> Claim | None:
    """Claim the due metrics of a source. Return None if none is due, the source cools down, or it is leased.

    `definitions` are those of the caller's configuration, by metric. Metrics with another definition are left to a
    worker that has it. `at_once` skips cooldown and back-off for a person's request. Without a claim, this costs one
    query.
    """
    parameters = {"source": source, "definitions": json.dumps(dict(definitions)), "at_once": at_once}
    row = connection.execute(
        text(
            f"SELECT lease_epoch FROM dims_sources s WHERE s.source = :source AND {_FREE} "
            f"AND EXISTS (SELECT FROM dims_metrics m WHERE {_DUE}) FOR UPDATE SKIP LOCKED"
        ),
        parameters,
    ).first()
    if row is None:
        return None
    due = connection.execute(  # again, with the source locked: another worker may have recorded a run in between
        text(
            "SELECT metric, requested_gen, attempts, "
            "CASE WHEN reading_gen <= measured_gen AND error IS NULL THEN state END AS state "
            f"FROM dims_metrics m WHERE {_DUE} "
            'ORDER BY metric COLLATE "C" FOR UPDATE'
        ),
        parameters,
    ).fetchall()
    chosen = _choose_metrics(due, row.lease_epoch)
    if not chosen:
        return None
    as_of: datetime = connection.execute(
        text(
            "WITH counted AS (UPDATE dims_metrics SET attempts = attempts + 1 WHERE metric = ANY(:names)) "
            "UPDATE dims_sources SET lease_epoch = lease_epoch + 1, lease_holder = :holder, "
            "lease_until = clock_timestamp() + :lease WHERE source = :source RETURNING clock_timestamp()"
        ),
        {"source": source, "holder": holder, "lease": lease, "names": [metric.metric for metric in chosen]},
    ).scalar_one()
    generations = {metric.metric: metric.requested_gen for metric in chosen}
    return Claim(
        source,
        row.lease_epoch + 1,
        as_of,
        generations,
        quarantined=chosen[0].attempts >= QUARANTINE_AFTER,
        states={metric.metric: metric.state for metric in chosen if metric.state is not None},
    )


def _choose_metrics(due: Sequence[Row[Any]], epoch: int) -> Sequence[Row[Any]]:
    """Choose the due metrics of one pass: one suspect alone, or all metrics that are no suspects.

    A suspect is a metric whose passes were lost. The epoch alternates between the two, so that neither waits for ever.
    """
    suspects = sorted((row for row in due if row.attempts >= MAX_SHARED_LOSSES), key=lambda row: row.attempts)
    others = [row for row in due if row.attempts < MAX_SHARED_LOSSES]
    return others if others and (not suspects or epoch % 2) else suspects[:1]


def renew_lease(connection: Connection, claimed: Claim, lease: timedelta) -> bool:
    """Extend the lease to `lease` from now. Return False if the claim no longer holds it."""
    renewed = connection.execute(
        text(
            "UPDATE dims_sources SET lease_until = clock_timestamp() + :lease "
            # A recorded run has released its lease: a renewal that waited for the row must not lease it again
            "WHERE source = :source AND lease_epoch = :epoch AND lease_until IS NOT NULL RETURNING 1"
        ),
        {"source": claimed.source, "epoch": claimed.epoch, "lease": lease},
    )
    return renewed.first() is not None


def release_lease(connection: Connection, claimed: Claim, cooldown: timedelta) -> bool:
    """Release the lease, start the cooldown, and note how long the scan took, inside the record transaction.

    Returns False, and changes nothing, if the lease was lost. The row stays locked until the transaction ends, so the
    answer holds for everything that the transaction writes.
    """
    released = connection.execute(
        text(
            "UPDATE dims_sources SET lease_until = NULL, lease_holder = NULL, "
            "not_before = clock_timestamp() + :cooldown, "
            "scan_seconds = extract(epoch FROM clock_timestamp() - CAST(:as_of AS timestamptz)) "
            "WHERE source = :source AND lease_epoch = :epoch AND lease_until IS NOT NULL RETURNING 1"
        ),
        {"source": claimed.source, "epoch": claimed.epoch, "cooldown": cooldown, "as_of": claimed.as_of},
    )
    return released.first() is not None


def return_claim(connection: Connection, claimed: Claim) -> bool:
    """Return a claim uncounted: its metrics are due at once, as if the claim had never been made.

    The epoch rises, so a late record of the claim is superseded. Returns False, and changes nothing, if the lease
    was lost.
    """
    source = {"source": claimed.source, "epoch": claimed.epoch}
    returned = connection.execute(
        text(
            "UPDATE dims_sources SET lease_until = NULL, lease_holder = NULL, lease_epoch = lease_epoch + 1 "
            "WHERE source = :source AND lease_epoch = :epoch AND lease_until IS NOT NULL RETURNING 1"
        ),
        source,
    )
    if returned.first() is None:
        return False
    names = {"names": list(claimed.generations)}
    query = 'SELECT 1 FROM dims_metrics WHERE metric = ANY(:names) ORDER BY metric COLLATE "C" FOR UPDATE'
    connection.execute(text(query), names)  # in the order in which every transaction locks them
    connection.execute(
        text("UPDATE dims_metrics SET attempts = greatest(attempts - 1, 0) WHERE metric = ANY(:names)"), names
    )
    return True


def note_scan_seconds(connection: Connection, source: str, seconds: float) -> None:
    """Note how long a scan took at least, that was stopped before its end."""
    connection.execute(
        text("UPDATE dims_sources SET scan_seconds = :seconds WHERE source = :source"),
        {"source": source, "seconds": seconds},
    )


def is_leased(connection: Connection, source: str) -> bool:
    """Return whether a worker scans the source now."""
    return bool(
        connection.execute(
            text("SELECT lease_until >= clock_timestamp() FROM dims_sources WHERE source = :source"),
            {"source": source},
        ).scalar()
    )


def count_leases(connection: Connection) -> int:
    """Return how many sources are leased now."""
    query = "SELECT count(*) FROM dims_sources WHERE lease_until >= clock_timestamp()"
    return int(connection.execute(text(query)).scalar_one())


def lease_holders(connection: Connection) -> set[str]:
    """Return the workers that hold a lease now, by the name that they claimed with."""
    query = "SELECT DISTINCT lease_holder FROM dims_sources WHERE lease_until >= clock_timestamp()"
    return set(connection.execute(text(query)).scalars())


def serving_runs(connection: Connection, wanted: Mapping[str, int]) -> list[RunRow]:
    """Return the runs that first served these generations of these metrics."""
    rows = connection.execute(
        text(
            "SELECT DISTINCT ON (h.metric) h.run_id FROM dims_metrics_history h "
            "JOIN unnest(CAST(:names AS text[]), CAST(:generations AS bigint[])) AS w(metric, generation) "
            "ON h.metric = w.metric AND h.generation >= w.generation "
            "WHERE h.method <> 'failed' AND h.outcome <> 'superseded' ORDER BY h.metric, h.id"
        ),
        {"names": list(wanted), "generations": list(wanted.values())},
    )
    return runs_by_number(connection, sorted({row.run_id for row in rows}))
