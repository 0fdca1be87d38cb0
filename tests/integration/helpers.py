"""Helpers for tests on a real database: call ingest, claim and record one by one, in the order of the test."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Engine, Row, text

from dims_worker.config import Config
from dims_worker.domain.plan import Planner
from dims_worker.domain.run import Run, RunReading
from dims_worker.events import VERIFY_REQUESTED, Event
from dims_worker.pipeline.ingest import IngestResult, ReceivedEnvelope, register_config, store_events
from dims_worker.pipeline.record import Measurement, record_run
from dims_worker.probes.base import Reading
from dims_worker.store import approval_requests, leases, metric_states
from dims_worker.store.approval_requests import ApprovalRequest
from dims_worker.store.engine import clock, transaction
from dims_worker.store.leases import Claim
from dims_worker.store.metric_states import MetricState
from tests.conftest import wait_for

NOW = datetime(2026, 11, 22, 9, tzinfo=UTC)
LEASE = timedelta(seconds=60)

CONFIG = """
sources:
  one: {type: files, path: one}
  two: {type: files, path: two}
metrics:
  m:
    a: {source: one, measure: count}
    b: {source: two, measure: count}
    c: {source: one, measure: count, critical: true}
    e: {source: two, measure: count}
    sum: {derive: "m.a + m.b"}
    ratio: {derive: "m.sum / m.e"}
rules:
  scraped: {on: dims.scraper.complete, metrics: ["m.*"]}
  changed: {on: dims.files.changed}
"""

_ids = itertools.count(1)


class Down(str):
    """Replaces a value: the reading failed, for this reason."""

    __slots__ = ()


def event(kind: str, *, id: str | None = None, producer: str = "test", **data: Any) -> Event:
    return Event.new(kind, producer, now=NOW, data=data, id=id or f"event-{next(_ids)}")


def request(*names: str, id: str | None = None) -> Event:
    """Return an event that concerns exactly these metrics."""
    return event(VERIFY_REQUESTED, id=id, metrics=list(names))


def received(*events: Event) -> list[ReceivedEnvelope]:
    return [ReceivedEnvelope(f"1-{next(_ids)}", item.to_json().encode()) for item in events]


@dataclass
class Flow:
    """A configuration on its own database. With `first=False`, a worker that starts later."""

    engine: Engine
    config: Config
    first: bool = True
    planner: Planner = field(init=False)

    def __post_init__(self) -> None:
        self.planner = Planner(self.config)
        with transaction(self.engine) as connection:
            register_config(connection, self.config)
            if self.first:
                connection.execute(text("UPDATE dims_metrics SET requested_gen = 0"))  # at first, nothing is due

    def store(self, *events: Event) -> IngestResult:
        with transaction(self.engine) as connection:
            return store_events(connection, self.planner, received(*events))

    def ask(self, *names: str) -> IngestResult:
        return self.store(request(*names))

    def claim(self, source: str = "one", *, at_once: bool = True, lease: timedelta = LEASE) -> Claim | None:
        with transaction(self.engine) as connection:
            definitions = {name: self.config.definitions[name] for name in self.config.metrics_by_source[source]}
            return leases.claim_source(connection, source, definitions, "test", lease, at_once=at_once)

    def claimed(self, *names: str) -> Claim:
        """Request metrics of one source, and claim the source."""
        self.ask(*names)
        (source,) = {self.state(name).source for name in names}
        claim = self.claim(str(source))
        assert claim is not None
        return claim

    def measured(self, values: Mapping[str, Any], claim: Claim | None, as_of: datetime | None = None) -> Measurement:
        return Measurement(
            readings={name: reading(name, value, self._unit(name)) for name, value in values.items()},
            as_of=as_of or (claim.as_of if claim else self.clock()),
            trigger="event" if claim else "verify",
            worker="test",
            source=claim.source if claim else None,
            claim=claim,
        )

    def _unit(self, name: str) -> str:
        return self.config.metric_of(name).shown_unit if name in self.config.definitions else "files"

    def record(self, claim: Claim | None, values: Mapping[str, Any], as_of: datetime | None = None) -> Run:
        """Record readings under a claim. Without a claim, record a check."""
        with transaction(self.engine) as connection:
            return record_run(connection, self.config, self.measured(values, claim, as_of))

    def serve(self, **values: Any) -> dict[str, RunReading]:
        """Request metrics of the category m, claim their source, record values. Return the readings."""
        named = {f"m.{name}": value for name, value in values.items()}
        run = self.record(self.claimed(*named), named)
        return {item.metric: item for item in run.items}

    def look(self, as_of: datetime | None = None, **values: Any) -> dict[str, RunReading]:
        run = self.record(None, {f"m.{name}": value for name, value in values.items()}, as_of)
        return {item.metric: item for item in run.items}

    def state(self, name: str) -> MetricState:
        with transaction(self.engine) as connection:
            return metric_states.read_states(connection, [name])[name]

    def clock(self) -> datetime:
        with transaction(self.engine) as connection:
            return clock(connection)

    def open(self, name: str) -> ApprovalRequest | None:
        with transaction(self.engine) as connection:
            return approval_requests.open_requests(connection, [name]).get(name)

    def states_of_requests(self) -> list[str]:
        return [row.state for row in self.rows("SELECT state FROM dims_approval_requests ORDER BY id")]

    def rows(self, query: str, **parameters: Any) -> Sequence[Row[Any]]:
        with transaction(self.engine) as connection:
            return connection.execute(text(query), parameters).fetchall()

    def scalar(self, query: str, **parameters: Any) -> Any:
        return self.rows(query, **parameters)[0][0]

    def do(self, statement: str, **parameters: Any) -> None:
        with transaction(self.engine) as connection:
            connection.execute(text(statement), parameters)

    def blocked(self, number: int = 1) -> None:
        """Wait until this many database sessions wait for a lock."""
        query = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        wait_for(lambda: self.scalar(query) >= number, timeout=10, period=0.01)


def reading(name: str, value: Any, unit: str = "files") -> Reading:
    if isinstance(value, Down):
        return Reading.failed(name, unit, str(value))
    return Reading(name, value, unit, "exact")


class Threads:
    """Calls that run in threads beside the test. The fixture waits for all of them."""

    def __init__(self) -> None:
        self.pool = ThreadPoolExecutor(8)

    def __call__(self, function: Callable[..., Any], *arguments: Any) -> Future[Any]:
        return self.pool.submit(function, *arguments)


def outcome(future: Future[Any]) -> Any:
    """Return the result of a call, or its exception."""
    error = future.exception(timeout=20)
    return error if error is not None else future.result()
