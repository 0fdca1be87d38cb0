"""Queries on how many events and runs there are: what came after a place in the log, and never all of it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import timedelta

from sqlalchemy import Connection, text

SETTLED = timedelta(seconds=60)
"""No transaction that stores events or a run lasts so long: what is older than this has all come."""


@dataclass(slots=True)
class LabelCounts:
    """Rows by their labels, counted from a place on. `settled` is the last number of which all earlier rows have
    come: numbers are drawn before transactions end, so that a smaller one may come after a larger one."""

    table: str
    number: str
    time: str
    labels: tuple[str, ...]
    settled: int | None = None
    before: Counter[tuple[str, ...]] = field(default_factory=Counter)
    at_first: Counter[tuple[str, ...]] | None = None

    def count(self, connection: Connection) -> Counter[tuple[str, ...]]:
        """How many rows there are by their labels since this was first called ('' for NULL). It never falls."""
        if self.settled is None:
            self.settled = self._settled(connection, 0)
        place = self._settled(connection, self.settled)
        self.before += self._between(connection, self.settled, place)
        self.settled = place
        found = self.before + self._between(connection, place, None)
        if self.at_first is None:
            self.at_first = found
        return found - self.at_first

    def _settled(self, connection: Connection, known: int) -> int:
        """The last number that is old enough, found backwards by the key's index."""
        found = connection.execute(
            text(
                f"SELECT {self.number} FROM {self.table} WHERE {self.number} > :known "
                f"AND {self.time} < clock_timestamp() - :age ORDER BY {self.number} DESC LIMIT 1"
            ),
            {"known": known, "age": SETTLED},
        ).scalar()
        return int(found) if found is not None else known

    def _between(self, connection: Connection, after: int, until: int | None) -> Counter[tuple[str, ...]]:
        labels = ", ".join(f"coalesce({label}, '')" for label in self.labels)
        places = ", ".join(str(n) for n in range(1, len(self.labels) + 1))
        found = connection.execute(
            text(
                f"SELECT {labels}, count(*) FROM {self.table} WHERE {self.number} > :after "
                f"AND (CAST(:until AS bigint) IS NULL OR {self.number} <= :until) GROUP BY {places}"
            ),
            {"after": after, "until": until},
        )
        return Counter({tuple(row[:-1]): row[-1] for row in found})


def count_events() -> LabelCounts:
    """Events by type and outcome."""
    return LabelCounts("dims_event_log", "seq", "received_at", ("type", "outcome"))


def count_runs() -> LabelCounts:
    """Runs by status."""
    return LabelCounts("dims_verification_runs", "run_id", "finished_at", ("status",))
