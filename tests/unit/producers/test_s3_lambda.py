"""The Lambda unpacks, publishes and answers what AWS sends."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from dims_producers.s3_lambda import events_of, handler
from dims_worker.errors import BrokerUnreachable, ConfigError, EventError
from tests.fixtures.s3_notifications import bridge, notification, record, s3_test_event, sns, sns_message, sqs

NOW = datetime(2026, 11, 22, 9, tzinfo=UTC)


def test_one_change_is_one_event_in_any_wrapping() -> None:
    plain = notification(record())
    ways = [
        plain,
        sns(plain),
        sqs(plain),
        sqs(sns_message(plain)),
        bridge(),
        sns(bridge()),
        sqs(bridge()),
        sqs(sns_message(bridge())),
        record(),
    ]
    results = [events_of(way, NOW) for way in ways]
    assert all(not bad for _, bad in results)
    (first,) = results[0][0]
    assert first.subject == "a.parquet"
    assert all(events == [first] for events, _ in results)


def test_all_records_are_read_in_their_order() -> None:
    given = sqs(notification(record("a"), record("b")), bridge("c"), sns_message(notification(record("d"))))
    events, bad = events_of(given, NOW)
    assert [event.subject for event in events] == ["a", "b", "c", "d"] and not bad


@pytest.mark.parametrize("wrap", [lambda x: x, sns, sqs, lambda x: sqs(sns_message(x))])
def test_the_test_message_is_ignored(wrap: Any, broker: Any) -> None:
    assert events_of(wrap(s3_test_event()), NOW) == ([], [])
    assert handler(wrap(s3_test_event()), None) in ({"published": 0}, {"batchItemFailures": []})
    assert broker.trips == 0


DEEP = sns(sns(sns(sns(notification(record())))))
BAD: list[Any] = [
    {},
    [],
    None,
    "text",
    {"Records": {}},
    {"Records": [1]},
    notification({"eventSource": "aws:s3"}),
    notification(record("%FF")),
    notification(record() | {"s3": 1}),
    {"detail": {}, "detail-type": "x"},
    sns("not s3"),
    notification({"EventSource": "aws:sns", "Sns": {}}),
    notification({"EventSource": "aws:sns"}),
    sns({"Message": 7}),
    DEEP,
    {"Records": [{"Records": [{"Records": [{"Records": [{"Records": [record()]}]}]}]}]},
    notification({"eventSource": "aws:sqs", "body": "{"}),
    notification({"eventSource": "aws:sqs", "body": None}),
    sqs("[" * 100_000),
    notification({"eventSource": "aws:kinesis", "kinesis": {"data": "eA=="}}),
]


@pytest.mark.parametrize("given", BAD, ids=[str(number) for number in range(len(BAD))])
def test_invalid_input_is_reported_and_never_raises(given: Any) -> None:
    events, bad = events_of(given, NOW)
    assert not events and len(bad) == 1 and bad[0].reason.isascii()


def test_the_handler_publishes_all_events_in_one_round_trip(broker: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIMS_BROKER_URL", broker.url)
    assert handler(notification(record("a"), record("b"), record("c")), None) == {"published": 3}
    assert [e.subject for e in broker.events()] == ["a", "b", "c"] and broker.trips == 1


def test_good_records_are_published_before_bad_ones_raise(broker: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIMS_BROKER_URL", broker.url)
    with pytest.raises(EventError, match="cannot read 1 of the records"):
        handler(notification(record("a"), {"nonsense": 1}, record("c")), None)
    assert [e.subject for e in broker.events()] == ["a", "c"]


def test_the_answer_to_sqs_names_the_failed_messages(broker: Any, monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    monkeypatch.setenv("DIMS_BROKER_URL", broker.url)
    batch = sqs(notification(record("a")), "{torn", notification(record("b"), record("%FF"), record("%FF")))
    assert handler(batch, None) == {"batchItemFailures": [{"itemIdentifier": "m1"}, {"itemIdentifier": "m2"}]}
    assert [e.subject for e in broker.events()] == ["a", "b"]
    assert caplog.text.count("cannot publish a record") == 3
    assert handler(sqs(bridge()), None) == {"batchItemFailures": []}


def test_only_the_messages_of_the_batch_are_named() -> None:
    """An id that is not in the batch would make AWS fail the whole batch for ever."""
    inner = sqs("garbage")
    inner["Records"][0]["messageId"] = "made up"
    _, bad = events_of(sqs(inner, sns_message(inner)), NOW)
    assert [bad_record.message_id for bad_record in bad] == ["m0", "m1"]


@pytest.mark.parametrize("name", [None, "", 7])
def test_a_bad_record_without_a_message_id_raises(name: object, broker: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIMS_BROKER_URL", broker.url)
    batch = sqs(notification(record("a")), "{torn")
    batch["Records"][1]["messageId"] = name
    with pytest.raises(EventError, match="1 of the records"):
        handler(batch, None)
    assert [e.subject for e in broker.events()] == ["a"]


@pytest.mark.parametrize("given", [notification(record()), sqs(notification(record()), "{torn"), bridge()])
def test_an_unreachable_broker_raises_so_that_aws_tries_again(
    given: Any, broker: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DIMS_BROKER_URL", broker.url)
    broker.set_unreachable()
    with pytest.raises(BrokerUnreachable):
        handler(given, None)
    monkeypatch.delenv("DIMS_BROKER_URL")
    with pytest.raises(ConfigError):
        handler(given, None)
    broker.set_unreachable(False)
    monkeypatch.setenv("DIMS_BROKER_URL", broker.url)
    handler(given, None)
    assert len(broker.events()) == 1


def test_the_answer_is_json(broker: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIMS_BROKER_URL", broker.url)
    answer = json.loads(json.dumps(handler(sqs(bridge(), "x"), None)))
    assert answer == {"batchItemFailures": [{"itemIdentifier": "m1"}]}
