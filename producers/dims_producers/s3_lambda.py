"""An AWS Lambda that turns the notifications of S3 into events: `dims_producers.s3_lambda.handler`.

Taken are S3's own notifications, its events on EventBridge (see `dims_producers.s3_record`), and either of them
wrapped in messages of SNS or SQS, or of SNS in SQS.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import redis  # noqa: F401 - loaded while the Lambda starts, with a whole processor, and not by its first event

from dims_producers.publish import broker_url, publish
from dims_producers.s3_record import event_of_record, printable
from dims_worker.errors import EventError
from dims_worker.events import Event

log = logging.getLogger(__name__)

_NESTING = 4
"""A message of SQS, in it one of SNS, in it S3's notification, in it a record."""


@dataclass(frozen=True, slots=True)
class BadRecord:
    """A record that is none of S3's, or not whole: why, and the SQS message it came in, if it did."""

    reason: str
    message_id: str | None = None


def handler(event: object, context: object) -> dict[str, Any]:
    """Publish all records of `event` in one round trip. The entry point for AWS. Reads DIMS_BROKER_URL.

    Answers SQS with `{"batchItemFailures": [...]}` (switch ReportBatchItemFailures on), others with
    `{"published": n}`. Raises BrokerUnreachable, so that AWS tries again: for a batch of SQS too, since an
    answer that names every message would delete them all where ReportBatchItemFailures is off, and an
    exception keeps them wherever it stands. What had arrived comes again under its id, and is one event.
    Raises EventError, after the good records were published, for a bad one that is in no message to name.
    """
    events, bad = events_of(event, datetime.now(UTC))
    if events:
        publish(events, broker_url(os.environ, None))
    for record in bad:
        log.error("a record was not published: %s", record.reason)
    nameless = [record.reason for record in bad if not record.message_id]
    if nameless:
        raise EventError(f"{len(nameless)} of the records cannot be read, such as: {nameless[0]}")
    if any(_source(record) == "aws:sqs" for record in _invocation(event)):
        failed = sorted({record.message_id for record in bad if record.message_id})
        return {"batchItemFailures": [{"itemIdentifier": message} for message in failed]}
    return {"published": len(events)}


def events_of(notification: object, now: datetime) -> tuple[list[Event], list[BadRecord]]:
    """The events of an invocation, in its order, and the records that cannot be read. Pure, and never raises.

    `now` is the time of an event whose record has none. S3's test message is neither.
    """
    events: list[Event] = []
    bad: list[BadRecord] = []
    for outer in _invocation(notification):
        for record in _unwrap(outer, _NESTING):
            try:
                if isinstance(record, EventError):
                    raise record
                events.append(event_of_record(record, now))
            except EventError as error:
                bad.append(BadRecord(str(error), _message_id(outer)))
    return events, bad


def _invocation(notification: object) -> list[Any]:
    """What AWS hands over: its records, or itself. Only here is a message of SQS one that can be answered."""
    records = notification.get("Records") if isinstance(notification, Mapping) else None
    return records if isinstance(records, list) else [notification]


def _message_id(record: object) -> str | None:
    found = record.get("messageId") if isinstance(record, Mapping) and _source(record) == "aws:sqs" else None
    return found if isinstance(found, str) and found else None


def _unwrap(given: object, depth: int) -> Iterator[Mapping[str, Any] | EventError]:
    """The records of S3 and of EventBridge within; an error in the place of what holds none."""
    if not isinstance(given, Mapping) or not depth:
        yield EventError(f"not a notification of S3: {printable(given)}")
    elif isinstance(given.get("Records"), list):
        for record in given["Records"]:
            yield from _unwrap(record, depth - 1)
    elif _source(given) in ("aws:sqs", "aws:sns") or "Message" in given:
        try:
            inner = json.loads(_message(given))
        except (TypeError, ValueError, RecursionError):
            yield EventError(f"a message that is not JSON: {printable(given)}")
        else:
            yield from _unwrap(inner, depth - 1)
    elif "detail" in given or "s3" in given:
        yield given
    elif given.get("Event") != "s3:TestEvent":
        yield EventError(f"not a notification of S3: {printable(given)}")


def _message(given: Mapping[str, Any]) -> Any:
    """The text within a message: of SQS, of SNS to a Lambda, of SNS to anything else."""
    if _source(given) == "aws:sqs":
        return given.get("body")
    inner = given.get("Sns") if _source(given) == "aws:sns" else given
    return inner.get("Message") if isinstance(inner, Mapping) else None


def _source(record: object) -> object:
    return record.get("eventSource", record.get("EventSource")) if isinstance(record, Mapping) else None
