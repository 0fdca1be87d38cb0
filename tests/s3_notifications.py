"""What AWS sends when something happens in a bucket, in the forms of its documentation (see `producers.s3_record`)."""

from __future__ import annotations

import json
from typing import Any

SEQUENCER = "0055AED6DCD90281E5"
REQUEST = "C3D13FE58DE4C810"


def record(key: str = "a.parquet", name: str = "ObjectCreated:Put", **thing: Any) -> dict[str, Any]:
    """S3's own form; what is given by name is part of the object. The key is URL-encoded."""
    return {
        "eventVersion": "2.6",
        "eventSource": "aws:s3",
        "awsRegion": "eu-west-1",
        "eventTime": "2026-11-22T08:59:00.123Z",
        "eventName": name,
        "userIdentity": {"principalId": "AWS:AIDAJDPLRKLG7UEXAMPLE"},
        "requestParameters": {"sourceIPAddress": "172.16.0.1"},
        "responseElements": {"x-amz-request-id": REQUEST, "x-amz-id-2": "FMyUVURIY8/IgAtTv8xRjskZQpcIZ9KG4V5Wp6S7"},
        "s3": {
            "s3SchemaVersion": "1.0",
            "configurationId": "dims",
            "bucket": {"name": "lake", "ownerIdentity": {"principalId": "A3NL1KOZZK"}, "arn": "arn:aws:s3:::lake"},
            "object": {"key": key, "size": 1024, "eTag": "d41d8cd98f00b204", "sequencer": SEQUENCER} | thing,
        },
    }


def bridge(key: str = "a.parquet", kind: str = "Object Created", **detail: Any) -> dict[str, Any]:
    """EventBridge's form; what is given by name is part of the detail (with - for _). The key is as it is."""
    named = {name.replace("_", "-"): value for name, value in detail.items()}
    thing = {"key": key, "size": 1024, "etag": "d41d8cd98f00b204", "sequencer": SEQUENCER} | named.pop("object", {})
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
            "event-version": "1.1",
            "bucket": {"name": "lake"},
            "object": {name: value for name, value in thing.items() if value is not None},
            "request-id": REQUEST,
            "requester": "123456789012",
            "source-ip-address": "172.16.0.1",
        }
        | ({"reason": "PutObject"} if kind == "Object Created" else {})
        | named,
    }


def notification(*records: Any) -> dict[str, Any]:
    return {"Records": list(records)}


def greeting() -> dict[str, Any]:
    """What S3 sends once, when the notification is configured."""
    return {"Service": "Amazon S3", "Event": "s3:TestEvent", "Time": "2026-11-22T09:00:00.000Z", "Bucket": "lake",
            "RequestId": "5582815E1AEA5ADF", "HostId": "8cLeGAmw098X5cv4Zkwcmo8vvZa3eH3eKxsPzbB9wrR"}  # fmt: skip


def sqs(*bodies: object) -> dict[str, Any]:
    """A batch for a Lambda: the messages are m0, m1, ..."""
    return notification(
        *(
            {
                "messageId": f"m{i}",
                "receiptHandle": "AQEBwJnKyrHigUMZj6rYigCgxlaS3SLy0a",
                "body": body if isinstance(body, str) else json.dumps(body),
                "attributes": {"ApproximateReceiveCount": "1", "SentTimestamp": "1545082649183"},
                "messageAttributes": {},
                "eventSource": "aws:sqs",
                "eventSourceARN": "arn:aws:sqs:eu-west-1:111122223333:dims-s3",
                "awsRegion": "eu-west-1",
            }
            for i, body in enumerate(bodies)
        )
    )


def sns(message: object) -> dict[str, Any]:
    """A call of a Lambda by SNS."""
    return notification(
        {
            "EventSource": "aws:sns",
            "EventVersion": "1.0",
            "EventSubscriptionArn": "arn:aws:sns:eu-west-1:111122223333:dims-s3:12b6a0a7",
            "Sns": told_by_sns(message),
        }
    )


def told_by_sns(message: object) -> dict[str, Any]:
    """What SNS sends to anything but a Lambda, such as a queue."""
    return {
        "Type": "Notification",
        "MessageId": "614a0b34-0000-5000-8000-58ffddd9745f",
        "TopicArn": "arn:aws:sns:eu-west-1:111122223333:dims-s3",
        "Subject": "Amazon S3 Notification",
        "Message": message if isinstance(message, str) else json.dumps(message),
        "Timestamp": "2026-11-22T08:59:01.000Z",
    }
