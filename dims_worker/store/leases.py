"""Queries on leases: a claim of a source's due metrics, fenced by an epoch (DESIGN section 3, 6)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Row, text

from dims_worker.store.runs import RunRow, runs_by_number

SHARED_LOSSES = 2
"""Leases that a metric loses in company before it is measured alone."""
ALONE_LOSSES = 3
"""Leases that it loses alone before it is quarantined."""
POISON = SHARED_LOSSES + ALONE_LOSSES

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
    """The right to measure a source's due metrics: `generations` were read BEFORE the measurement.

    `quarantined`: its one metric crashed too many workers and is not measured now.
    """

    source: str
    epoch: int
    as_of: datetime
    generations: Mapping[str, int]
    quarantined: bool = False


def claim_source(
    connection: Connection, source: str, definitions: Mapping[str, str], holder: str, lease: timedelta, *, at_once: bool
) -> Claim | None:
    """Claim what is due of a source, or None: nothing is due, it cools down, or another holds the lease.

    `definitions`, by metric, are those of the caller's configuration: what is defined otherwise is left to whoever
    knows how. `at_once` waits for no cooldown and no back-off: a person asked. To find nothing costs one query.
    """
    asked = {"source": source, "definitions": json.dumps(dict(definitions)), "at_once": at_once}
    row = connection.execute(
        text(
            f"SELECT lease_epoch FROM dims_sources s WHERE s.source = :source AND {_FREE} "
            f"AND EXISTS (SELECT FROM dims_metrics m WHERE {_DUE}) FOR UPDATE SKIP LOCKED"
        ),
        asked,
    ).first()
    if row is None:
        return None
    due = connection.execute(  # anew, now that the source is ours: another's record may have come in between
        text(
            f"SELECT metric, requested_gen, attempts FROM dims_metrics m WHERE {_DUE} "
            'ORDER BY metric COLLATE "C" FOR UPDATE'
        ),
        asked,
    ).fetchall()
    chosen = _together(due, row.lease_epoch)
    if not chosen:
        return None
    as_of: datetime = connection.execute(
        text(
            "WITH counted AS (UPDATE dims_metrics SET attempts = attempts + 1 WHERE metric = ANY(:names)) "
            "UPDATE dims_sources SET lease_epoch = lease_epoch + 1, lease_holder = :holder, "
            "lease_until = clock_timestamp() + :lease WHERE source = :source RETURNING clock_timestamp()"
        ),
        {"source": source, "holder": holder, "lease": lease, "names": [one.metric for one in chosen]},
    ).scalar_one()
    generations = {one.metric: one.requested_gen for one in chosen}
    return Claim(source, row.lease_epoch + 1, as_of, generations, quarantined=chosen[0].attempts >= POISON)


def _together(due: Sequence[Row[Any]], epoch: int) -> Sequence[Row[Any]]:
    """What is measured in one pass: all that is due, but each metric alone whose passes were lost; the two take
    turns, by the epoch, so that neither waits for ever."""
    suspects = sorted((one for one in due if one.attempts >= SHARED_LOSSES), key=lambda one: one.attempts)
    others = [one for one in due if one.attempts < SHARED_LOSSES]
    return others if others and (not suspects or epoch % 2) else suspects[:1]


def renew_lease(connection: Connection, claimed: Claim, lease: timedelta) -> bool:
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


def release_lease(connection: Connection, claimed: Claim, cooldown: timedelta) -> bool:
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


def is_leased(connection: Connection, source: str) -> bool:
    """Whether somebody scans the source now."""
    return bool(
        connection.execute(
            text("SELECT lease_until >= clock_timestamp() FROM dims_sources WHERE source = :source"),
            {"source": source},
        ).scalar()
    )


def count_leases(connection: Connection) -> int:
    """How many sources are being scanned now."""
    query = "SELECT count(*) FROM dims_sources WHERE lease_until >= clock_timestamp()"
    return int(connection.execute(text(query)).scalar_one())


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
