"""What AWS sends becomes events; the forms are those of AWS's documentation."""

from __future__ import annotations

import copy
import json
from datetime import UTC, datetime
from typing import Any

import pytest

from dims_worker.errors import BrokerUnreachable, ConfigError, EventError
from producers.s3_lambda import events_of, handler

NOW = datetime(2026, 11, 22, 9, tzinfo=UTC)


def record(key: str = "a.parquet", name: str = "ObjectCreated:Put", **thing: Any) -> dict[str, Any]:
    return {
        "eventVersion": "2.1",
        "eventSource": "aws:s3",
        "awsRegion": "eu-west-1",
        "eventTime": "2026-11-22T08:59:00.123Z",
        "eventName": name,
        "userIdentity": {"principalId": "X"},
        "requestParameters": {"sourceIPAddress": "127.0.0.1"},
        "responseElements": {"x-amz-request-id": "C3D13FE58DE4C810", "x-amz-id-2": "FMyUVURIY8"},
        "s3": {
            "s3SchemaVersion": "1.0",
            "configurationId": "all",
            "bucket": {"name": "lake", "ownerIdentity": {"principalId": "A"}, "arn": "arn:aws:s3:::lake"},
            "object": {"key": key, "size": 1024, "eTag": "d41d8", "sequencer": "0055AED6DCD90281E5"} | thing,
        },
    }


def notification(*records: dict[str, Any]) -> dict[str, Any]:
    return {"Records": list(records)}


def bridge(key: str = "a.parquet", kind: str = "Object Created", **detail: Any) -> dict[str, Any]:
    return {
        "version": "0",
        "id": "17793124-05d4-b198-2fde-7ededc63b103",
        "detail-type": kind,
        "source": "aws.s3",
        "account": "111122223333",
        "time": "2026-11-22T08:59:00Z",
        "region": "eu-west-1",
        "resources": ["arn:aws:s3:::lake"],
        "detail": {
            "version": "0",
            "bucket": {"name": "lake"},
            "object": {"key": key, "size": 1024, "etag": "d41d8", "sequencer": "0055AED6DCD90281E5"},
            "request-id": "N4N7GDK58NMKJ12R",
            "requester": "123456789012",
            "reason": "PutObject",
        }
        | detail,
    }


def sqs(*bodies: object) -> dict[str, Any]:
    return notification(
        *(
            {
                "messageId": f"m{i}",
                "eventSource": "aws:sqs",
                "body": body if isinstance(body, str) else json.dumps(body),
            }
            for i, body in enumerate(bodies)
        )
    )


def sns(message: object) -> dict[str, Any]:
    return notification({"EventSource": "aws:sns", "Sns": {"Type": "Notification", "Message": json.dumps(message)}})


def only(given: object):
    events, bad = events_of(given, NOW)
    assert not bad
    (event,) = events
    return event


def test_the_event_of_a_record() -> None:
    event = only(notification(record(versionId="v1")))
    assert event.producer == "aws:s3.eu-west-1.lake"
    assert event.type == "com.amazonaws.s3.ObjectCreated:Put"
    assert event.subject == "a.parquet"
    assert event.time == datetime(2026, 11, 22, 8, 59, 0, 123000, tzinfo=UTC)
    assert event.data == {
        "bucket": "lake", "key": "a.parquet", "size": 1024, "etag": "d41d8", "version": "v1",
        "sequencer": "0055AED6DCD90281E5", "region": "eu-west-1",
    }  # fmt: skip


def test_what_is_absent_is_left_out_and_the_prefix_of_the_name_too() -> None:
    told = record(name="s3:ObjectRemoved:Delete", versionId=None, eTag="")
    del told["s3"]["object"]["size"], told["eventTime"]
    event = only(notification(told))
    assert event.type == "com.amazonaws.s3.ObjectRemoved:Delete" and event.time == NOW
    assert set(event.data) == {"bucket", "key", "sequencer", "region"}


@pytest.mark.parametrize(
    "encoded, key",
    [("a+b%2Bc.txt", "a b+c.txt"), ("100%25/x%3Dy", "100%/x=y"), ("%F0%9F%98%80+%E2%82%AC", "😀 €"),
     ("plain/ü", "plain/ü"), ("%252B", "%2B"), ("a%0Ab", "a\nb")],
)  # fmt: skip
def test_keys_are_decoded(encoded: str, key: str) -> None:
    assert only(notification(record(encoded))).subject == key
    told = only(bridge(key))
    assert told.subject == key and told.id == only(notification(record(encoded))).id


def test_the_longest_key_fits() -> None:
    event = only(notification(record("%F0%9F%98%80" * 256)))
    assert len(event.id) < 2048


def ids(*records: dict[str, Any]) -> list[str]:
    return [event.id for event in events_of(notification(*records), NOW)[0]]


def test_the_same_notification_twice_has_the_same_ids() -> None:
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


def test_without_version_and_sequencer_time_and_request_stand_in() -> None:
    def bare(**changed: Any) -> dict[str, Any]:
        return record(sequencer="", versionId=None) | changed

    same = bare(), bare(userIdentity="y")
    assert len(set(ids(*same))) == 1
    differ = bare(), bare(eventTime="2026-11-22T08:59:00.124Z"), bare(responseElements={"x-amz-request-id": "Z"})
    assert len(set(ids(*differ))) == 3
    poor = [bare(eventTime=None, responseElements=None, nr=nr) for nr in (1, 2, 1)]
    assert len(set(ids(*poor))) == 2
    moto = bare()
    del moto["responseElements"]
    assert len(ids(moto)) == 1


@pytest.mark.parametrize(
    "kind, detail, name",
    [
        ("Object Created", {"reason": "CopyObject"}, "ObjectCreated:Copy"),
        ("Object Created", {"reason": "POST Object"}, "ObjectCreated:Post"),
        ("Object Created", {"reason": "CompleteMultipartUpload"}, "ObjectCreated:CompleteMultipartUpload"),
        ("Object Created", {"reason": ""}, "ObjectCreated"),
        ("Object Deleted", {"reason": "DeleteObject", "deletion-type": "Permanently Deleted"}, "ObjectRemoved:Delete"),
        ("Object Deleted", {"reason": "DeleteObject", "deletion-type": "Delete Marker Created"},
         "ObjectRemoved:DeleteMarkerCreated"),
        ("Object Deleted", {"reason": "Lifecycle Expiration", "deletion-type": "Permanently Deleted"},
         "LifecycleExpiration:Delete"),
        ("Object Tags Added", {}, "ObjectTagging:Put"),
        ("Object Something New", {}, "ObjectSomethingNew"),
    ],
)  # fmt: skip
def test_eventbridge_names_become_those_of_s3(kind: str, detail: dict[str, Any], name: str) -> None:
    assert only(bridge("k", kind, **detail)).type == f"com.amazonaws.s3.{name}"


def test_one_happening_is_one_id_whichever_way_it_came() -> None:
    plain = notification(record())
    wrapped = [plain, sns(plain), sqs(plain), sqs({"Type": "Notification", "Message": json.dumps(plain)}),
               bridge(), sqs(bridge()), sns(bridge())]  # fmt: skip
    assert len({only(one).id for one in wrapped}) == 1


@pytest.mark.parametrize("wrap", [lambda x: x, sns, sqs])
def test_the_test_message_is_ignored(wrap, broker) -> None:
    test = {"Service": "Amazon S3", "Event": "s3:TestEvent", "Time": "2026-11-22T09:00:00.000Z", "Bucket": "lake"}
    assert events_of(wrap(test), NOW) == ([], [])
    assert handler(wrap(test), None) in ({"published": 0}, {"batchItemFailures": []})
    assert broker.trips == 0


BAD: list[Any] = [
    {}, [], None, "text", {"Records": {}}, {"Records": [1, None]}, notification({"eventSource": "aws:s3"}),
    notification(record("%FF")), notification(record("")), notification(record("%00")),
    notification(record() | {"s3": 1}),
    notification(record() | {"eventTime": "yesterday"}),
    notification(record() | {"eventTime": "1970-01-01T00:00:00Z"}),
    {"detail": {}, "detail-type": "x"}, sns("not s3"), notification({"EventSource": "aws:sns", "Sns": {}}),
    sns({"Message": json.dumps({"Message": json.dumps({"Message": json.dumps({"Message": "{}"})})})}),
    notification(record(key=["x"])), notification({"eventSource": "aws:sqs", "body": "{"}),
    sqs("[" * 100_000),
]  # fmt: skip


@pytest.mark.parametrize("given", BAD, ids=lambda given: str(given)[:40])
def test_what_cannot_be_read_is_told_and_never_raises(given: Any) -> None:
    events, bad = events_of(given, NOW)
    assert not events and bad and all(one.reason for one in bad)


def test_the_handler_publishes_all_in_one_trip(broker, monkeypatch) -> None:
    monkeypatch.setenv("DIMS_BROKER_URL", broker.url)
    assert handler(notification(record("a"), record("b"), record("c")), None) == {"published": 3}
    assert [e.subject for e in broker.events()] == ["a", "b", "c"] and broker.trips == 1


def test_the_good_records_are_published_before_the_bad_raise(broker, monkeypatch) -> None:
    monkeypatch.setenv("DIMS_BROKER_URL", broker.url)
    with pytest.raises(EventError, match="1 of the records cannot be read"):
        handler(notification(record("a"), {"nonsense": 1}, record("c")), None)
    assert [e.subject for e in broker.events()] == ["a", "c"]


def test_sqs_is_told_which_messages_failed(broker, monkeypatch) -> None:
    monkeypatch.setenv("DIMS_BROKER_URL", broker.url)
    batch = sqs(notification(record("a")), "{torn", notification(record("b"), record("%FF"), record("%FF")))
    assert handler(batch, None) == {"batchItemFailures": [{"itemIdentifier": "m1"}, {"itemIdentifier": "m2"}]}
    assert [e.subject for e in broker.events()] == ["a", "b"]
    assert handler(sqs(bridge()), None) == {"batchItemFailures": []}


def test_broker_away_raises_so_that_aws_tries_again(broker, monkeypatch) -> None:
    monkeypatch.setenv("DIMS_BROKER_URL", broker.url)
    broker.away()
    for given in (notification(record()), sqs(notification(record()))):
        with pytest.raises(BrokerUnreachable):
            handler(given, None)
    monkeypatch.delenv("DIMS_BROKER_URL")
    with pytest.raises(ConfigError):
        handler(notification(record()), None)
