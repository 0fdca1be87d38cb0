"""An AWS Lambda that turns the notifications of S3 into events: `dims_producers.s3_lambda.handler`.

It accepts S3's own notifications and its events on EventBridge (see `dims_producers.s3_record`). Both may come
directly, in messages of SNS or SQS, or in messages of SNS in SQS.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import redis  # noqa: F401 - a Lambda starts with a whole processor, so import it now and not for the first event

from dims_producers.publish import broker_url, publish
from dims_producers.s3_record import event_of_record, printable
from dims_worker.errors import EventError
from dims_worker.events import Event

log = logging.getLogger(__name__)

_NESTING = 4
"""The deepest nesting: a message of SQS with one of SNS, which holds S3's notification, which holds a record."""


@dataclass(frozen=True, slots=True)
class BadRecord:
    """A record that is not S3's or not complete: the reason, and the id of its SQS message, if there is one."""

    reason: str
    message_id: str | None = None


def handler(event: object, context: object) -> dict[str, Any]:
    """Publish all records of `event` in one round trip. This is the entry point for AWS. It reads DIMS_BROKER_URL.

    It returns `{"batchItemFailures": [...]}` to SQS (turn on ReportBatchItemFailures), else `{"published": n}`.

    Raises:
        BrokerUnreachable: AWS then tries again. This is right for SQS too: an exception always keeps the messages, but
        a
            list of all of them deletes them if ReportBatchItemFailures is off. Events that had arrived arrive again
            with the same id, and DIMS stores each id once.
        EventError: a bad record came without an SQS message. The good records were published.
    """
    events, bad = events_of(event, datetime.now(UTC))
    if events:
        publish(events, broker_url(os.environ, None))
    for record in bad:
        log.error("cannot publish a record: %s", record.reason)
    lost = [record.reason for record in bad if not record.message_id]
    if lost:
        raise EventError(f"cannot read {len(lost)} of the records. The first one: {lost[0]}")
    if any(_source(record) == "aws:sqs" for record in _invocation(event)):
        failed = sorted({record.message_id for record in bad if record.message_id})
        return {"batchItemFailures": [{"itemIdentifier": message} for message in failed]}
    return {"published": len(events)}


def events_of(notification: object, now: datetime) -> tuple[list[Event], list[BadRecord]]:
    """Return the events of an invocation in their order, and the records that cannot be read. Pure, and never raises.

    `now` is the time of an event whose record has none. S3's test message is ignored.
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
    """Return the outer records. Only an SQS message among these can be named in the answer."""
    records = notification.get("Records") if isinstance(notification, Mapping) else None
    return records if isinstance(records, list) else [notification]


def _message_id(record: object) -> str | None:
    message_id = record.get("messageId") if isinstance(record, Mapping) and _source(record) == "aws:sqs" else None
    return message_id if isinstance(message_id, str) and message_id else None


def _unwrap(value: object, depth: int) -> Iterator[Mapping[str, Any] | EventError]:
    """Yield the records of S3 and EventBridge inside `value`, and an error for each part that holds none."""
    if not isinstance(value, Mapping) or not depth:
        yield EventError(f"not a notification of S3: {printable(value)}")
    elif isinstance(value.get("Records"), list):
        for record in value["Records"]:
            yield from _unwrap(record, depth - 1)
    elif _source(value) in ("aws:sqs", "aws:sns") or "Message" in value:
        try:
            inner = json.loads(_message(value))
        except (TypeError, ValueError, RecursionError):
            yield EventError(f"a message that is not JSON: {printable(value)}")
        else:
            yield from _unwrap(inner, depth - 1)
    elif "detail" in value or "s3" in value:
        yield value
    elif value.get("Event") != "s3:TestEvent":
        yield EventError(f"not a notification of S3: {printable(value)}")


def _message(value: Mapping[str, Any]) -> Any:
    """Return the text inside a message of SQS, of SNS to a Lambda, or of SNS to another receiver."""
    if _source(value) == "aws:sqs":
        return value.get("body")
    inner = value.get("Sns") if _source(value) == "aws:sns" else value
    return inner.get("Message") if isinstance(inner, Mapping) else None


def _source(record: object) -> object:
    return record.get("eventSource", record.get("EventSource")) if isinstance(record, Mapping) else None
