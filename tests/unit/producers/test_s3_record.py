"""A record of S3 becomes an event, the same whoever tells it; the forms are those of AWS's documentation."""

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


def test_the_event_of_a_record() -> None:
    event = event_of_record(record(versionId="v1"), NOW)
    assert event.producer == "aws:s3.eu-west-1.lake"
    assert event.type == "com.amazonaws.s3.ObjectCreated:Put"
    assert event.subject == "a.parquet"
    assert event.time == SECOND
    assert event.data == {
        "bucket": "lake", "key": "a.parquet", "size": 1024, "etag": "d41d8cd98f00b204", "version": "v1",
        "sequencer": SEQUENCER, "request": REQUEST, "region": "eu-west-1",
    }  # fmt: skip


def test_what_is_absent_is_left_out_and_the_prefix_of_the_name_too() -> None:
    told = record(name="s3:ObjectRemoved:Delete", versionId=None, eTag="", size=None)
    del told["eventTime"], told["responseElements"]
    event = event_of_record(told, NOW)
    assert event.type == "com.amazonaws.s3.ObjectRemoved:Delete" and event.time == NOW
    assert set(event.data) == {"bucket", "key", "sequencer", "region"}


@pytest.mark.parametrize(
    "encoded, key",
    [("red+flower.jpg", "red flower.jpg"), ("a+b%2Bc.txt", "a b+c.txt"), ("100%25/x%3Dy", "100%/x=y"),
     ("%F0%9F%98%80+%E2%82%AC", "😀 €"), ("plain/ü", "plain/ü"), ("%252B", "%2B"), ("a%0Ab", "a\nb")],
)  # fmt: skip
def test_keys_are_decoded_where_s3_encodes_them(encoded: str, key: str) -> None:
    told, bridged = event_of_record(record(encoded), NOW), event_of_record(bridge(key), NOW)
    assert told.subject == told.data["key"] == key
    assert told == bridged


def test_the_longest_key_fits() -> None:
    event = event_of_record(record("%F0%9F%98%80" * 256), NOW)
    assert len(event.id) < 2048 and event.subject == "😀" * 256


NO_SEQUENCER = {"sequencer": None}
RESTORED = {"lifecycleRestorationExpiryTime": "2026-11-29T00:00:00.000Z", "lifecycleRestoreStorageClass": "GLACIER"}

WAYS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "ObjectCreated:Put": (record(), bridge()),
    "ObjectCreated:Post": (record(name="ObjectCreated:Post"), bridge(reason="POST Object")),
    "ObjectCreated:Copy": (record(name="ObjectCreated:Copy", versionId="v1"),
                           bridge(reason="CopyObject", object={"version-id": "v1"})),
    "ObjectCreated:CompleteMultipartUpload": (
        record(name="ObjectCreated:CompleteMultipartUpload"), bridge(reason="CompleteMultipartUpload")),
    "ObjectRemoved:Delete": (
        record(name="ObjectRemoved:Delete", size=None, eTag=None),
        bridge(kind="Object Deleted", reason="DeleteObject", deletion_type="Permanently Deleted",
               object={"size": None, "etag": None})),
    "ObjectRemoved:DeleteMarkerCreated": (
        record(name="ObjectRemoved:DeleteMarkerCreated", size=None, versionId="v2"),
        bridge(kind="Object Deleted", reason="DeleteObject", deletion_type="Delete Marker Created",
               object={"size": None, "version-id": "v2"})),
    "LifecycleExpiration:Delete": (
        record(name="LifecycleExpiration:Delete", size=None, eTag=None),
        bridge(kind="Object Deleted", reason="Lifecycle Expiration", deletion_type="Permanently Deleted",
               object={"size": None, "etag": None})),
    "LifecycleExpiration:DeleteMarkerCreated": (
        record(name="LifecycleExpiration:DeleteMarkerCreated", size=None),
        bridge(kind="Object Deleted", reason="Lifecycle Expiration", deletion_type="Delete Marker Created",
               object={"size": None})),
    "ObjectRestore:Post": (
        record(name="ObjectRestore:Post", **NO_SEQUENCER),
        bridge(kind="Object Restore Initiated", source_storage_class="GLACIER", object=NO_SEQUENCER)),
    "ObjectRestore:Completed": (
        record(name="ObjectRestore:Completed", **NO_SEQUENCER) | {"glacierEventData": {"restoreEventData": RESTORED}},
        bridge(kind="Object Restore Completed", restore_expiry_time="2026-11-29T00:00:00Z",
               source_storage_class="GLACIER", object=NO_SEQUENCER)),
    "ObjectRestore:Delete": (
        record(name="ObjectRestore:Delete", **NO_SEQUENCER),
        bridge(kind="Object Restore Expired", object=NO_SEQUENCER)),
    "LifecycleTransition": (
        record(name="LifecycleTransition", **NO_SEQUENCER)
        | {"lifecycleEventData": {"transitionEventData": {"destinationStorageClass": "GLACIER"}}},
        bridge(kind="Object Storage Class Changed", destination_storage_class="GLACIER", object=NO_SEQUENCER)),
    "IntelligentTiering": (
        record(name="IntelligentTiering", **NO_SEQUENCER)
        | {"intelligentTieringEventData": {"destinationAccessTier": "ARCHIVE_ACCESS"}},
        bridge(kind="Object Access Tier Changed", destination_access_tier="ARCHIVE_ACCESS", object=NO_SEQUENCER)),
    "ObjectAcl:Put": (record(name="ObjectAcl:Put", **NO_SEQUENCER),
                      bridge(kind="Object ACL Updated", object=NO_SEQUENCER)),
    "ObjectTagging:Put": (record(name="ObjectTagging:Put", **NO_SEQUENCER),
                          bridge(kind="Object Tags Added", object=NO_SEQUENCER)),
    "ObjectTagging:Delete": (record(name="ObjectTagging:Delete", **NO_SEQUENCER),
                             bridge(kind="Object Tags Deleted", object=NO_SEQUENCER)),
    "ObjectAnnotation:Put": (record(name="ObjectAnnotation:Put"), bridge(kind="Object Annotation Created")),
    "ObjectAnnotation:Delete": (record(name="ObjectAnnotation:Delete"), bridge(kind="Object Annotation Removed")),
}  # fmt: skip


@pytest.mark.parametrize("name", WAYS)
def test_one_happening_told_by_s3_and_by_eventbridge_is_one_event(name: str) -> None:
    told, bridged = (event_of_record(one, NOW) for one in WAYS[name])
    assert told.type == f"com.amazonaws.s3.{name}"
    assert told == bridged  # the id and all the rest, so that it is stored once


def test_what_happens_has_an_id_of_its_own() -> None:
    assert len({event_of_record(told, NOW).id for told, _ in WAYS.values()}) == len(WAYS)


def test_a_restore_tells_until_when_and_from_where() -> None:
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
def test_what_eventbridge_may_name_one_day_has_a_name(kind: str, detail: dict[str, Any], name: str) -> None:
    assert event_of_record(bridge("k", kind, **detail), NOW).type == f"com.amazonaws.s3.{name}"


# --- the id -------------------------------------------------------------------------------------------


def ids(*records: dict[str, Any]) -> list[str]:
    return [event_of_record(one, NOW).id for one in records]


def test_the_same_record_told_again_has_the_same_id() -> None:
    first = record(), record("b"), record(versionId="1")
    later = copy.deepcopy(first)
    for one in later:
        one["eventTime"] = "2026-11-22T08:59:01.000Z"  # a redelivery may tell another time
        one["responseElements"]["x-amz-request-id"] = "OTHER"
    assert ids(*first) == ids(*later)
    assert len(set(ids(*first))) == 3


def test_each_part_of_the_identity_counts() -> None:
    moved = record()
    moved["s3"]["bucket"] = {"name": "other"}
    others = [record(), record("b"), record(versionId="1"), record(sequencer="01"),
              record(name="ObjectCreated:CompleteMultipartUpload"), moved]  # fmt: skip
    assert len(set(ids(*others))) == len(others)


def test_without_a_sequencer_the_second_and_the_request_stand_in() -> None:
    def bare(**changed: Any) -> dict[str, Any]:
        return record(name="ObjectRestore:Completed", sequencer=None, versionId="v1") | changed

    same = bare(), bare(userIdentity="y"), bare(eventTime="2026-11-22T08:59:00Z")
    assert len(set(ids(*same))) == 1
    again = bare(eventTime="2027-03-01T00:00:00.000Z", responseElements={"x-amz-request-id": "Z"})
    differ = bare(), again, bare(eventTime="2026-11-22T08:59:01.123Z"), bare(responseElements={"x-amz-request-id": "Z"})
    assert len(set(ids(*differ))) == 4  # one version, restored again and again


def test_a_maker_without_sequencer_and_request_is_told_apart_by_its_time() -> None:
    def bare(**changed: Any) -> dict[str, Any]:
        return record(sequencer="", versionId=None) | {"responseElements": None} | changed

    assert len(set(ids(bare(), bare(userIdentity="y"), bare(eventTime="2026-11-22T08:59:00.124Z")))) == 2
    poor = [bare(eventTime=None, nr=nr) for nr in (1, 2, 1)]
    assert len(set(ids(*poor))) == 2


def test_a_sequencer_that_never_changes_costs_no_event() -> None:
    """Some makers of servers send one constant: the id is the same then, and the request makes it another event."""
    one, other = record(), record() | {"responseElements": {"x-amz-request-id": "Z"}}
    assert ids(one) == ids(other) and event_of_record(one, NOW) != event_of_record(other, NOW)


# --- what is odd, and what is bad ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "time",
    [None, 1763801940.5, "yesterday", "1970-01-01T00:00:00.000Z", "9999-12-31T23:59:59Z",
     "0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59", {}, ""],
)  # fmt: skip
def test_a_time_that_cannot_be_one_costs_no_event(time: object) -> None:
    for told in (record() | {"eventTime": time}, bridge() | {"time": time}):
        event = event_of_record(told, NOW)
        assert event.time == NOW and event.id == event_of_record(record(), NOW).id


def test_a_time_without_an_offset_is_utc() -> None:
    assert event_of_record(record() | {"eventTime": "2026-11-22T08:59:00"}, NOW).time == SECOND


def test_odd_ornaments_cost_no_event() -> None:
    odd = record(size="many") | {"responseElements": [], "glacierEventData": "x", "lifecycleEventData": None}
    assert set(event_of_record(odd, NOW).data) == {"bucket", "key", "etag", "sequencer", "region"}


def deep() -> Any:
    value: Any = "x"
    for _ in range(5000):
        value = [value]
    return value


BAD: list[dict[str, Any]] = [
    {}, {"s3": 1}, {"detail": {}}, {"detail": [], "detail-type": "Object Created"},
    record("%FF"), record(""), record("%00"), record("\ud800"), record("x" * 3000),
    record(key=["x"]), record(name=""), record() | {"eventName": None}, record() | {"eventName": 7},
    record(sequencer=5), record(versionId={}), record() | {"awsRegion": "x" * 3000},
    bridge("\0"), bridge("k", kind=""), bridge("k", reason=["x"]), bridge() | {"detail": {"bucket": {"name": "b"}}},
    record(sequencer=None) | {"responseElements": None, "eventTime": None, "deep": deep()},
]  # fmt: skip


@pytest.mark.parametrize("told", BAD, ids=[str(number) for number in range(len(BAD))])
def test_what_is_no_record_is_told_in_one_ascii_line(told: dict[str, Any]) -> None:
    with pytest.raises(EventError) as caught:
        event_of_record(told, NOW)
    said = str(caught.value)
    assert said and said.isascii() and len(said) < 500 and "\n" not in said


ODD: list[Any] = [deep(), 10**5000, "\ud800" * 10_000, {"a": {"b": [1, "\n"]}}, b"x", None]


@pytest.mark.parametrize("value", ODD, ids=[str(number) for number in range(len(ODD))])
def test_whatever_is_sent_can_be_shown(value: object) -> None:
    said = printable(value)
    assert said.isascii() and 0 < len(said) <= 300 and "\n" not in said
