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
            return boto3.client(name, endpoint_url=lake.url, region_name="us-east-1",
                                aws_access_key_id="test", aws_secret_access_key="test")  # fmt: skip

        self.s3, self.sqs, self.sns, self.bridge = (client(name) for name in ("s3", "sqs", "sns", "events"))
        self.clients = (self.s3, self.sqs, self.sns, self.bridge)
        self.s3.create_bucket(Bucket="lake")
        self.queue = self.sqs.create_queue(QueueName="dims")["QueueUrl"]
        attributes = self.sqs.get_queue_attributes(QueueUrl=self.queue, AttributeNames=["QueueArn"])
        self.arn = attributes["Attributes"]["QueueArn"]

    def notify(self, configuration: dict[str, Any]) -> None:
        self.s3.put_bucket_notification_configuration(Bucket="lake", NotificationConfiguration=configuration)

    def batch(self) -> dict[str, Any]:
        """What Lambda's poller would hand over: all that waits in the queue. Nothing is deleted."""
        found: list[Any] = []
        while messages := self.sqs.receive_message(QueueUrl=self.queue, MaxNumberOfMessages=10).get("Messages"):
            found += messages
        return {"Records": [{"messageId": one["MessageId"], "receiptHandle": one["ReceiptHandle"], "body": one["Body"],
                             "attributes": {}, "messageAttributes": {}, "md5OfBody": one["MD5OfBody"],
                             "eventSource": "aws:sqs", "eventSourceARN": self.arn, "awsRegion": "us-east-1"}
                            for one in found]}  # fmt: skip


@pytest.fixture
def account(lake: Lake) -> Iterator[Account]:
    made = Account(lake)
    yield made
    for client in made.clients:
        client.close()


@pytest.fixture(autouse=True)
def _environment(valkey: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIMS_BROKER_URL", valkey.url)


def told(valkey: Any) -> list[tuple[str, str | None]]:
    return [(event.type.removeprefix("com.amazonaws.s3."), event.subject) for event in valkey.events()]


def test_what_s3_sends_to_a_queue(account: Account, valkey: Any) -> None:
    account.notify({"QueueConfigurations": [{"QueueArn": account.arn, "Events": CREATED_AND_REMOVED}]})
    for key in KEYS:
        account.s3.put_object(Bucket="lake", Key=key, Body=b"12345")
    account.s3.copy_object(Bucket="lake", Key="copy", CopySource={"Bucket": "lake", "Key": KEYS[0]})
    account.s3.delete_object(Bucket="lake", Key=KEYS[0])
    batch = account.batch()
    assert len(batch["Records"]) == 6  # the test message is one
    assert handler(batch, None) == {"batchItemFailures": []}
    expected = [*(("ObjectCreated:Put", key) for key in KEYS), ("ObjectCreated:Copy", "copy"),
                ("ObjectRemoved:Delete", KEYS[0])]  # fmt: skip
    assert sorted(told(valkey)) == sorted(expected)
    (first,) = [e for e in valkey.events() if e.type.endswith("Put") and e.subject == KEYS[0]]
    assert first.producer == "aws:s3.us-east-1.lake"
    assert first.data["size"] == 5 and first.data["bucket"] == "lake" and first.data["key"] == KEYS[0]
    before = {event.id for event in valkey.events()}
    handler(batch, None)  # delivered again, as SQS may
    assert {event.id for event in valkey.events()} == before and len(before) == 5


def test_a_multipart_upload_is_told(account: Account, valkey: Any) -> None:
    account.notify({"QueueConfigurations": [{"QueueArn": account.arn, "Events": CREATED_AND_REMOVED}]})
    upload = account.s3.create_multipart_upload(Bucket="lake", Key="big")["UploadId"]
    part = account.s3.upload_part(Bucket="lake", Key="big", UploadId=upload, PartNumber=1, Body=b"x")
    parts = {"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]}
    account.s3.complete_multipart_upload(Bucket="lake", Key="big", UploadId=upload, MultipartUpload=parts)
    handler(account.batch(), None)
    assert ("ObjectCreated:CompleteMultipartUpload", "big") in told(valkey)


@pytest.mark.parametrize("raw", ["true", "false"])
def test_what_s3_sends_through_sns_to_a_queue(account: Account, valkey: Any, raw: str) -> None:
    topic = account.sns.create_topic(Name="dims")["TopicArn"]
    account.sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=account.arn,
                          Attributes={"RawMessageDelivery": raw})  # fmt: skip
    account.notify({"TopicConfigurations": [{"TopicArn": topic, "Events": CREATED_AND_REMOVED}]})
    for key in KEYS:
        account.s3.put_object(Bucket="lake", Key=key, Body=b"1")
    batch = account.batch()
    assert len(batch["Records"]) == 4
    assert ("TopicArn" in json.loads(batch["Records"][1]["body"])) == (raw == "false")
    assert handler(batch, None) == {"batchItemFailures": []}
    assert sorted(told(valkey)) == sorted(("ObjectCreated:Put", key) for key in KEYS)


def test_what_eventbridge_sends_to_a_queue(account: Account, valkey: Any) -> None:
    pattern = json.dumps({"source": ["aws.s3"], "detail": {"bucket": {"name": ["lake"]}}})
    account.bridge.put_rule(Name="dims", EventPattern=pattern)
    account.bridge.put_targets(Rule="dims", Targets=[{"Id": "dims", "Arn": account.arn}])
    account.notify({"EventBridgeConfiguration": {}})
    for key in KEYS:
        account.s3.put_object(Bucket="lake", Key=key, Body=b"1")
    account.s3.delete_object(Bucket="lake", Key=KEYS[0])
    assert handler(account.batch(), None) == {"batchItemFailures": []}
    # moto's reasons are not those of AWS, and it tells of tags at each put
    events = [(kind.partition(":")[0], key) for kind, key in told(valkey) if not kind.startswith("ObjectTagging")]
    assert sorted(events) == sorted([*(("ObjectCreated", key) for key in KEYS), ("ObjectRemoved", KEYS[0])])


def test_a_torn_message_is_named_and_comes_again_alone(account: Account, valkey: Any) -> None:
    account.notify({"QueueConfigurations": [{"QueueArn": account.arn, "Events": CREATED_AND_REMOVED}]})
    account.s3.put_object(Bucket="lake", Key="good", Body=b"1")
    torn = account.sqs.send_message(QueueUrl=account.queue, MessageBody='{"Records": [{"eventSource": "aws:s3"')
    answer = handler(account.batch(), None)
    assert answer == {"batchItemFailures": [{"itemIdentifier": torn["MessageId"]}]}
    assert told(valkey) == [("ObjectCreated:Put", "good")]


def test_a_broker_that_is_away_keeps_all_and_comes_back(valkey: Any) -> None:
    batch = sqs(*(notification(record(f"k{number}", sequencer=str(number))) for number in range(5)))
    valkey.stop()
    with pytest.raises(BrokerUnreachable):
        handler(batch, None)
    valkey.start()
    assert handler(batch, None) == {"batchItemFailures": []}
    assert [event.subject for event in valkey.events()] == [f"k{number}" for number in range(5)]


def test_a_broker_that_is_full_raises_and_nothing_is_lost(valkey: Any) -> None:
    """Some may have arrived before it was full: they come again under their ids."""
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


def test_a_large_batch_is_one_round_trip(valkey: Any) -> None:
    """10,000 messages are the most that SQS hands over; 6 MB the most that a call takes."""
    batch = sqs(*(notification(record(f"k{number}", sequencer=str(number))) for number in range(10_000)))
    before = valkey.client.info("stats")["total_connections_received"]
    assert handler(batch, None) == {"batchItemFailures": []}
    assert valkey.client.xlen("dims:events") == 10_000
    assert valkey.client.info("stats")["total_connections_received"] == before + 1


def test_the_good_are_in_the_stream_before_the_bad_raise(valkey: Any) -> None:
    with pytest.raises(EventError):
        handler(notification(record("good"), {"nonsense": 1}), None)
    assert told(valkey) == [("ObjectCreated:Put", "good")]
