"""docs/deploy.md against moto's AWS, botocore's models, the Procfile and a real Valkey."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import boto3
import pytest
import redis
from botocore import xform_name
from botocore.session import Session

from dims_producers.publish import broker_url, publish
from dims_producers.s3_lambda import events_of, handler
from dims_worker.errors import BrokerUnreachable
from dims_worker.events import STREAM, Event
from dims_worker.local import procfile
from tests.conftest import REPO, Lake
from tests.fixtures.s3_notifications import bridge

GUIDE = (REPO / "docs/deploy.md").read_text(encoding="utf-8")
REGION, ACCOUNT = "eu-west-1", "111122223333"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{re.escape(language)}\n(.*?)^```", GUIDE, re.MULTILINE | re.DOTALL)


DOCUMENTS = [json.loads(body) for body in blocks("json")]


def documents(key: str) -> list[Any]:
    return [document for document in DOCUMENTS if key in document]


def here(document: Any, region: str = "us-east-1") -> Any:
    """A document of the guide, with moto's account and region."""
    return json.loads(json.dumps(document).replace(ACCOUNT, "123456789012").replace(REGION, region))


@pytest.fixture
def aws(lake: Lake) -> Iterator[Any]:
    """Clients of moto's server, by name."""
    clients: dict[str, Any] = {}

    def client(name: str) -> Any:
        if name not in clients:
            clients[name] = boto3.client(
                name,
                endpoint_url=lake.url,
                region_name="us-east-1",
                aws_access_key_id="test",
                aws_secret_access_key="test",
            )
        return clients[name]

    yield client
    for open_client in clients.values():
        open_client.close()


def test_every_document_of_the_guide_is_tested_here() -> None:
    kinds = (
        "Variables",
        "Statement",
        "VisibilityTimeout",
        "QueueConfigurations",
        "EventBridgeConfiguration",
        "detail-type",
        "LambdaFunctionConfigurations",
    )
    assert [len(documents(kind)) for kind in kinds] == [1, 2, 1, 1, 1, 1, 1]
    assert len(DOCUMENTS) == 8


# --- AWS ------------------------------------------------------------------------------------------------


def test_the_role_is_a_policy_and_reads_no_object(aws: Any) -> None:
    role, _ = documents("Statement")
    aws("iam").create_policy(PolicyName="dims-s3", PolicyDocument=json.dumps(role))  # moto refuses an invalid one
    actions = [action for statement in role["Statement"] for action in statement["Action"]]
    assert {"sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:GetQueueAttributes"} <= set(actions)
    assert not [action for action in actions if action.startswith("s3:")]


def made_queue(aws: Any) -> str:
    """The queue of the guide, created as in the guide."""
    sqs = aws("sqs")
    sqs.create_queue(QueueName="dims-s3-dead", Attributes={"MessageRetentionPeriod": "1209600"})
    queue: str = sqs.create_queue(QueueName="dims-s3", Attributes=here(documents("VisibilityTimeout")[0]))["QueueUrl"]
    sqs.set_queue_attributes(QueueUrl=queue, Attributes={"Policy": json.dumps(here(documents("Statement")[1]))})
    return queue


def test_an_upload_reaches_the_stream_through_the_queue_of_the_guide(
    aws: Any, valkey: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue = made_queue(aws)
    aws("s3").create_bucket(Bucket="my-lake")
    configuration = here(documents("QueueConfigurations")[0])
    aws("s3").put_bucket_notification_configuration(Bucket="my-lake", NotificationConfiguration=configuration)
    for key in ("raw/a b.json", "elsewhere/b"):
        aws("s3").put_object(Bucket="my-lake", Key=key, Body=b"1")
    messages = aws("sqs").receive_message(QueueUrl=queue, MaxNumberOfMessages=10)["Messages"]
    batch = {
        "Records": [
            {"eventSource": "aws:sqs", "messageId": message["MessageId"], "body": message["Body"]}
            for message in messages
        ]
    }
    (variables,) = documents("Variables")
    assert list(variables["Variables"]) == ["DIMS_BROKER_URL"]
    assert broker_url(variables["Variables"], None).startswith("rediss://dims-producer:")
    monkeypatch.setenv("DIMS_BROKER_URL", valkey.url)
    assert handler(batch, None) == {"batchItemFailures": []}
    assert [event.subject for event in valkey.events()] == [
        "raw/a b.json"
    ]  # without the upload that the filter excludes


def test_dead_letters_are_kept_longer_and_the_times_fit(aws: Any) -> None:
    (attributes,) = documents("VisibilityTimeout")
    redrive = json.loads(attributes["RedrivePolicy"])
    dead = int(re.findall(r"dims-s3-dead --attributes MessageRetentionPeriod=(\d+)", GUIDE)[0])
    assert int(attributes["MessageRetentionPeriod"]) == 10 * 86_400 and dead == 14 * 86_400
    timeout = int(re.findall(r"--timeout (\d+)", GUIDE)[0])
    assert int(attributes["VisibilityTimeout"]) >= 6 * timeout
    hours = int(attributes["VisibilityTimeout"]) * redrive["maxReceiveCount"] // 3600
    assert (
        f"unreachable for {hours} hours" in " ".join(GUIDE.split())
        and f"after {redrive['maxReceiveCount']} attempts" in GUIDE
    )
    policy = documents("Statement")[1]["Statement"][0]
    assert (
        policy["Principal"] == {"Service": "s3.amazonaws.com"}
        and {"ArnLike", "StringEquals"} == policy["Condition"].keys()
    )


def test_the_bucket_accepts_the_direct_notification_of_the_function(aws: Any) -> None:
    aws("s3").create_bucket(Bucket="my-lake")
    configuration = here(documents("LambdaFunctionConfigurations")[0])
    aws("s3").put_bucket_notification_configuration(Bucket="my-lake", NotificationConfiguration=configuration)
    kept = aws("s3").get_bucket_notification_configuration(Bucket="my-lake")
    assert kept["LambdaFunctionConfigurations"] == configuration["LambdaFunctionConfigurations"]


def test_the_pattern_matches_the_types_it_names_and_the_lambda_accepts_them(aws: Any) -> None:
    queue = made_queue(aws)
    (pattern,) = documents("detail-type")
    aws("events").put_rule(Name="dims-s3", EventPattern=json.dumps(pattern))
    arn = aws("sqs").get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    aws("events").put_targets(Rule="dims-s3", Targets=[{"Id": "dims-s3", "Arn": arn}])
    for bucket in ("my-lake", "other"):
        aws("s3").create_bucket(Bucket=bucket)
        line = documents("EventBridgeConfiguration")[0]
        aws("s3").put_bucket_notification_configuration(Bucket=bucket, NotificationConfiguration=line)
        aws("s3").put_object(Bucket=bucket, Key="uploaded", Body=b"1")
    examples = [bridge(kind=kind) for kind in pattern["detail-type"]]
    for event in examples:
        event["detail"]["bucket"]["name"] = "my-lake"
    for event in (*examples, bridge(), bridge(kind="Object Tags Added", bucket={"name": "my-lake"})):
        aws("events").put_events(
            Entries=[
                {"Source": event["source"], "DetailType": event["detail-type"], "Detail": json.dumps(event["detail"])}
            ]
        )
    messages = aws("sqs").receive_message(QueueUrl=queue, MaxNumberOfMessages=10)["Messages"]
    came = [json.loads(message["Body"])["detail-type"] for message in messages]
    assert sorted(came) == sorted(["Object Created", *pattern["detail-type"]])  # the upload, and the test events
    for message in messages:
        events, bad = events_of(json.loads(message["Body"]), datetime.now(UTC))
        assert len(events) == 1 and not bad


def commands() -> list[list[str]]:
    lines = "\n".join(blocks("bash")).replace("\\\n", " ").splitlines()
    return [shlex.split(line) for line in lines if line.startswith("aws ")]


@pytest.mark.parametrize("words", commands(), ids=lambda words: " ".join(words[1:3]))
def test_each_command_of_aws_exists_with_its_options(words: list[str]) -> None:
    """The command line of AWS is made from the same models: `--queue-name` is `QueueName`."""
    service = "s3" if words[1] == "s3api" else words[1]
    model = Session().get_service_model(service)
    (operation,) = [name for name in model.operation_names if xform_name(name, "-") == words[2]]
    shape = model.operation_model(operation).input_shape
    known = {xform_name(name, "-"): name for name in shape.members}
    known |= {"zip-file": "Code"} if words[2] == "create-function" else {}  # the only option with another name
    given = {word.removeprefix("--") for word in words if word.startswith("--")}
    assert given <= known.keys()
    assert set(shape.required_members) <= {known[name] for name in given}


# --- hosts ----------------------------------------------------------------------------------------------


def test_the_worker_of_a_queue_differs_from_the_procfile_only_in_the_queue() -> None:
    lines = [line for body in blocks("bash") for line in body.splitlines()]
    (command,) = [line for line in lines if line.startswith("python -P -m dims_worker.worker")]
    (queue,) = re.findall(r"queue: (\S+)}", GUIDE)
    entries = {entry.name: entry for entry in procfile.parse((REPO / "Procfile").read_text(encoding="utf-8"))}
    assert shlex.split(command.replace(f",{queue}", "")) == list(entries["worker"].words)


# --- the broker -----------------------------------------------------------------------------------------


def test_the_broker_knows_the_settings_of_the_guide(valkey: Any) -> None:
    (lines,) = blocks("conf")
    before = {name: valkey.client.config_get(name)[name] for name in ("appendonly", "appendfsync", "maxmemory-policy")}
    try:
        for line in lines.splitlines():
            name, value = line.split()
            assert name in before
            valkey.client.config_set(name, value)
            assert valkey.client.config_get(name)[name] == value
    finally:
        for name, value in before.items():
            valkey.client.config_set(name, value)


@pytest.fixture
def producer(valkey: Any) -> Iterator[redis.Redis]:
    """A client with the producers' account, created as in the guide."""
    (line,) = blocks("acl")
    valkey.client.execute_command(*line.replace(">PASSWORD", ">stolen").split())
    with redis.Redis(port=valkey.port, username="dims-producer", password="stolen") as client:
        yield client
    valkey.client.acl_deluser("dims-producer")


EVENT = {"event": '{"specversion":"1.0","id":"1","source":"s","type":"t","time":"2026-11-22T09:00:00Z"}'}


def test_the_account_publishes_and_may_do_nothing_else(valkey: Any, producer: redis.Redis) -> None:
    url = f"redis://dims-producer:stolen@127.0.0.1:{valkey.port}/0"
    publish([Event.from_json(EVENT["event"])], url)
    assert [event.id for event in valkey.events()] == ["1"]
    with pytest.raises(BrokerUnreachable, match="refuses"):
        publish([Event.from_json(EVENT["event"])], url.removesuffix("0") + "1")
    valkey.client.set("other", "1")
    forbidden = [
        ("XADD", "other:stream", "*", "event", "x"),
        ("XREAD", "STREAMS", STREAM, "0"),
        ("XRANGE", STREAM, "-", "+"),
        ("XLEN", STREAM),
        ("XDEL", STREAM, "1-0"),
        ("XTRIM", STREAM, "MAXLEN", "0"),
        ("DEL", STREAM),
        ("XREADGROUP", "GROUP", "dims", "c", "STREAMS", STREAM, ">"),
        ("GET", "other"),
        ("SET", STREAM, "x"),
        ("EVAL", "return 1", "0"),
        ("CONFIG", "GET", "*"),
        ("KEYS", "*"),
        ("LPUSH", "dims.ingest", "x"),
        ("PING",),
        ("SUBSCRIBE", "x"),
        ("PUBLISH", "x", "y"),
        ("FLUSHALL",),
        ("ACL", "LIST"),
        ("INFO",),
        ("CLIENT", "LIST"),
    ]
    for words in forbidden:
        with pytest.raises(redis.exceptions.NoPermissionError):
            producer.execute_command(*words)
    assert valkey.client.xlen(STREAM) == 1


def test_a_stolen_key_can_do_only_what_the_guide_says(valkey: Any, producer: redis.Redis) -> None:
    """It can trim events that are not stored yet, and block later ids with one far in the future."""
    for _ in range(5):
        producer.xadd(STREAM, EVENT)
    producer.xadd(STREAM, EVENT, maxlen=1, approximate=False)
    assert valkey.client.xlen(STREAM) == 1
    producer.xadd(STREAM, EVENT, minid="9999999999999-0", approximate=False)
    assert valkey.client.xlen(STREAM) == 0
    producer.xadd(STREAM, EVENT, id="18446744073709551615-18446744073709551615")
    with pytest.raises(redis.ResponseError, match=r"exhausted|equal or smaller"):
        valkey.client.xadd(STREAM, EVENT)
