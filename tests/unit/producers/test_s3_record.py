"""A record of S3 becomes the same event in both forms. The forms are those of AWS's documentation."""

from __future__ import annotations

import copy
from datetime import UTC, datetime
from typing import Any

import pytest

from dims_producers.s3_record import event_of_record, printable
from dims_worker.errors import EventError
from tests.fixtures.s3_notifications import REQUEST, SEQUENCER, bridge, record

NOW = datetime(2026, 11, 22, 9, 0, 0, 500, tzinfo=UTC)
SECOND = datetime(2026, 11, 22, 8, 59, tzinfo=UTC)


def test_a_record_becomes_an_event() -> None:
    event = event_of_record(record(versionId="v1"), NOW)
    assert event.producer == "aws:s3.eu-west-1.lake"
    assert event.type == "com.amazonaws.s3.ObjectCreated:Put"
    assert event.subject == "a.parquet"
    assert event.time == SECOND
    assert event.data == {
        "bucket": "lake",
        "key": "a.parquet",
        "size": 1024,
        "etag": "d41d8cd98f00b204",
        "version": "v1",
        "sequencer": SEQUENCER,
        "request": REQUEST,
        "region": "eu-west-1",
    }


def test_missing_fields_are_left_out_and_the_prefix_is_removed() -> None:
    plain = record(name="s3:ObjectRemoved:Delete", versionId=None, eTag="", size=None)
    del plain["eventTime"], plain["responseElements"]
    event = event_of_record(plain, NOW)
    assert event.type == "com.amazonaws.s3.ObjectRemoved:Delete" and event.time == NOW
    assert set(event.data) == {"bucket", "key", "sequencer", "region"}


@pytest.mark.parametrize(
    "encoded, key",
    [
        ("red+flower.jpg", "red flower.jpg"),
        ("a+b%2Bc.txt", "a b+c.txt"),
        ("100%25/x%3Dy", "100%/x=y"),
        ("%F0%9F%98%80+%E2%82%AC", "😀 €"),
        ("plain/ü", "plain/ü"),
        ("%252B", "%2B"),
        ("a%0Ab", "a\nb"),
    ],
)
def test_keys_are_decoded_where_s3_encodes_them(encoded: str, key: str) -> None:
    plain, bridged = event_of_record(record(encoded), NOW), event_of_record(bridge(key), NOW)
    assert plain.subject == plain.data["key"] == key
    assert plain == bridged


def test_a_key_of_1024_bytes_fits() -> None:
    assert event_of_record(record("k" * 1024), NOW).data["key"] == "k" * 1024
    assert event_of_record(bridge("k" * 1024), NOW).subject == "k" * 1024


def test_the_longest_key_fits() -> None:
    event = event_of_record(record("%F0%9F%98%80" * 256), NOW)
    assert len(event.id) < 2048 and event.subject == "😀" * 256


NO_SEQUENCER = {"sequencer": None}
RESTORED = {"lifecycleRestorationExpiryTime": "2026-11-29T00:00:00.000Z", "lifecycleRestoreStorageClass": "GLACIER"}

WAYS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "ObjectCreated:Put": (record(), bridge()),
    "ObjectCreated:Post": (record(name="ObjectCreated:Post"), bridge(reason="POST Object")),
    "ObjectCreated:Copy": (
        record(name="ObjectCreated:Copy", versionId="v1"),
        bridge(reason="CopyObject", object={"version-id": "v1"}),
    ),
    "ObjectCreated:CompleteMultipartUpload": (
        record(name="ObjectCreated:CompleteMultipartUpload"),
        bridge(reason="CompleteMultipartUpload"),
    ),
    "ObjectRemoved:Delete": (
        record(name="ObjectRemoved:Delete", size=None, eTag=None),
        bridge(
            kind="Object Deleted",
            reason="DeleteObject",
            deletion_type="Permanently Deleted",
            object={"size": None, "etag": None},
        ),
    ),
    "ObjectRemoved:DeleteMarkerCreated": (
        record(name="ObjectRemoved:DeleteMarkerCreated", size=None, versionId="v2"),
        bridge(
            kind="Object Deleted",
            reason="DeleteObject",
            deletion_type="Delete Marker Created",
            object={"size": None, "version-id": "v2"},
        ),
    ),
    "LifecycleExpiration:Delete": (
        record(name="LifecycleExpiration:Delete", size=None, eTag=None),
        bridge(
            kind="Object Deleted",
            reason="Lifecycle Expiration",
            deletion_type="Permanently Deleted",
            object={"size": None, "etag": None},
        ),
    ),
    "LifecycleExpiration:DeleteMarkerCreated": (
        record(name="LifecycleExpiration:DeleteMarkerCreated", size=None),
        bridge(
            kind="Object Deleted",
            reason="Lifecycle Expiration",
            deletion_type="Delete Marker Created",
            object={"size": None},
        ),
    ),
    "ObjectRestore:Post": (
        record(name="ObjectRestore:Post", **NO_SEQUENCER),
        bridge(kind="Object Restore Initiated", source_storage_class="GLACIER", object=NO_SEQUENCER),
    ),
    "ObjectRestore:Completed": (
        record(name="ObjectRestore:Completed", **NO_SEQUENCER) | {"glacierEventData": {"restoreEventData": RESTORED}},
        bridge(
            kind="Object Restore Completed",
            restore_expiry_time="2026-11-29T00:00:00Z",
            source_storage_class="GLACIER",
            object=NO_SEQUENCER,
        ),
    ),
    "ObjectRestore:Delete": (
        record(name="ObjectRestore:Delete", **NO_SEQUENCER),
        bridge(kind="Object Restore Expired", object=NO_SEQUENCER),
    ),
    "LifecycleTransition": (
        record(name="LifecycleTransition", **NO_SEQUENCER)
        | {"lifecycleEventData": {"transitionEventData": {"destinationStorageClass": "GLACIER"}}},
        bridge(kind="Object Storage Class Changed", destination_storage_class="GLACIER", object=NO_SEQUENCER),
    ),
    "IntelligentTiering": (
        record(name="IntelligentTiering", **NO_SEQUENCER)
        | {"intelligentTieringEventData": {"destinationAccessTier": "ARCHIVE_ACCESS"}},
        bridge(kind="Object Access Tier Changed", destination_access_tier="ARCHIVE_ACCESS", object=NO_SEQUENCER),
    ),
    "ObjectAcl:Put": (
        record(name="ObjectAcl:Put", **NO_SEQUENCER),
        bridge(kind="Object ACL Updated", object=NO_SEQUENCER),
    ),
    "ObjectTagging:Put": (
        record(name="ObjectTagging:Put", **NO_SEQUENCER),
        bridge(kind="Object Tags Added", object=NO_SEQUENCER),
    ),
    "ObjectTagging:Delete": (
        record(name="ObjectTagging:Delete", **NO_SEQUENCER),
        bridge(kind="Object Tags Deleted", object=NO_SEQUENCER),
    ),
    "ObjectAnnotation:Put": (record(name="ObjectAnnotation:Put"), bridge(kind="Object Annotation Created")),
    "ObjectAnnotation:Delete": (record(name="ObjectAnnotation:Delete"), bridge(kind="Object Annotation Removed")),
}


@pytest.mark.parametrize("name", WAYS)
def test_a_change_from_s3_and_from_eventbridge_is_one_event(name: str) -> None:
    plain, bridged = (event_of_record(form, NOW) for form in WAYS[name])
    assert plain.type == f"com.amazonaws.s3.{name}"
    assert plain == bridged  # the id and all other fields, so that it is stored once


def test_each_kind_of_change_has_its_own_id() -> None:
    assert len({event_of_record(plain, NOW).id for plain, _ in WAYS.values()}) == len(WAYS)


def test_a_restore_has_its_end_and_its_storage_class() -> None:
    event = event_of_record(WAYS["ObjectRestore:Completed"][0], NOW)
    assert event.data["restored_until"] == "2026-11-29T00:00:00Z" and event.data["storage_class"] == "GLACIER"
    assert event_of_record(WAYS["LifecycleTransition"][1], NOW).data["storage_class"] == "GLACIER"
    assert event_of_record(WAYS["IntelligentTiering"][0], NOW).data["access_tier"] == "ARCHIVE_ACCESS"


@pytest.mark.parametrize(
    "kind, detail, name",
    [
        ("Object Created", {"reason": ""}, "ObjectCreated"),
        ("Object Created", {"reason": "Put"}, "ObjectCreated:Put"),
        ("Object Deleted", {"reason": "DeleteObject"}, "ObjectRemoved:Delete"),
        ("Object Something New", {}, "ObjectSomethingNew"),
    ],
)
def test_a_future_event_of_eventbridge_has_a_name(kind: str, detail: dict[str, Any], name: str) -> None:
    assert event_of_record(bridge("k", kind, **detail), NOW).type == f"com.amazonaws.s3.{name}"


# --- the id -------------------------------------------------------------------------------------------


def ids(*records: dict[str, Any]) -> list[str]:
    return [event_of_record(item, NOW).id for item in records]


def test_a_redelivered_record_has_the_same_id() -> None:
    first = record(), record("b"), record(versionId="1")
    later = copy.deepcopy(first)
    for redelivered in later:
        redelivered["eventTime"] = "2026-11-22T08:59:01.000Z"  # a redelivery may have another time
        redelivered["responseElements"]["x-amz-request-id"] = "OTHER"
    assert ids(*first) == ids(*later)
    assert len(set(ids(*first))) == 3


def test_each_part_of_the_identity_counts() -> None:
    moved = record()
    moved["s3"]["bucket"] = {"name": "other"}
    others = [
        record(),
        record("b"),
        record(versionId="1"),
        record(sequencer="01"),
        record(name="ObjectCreated:CompleteMultipartUpload"),
        moved,
    ]
    assert len(set(ids(*others))) == len(others)


def test_without_a_sequencer_the_second_and_the_request_make_the_id() -> None:
    def bare(**changed: Any) -> dict[str, Any]:
        return record(name="ObjectRestore:Completed", sequencer=None, versionId="v1") | changed

    same = bare(), bare(userIdentity="y"), bare(eventTime="2026-11-22T08:59:00Z")
    assert len(set(ids(*same))) == 1
    again = bare(eventTime="2027-03-01T00:00:00.000Z", responseElements={"x-amz-request-id": "Z"})
    differ = bare(), again, bare(eventTime="2026-11-22T08:59:01.123Z"), bare(responseElements={"x-amz-request-id": "Z"})
    assert len(set(ids(*differ))) == 4  # one version that is restored several times


def test_without_sequencer_and_request_the_time_makes_the_id() -> None:
    def bare(**changed: Any) -> dict[str, Any]:
        return record(sequencer="", versionId=None) | {"responseElements": None} | changed

    assert len(set(ids(bare(), bare(userIdentity="y"), bare(eventTime="2026-11-22T08:59:00.124Z")))) == 2
    poor = [bare(eventTime=None, nr=nr) for nr in (1, 2, 1)]
    assert len(set(ids(*poor))) == 2


def test_a_constant_sequencer_loses_no_event() -> None:
    """Some servers send a constant: the id is the same then, and the different payload makes it another event."""
    one, other = record(), record() | {"responseElements": {"x-amz-request-id": "Z"}}
    assert ids(one) == ids(other) and event_of_record(one, NOW) != event_of_record(other, NOW)


# --- unusual and invalid records ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "time",
    [
        None,
        1763801940.5,
        "yesterday",
        "1970-01-01T00:00:00.000Z",
        "9999-12-31T23:59:59Z",
        "0001-01-01T00:00:00+23:59",
        "9999-12-31T23:59:59-23:59",
        {},
        "",
    ],
)
def test_an_invalid_time_loses_no_event(time: object) -> None:
    for plain in (record() | {"eventTime": time}, bridge() | {"time": time}):
        event = event_of_record(plain, NOW)
        assert event.time == NOW and event.id == event_of_record(record(), NOW).id


def test_a_time_without_an_offset_is_utc() -> None:
    assert event_of_record(record() | {"eventTime": "2026-11-22T08:59:00"}, NOW).time == SECOND


def test_invalid_optional_fields_lose_no_event() -> None:
    odd = record(size="many") | {"responseElements": [], "glacierEventData": "x", "lifecycleEventData": None}
    assert set(event_of_record(odd, NOW).data) == {"bucket", "key", "etag", "sequencer", "region"}


def deep() -> Any:
    value: Any = "x"
    for _ in range(5000):
        value = [value]
    return value


BAD: list[dict[str, Any]] = [
    {},
    {"s3": 1},
    {"detail": {}},
    {"detail": [], "detail-type": "Object Created"},
    record("%FF"),
    record(""),
    record("%00"),
    record("\ud800"),
    record("x" * 3000),
    record(key=["x"]),
    record(name=""),
    record() | {"eventName": None},
    record() | {"eventName": 7},
    record(sequencer=5),
    record(versionId={}),
    record() | {"awsRegion": "x" * 3000},
    bridge("\0"),
    bridge("k", kind=""),
    bridge("k", reason=["x"]),
    bridge() | {"detail": {"bucket": {"name": "b"}}},
    record(sequencer=None) | {"responseElements": None, "eventTime": None, "deep": deep()},
]


@pytest.mark.parametrize("plain", BAD, ids=[str(number) for number in range(len(BAD))])
def test_an_invalid_record_is_reported_in_one_ascii_line(plain: dict[str, Any]) -> None:
    with pytest.raises(EventError) as caught:
        event_of_record(plain, NOW)
    text = str(caught.value)
    assert text and text.isascii() and len(text) < 500 and "\n" not in text


ODD: list[Any] = [deep(), 10**5000, "\ud800" * 10_000, {"a": {"b": [1, "\n"]}}, b"x", None]


@pytest.mark.parametrize("value", ODD, ids=[str(number) for number in range(len(ODD))])
def test_any_value_can_be_shown(value: object) -> None:
    text = printable(value)
    assert text.isascii() and 0 < len(text) <= 300 and "\n" not in text
