"""One record of S3, told by S3 itself or by EventBridge, and the event that it becomes. Pure.

Formats: https://docs.aws.amazon.com/AmazonS3/latest/userguide/notification-content-structure.html and, for
EventBridge, ev-events.html and ev-mapping-troubleshooting.html there. Events follow the CloudEvents adapter
for S3 (https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/adapters/aws-s3.md).
"""

from __future__ import annotations

import hashlib
import json
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import unquote_plus

from dims_worker.errors import EventError
from dims_worker.events import S3_PREFIX, YEARS, Event

# EventBridge names what happened in two or three fields; these are the names S3 uses for the same in its own
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
    "Object Annotation Created": "ObjectAnnotation:Put",
    "Object Annotation Removed": "ObjectAnnotation:Delete",
}


@dataclass(frozen=True, slots=True)
class _ObjectEvent:
    """What happened to one object, in the words of neither; '' where it is not told."""

    name: str
    bucket: str
    key: str
    region: str
    time: object
    request: str
    version: str
    sequencer: str
    etag: str
    size: object
    restored_until: object = None
    storage_class: str = ""
    access_tier: str = ""


def event_of_record(record: Mapping[str, Any], now: datetime) -> Event:
    """The event of a record, in either form. `now` is its time where the record has none that can be one.

    The time is in whole seconds: EventBridge tells no more, and one happening told twice is to be one event.
    Raises EventError where the record is none of S3's, or an event cannot hold it.
    """
    told = _from_bridge(record) if "detail" in record else _from_s3(record)
    if not (told.name and told.bucket and told.key):
        raise EventError(f"a record without a name, a bucket or a key: {printable(record)}")
    data = {
        "bucket": told.bucket,
        "key": told.key,
        "size": told.size if isinstance(told.size, int) else None,
        "etag": told.etag.strip('"'),
        "version": told.version,
        "sequencer": told.sequencer,
        "request": told.request,
        "region": told.region,
        "restored_until": _stamp(told.restored_until),
        "storage_class": told.storage_class,
        "access_tier": told.access_tier,
    }
    return Event.new(
        S3_PREFIX + told.name,
        f"aws:s3.{told.region}.{told.bucket}",
        id=_id(told, record),
        now=_second(told.time) or now,
        subject=told.key,
        data={name: value for name, value in data.items() if value is not None and value != ""},
    )


def _from_s3(record: Mapping[str, Any]) -> _ObjectEvent:
    """S3's own form. The key is URL-encoded there, with + for a space."""
    thing = _part(record, "s3", "object")
    restored = _part(record, "glacierEventData", "restoreEventData")
    moved = _part(record, "lifecycleEventData", "transitionEventData")
    try:
        key = unquote_plus(_text(thing, "key"), errors="strict")
    except UnicodeError:
        raise EventError(f"a key that is not UTF-8: {printable(thing)}") from None
    return _ObjectEvent(
        name=_text(record, "eventName").removeprefix("s3:"),
        bucket=_text(_part(record, "s3", "bucket"), "name"),
        key=key,
        region=_text(record, "awsRegion"),
        time=record.get("eventTime"),
        request=_text(_part(record, "responseElements"), "x-amz-request-id"),
        version=_text(thing, "versionId"),
        sequencer=_text(thing, "sequencer"),
        etag=_text(thing, "eTag"),
        size=thing.get("size"),
        restored_until=restored.get("lifecycleRestorationExpiryTime"),
        storage_class=_text(restored, "lifecycleRestoreStorageClass") or _text(moved, "destinationStorageClass"),
        access_tier=_text(_part(record, "intelligentTieringEventData"), "destinationAccessTier"),
    )


def _from_bridge(event: Mapping[str, Any]) -> _ObjectEvent:
    """EventBridge's form. The key is as it is there."""
    detail, thing = _part(event, "detail"), _part(event, "detail", "object")
    until = detail.get("restore-expiry-time")
    # The class is told of a restore that begins, too; S3 itself tells it only of one that is complete
    restored = _text(detail, "source-storage-class") if until else ""
    return _ObjectEvent(
        name=_bridge_name(_text(event, "detail-type"), detail),
        bucket=_text(_part(event, "detail", "bucket"), "name"),
        key=_text(thing, "key"),
        region=_text(event, "region"),
        time=event.get("time"),
        request=_text(detail, "request-id"),
        version=_text(thing, "version-id"),
        sequencer=_text(thing, "sequencer"),
        etag=_text(thing, "etag"),
        size=thing.get("size"),
        restored_until=until,
        storage_class=restored or _text(detail, "destination-storage-class"),
        access_tier=_text(detail, "destination-access-tier"),
    )


def _bridge_name(kind: str, detail: Mapping[str, Any]) -> str:
    reason = _text(detail, "reason")
    if kind == "Object Created":
        return f"ObjectCreated:{_CREATED.get(reason, reason)}".rstrip(":")
    if kind == "Object Deleted":
        family = "LifecycleExpiration" if reason == "Lifecycle Expiration" else "ObjectRemoved"
        return f"{family}:{_DELETED.get(_text(detail, 'deletion-type'), 'Delete')}"
    return _NAMES.get(kind, "".join(kind.split()))


def _id(told: _ObjectEvent, record: Mapping[str, Any]) -> str:
    """What makes the happening one: the same however often, and by whichever way, it is told.

    Only what creates or deletes has a sequencer: an object may be restored or tagged many times in one
    version. Without one the second and the request stand in (in a bucket of some other maker that tells no
    request, the time as it is told); if there is not even that, the whole record: two changes must not be
    taken for one.
    """
    parts: list[object] = [told.bucket, told.key, told.version, told.sequencer, told.name]
    if not told.sequencer:
        if told.request:
            parts += [_stamp(told.time) or str(told.time), told.request]
        else:
            parts.append(str(told.time) if told.time else record)
    try:
        text = json.dumps(parts, sort_keys=True, separators=(",", ":"))
    except (TypeError, ValueError, RecursionError):
        raise EventError(f"a record that cannot be told from others: {printable(record)}") from None
    return f"s3-{hashlib.sha256(text.encode()).hexdigest()}"


def _part(record: Mapping[str, Any], *names: str) -> Mapping[str, Any]:
    """The object at this place; empty where there is none."""
    for name in names:
        inner = record.get(name)
        record = inner if isinstance(inner, Mapping) else {}
    return record


def _text(part: Mapping[str, Any], name: str) -> str:
    value = part.get(name)
    if value is not None and not isinstance(value, str):
        raise EventError(f"{name} of a record must be a text, not {printable(value)}")
    return value or ""


def _second(value: object) -> datetime | None:
    """An RFC 3339 time, in UTC and whole seconds; without an offset it is UTC. None where it is none."""
    if not isinstance(value, str):
        return None
    try:
        time = datetime.fromisoformat(value)
        utc = (time if time.tzinfo else time.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        return None
    return utc.replace(microsecond=0) if utc.year in YEARS else None


def _stamp(value: object) -> str | None:
    second = _second(value)
    return f"{second:%Y-%m-%dT%H:%M:%SZ}" if second else None


_shower = reprlib.Repr()
_shower.maxdict, _shower.maxstring = 12, 120


def printable(value: object) -> str:
    """What somebody sent, in a few words and in ASCII: for errors and logs, whatever it is."""
    try:
        return ascii(_shower.repr(value))[1:-1][:300]
    except (ValueError, RecursionError):
        return f"a {type(value).__name__} that cannot be shown"
