"""Once a day: take a snapshot, and delete rows that are older than the configuration keeps.

Every sweep of every worker checks whether the day's work is done. The first sweep of a day (UTC) starts it, so no
process must run at a certain hour. Each day has one row and the work takes a lock, so it is done once. Rows are deleted
in small batches, each in its own transaction and a few per sweep, so that no run waits long for a lock.
"""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import Engine

from dims_worker.config import Config
from dims_worker.store import processes, retention, snapshots
from dims_worker.store.engine import transaction

BATCH = 2_000
"""Rows that one transaction deletes."""
BATCHES_PER_SWEEP = 10
"""At most 20,000 rows every 5 seconds. The rest waits for the next sweep."""


def run_retention(engine: Engine, config: Config, *, batch: int = BATCH, batches: int = BATCHES_PER_SWEEP) -> int:
    """Continue the day's work, as much as fits one sweep. Return how many rows were deleted."""
    deleted = 0
    for _ in range(batches):
        with transaction(engine) as connection:
            day, last = retention.today(connection), retention.last_retention_run(connection)
            if last is not None and last.day >= day and last.finished_at is not None:
                break
            if not retention.try_retention_lock(connection):
                break
            if retention.begin_day(connection, day):
                snapshots.delete_daily(connection, config.settings.snapshot_days)
                snapshots.take_snapshot(connection, day.isoformat(), daily=True)
                processes.delete_silent_processes(connection)
            keep = timedelta(days=config.settings.history_days)
            for kind in retention.KINDS:
                if count := retention.delete_old_rows(connection, kind, day, keep, batch):
                    deleted += count
                    break
            else:
                retention.finish_day(connection, day)
                break
    return deleted
