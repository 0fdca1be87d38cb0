"""An AWS Lambda that turns the notifications of S3 into events: `producers.s3_lambda.handler`.

Taken are S3's own notification (https://docs.aws.amazon.com/AmazonS3/latest/userguide/
notification-content-structure.html), its form on EventBridge (ev-events.html there), and either of them
wrapped in messages of SNS or SQS. Events follow the CloudEvents adapter for S3
(https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/adapters/aws-s3.md).
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import unquote_plus

from dims_worker.errors import EventError
from dims_worker.events import S3_PREFIX, Event
from producers.publish import broker_url, publish

log = logging.getLogger(__name__)

_NESTING = 4  # S3 in SNS in SQS is 3

# EventBridge names what happened in two fields; these are the names S3 uses for the same in its own
# notifications, so that one happening told by both ways has one id.
_CREATED = {
    "PutObject": "Put",
    "POST Object": "Post",
    "CopyObject": "Copy",
    "CompleteMultipartUpload": "CompleteMultipartUpload",
}
_DELETED = {"Permanently Deleted": "Delete", "Delete Marker Created": "DeleteMarkerCreated"}
_NAMES = {
    "Object Restore Initiated": "ObjectRestore:Post",
    "Object Restore Completed": "ObjectRestore:Completed",
    "Object Restore Expired": "ObjectRestore:Delete",
    "Object Storage Class Changed": "LifecycleTransition",
    "Object Access Tier Changed": "IntelligentTiering",
    "Object ACL Updated": "ObjectAcl:Put",
    "Object Tags Added": "ObjectTagging:Put",
    "Object Tags Deleted": "ObjectTagging:Delete",
}


@dataclass(frozen=True, slots=True)
class BadRecord:
    """A record that is none of S3's, or not whole: why, and the SQS message it came in, if it did."""

    reason: str
    message_id: str | None = None


def handler(event: Mapping[str, Any], context: object) -> dict[str, Any]:
    """Publish all records of `event` in one round trip. The entry point for AWS.

    Answers SQS with `{"batchItemFailures": [...]}` (switch ReportBatchItemFailures on), others with
    `{"published": n}`. Raises BrokerUnreachable, so that AWS tries again, and EventError, after the good
    records were published, where one cannot be read and is no message of SQS that could be named.
    Reads DIMS_BROKER_URL.
    """
    events, bad = events_of(event, datetime.now(UTC))
    if events:
        publish(events, broker_url(os.environ, None))
    for record in bad:
        log.error("a record was not published: %s", record.reason)
    failed = sorted({record.message_id for record in bad if record.message_id})
    nameless = [record.reason for record in bad if not record.message_id]
    if nameless:
        raise EventError(f"{len(nameless)} of the records cannot be read, such as: {nameless[0]}")
    if any(_kind(record) == "aws:sqs" for record in _records(event)):
        return {"batchItemFailures": [{"itemIdentifier": message} for message in failed]}
    return {"published": len(events)}


def events_of(notification: object, now: datetime) -> tuple[list[Event], list[BadRecord]]:
    """The events of a notification, in its order, and the records that cannot be read. Pure.

    `now` is the time of an event whose record has none. S3's test message is neither.
    """
    events: list[Event] = []
    bad: list[BadRecord] = []
    for record, message_id in _unwrap(notification, None, _NESTING):
        try:
            if isinstance(record, EventError):
                raise record
            events.append(_event(_from_bridge(record) if "detail" in record else record, now))
        except EventError as error:
            bad.append(BadRecord(str(error), message_id))
        except (KeyError, TypeError, AttributeError, ValueError, RecursionError) as error:
            reason = f"{type(error).__name__}: {error}"
            bad.append(BadRecord(f"not a record of S3 ({reason}): {str(record)[:200]}", message_id))
    return events, bad


def _unwrap(
    notification: object, message_id: str | None, depth: int
) -> Iterator[tuple[Mapping[str, Any] | EventError, str | None]]:
    """The records of S3 and EventBridge within a notification, each with the SQS message it came in."""
    try:
        if not isinstance(notification, Mapping) or depth == 0:
            raise EventError(f"not a notification of S3: {str(notification)[:200]}")
        if notification.get("Event") == "s3:TestEvent":
            return
        if "detail" in notification:
            yield notification, message_id
        elif isinstance(notification.get("Message"), str):  # SNS, as SQS passes it on
            yield from _unwrap(json.loads(notification["Message"]), message_id, depth - 1)
        elif not isinstance(notification.get("Records"), list):
            raise EventError(f"not a notification of S3: {str(notification)[:200]}")
        for record in _records(notification):
            yield from _unwrap_record(record, message_id, depth)
    except (EventError, ValueError, RecursionError) as error:
        yield EventError(str(error)), message_id


def _unwrap_record(
    record: object, message_id: str | None, depth: int
) -> Iterator[tuple[Mapping[str, Any] | EventError, str | None]]:
    try:
        if not isinstance(record, Mapping):
            raise EventError(f"not a record of S3: {str(record)[:200]}")
        if _kind(record) == "aws:sqs":
            message_id = str(record.get("messageId") or "") or None
            yield from _unwrap(json.loads(record["body"]), message_id, depth - 1)
        elif _kind(record) == "aws:sns":
            yield from _unwrap(json.loads(record["Sns"]["Message"]), message_id, depth - 1)
        else:
            yield record, message_id
    except (EventError, KeyError, TypeError, ValueError, RecursionError) as error:
        yield EventError(f"not a message that holds a notification of S3: {error}"), message_id


def _records(notification: Mapping[str, Any]) -> list[Any]:
    records = notification.get("Records") if isinstance(notification, Mapping) else None
    return records if isinstance(records, list) else []


def _kind(record: object) -> object:
    return record.get("eventSource", record.get("EventSource")) if isinstance(record, Mapping) else None


def _event(record: Mapping[str, Any], now: datetime) -> Event:
    """The event of one record in the form of S3's own notification. Raises EventError, KeyError, ..."""
    bucket, thing = record["s3"]["bucket"]["name"], record["s3"]["object"]
    key = unquote_plus(thing["key"], errors="strict")
    if not isinstance(bucket, str) or not bucket or not key:
        raise EventError(f"a record without a bucket or a key: {str(record)[:200]}")
    name = str(record["eventName"]).removeprefix("s3:")
    region = record.get("awsRegion") or ""
    data = {
        "bucket": bucket,
        "key": key,
        "size": thing.get("size"),
        "etag": (thing.get("eTag") or "").strip('"'),
        "version": thing.get("versionId"),
        "sequencer": thing.get("sequencer"),
        "region": region,
    }
    told = record.get("eventTime")
    return Event.new(
        S3_PREFIX + name,
        f"aws:s3.{region}.{bucket}",
        id=_id(record, bucket, key, name),
        now=_time(told) if told else now,
        subject=key,
        data={k: v for k, v in data.items() if v is not None and v != ""},
    )


def _id(record: Mapping[str, Any], bucket: str, key: str, name: str) -> str:
    """What makes the record one: the same however often, and by whichever way, S3 tells it.

    Without a version and a sequencer (a bucket of some other maker) the time and the request stand in; if
    there is not even that, the record as it is: two changes must not be taken for one.
    """
    version = record["s3"]["object"].get("versionId") or ""
    sequencer = record["s3"]["object"].get("sequencer") or ""
    parts: list[object] = [bucket, key, version, sequencer, name]
    if not version and not sequencer:
        request = (record.get("responseElements") or {}).get("x-amz-request-id")
        parts += [record.get("eventTime"), request] if record.get("eventTime") or request else [record]
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"))
    return f"s3-{hashlib.sha256(text.encode()).hexdigest()}"


def _from_bridge(event: Mapping[str, Any]) -> dict[str, Any]:
    """An event of EventBridge in the form of S3's own notification. There the key is not URL-encoded."""
    detail, thing = event["detail"], event["detail"]["object"]
    return {
        "eventName": _bridge_name(event["detail-type"], detail),
        "eventTime": event.get("time"),
        "awsRegion": event.get("region"),
        "responseElements": {"x-amz-request-id": detail.get("request-id")},
        "s3": {
            "bucket": {"name": detail["bucket"]["name"]},
            "object": {
                "key": _encoded(thing["key"]),
                "size": thing.get("size"),
                "eTag": thing.get("etag"),
                "versionId": thing.get("version-id"),
                "sequencer": thing.get("sequencer"),
            },
        },
    }


def _encoded(key: str) -> str:
    return key.replace("%", "%25").replace("+", "%2B")  # just what unquote_plus takes back


def _bridge_name(kind: str, detail: Mapping[str, Any]) -> str:
    reason = detail.get("reason", "")
    if kind == "Object Created":
        return f"ObjectCreated:{_CREATED.get(reason, reason)}".rstrip(":")
    if kind == "Object Deleted":
        family = "LifecycleExpiration" if reason == "Lifecycle Expiration" else "ObjectRemoved"
        return f"{family}:{_DELETED.get(detail.get('deletion-type', ''), 'Delete')}"
    return _NAMES.get(kind, "".join(kind.split()))


def _time(text: object) -> datetime:
    """An RFC 3339 time; one without an offset is UTC, as S3's always are."""
    time = datetime.fromisoformat(str(text))
    return time if time.tzinfo else time.replace(tzinfo=UTC)
