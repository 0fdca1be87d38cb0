"""Store events in PostgreSQL, each once, and mark the metrics that they concern as due, in one transaction."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime
from typing import Any

from redis import Redis
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError

from dims_worker.broker import event_stream
from dims_worker.config import Config, SourceMetric
from dims_worker.domain.plan import Plan, Planner
from dims_worker.errors import EventError
from dims_worker.events import FIELD, SCHEDULE_TICK, Event
from dims_worker.formatting import pluralize, shell_quote
from dims_worker.store import approval_requests, metric_states, schedules
from dims_worker.store.engine import transaction
from dims_worker.store.events import insert_events, next_batch, next_batch_for, raise_generations

log = logging.getLogger(__name__)

MAX_PAYLOAD = 16_384
"""The most characters that are kept of a rejected payload."""
MAX_REASON = 2048
"""The most characters that are kept of the reason."""

DATA_ERRORS = ("22", "23", "54")
"""Classes of SQLSTATE about the data: it cannot be represented, breaks a constraint, or exceeds a limit."""


@dataclass(frozen=True, slots=True)
class ReceivedEnvelope:
    """An envelope as received: the id of its stream entry ('' without a stream) and its text."""

    stream_id: str
    payload: bytes


@dataclass(slots=True)
class PendingSource:
    """Why metrics of a source are due: how many events, by which rules, and the last event."""

    events: int = 0
    rules: set[str] = field(default_factory=set)
    last: str = ""

    def add(self, other: PendingSource) -> None:
        self.events += other.events
        self.rules |= other.rules
        self.last = other.last

    @property
    def details_command(self) -> str:
        """The command that shows the last event."""
        return f"dims events show {shell_quote(self.last)}"

    def __str__(self) -> str:
        return f"{', '.join(sorted(self.rules))} · {pluralize(self.events, 'event')}"


@dataclass(slots=True)
class IngestResult:
    """What became of a batch. `sources` have metrics that are due now, and why."""

    stored: int = 0
    known: int = 0
    rejected: int = 0
    unmatched: int = 0
    sources: dict[str, PendingSource] = field(default_factory=dict)
    generations: dict[str, int] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.stored:,} stored, {self.known:,} known, {self.rejected:,} rejected, {self.unmatched:,} unmatched"

    def add(self, other: IngestResult) -> None:
        self.stored += other.stored
        self.known += other.known
        self.rejected += other.rejected
        self.unmatched += other.unmatched
        for source, pending in other.sources.items():
            self.sources.setdefault(source, PendingSource()).add(pending)
        self.generations |= other.generations


@dataclass(slots=True)
class _LogRow:
    """A row of the event log, before it is inserted."""

    stream_id: str | None
    digest: str
    outcome: str = "rejected"
    producer: str | None = None
    event_id: str | None = None
    type: str | None = None
    subject: str | None = None
    event_time: datetime | None = None
    reason: str | None = None
    data: Any = None
    payload: str | None = None
    rules: tuple[str, ...] = ()
    metrics: tuple[str, ...] = ()
    compared: tuple[str, ...] = ()
    """Other metrics that become due. The log does not name them."""

    def columns(self) -> dict[str, Any]:
        """Return the fields by name, without the deep copy that `asdict` makes of an event's data."""
        return {name: getattr(self, name) for name in _COLUMNS}


_COLUMNS = tuple(column.name for column in fields(_LogRow) if column.name != "compared")


def register_config(connection: Connection, config: Config, *, whole: bool = True) -> None:
    """Update the rows of metrics and schedules to the configuration. Unless `whole`, only add missing rows, and keep
    what the configuration of another worker says.

    A new metric is due, and so is one whose definition changed. A disabled metric, a derived metric and a workflow are
    not due, but the inputs of a new derived metric are. A metric that is no longer configured is retired. An open
    approval request of a changed or retired metric is withdrawn.
    """
    rows = [
        {
            "metric": name,
            "source": config.source_of(name),
            "definition": definition,
            "requested_gen": int(isinstance(config.metric_of(name), SourceMetric) and config.metric_of(name).enabled),
        }
        for name, definition in config.definitions.items()
    ]
    if not whole:
        known = metric_states.read_states(connection, config.definitions)
        metric_states.register_metrics(connection, [row for row in rows if row["metric"] not in known])
        return
    changed = metric_states.register_metrics(connection, rows)
    retired = metric_states.retire_others(connection, [str(row["metric"]) for row in rows])
    for request in approval_requests.open_requests(connection, {*changed, *retired}).values():
        approval_requests.close_request(connection, request.id, "withdrawn")
    due = {str(row["metric"]) for row in rows if row["requested_gen"]} & set(changed)
    if inputs := _inputs(config, changed, due):
        raise_generations(connection, inputs, next_batch(connection))
    awaited = [name for name, rule in config.rules.items() if rule.schedule or rule.silent_after]
    schedules.register_schedules(connection, awaited)


def _inputs(config: Config, changed: Sequence[str], due: set[str]) -> list[str]:
    """Return the inputs of changed derived metrics of which no input is due: recording any input computes them."""
    found: set[str] = set()
    for name in config.derived.keys() & set(changed):
        inputs = {read for read in config.with_inputs([name]) if config.source_of(read)}
        if not inputs & due:
            found |= inputs
    return sorted(found)


def store_events(connection: Connection, planner: Planner, received: Sequence[ReceivedEnvelope]) -> IngestResult:
    """Store a batch of envelopes and mark the metrics they concern as due. Never raises for a bad envelope.

    A known event changes nothing. An event that cannot be ingested is stored as rejected, with the reason.
    """
    rows = [_row(planner, envelope) for envelope in received]
    batch_id, registered = next_batch_for(connection, sorted({*_concerned(rows), *_compared(rows)}))
    if not registered:  # some are new in the configuration
        register_config(connection, planner.config, whole=False)
    inserted = insert_events(connection, [{**row.columns(), "batch_id": batch_id} for row in rows])
    result = IngestResult()
    new = [row for row in rows if _is_new(row, inserted)]
    for row in new:
        result.stored += row.outcome != "rejected"
        result.rejected += row.outcome == "rejected"
        result.unmatched += row.outcome == "unmatched"
    result.known = len(rows) - len(new)
    names, compared = _concerned(new), _compared(new)
    if names or compared:
        result.generations = raise_generations(connection, names, batch_id, compared)
    result.sources = _pending_sources(planner.config, new)
    ticks = {r.rules[0]: r.event_time for r in new if r.type == SCHEDULE_TICK and r.rules and r.event_time}
    if ticks:
        schedules.record_ticks(connection, ticks)
    rules = planner.config.rules
    if heard := {name for row in new for name in row.rules if name in rules and rules[name].silent_after}:
        schedules.record_events(connection, heard)
    return result


def _is_new(row: _LogRow, inserted: set[tuple[str, str, str, str]]) -> bool:
    """Return whether the row was inserted. The same event twice in one batch counts once."""
    key = (row.stream_id or "", row.producer or "", row.event_id or "", row.digest)
    if key not in inserted:
        return False
    inserted.discard(key)
    return True


def _pending_sources(config: Config, rows: Sequence[_LogRow]) -> dict[str, PendingSource]:
    """Return what is due by source. Many rows concern the same metrics, so each set is resolved once."""
    sources_of: dict[tuple[tuple[str, ...], tuple[str, ...]], set[str]] = {}
    pending: dict[str, PendingSource] = {}
    for row in rows:
        key = row.metrics, row.compared
        if key not in sources_of:
            names = (*row.metrics, *row.compared)
            sources_of[key] = {source for name in names if (source := config.source_of(name))}
        for source in sources_of[key]:
            event = PendingSource(1, set(row.rules), (row.event_id or "")[:12].strip())
            pending.setdefault(source, PendingSource()).add(event)
    return pending


def _concerned(rows: Sequence[_LogRow]) -> list[str]:
    """Return the metrics that the rows concern. Many rows concern the same metrics, so each set is read once."""
    return sorted({name for metrics in {row.metrics for row in rows} for name in metrics})


def _compared(rows: Sequence[_LogRow]) -> list[str]:
    """Return the metrics that the rows make due without naming them."""
    return sorted({name for metrics in {row.compared for row in rows} for name in metrics})


def prepare_rows(planner: Planner, received: Sequence[ReceivedEnvelope]) -> list[dict[str, Any]]:
    """Return the rows of the event log for a batch, as `store_events` inserts them, without their batch id."""
    return [_row(planner, envelope).columns() for envelope in received]


def _row(planner: Planner, received: ReceivedEnvelope) -> _LogRow:
    try:
        if not received.payload:
            raise EventError(f"the entry has no field `{FIELD}`, or an empty one")
        event = Event.from_json(received.payload)
        plan = planner.plan(event)
    except Exception as error:
        if not isinstance(error, EventError):
            log.exception("planning an event failed; DIMS stores it as rejected")
        reason = str(error) if isinstance(error, EventError) else f"internal error: {error!r}"
        return _rejected(received, reason)
    return _planned(event, plan, received.stream_id)


def _rejected(received: ReceivedEnvelope, reason: str) -> _LogRow:
    text = received.payload[: MAX_PAYLOAD * 4].decode("utf-8", "backslashreplace").replace("\0", "\\x00")
    digest = hashlib.sha256(received.payload).hexdigest()
    return _LogRow(received.stream_id or None, digest, reason=reason[:MAX_REASON], payload=text[:MAX_PAYLOAD])


def _planned(event: Event, plan: Plan, stream_id: str) -> _LogRow:
    return _LogRow(
        stream_id=stream_id or None,
        digest=_digest(event),
        outcome="planned" if plan.rules else "unmatched",
        producer=event.producer,
        event_id=event.id,
        type=event.type,
        subject=event.subject,
        event_time=event.time,
        data=dict(event.data),
        rules=plan.rules,
        metrics=plan.metrics,
        compared=plan.compared,
    )


def _digest(event: Event) -> str:
    """Return a hash of an event's content that does not depend on how its envelope is written.

    It is a hash because PostgreSQL cannot index a value that is longer than a third of a page.
    """
    content = [event.producer, event.id, event.type, event.subject, event.time.isoformat(), event.data]
    return hashlib.sha256(
        json.dumps(content, sort_keys=True, separators=(",", ":"), check_circular=False).encode()
    ).hexdigest()


def ingest_stream(
    redis: Redis, engine: Engine, planner: Planner, stored: Callable[[], None] = lambda: None
) -> IngestResult:
    """Store everything that waits in the stream, batch by batch. Acknowledge and delete each batch after its commit.

    `stored` is called after each batch.

    Raises redis's ConnectionError or DatabaseUnreachable. Then any consumer may claim what was read but not stored.
    """
    total = IngestResult()
    for entries in event_stream.read_batches(redis, planner.config.settings.orphan):
        total.add(ingest_batch(redis, engine, planner, entries))
        stored()
    return total


def ingest_batch(redis: Redis, engine: Engine, planner: Planner, entries: Sequence[event_stream.Entry]) -> IngestResult:
    """Store a batch of stream entries, then acknowledge and delete it. Raises what `ingest_stream` raises."""
    keys = [key for key, _ in entries]
    # An entry without fields was deleted after it was delivered
    batch = [ReceivedEnvelope(key.decode(), fields.get(FIELD.encode(), b"")) for key, fields in entries if fields]
    try:
        ingested = _store_all(engine, planner, batch)
    except Exception:
        event_stream.release_entries(redis, keys, planner.config.settings.orphan)
        raise
    event_stream.acknowledge(redis, keys)
    return ingested


def _store_all(engine: Engine, planner: Planner, batch: Sequence[ReceivedEnvelope]) -> IngestResult:
    """Store a batch. If the database refuses the data of an envelope, reject only that envelope."""
    try:
        with transaction(engine) as connection:
            return store_events(connection, planner, batch)
    except DBAPIError as error:
        code = str(getattr(error.orig, "pgcode", None) or "")
        if not code.startswith(DATA_ERRORS):
            raise  # a problem of the database, not of the envelope: try again later
        reason = f"the database refuses this event: {str(error.orig).splitlines()[0]}"
    result = IngestResult()
    for envelope in batch:
        if len(batch) > 1:
            result.add(_store_all(engine, planner, [envelope]))
            continue
        log.error("DIMS stores an event as rejected: %s", reason)
        with transaction(engine) as connection:
            row = {**_rejected(envelope, reason).columns(), "batch_id": next_batch(connection)}
            result.rejected += len(insert_events(connection, [row]))
    return result
