"""Real notifications (moto's S3, SQS, SNS and EventBridge) through the Lambda into a real Valkey."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import boto3
import pytest

from dims_producers.s3_lambda import handler
from dims_worker.errors import BrokerUnreachable, EventError
from tests.conftest import Lake
from tests.fixtures.s3_notifications import notification, record, sqs

CREATED_AND_REMOVED = ["s3:ObjectCreated:*", "s3:ObjectRemoved:*"]
KEYS = ["raw/a b+c.json", "100%/ü€😀.parquet", "x=1/y"]


class Account:
    """Clients of moto's server, a bucket and a queue."""

    def __init__(self, lake: Lake) -> None:
        def client(name: str) -> Any:
            return boto3.client(
                name,
                endpoint_url=lake.url,
                region_name="us-east-1",
                aws_access_key_id="test",
                aws_secret_access_key="test",
            )

        self.s3, self.sqs, self.sns, self.bridge = (client(name) for name in ("s3", "sqs", "sns", "events"))
        self.clients = (self.s3, self.sqs, self.sns, self.bridge)
        self.s3.create_bucket(Bucket="lake")
        self.queue = self.sqs.create_queue(QueueName="dims")["QueueUrl"]
        attributes = self.sqs.get_queue_attributes(QueueUrl=self.queue, AttributeNames=["QueueArn"])
        self.arn = attributes["Attributes"]["QueueArn"]

    def notify(self, configuration: dict[str, Any]) -> None:
        self.s3.put_bucket_notification_configuration(Bucket="lake", NotificationConfiguration=configuration)

    def batch(self) -> dict[str, Any]:
        """Return what Lambda's poller sends: everything in the queue. Deletes nothing."""
        received: list[Any] = []
        while messages := self.sqs.receive_message(QueueUrl=self.queue, MaxNumberOfMessages=10).get("Messages"):
            received += messages
        return {
            "Records": [
                {
                    "messageId": message["MessageId"],
                    "receiptHandle": message["ReceiptHandle"],
                    "body": message["Body"],
                    "attributes": {},
                    "messageAttributes": {},
                    "md5OfBody": message["MD5OfBody"],
                    "eventSource": "aws:sqs",
                    "eventSourceARN": self.arn,
                    "awsRegion": "us-east-1",
                }
                for message in received
            ]
        }


@pytest.fixture
def account(lake: Lake) -> Iterator[Account]:
    account = Account(lake)
    yield account
    for client in account.clients:
        client.close()


@pytest.fixture(autouse=True)
def _environment(valkey: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIMS_BROKER_URL", valkey.url)


def reported(valkey: Any) -> list[tuple[str, str | None]]:
    return [(event.type.removeprefix("com.amazonaws.s3."), event.subject) for event in valkey.events()]


def test_notifications_of_s3_to_a_queue_become_events(account: Account, valkey: Any) -> None:
    account.notify({"QueueConfigurations": [{"QueueArn": account.arn, "Events": CREATED_AND_REMOVED}]})
    for key in KEYS:
        account.s3.put_object(Bucket="lake", Key=key, Body=b"12345")
    account.s3.copy_object(Bucket="lake", Key="copy", CopySource={"Bucket": "lake", "Key": KEYS[0]})
    account.s3.delete_object(Bucket="lake", Key=KEYS[0])
    batch = account.batch()
    assert len(batch["Records"]) == 6  # the test message is the sixth
    assert handler(batch, None) == {"batchItemFailures": []}
    expected = [
        *(("ObjectCreated:Put", key) for key in KEYS),
        ("ObjectCreated:Copy", "copy"),
        ("ObjectRemoved:Delete", KEYS[0]),
    ]
    assert sorted(reported(valkey)) == sorted(expected)
    (first,) = [e for e in valkey.events() if e.type.endswith("Put") and e.subject == KEYS[0]]
    assert first.producer == "aws:s3.us-east-1.lake"
    assert first.data["size"] == 5 and first.data["bucket"] == "lake" and first.data["key"] == KEYS[0]
    before = {event.id for event in valkey.events()}
    handler(batch, None)  # SQS may deliver a message twice
    assert {event.id for event in valkey.events()} == before and len(before) == 5


def test_a_multipart_upload_becomes_an_event(account: Account, valkey: Any) -> None:
    account.notify({"QueueConfigurations": [{"QueueArn": account.arn, "Events": CREATED_AND_REMOVED}]})
    upload = account.s3.create_multipart_upload(Bucket="lake", Key="big")["UploadId"]
    part = account.s3.upload_part(Bucket="lake", Key="big", UploadId=upload, PartNumber=1, Body=b"x")
    parts = {"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]}
    account.s3.complete_multipart_upload(Bucket="lake", Key="big", UploadId=upload, MultipartUpload=parts)
    handler(account.batch(), None)
    assert ("ObjectCreated:CompleteMultipartUpload", "big") in reported(valkey)


@pytest.mark.parametrize("raw", ["true", "false"])
def test_notifications_through_sns_to_a_queue_become_events(account: Account, valkey: Any, raw: str) -> None:
    topic = account.sns.create_topic(Name="dims")["TopicArn"]
    account.sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=account.arn, Attributes={"RawMessageDelivery": raw})
    account.notify({"TopicConfigurations": [{"TopicArn": topic, "Events": CREATED_AND_REMOVED}]})
    for key in KEYS:
        account.s3.put_object(Bucket="lake", Key=key, Body=b"1")
    batch = account.batch()
    assert len(batch["Records"]) == 4
    assert ("TopicArn" in json.loads(batch["Records"][1]["body"])) == (raw == "false")
    assert handler(batch, None) == {"batchItemFailures": []}
    assert sorted(reported(valkey)) == sorted(("ObjectCreated:Put", key) for key in KEYS)


def test_eventbridge_events_to_a_queue_become_events(account: Account, valkey: Any) -> None:
    pattern = json.dumps({"source": ["aws.s3"], "detail": {"bucket": {"name": ["lake"]}}})
    account.bridge.put_rule(Name="dims", EventPattern=pattern)
    account.bridge.put_targets(Rule="dims", Targets=[{"Id": "dims", "Arn": account.arn}])
    account.notify({"EventBridgeConfiguration": {}})
    for key in KEYS:
        account.s3.put_object(Bucket="lake", Key=key, Body=b"1")
    account.s3.delete_object(Bucket="lake", Key=KEYS[0])
    assert handler(account.batch(), None) == {"batchItemFailures": []}
    # moto's reasons differ from those of AWS, and it sends a tag event for each put
    events = [(kind.partition(":")[0], key) for kind, key in reported(valkey) if not kind.startswith("ObjectTagging")]
    assert sorted(events) == sorted([*(("ObjectCreated", key) for key in KEYS), ("ObjectRemoved", KEYS[0])])


def test_only_an_invalid_message_is_named_and_redelivered(account: Account, valkey: Any) -> None:
    account.notify({"QueueConfigurations": [{"QueueArn": account.arn, "Events": CREATED_AND_REMOVED}]})
    account.s3.put_object(Bucket="lake", Key="good", Body=b"1")
    torn = account.sqs.send_message(QueueUrl=account.queue, MessageBody='{"Records": [{"eventSource": "aws:s3"')
    answer = handler(account.batch(), None)
    assert answer == {"batchItemFailures": [{"itemIdentifier": torn["MessageId"]}]}
    assert reported(valkey) == [("ObjectCreated:Put", "good")]


def test_events_are_kept_while_the_broker_is_unreachable(valkey: Any) -> None:
    batch = sqs(*(notification(record(f"k{number}", sequencer=str(number))) for number in range(5)))
    valkey.stop()
    with pytest.raises(BrokerUnreachable):
        handler(batch, None)
    valkey.start()
    assert handler(batch, None) == {"batchItemFailures": []}
    assert [event.subject for event in valkey.events()] == [f"k{number}" for number in range(5)]


def test_a_broker_that_is_full_raises_and_nothing_is_lost(valkey: Any) -> None:
    """Some events may have arrived before it was full. They arrive again with the same ids."""
    records = [record(f"k{number}", sequencer=str(number)) for number in range(300)]
    valkey.client.config_set("maxmemory-policy", "noeviction")
    valkey.client.config_set("maxmemory", "1")
    try:
        with pytest.raises(BrokerUnreachable, match="refuses"):
            handler(sqs(*map(notification, records)), None)
    finally:
        valkey.client.config_set("maxmemory", "0")
    assert handler(sqs(*map(notification, records)), None) == {"batchItemFailures": []}
    assert {event.subject for event in valkey.events()} == {f"k{number}" for number in range(300)}


def test_a_large_batch_is_sent_in_one_round_trip(valkey: Any) -> None:
    """SQS sends at most 10,000 messages, and a call accepts at most 6 MB."""
    batch = sqs(*(notification(record(f"k{number}", sequencer=str(number))) for number in range(10_000)))
    before = valkey.client.info("stats")["total_connections_received"]
    assert handler(batch, None) == {"batchItemFailures": []}
    assert valkey.client.xlen("dims:events") == 10_000
    assert valkey.client.info("stats")["total_connections_received"] == before + 1


def test_good_records_are_in_the_stream_before_bad_ones_raise(valkey: Any) -> None:
    with pytest.raises(EventError):
        handler(notification(record("good"), {"nonsense": 1}), None)
    assert reported(valkey) == [("ObjectCreated:Put", "good")]
