"""Who says what is wrong in the end; nothing, where nothing was lost."""

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
"""From this drift on a critical metric's value is held (DESIGN, deciding)."""


@dataclass(frozen=True, slots=True)
class Waits:
    """The longest that an event waited, in seconds, from what it tells of until it was stored, and was served."""

    stored: float
    served: float


class Judge:
    """Asks the database and the broker, in words of its own."""

    def __init__(self, world: World, engine: Engine, redis: Redis) -> None:
        self.world, self.engine, self.redis = world, engine, redis

    def rows(self, sql: str) -> Sequence[Row[Any]]:
        with self.engine.connect() as connection:
            return connection.execute(text(sql)).fetchall()

    def unsettled(self) -> list[str]:
        """What still waits somewhere."""
        try:
            waiting = {
                "entries in the stream": self.redis.xlen(STREAM),
                "entries in somebody's hands": self.redis.xpending(STREAM, "dims")["pending"],
                "metrics due": len(self.rows("SELECT 1 FROM dims_metrics WHERE requested_gen > measured_gen")),
                "leases": len(self.rows("SELECT 1 FROM dims_sources WHERE lease_until IS NOT NULL")),
            }
        except (SQLAlchemyError, RedisError) as error:
            return [str(error)]
        return [f"{number} {what}" for what, number in waiting.items() if number]

    def problems(self) -> list[str]:
        return [*self._events(), *self._batches(), *self._metrics(), *self._critical(), *self._runs()]

    def _events(self) -> Iterator[str]:
        """Each event is stored exactly once, and concerned what it should."""
        told = {one.event.id: one for one in self.world.told}
        stored = self.rows("SELECT event_id, outcome, reason, metrics FROM dims_event_log")
        numbers = Counter(row.event_id for row in stored)
        lost = sorted(told.keys() - numbers.keys())
        if lost:
            yield f"{len(lost)} events are not stored, such as {lost[:5]}"
        if twice := [name for name, number in numbers.items() if number > 1]:
            yield f"{len(twice)} events are stored more than once, such as {twice[:5]}"
        for row in stored:
            if row.event_id not in told or row.outcome != "planned":
                yield f"an event that nobody sent so: {row}"
            elif set(row.metrics) != told[row.event_id].metrics:
                yield f"event {row.event_id} concerns {row.metrics}, not {sorted(told[row.event_id].metrics)}"

    def _batches(self) -> Iterator[str]:
        """Each ingest batch has been reached by a good reading, and each generation was requested by a batch."""
        for row in self.rows(
            "SELECT k.metric, count(*) AS batches FROM dims_ingest_batches k WHERE NOT EXISTS (SELECT 1 "
            "FROM dims_metrics_history h WHERE h.metric = k.metric AND h.generation >= k.generation "
            "AND h.method <> 'failed' AND h.outcome IN ('accepted', 'held')) GROUP BY 1"
        ):
            yield f"{row.batches} batches of {row.metric} are served by no reading"
        for row in self.rows(
            "SELECT m.metric, m.requested_gen, count(k.batch_id) AS batches FROM dims_metrics m "
            "LEFT JOIN dims_ingest_batches k USING (metric) WHERE m.source IS NOT NULL "
            "GROUP BY 1, 2 HAVING m.requested_gen <> count(k.batch_id) + 1"
        ):
            yield f"{row.metric} was asked for {row.requested_gen} times, by {row.batches} batches and its birth"

    def _metrics(self) -> Iterator[str]:
        """Each metric's value is the truth, and was begun to be measured after the last change that concerns it."""
        truth, last = self.world.truth(), self._last()
        rows = self.rows(
            "SELECT m.*, (SELECT max(h.as_of) FROM dims_metrics_history h WHERE h.metric = m.metric "
            "AND h.method <> 'failed' AND h.outcome IN ('accepted', 'held')) AS recorded FROM dims_metrics m"
        )
        if {row.metric for row in rows} != truth.keys():
            yield f"the metrics are {sorted(row.metric for row in rows)}"
        for row in rows:
            if row.value != truth[row.metric]:
                yield f"{row.metric} is {truth[row.metric]}, and was recorded as {row.value} as of {row.as_of}"
            if row.error is not None or row.failures:
                yield f"{row.metric} has {row.failures} failures: {row.error}"
            if row.as_of is None or row.as_of != row.recorded:
                yield f"{row.metric}: its state is as of {row.as_of}, its history of {row.recorded}"
            elif (done := last.get(row.metric)) and row.as_of <= done:
                yield f"{row.metric} was last measured at {row.as_of}, and changed at {done}"

    def _last(self) -> dict[str, datetime]:
        """When what each metric counts was last changed."""
        found: dict[str, datetime] = {}
        for one in self.world.told:
            for name in one.metrics:
                found[name] = max(found.get(name, one.done), one.done)
        return found

    def _critical(self) -> Iterator[str]:
        """Baselines and requests follow from the history, read in its order."""
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
                yield f"{row.metric} drifted by {drift:.1f} % in run {row.run_id}, and nobody was asked"
            if row.outcome == "accepted":
                baseline[row.metric] = row.value
                held.pop(row.metric, None)
            else:
                held[row.metric] = row.value
        if {name: row.value for name, row in requests.items()} != held:
            yield f"held are {held}, and asked is {[tuple(row) for row in requests.values()]}"
        for row in self.rows("SELECT metric, baseline FROM dims_metrics"):
            if row.baseline != baseline.get(row.metric):
                yield f"the baseline of {row.metric} is {row.baseline}; the history says {baseline.get(row.metric)}"

    def _runs(self) -> Iterator[str]:
        """Of one source no two runs that count went on at once."""
        for row in self.rows(
            "SELECT * FROM (SELECT source, run_id, started_at, lease_epoch, "
            "lag(finished_at) OVER w AS finished, lag(lease_epoch) OVER w AS epoch FROM dims_verification_runs "
            "WHERE status <> 'superseded' WINDOW w AS (PARTITION BY source ORDER BY run_id)) AS r "
            "WHERE started_at < finished OR lease_epoch <= epoch"
        ):
            yield f"two runs of {row.source} at once: {row.run_id} and the one before it"

    def runs(self) -> tuple[int, int, int]:
        """All runs, those whose lease was lost, and the readings that failed."""
        (row,) = self.rows(
            "SELECT count(*) AS runs, count(*) FILTER (WHERE status = 'superseded') AS lost, "
            "coalesce(sum(failed), 0) AS failed FROM dims_verification_runs"
        )
        return row.runs, row.lost, row.failed

    def waits(self) -> Waits:
        """How long events waited."""
        served = {
            row.batch_id: row.recorded
            for row in self.rows(
                "SELECT k.batch_id, max((SELECT min(h.recorded_at) FROM dims_metrics_history h "
                "WHERE h.metric = k.metric AND h.generation >= k.generation AND h.method <> 'failed' "
                "AND h.outcome IN ('accepted', 'held'))) AS recorded FROM dims_ingest_batches k GROUP BY 1"
            )
        }
        done = {one.event.id: one.done for one in self.world.told}
        stored = self.rows("SELECT event_id, received_at, batch_id FROM dims_event_log")
        return Waits(
            max((row.received_at - done[row.event_id]).total_seconds() for row in stored),
            max((served[row.batch_id] - done[row.event_id]).total_seconds() for row in stored),
        )
