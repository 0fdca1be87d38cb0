"""What is done once a day: a snapshot, and forgetting what is older than the configuration keeps.

The sweep asks, every few seconds and in every worker, whether the day's work is done. So there is no hour at which a
machine must be up: whoever is the first to sweep on a day (UTC) begins it, a missed night is made up for in the
morning, and two beats do no more than one, for a day has one row and one who works holds a lock. Forgetting goes in
small lots, each a transaction of its own and a few of them a sweep, so that nobody who records waits for it.
"""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import Engine

from dims_worker.config import Config
from dims_worker.store import retention, snapshots
from dims_worker.store.engine import transaction

LOT = 2_000
"""Rows that one transaction forgets."""
LOTS = 10
"""Of one sweep: 20,000 rows every 5 seconds. The rest waits for the next."""


def run_retention(engine: Engine, config: Config, *, lot: int = LOT, lots: int = LOTS) -> int:
    """Do what is left of the day's work, as much as fits one sweep. Returns how many rows were forgotten."""
    forgotten = 0
    for _ in range(lots):
        with transaction(engine) as connection:
            day, last = retention.today(connection), retention.last_retention_run(connection)
            if last is not None and last.day >= day and last.finished_at is not None:
                break
            if not retention.try_retention_lock(connection):
                break
            if retention.begin_day(connection, day):
                snapshots.delete_daily(connection, config.settings.snapshot_days)
                snapshots.take_snapshot(connection, day.isoformat(), daily=True)
            keep = timedelta(days=config.settings.history_days)
            for kind in retention.KINDS:
                if gone := retention.delete_old_rows(connection, kind, day, keep, lot):
                    forgotten += gone
                    break
            else:
                retention.finish_day(connection, day)
                break
    return forgotten
