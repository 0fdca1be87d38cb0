"""Count events and runs for counters that only rise. Each query counts only the rows added since the last one."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from sqlalchemy import Connection, text

SETTLE_TIME = timedelta(seconds=60)
"""Longer than any transaction that stores events or a run. All rows older than this are committed."""


@dataclass(slots=True)
class LabelCounts:
    """The number of rows by their labels.

    A transaction gets its row ids before it commits, so a row with a smaller id may appear after one with a larger
    id. `settled_id` is the largest id before which no more rows can appear, and `settled` counts the rows up to it.
    """

    table: str
    id_column: str
    time_column: str
    labels: tuple[str, ...]
    settled_id: int | None = None
    settled: Counter[tuple[str, ...]] = field(default_factory=Counter)
    first: Counter[tuple[str, ...]] | None = None

    def count(self, connection: Connection) -> Counter[tuple[str, ...]]:
        """Return the rows by label ('' for NULL) added since the first call. The numbers never fall."""
        if self.settled_id is None:
            self.settled_id = self._last_settled(connection, 0)
        settled_id = self._last_settled(connection, self.settled_id)
        self.settled += self._between(connection, self.settled_id, settled_id)
        self.settled_id = settled_id
        total = self.settled + self._between(connection, settled_id, None)
        if self.first is None:
            self.first = total
        return total - self.first

    def _last_settled(self, connection: Connection, after: int) -> int:
        """Return the largest id that is old enough. The query walks the primary key backwards."""
        settled_id = connection.execute(
            text(
                f"SELECT {self.id_column} FROM {self.table} WHERE {self.id_column} > :after "
                f"AND {self.time_column} < clock_timestamp() - :age ORDER BY {self.id_column} DESC LIMIT 1"
            ),
            {"after": after, "age": SETTLE_TIME},
        ).scalar()
        return after if settled_id is None else int(settled_id)

    def _between(self, connection: Connection, after: int, until: int | None) -> Counter[tuple[str, ...]]:
        labels = ", ".join(f"coalesce({label}, '')" for label in self.labels)
        positions = ", ".join(str(n) for n in range(1, len(self.labels) + 1))
        rows = connection.execute(
            text(
                f"SELECT {labels}, count(*) FROM {self.table} WHERE {self.id_column} > :after "
                f"AND (CAST(:until AS bigint) IS NULL OR {self.id_column} <= :until) GROUP BY {positions}"
            ),
            {"after": after, "until": until},
        )
        return Counter({tuple(row[:-1]): row[-1] for row in rows})


def count_events() -> LabelCounts:
    """Return a counter of events by type and outcome."""
    return LabelCounts("dims_event_log", "seq", "received_at", ("type", "outcome"))


def count_runs() -> LabelCounts:
    """Return a counter of runs by status."""
    return LabelCounts("dims_verification_runs", "run_id", "finished_at", ("status",))


def count_waiting(connection: Connection) -> tuple[int, datetime]:
    """Return how many values wait for approval, and the time of the database at which they do."""
    row = connection.execute(
        text("SELECT count(*) AS n, clock_timestamp() AS now FROM dims_approval_requests WHERE state = 'open'")
    ).one()
    return int(row.n), row.now
