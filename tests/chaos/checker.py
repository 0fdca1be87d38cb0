"""Check the database and the broker after a run. Without a loss there are no problems to report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from redis import Redis, RedisError
from sqlalchemy import Engine, Row, text
from sqlalchemy.exc import SQLAlchemyError

from dims_worker.events import STREAM
from tests.chaos.workload import World

APPROVAL_PCT = 15
"""From this drift on, DIMS holds the value of a critical metric for approval."""


@dataclass(frozen=True, slots=True)
class Delays:
    """The longest time in seconds from a change until its event was stored, and until it was measured."""

    stored: float
    served: float


class Checker:
    """Queries the database and the broker with its own SQL."""

    def __init__(self, world: World, engine: Engine, redis: Redis) -> None:
        self.world, self.engine, self.redis = world, engine, redis

    def rows(self, sql: str) -> Sequence[Row[Any]]:
        with self.engine.connect() as connection:
            return connection.execute(text(sql)).fetchall()

    def unsettled(self) -> list[str]:
        """Return the work that is not done yet."""
        try:
            waiting = {
                "entries in the stream": self.redis.xlen(STREAM),
                "unacknowledged entries": self.redis.xpending(STREAM, "dims")["pending"],
                "metrics due": len(self.rows("SELECT 1 FROM dims_metrics WHERE requested_gen > measured_gen")),
                "leases": len(self.rows("SELECT 1 FROM dims_sources WHERE lease_until IS NOT NULL")),
            }
        except (SQLAlchemyError, RedisError) as error:
            return [str(error)]
        return [f"{number} {what}" for what, number in waiting.items() if number]

    def problems(self) -> list[str]:
        return [*self._events(), *self._batches(), *self._metrics(), *self._critical(), *self._runs()]

    def _events(self) -> Iterator[str]:
        """Each event is stored exactly once and concerns the right metrics."""
        sent = {entry.event.id: entry for entry in self.world.sent}
        known = sent | {entry.event.id: entry for entry in self.world.unsure}
        stored = self.rows("SELECT event_id, outcome, reason, metrics FROM dims_event_log")
        numbers = Counter(row.event_id for row in stored)
        lost = sorted(sent.keys() - numbers.keys())
        if lost:
            yield f"{len(lost)} events are not stored, such as {lost[:5]}"
        if twice := [name for name, number in numbers.items() if number > 1]:
            yield f"{len(twice)} events are stored more than once, such as {twice[:5]}"
        for row in stored:
            if row.event_id not in known or row.outcome != "planned":
                yield f"this event was not sent like this: {row}"
            elif set(row.metrics) != known[row.event_id].metrics:
                yield f"event {row.event_id} concerns {row.metrics}, not {sorted(known[row.event_id].metrics)}"

    def _batches(self) -> Iterator[str]:
        """Each ingest batch is served by a good reading of what it names, and each generation was requested by a
        batch."""
        for row in self.rows(
            "SELECT k.metric, count(*) AS batches FROM dims_ingest_batches k WHERE NOT EXISTS (SELECT 1 "
            "FROM dims_metrics_history h WHERE h.metric = k.metric AND h.generation >= k.generation "
            "AND h.method <> 'failed' AND h.outcome IN ('accepted', 'held')) AND EXISTS (SELECT 1 "
            "FROM dims_event_log e WHERE e.batch_id = k.batch_id AND k.metric = ANY(e.metrics)) GROUP BY 1"
        ):
            yield f"{row.batches} batches of {row.metric} are served by no reading"
        for row in self.rows(
            "SELECT m.metric, m.requested_gen, count(k.batch_id) AS batches FROM dims_metrics m "
            "LEFT JOIN dims_ingest_batches k USING (metric) WHERE m.source IS NOT NULL "
            "GROUP BY 1, 2 HAVING m.requested_gen <> count(k.batch_id) + 1"
        ):
            yield f"{row.metric} has generation {row.requested_gen}, but {row.batches} batches and its registration"

    def _metrics(self) -> Iterator[str]:
        """Each metric has the true value, and was measured, or found unchanged, after its last change began."""
        truth, last = self.world.truth(), self._last()
        rows = self.rows(
            "SELECT m.*, (SELECT max(h.as_of) FROM dims_metrics_history h WHERE h.metric = m.metric "
            "AND h.method <> 'failed' AND h.outcome IN ('accepted', 'held')) AS recorded FROM dims_metrics m"
        )
        if {row.metric for row in rows} != truth.keys():
            yield f"the metrics are {sorted(row.metric for row in rows)}"
        for row in rows:
            if row.value != truth[row.metric]:
                yield f"{row.metric} is {truth[row.metric]}, but was recorded as {row.value} at {row.as_of}"
            if row.error is not None or row.failures:
                yield f"{row.metric} has {row.failures} failures: {row.error}"
            if row.as_of is None or row.recorded is None or row.as_of < row.recorded:
                yield f"{row.metric}: its state is of {row.as_of}, its history of {row.recorded}"
            elif (done := last.get(row.metric)) and row.as_of <= done:
                yield f"{row.metric} was last measured at {row.as_of}, and changed at {done}"

    def _last(self) -> dict[str, datetime]:
        """Return when each metric's files last changed."""
        changed: dict[str, datetime] = {}
        for entry in self.world.sent:
            for name in entry.metrics:
                changed[name] = max(changed.get(name, entry.done), entry.done)
        return changed

    def _critical(self) -> Iterator[str]:
        """Baselines and approval requests match the history, read in its order."""
        requests = {row.metric: row for row in self.rows("SELECT * FROM dims_approval_requests WHERE state = 'open'")}
        readings = self.rows("SELECT * FROM dims_metrics_history WHERE outcome IN ('accepted', 'held') ORDER BY id")
        baseline: dict[str, Any] = {}
        held: dict[str, Any] = {}
        for row in readings:
            known = baseline.get(row.metric)
            if row.baseline != known:
                yield f"{row.metric} was judged against {row.baseline} in run {row.run_id}; its baseline was {known}"
            drift = abs(row.value - known) / known * 100 if known else 0
            if row.metric.endswith(".bytes") and row.outcome == "accepted" and drift >= APPROVAL_PCT:
                yield f"{row.metric} drifted by {drift:.1f} % in run {row.run_id}, but was not held"
            if row.outcome == "accepted":
                baseline[row.metric] = row.value
                held.pop(row.metric, None)
            else:
                held[row.metric] = row.value
        if {name: row.value for name, row in requests.items()} != held:
            yield f"held values are {held}, but the open requests are {[tuple(row) for row in requests.values()]}"
        for row in self.rows("SELECT metric, baseline FROM dims_metrics"):
            if row.baseline != baseline.get(row.metric):
                yield f"the baseline of {row.metric} is {row.baseline}; the history says {baseline.get(row.metric)}"

    def _runs(self) -> Iterator[str]:
        """No two recorded runs of one source overlap."""
        for row in self.rows(
            "SELECT * FROM (SELECT source, run_id, started_at, lease_epoch, "
            "lag(finished_at) OVER w AS finished, lag(lease_epoch) OVER w AS epoch FROM dims_verification_runs "
            "WHERE status <> 'superseded' WINDOW w AS (PARTITION BY source ORDER BY run_id)) AS r "
            "WHERE started_at < finished OR lease_epoch <= epoch"
        ):
            yield f"two runs of {row.source} at once: {row.run_id} and the one before it"

    def runs(self) -> tuple[int, int, int]:
        """Return the number of runs, of runs that lost their lease, and of failed readings."""
        (row,) = self.rows(
            "SELECT count(*) AS runs, count(*) FILTER (WHERE status = 'superseded') AS lost, "
            "coalesce(sum(failed), 0) AS failed FROM dims_verification_runs"
        )
        return row.runs, row.lost, row.failed

    def quarantined(self) -> set[str]:
        """Return the metrics that were ever quarantined."""
        rows = self.rows("SELECT DISTINCT metric FROM dims_metrics_history WHERE error LIKE 'quarantined:%'")
        return {row.metric for row in rows}

    def delays(self) -> Delays:
        """Return how long events waited at most."""
        served = {
            row.batch_id: row.recorded
            for row in self.rows(
                "SELECT k.batch_id, max((SELECT min(h.recorded_at) FROM dims_metrics_history h "
                "WHERE h.metric = k.metric AND h.generation >= k.generation AND h.method <> 'failed' "
                "AND h.outcome IN ('accepted', 'held'))) AS recorded FROM dims_ingest_batches k GROUP BY 1"
            )
        }
        done = {entry.event.id: entry.done for entry in (*self.world.sent, *self.world.unsure)}
        stored = self.rows("SELECT event_id, received_at, batch_id FROM dims_event_log")
        return Delays(
            max((row.received_at - done[row.event_id]).total_seconds() for row in stored),
            max((served[row.batch_id] - done[row.event_id]).total_seconds() for row in stored),
        )
