"""Turn one record of S3, from S3 itself or from EventBridge, into an event. Pure.

Formats: https://docs.aws.amazon.com/AmazonS3/latest/userguide/notification-content-structure.html and, for
EventBridge, ev-events.html and ev-mapping-troubleshooting.html there. Events follow the CloudEvents adapter
for S3 (https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/adapters/aws-s3.md).
"""

from __future__ import annotations

import hashlib
import json
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from typing import Any
from urllib.parse import unquote_plus

from dims_worker.errors import EventError
from dims_worker.events import S3_PREFIX, YEARS, Event

# EventBridge says what happened in two or three fields. These are S3's own names for the same things, so that a change
# that comes both ways has one id.
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
    """What happened to one object, independent of the form of the record. A missing text is ''.

    The fields from `bucket` on are the data of the event.
    """

    name: str
    time: object
    bucket: str
    key: str
    size: int | None
    etag: str
    version: str
    sequencer: str
    request: str
    region: str
    restored_until: str | None = None
    storage_class: str = ""
    access_tier: str = ""


def event_of_record(record: Mapping[str, Any], now: datetime) -> Event:
    """Return the event of a record in either form. `now` is its time if the record has no valid one.

    The time is in whole seconds, because EventBridge has no more, and both forms of a change must give the same event.
    Raises EventError if the record is not S3's, or does not fit into an event.
    """
    change = _from_bridge(record) if "detail" in record else _from_s3(record)
    if not (change.name and change.bucket and change.key):
        raise EventError(f"a record without a name, a bucket or a key: {printable(record)}")
    data = {each.name: getattr(change, each.name) for each in fields(change)[2:]}
    return Event.new(
        S3_PREFIX + change.name,
        f"aws:s3.{change.region}.{change.bucket}",
        id=_id(change, record),
        now=_second(change.time) or now,
        subject=change.key,
        data={name: value for name, value in data.items() if value is not None and value != ""},
    )


def _from_s3(record: Mapping[str, Any]) -> _ObjectEvent:
    """Read S3's own form. Its key is URL-encoded, with + for a space."""
    item = _part(record, "s3", "object")
    restored = _part(record, "glacierEventData", "restoreEventData")
    moved = _part(record, "lifecycleEventData", "transitionEventData")
    try:
        key = unquote_plus(_text(item, "key"), errors="strict")
    except UnicodeError:
        raise EventError(f"a key that is not UTF-8: {printable(item)}") from None
    return _ObjectEvent(
        name=_text(record, "eventName").removeprefix("s3:"),
        bucket=_text(_part(record, "s3", "bucket"), "name"),
        key=key,
        region=_text(record, "awsRegion"),
        time=record.get("eventTime"),
        request=_text(_part(record, "responseElements"), "x-amz-request-id"),
        version=_text(item, "versionId"),
        sequencer=_text(item, "sequencer"),
        etag=_text(item, "eTag").strip('"'),
        size=_size(item),
        restored_until=_stamp(restored.get("lifecycleRestorationExpiryTime")),
        storage_class=_text(restored, "lifecycleRestoreStorageClass") or _text(moved, "destinationStorageClass"),
        access_tier=_text(_part(record, "intelligentTieringEventData"), "destinationAccessTier"),
    )


def _from_bridge(event: Mapping[str, Any]) -> _ObjectEvent:
    """Read EventBridge's form. Its key is not encoded."""
    detail, item = _part(event, "detail"), _part(event, "detail", "object")
    until = detail.get("restore-expiry-time")
    # EventBridge also has the class for a restore that begins. S3 itself has it only for a complete one.
    restored = _text(detail, "source-storage-class") if until else ""
    return _ObjectEvent(
        name=_bridge_name(_text(event, "detail-type"), detail),
        bucket=_text(_part(event, "detail", "bucket"), "name"),
        key=_text(item, "key"),
        region=_text(event, "region"),
        time=event.get("time"),
        request=_text(detail, "request-id"),
        version=_text(item, "version-id"),
        sequencer=_text(item, "sequencer"),
        etag=_text(item, "etag").strip('"'),
        size=_size(item),
        restored_until=_stamp(until),
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


def _id(change: _ObjectEvent, record: Mapping[str, Any]) -> str:
    """Return an id that is the same for every record of this change, in either form.

    Only creations and deletions have a sequencer. An object may be restored or tagged many times in one version. So
    without a sequencer, the id uses the second and the request. A bucket that is not Amazon's may send no request:
    then the id uses the exact time, or the whole record if there is no time either. Two changes must never have the
    same id.
    """
    parts: list[object] = [change.bucket, change.key, change.version, change.sequencer, change.name]
    if not change.sequencer:
        if change.request:
            parts += [_stamp(change.time) or str(change.time), change.request]
        else:
            parts.append(str(change.time) if change.time else record)
    try:
        text = json.dumps(parts, sort_keys=True, separators=(",", ":"))
    except (TypeError, ValueError, RecursionError):
        raise EventError(f"a record without an identity: {printable(record)}") from None
    return f"s3-{hashlib.sha256(text.encode()).hexdigest()}"


def _part(record: Mapping[str, Any], *names: str) -> Mapping[str, Any]:
    """Return the object at this path, or an empty one."""
    for name in names:
        inner = record.get(name)
        record = inner if isinstance(inner, Mapping) else {}
    return record


def _text(part: Mapping[str, Any], name: str) -> str:
    value = part.get(name)
    if value is not None and not isinstance(value, str):
        raise EventError(f"{name} of a record must be a text, not {printable(value)}")
    return value or ""


def _size(part: Mapping[str, Any]) -> int | None:
    size = part.get("size")
    return size if isinstance(size, int) else None


def _second(value: object) -> datetime | None:
    """Parse an RFC 3339 time, to UTC and whole seconds. No offset means UTC. None if it is not valid."""
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


_repr = reprlib.Repr()
_repr.maxdict, _repr.maxstring = 12, 120


def printable(value: object) -> str:
    """Return a short ASCII text of any value, for errors and logs."""
    try:
        return ascii(_repr.repr(value))[1:-1][:300]
    except (ValueError, RecursionError):
        return f"a {type(value).__name__} that cannot be shown"
