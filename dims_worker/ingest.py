"""Events into PostgreSQL, once each, and the metrics they touch marked as due, in one transaction."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import socket
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, cast

from redis import Redis
from redis.exceptions import ResponseError
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError

from dims_worker.config import Config, SourceMetric
from dims_worker.errors import EventError
from dims_worker.events import STREAM, Event
from dims_worker.plan import Plan, Planner
from dims_worker.store import states
from dims_worker.store.engine import transaction
from dims_worker.store.events import insert_events, next_mark, raise_generations

log = logging.getLogger(__name__)

GROUP = "dims"
BATCH = 1000
"""Events in one transaction."""
IDLE_MS = 30_000
"""An entry that its consumer has not acknowledged for this long is another's."""
KEPT = 2048
"""Characters that are kept of a rejected payload."""

REFUSALS = ("22", "23", "54")
"""Classes of SQLSTATE that speak of the data: not representable, against a constraint, beyond a limit."""

Entry = tuple[bytes, dict[bytes, bytes] | None]


@dataclass(frozen=True, slots=True)
class Received:
    """An envelope as it came: the stream entry's id ('' where it came by no stream) and its text."""

    stream_id: str
    payload: bytes


@dataclass(slots=True)
class Ingested:
    """What became of a batch: `sources` have metrics due now."""

    stored: int = 0
    known: int = 0
    rejected: int = 0
    unmatched: int = 0
    sources: set[str] = field(default_factory=set)
    generations: dict[str, int] = field(default_factory=dict)

    def add(self, other: Ingested) -> None:
        self.stored += other.stored
        self.known += other.known
        self.rejected += other.rejected
        self.unmatched += other.unmatched
        self.sources |= other.sources
        self.generations |= other.generations


@dataclass(slots=True)
class _Row:
    """A row of the event log, before it is inserted."""

    stream_id: str | None
    digest: str
    mark_id: int
    outcome: str = "rejected"
    producer: str | None = None
    event_id: str | None = None
    type: str | None = None
    subject: str | None = None
    event_time: Any = None
    reason: str | None = None
    data: Any = None
    payload: str | None = None
    rules: list[str] = field(default_factory=list)
    metrics: list[str] = field(default_factory=list)

    def columns(self) -> dict[str, Any]:
        """By name, nothing copied: `asdict` copies what an event holds, to the last value."""
        return {name: getattr(self, name) for name in _COLUMNS}


_COLUMNS = tuple(column.name for column in fields(_Row))


def register(connection: Connection, config: Config) -> None:
    """Give every configured metric its row. A new one is due at once; a disabled or derived one, or a
    workflow, is not."""
    workflows = (name for name in config.scans if name not in config.sources)
    states.register(
        connection,
        (
            {
                "metric": name,
                "source": config.source_of(name),
                "definition": config.definition(name),
                "requested_gen": int(
                    isinstance(config.metric_of(name), SourceMetric) and config.metric_of(name).enabled
                ),
            }
            for name in (*config.metrics, *workflows)
        ),
    )


def store(connection: Connection, planner: Planner, received: Sequence[Received]) -> Ingested:
    """Store a batch of envelopes and mark what they concern. Never raises for what an envelope holds.

    A known event changes nothing; one that cannot be taken is stored as rejected, with the reason.
    """
    mark_id = next_mark(connection)
    rows = [_row(planner, one, mark_id) for one in received]
    inserted = insert_events(connection, [row.columns() for row in rows])
    result = Ingested()
    concerned: set[str] = set()
    for row in rows:
        key = (row.stream_id or "", row.producer or "", row.event_id or "", row.digest)
        if key not in inserted:
            result.known += 1
            continue
        inserted.discard(key)  # twice in one batch counts once
        result.stored += row.outcome != "rejected"
        result.rejected += row.outcome == "rejected"
        result.unmatched += row.outcome == "unmatched"
        concerned.update(row.metrics)
    if concerned:
        result.generations = _raise(connection, planner.config, sorted(concerned), mark_id)
    result.sources = {source for name in concerned if (source := planner.config.source_of(name))}
    return result


def _raise(connection: Connection, config: Config, names: Sequence[str], mark_id: int) -> dict[str, int]:
    known = states.read(connection, names)
    if len(known) < len(names):  # metrics that were configured since the last start
        register(connection, config)
    return raise_generations(connection, names, mark_id)


def _row(planner: Planner, received: Received, mark_id: int) -> _Row:
    try:
        event = Event.from_json(received.payload)
        plan = planner.plan(event)
    except Exception as error:
        if not isinstance(error, EventError):
            log.exception("an event could not be planned")
        reason = str(error) if isinstance(error, EventError) else f"internal error: {error!r}"
        return _rejected(received, mark_id, reason)
    return _planned(event, plan, received.stream_id, mark_id)


def _rejected(received: Received, mark_id: int, reason: str) -> _Row:
    text = received.payload[: KEPT * 4].decode("utf-8", "backslashreplace").replace("\0", "\\x00")
    digest = hashlib.sha256(received.payload).hexdigest()
    return _Row(received.stream_id or None, digest, mark_id, reason=reason[:KEPT], payload=text[:KEPT])


def _planned(event: Event, plan: Plan, stream_id: str, mark_id: int) -> _Row:
    return _Row(
        stream_id=stream_id or None,
        digest=_digest(event),
        mark_id=mark_id,
        outcome="planned" if plan.rules else "unmatched",
        producer=event.producer,
        event_id=event.id,
        type=event.type,
        subject=event.subject,
        event_time=event.time,
        data=dict(event.data),
        rules=list(plan.rules),
        metrics=list(plan.metrics),
    )


def _digest(event: Event) -> str:
    """Of who says what, however the envelope was written: (producer, id) with another payload is another digest.

    A hash, because an index takes no row that is longer than a third of a page.
    """
    said = [event.producer, event.id, event.type, event.subject, event.time.isoformat(), event.data]
    return hashlib.sha256(json.dumps(said, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


# --- from the stream --------------------------------------------------------------------------------


def consumer() -> str:
    """This process's name in the consumer group: what it read and did not finish is its own to finish."""
    return f"{socket.gethostname()}:{os.getpid()}"


def drain(redis: Redis, engine: Engine, planner: Planner) -> Ingested:
    """Store everything that waits in the stream, `BATCH` at a time; acknowledge and delete after the commit.

    Raises redis's ConnectionError or DatabaseUnreachable; what was read stays ours and is read again.
    """
    total = Ingested()
    for entries in _batches(redis):
        # An entry without any field was deleted by somebody else after it was handed out (redis-py: {})
        batch = [Received(key.decode(), fields.get(b"event", b"")) for key, fields in entries if fields]
        total.add(_store_all(engine, planner, batch))
        keys = [key for key, _ in entries]
        with redis.pipeline(transaction=True) as pipe:
            pipe.xack(STREAM, GROUP, *keys)
            pipe.xdel(STREAM, *keys)
            pipe.execute()
    return total


def _store_all(engine: Engine, planner: Planner, batch: Sequence[Received]) -> Ingested:
    """Store a batch; where the database itself refuses what one envelope holds, that one is rejected alone."""
    try:
        with transaction(engine) as connection:
            return store(connection, planner, batch)
    except DBAPIError as error:
        code = str(getattr(error.orig, "pgcode", None) or "")
        if not code.startswith(REFUSALS):
            raise  # the database's trouble, not the envelope's: tried again
        reason = f"the database refuses it: {str(error.orig).splitlines()[0]}"
    result = Ingested()
    for one in batch:
        if len(batch) > 1:
            result.add(_store_all(engine, planner, [one]))
            continue
        log.error("an event is rejected: %s", reason)
        with transaction(engine) as connection:
            row = _rejected(one, next_mark(connection), reason)
            result.rejected += len(insert_events(connection, [row.columns()]))
    return result


def _batches(redis: Redis) -> Iterator[list[Entry]]:
    """What is ours and unfinished, then what dead consumers left, then what is new."""
    ensure_group(redis)
    while entries := _read(redis, "0"):
        yield entries
    while entries := _orphans(redis):
        yield entries
    while entries := _read(redis, ">"):
        yield entries


def _read(redis: Redis, start: str) -> list[Entry]:
    answer = cast(Any, redis.xreadgroup(GROUP, consumer(), {STREAM: start}, count=BATCH))
    if not answer:
        return []
    streams = answer.items() if isinstance(answer, dict) else answer
    (_, entries), *_ = streams
    return _flat(entries)


def _orphans(redis: Redis) -> list[Entry]:
    answer = cast(Any, redis.xautoclaim(STREAM, GROUP, consumer(), IDLE_MS, "0-0", count=BATCH))
    return _flat(answer[1])


def _flat(entries: Any) -> list[Entry]:
    """redis-py wraps the entries of one stream in a list of its own under RESP 3."""
    if len(entries) == 1 and isinstance(entries[0], list):
        entries = entries[0]
    return [(key, fields) for key, fields in entries]


def ensure_group(redis: Redis) -> None:
    """The consumer group, made at 0: what was sent before it existed is read too."""
    try:
        redis.xgroup_create(STREAM, GROUP, id="0", mkstream=True)
    except ResponseError as error:
        if "BUSYGROUP" not in str(error):
            raise
