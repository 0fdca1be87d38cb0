"""Events over HTTP: the three content modes, and what is refused. Stored events equal those added with XADD."""

from __future__ import annotations

import gzip
import json
import math
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

import pytest
from cloudevents.core.bindings import http as sdk
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent
from redis import Redis
from sqlalchemy import Engine, text
from starlette.testclient import TestClient

from dims_worker.config import Config
from dims_worker.domain.plan import Planner
from dims_worker.events import FIELD, MAX_BYTES, STREAM, Event
from dims_worker.pipeline.ingest import ingest_stream
from dims_worker.web.api.cloudevents_http import BATCH, MAX_BODY, MAX_EVENTS, STRUCTURED
from tests.conftest import Project
from tests.integration.web.conftest import EVENTS_TOKEN, TOKENS, Visit

RULES = """
sources:
  here: {type: files, path: "."}
metrics:
  code:
    files: {source: here, measure: count}
rules:
  scraper_complete: {on: dims.scraper.complete}
"""
ENVELOPE = {
    "specversion": "1.0",
    "id": "1",
    "source": "shop/import",
    "type": "dims.scraper.complete",
    "time": "2026-11-22T09:00:00Z",
    "data": {"files": 3},
}
HEADERS = {
    "ce-specversion": "1.0",
    "ce-id": "1",
    "ce-source": "shop/import",
    "ce-type": "dims.scraper.complete",
    "ce-time": "2026-11-22T09:00:00Z",
    "content-type": "application/json",
}


@pytest.fixture
def config(project: Project) -> Config:
    project.write({"dims.yaml": RULES})
    return project.config


@pytest.fixture
def producer(config: Config, visit: Visit, broker_url: str) -> TestClient:
    client = visit(config, broker_url=broker_url)
    client.headers["authorization"] = f"Bearer {EVENTS_TOKEN}"
    return client


@pytest.fixture
def redis(broker_url: str) -> Iterator[Redis]:
    with Redis.from_url(broker_url) as client:
        yield client


def post(client: TestClient, body: bytes | str, kind: str = STRUCTURED, **headers: str) -> Any:
    return client.post("/api/events", content=body, headers={"content-type": kind, **headers})


def sent(redis: Redis) -> list[Event]:
    """Return the events in the stream."""
    rows: Any = redis.xrange(STREAM)
    return [Event.from_json(fields[FIELD.encode()]) for _, fields in rows]


def envelope_json(**changed: Any) -> str:
    return json.dumps({name: value for name, value in {**ENVELOPE, **changed}.items() if value is not None})


def refused(answer: Any, status: int, *expected: str) -> None:
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json"), answer.text
    for words in expected:
        assert words in answer.json()["detail"]


# --- what is accepted ---------------------------------------------------------------------------------


def test_the_three_modes_send_the_same_event(producer: TestClient, redis: Redis) -> None:
    answers = [
        post(producer, envelope_json()),
        post(producer, f"[{envelope_json()}]", BATCH),
        producer.post("/api/events", content='{"files": 3}', headers=HEADERS),
    ]
    assert [(each.status_code, each.json()) for each in answers] == [(202, {"accepted": 1, "ids": ["1"]})] * 3
    assert sent(redis) == [Event.from_json(envelope_json())] * 3


def test_events_of_the_official_sdk_are_stored_as_if_added_with_xadd(
    producer: TestClient, redis: Redis, engine: Engine, config: Config
) -> None:
    """In structured, batch and binary mode, with names that need percent-encoding."""
    subjects = ("plain", 'ein größerer %41 "Name"', "日本 \U0001f600", "a/b?c=d&e")
    written_by_sdk = [
        CloudEvent(
            {
                "id": f"{mode}-{n}",
                "source": "shop/größe",
                "type": "dims.scraper.complete",
                "specversion": "1.0",
                "time": datetime(2026, 11, 22, 9, n, tzinfo=UTC),
                "subject": subject,
                "datacontenttype": "application/json",
                "traceparent": "00-0af7",
            },
            {"n": n, "half": 0.5, "text": subject, "list": [1, None, True]},
        )
        for mode in ("structured", "batch", "binary")
        for n, subject in enumerate(subjects)
    ]
    structured, batch, binary = (
        [each for each in written_by_sdk if each.get_id().startswith(mode)]
        for mode in ("structured", "batch", "binary")
    )
    messages = [
        *(sdk.to_structured(each, JSONFormat()) for each in structured),
        *(sdk.to_binary(each, JSONFormat()) for each in binary),
        # The SDK has no batch mode, so put its envelopes into an array
        sdk.HTTPMessage({"content-type": BATCH}, b"[" + b",".join(JSONFormat().write(each) for each in batch) + b"]"),
    ]
    for message in messages:
        answer = producer.post("/api/events", content=message.body, headers=message.headers)
        assert answer.status_code == 202, answer.text
    ids = {each.get_id() for each in written_by_sdk}
    assert {each.id for each in sent(redis)} == ids

    def stored() -> list[tuple[Any, ...]]:
        columns = "producer, event_id, digest, type, subject, event_time, outcome, data, rules"
        with engine.connect() as connection:
            rows = connection.execute(text(f"SELECT {columns} FROM dims_event_log ORDER BY event_id"))
            return [tuple(row) for row in rows]

    ingest_stream(redis, engine, Planner(config))
    over_http = stored()
    assert {row[1] for row in over_http} == ids
    assert {row[6] for row in over_http} == {"planned"}

    with engine.begin() as connection:
        connection.execute(text("TRUNCATE dims_event_log"))
    for each in written_by_sdk:
        redis.xadd(STREAM, {FIELD: JSONFormat().write(each)})
    ingest_stream(redis, engine, Planner(config))
    assert stored() == over_http


def test_an_event_that_is_sent_again_is_one_event(
    producer: TestClient, redis: Redis, engine: Engine, config: Config
) -> None:
    for _ in range(2):
        assert (
            post(producer, f"[{envelope_json()}, {envelope_json(id='2')}, {envelope_json()}]", BATCH).status_code == 202
        )
    ingest_stream(redis, engine, Planner(config))
    with engine.connect() as connection:
        stored = connection.execute(text("SELECT event_id FROM dims_event_log ORDER BY seq")).scalars().all()
    assert stored == ["1", "2"]


def test_a_header_is_unquoted_and_percent_decoded_once(producer: TestClient, redis: Redis) -> None:
    headers_by_value = {
        "a%20b": "a b",
        "a b": "a b",
        '"a b"': "a b",
        r'"a \"b\" \\ %22"': 'a "b" \\ "',
        "": "",
        "100%": "100%",
        "%2541": "%41",
        "gr%C3%BC%c3%9fe": "grüße",
        "%F0%9F%98%80": "😀",
    }
    for value in headers_by_value:
        answer = producer.post("/api/events", content="{}", headers={**HEADERS, "ce-subject": value})
        assert answer.status_code == 202, answer.text
    assert [each.subject for each in sent(redis)] == list(headers_by_value.values())


def test_any_json_media_type_is_data_and_no_body_is_an_empty_object(producer: TestClient, redis: Redis) -> None:
    for kind in ("application/json; charset=utf-8", "Application/JSON", "application/ld+json"):
        answer = producer.post("/api/events", content='{"a": "ü"}', headers={**HEADERS, "content-type": kind})
        assert answer.status_code == 202
    bare = {name: value for name, value in HEADERS.items() if name != "content-type"}
    assert producer.post("/api/events", headers=bare).status_code == 202
    assert [each.data for each in sent(redis)] == [{"a": "ü"}] * 3 + [{}]


def test_an_empty_batch_and_the_longest_batch_are_accepted(producer: TestClient, redis: Redis) -> None:
    assert post(producer, " [ ] ", BATCH).json() == {"accepted": 0, "ids": []}
    longest = ",\n".join(envelope_json(id=str(n)) for n in range(MAX_EVENTS))
    assert post(producer, f"[{longest}]", BATCH).json()["accepted"] == MAX_EVENTS
    assert [each.id for each in sent(redis)] == [str(n) for n in range(MAX_EVENTS)]


def test_numbers_keep_their_exact_spelling(producer: TestClient, redis: Redis) -> None:
    numbers = "[1e22, 10000000000000000000000, 1.0, 0.1, -0.0, 123456789012345678901234567890]"
    body = envelope_json().replace('{"files": 3}', f'{{"n": {numbers}}}')
    binary = producer.post("/api/events", content=f'{{"n": {numbers}}}', headers=HEADERS)
    assert (post(producer, body).status_code, post(producer, f"[{body}]", BATCH).status_code) == (202, 202)
    assert binary.status_code == 202
    assert [str(each.data["n"]) for each in sent(redis)] == [str(json.loads(numbers))] * 3


# --- what is refused ----------------------------------------------------------------------------------

DEEP = '{"a":' * 100 + "1" + "}" * 100
BOMB = "[" * 2_000_000
BAD: Sequence[tuple[bytes | str, str]] = [
    ("", "the envelope is not valid JSON"),
    ("{", "the envelope is not valid JSON"),
    ("[]", "the envelope must be a JSON object, not list"),
    ("{}", "specversion must be"),
    (b"\xff\xfe", "the body is not UTF-8"),
    (b"\xef\xbb\xbf" + envelope_json().encode(), "the envelope is not valid JSON"),
    (envelope_json() + envelope_json(), "Extra data"),
    (envelope_json(time=None), "time is missing"),
    (envelope_json(id=""), "id must be a non-empty string"),
    (envelope_json(data=[1]), "data must be a JSON object, not list"),
    (envelope_json(data="aGk="), "data must be a JSON object, not str"),
    (envelope_json(data=None, data_base64="aGk="), "data_base64 is not supported"),
    (envelope_json(data={"a": math.nan}), "NaN is not a JSON number"),
    (envelope_json(data={"a": math.inf}), "Infinity is not a JSON number"),
    (envelope_json().replace("3}", "1e999}"), "Out of range"),
    (envelope_json().replace("3}", "9" * 5000 + "}"), "not valid JSON"),
    (envelope_json().replace('"id": "1"', '"id": "1", "id": "2"'), "the name 'id' is twice in one object"),
    (envelope_json().replace("3}", '{"a": 1, "a": 1}}'), "the name 'a' is twice in one object"),
    (envelope_json(subject="a\0b"), "NUL"),
    (envelope_json().replace("shop", r"\ud800"), "UTF-8"),
    (envelope_json().replace('{"files": 3}', DEEP), "nested too deeply"),
    (BOMB, "nested too deeply"),
    (envelope_json(data={"a": "x" * MAX_BYTES}), "bytes; the limit is 262,144"),
]


def test_an_invalid_envelope_is_refused_with_the_reason_in_each_mode(producer: TestClient, redis: Redis) -> None:
    for body, expected in BAD:
        refused(post(producer, body), 400, expected)
        if body not in ("", "{", "[]", BOMB) and isinstance(body, str):
            refused(
                post(producer, f"[{envelope_json()}, {body}]", BATCH),
                400,
                expected if expected != "Extra data" else "delimiter",
            )
    assert sent(redis) == []


def test_one_invalid_event_is_named_and_stops_the_whole_batch(producer: TestClient, redis: Redis) -> None:
    batch = [envelope_json(id=str(n)) for n in range(3)]
    batch[2] = envelope_json(id="2", time="yesterday")
    refused(post(producer, f"[{', '.join(batch)}]", BATCH), 400, "event 2 of the batch, counted from 0: time is not an")
    refused(post(producer, envelope_json(), BATCH), 400, "the batch must be a JSON array")
    refused(post(producer, "[1]", BATCH), 400, "event 0 of the batch", "JSON object, not int")
    refused(post(producer, f"[{envelope_json()},]", BATCH), 400, "the batch is not valid JSON")
    assert sent(redis) == []


def test_an_invalid_header_or_invalid_data_is_refused_with_the_reason(producer: TestClient, redis: Redis) -> None:
    bad: Sequence[tuple[dict[str, str], bytes | str, str]] = [
        ({"ce-id": ""}, "{}", "id must be a non-empty string"),
        ({"ce-time": "2026-11-22"}, "{}", "time is not an RFC 3339 time"),
        ({"ce-specversion": "0.3"}, "{}", "specversion must be"),
        ({"ce-id": "%FF"}, "{}", "the header ce-id is not percent-encoded UTF-8"),
        ({"ce-id": "%00"}, "{}", "NUL"),
        ({"ce-subject": "x" * 3000}, "{}", "subject has 3,000 characters"),
        ({}, "[]", "data must be a JSON object, not list"),
        ({}, "aGk=", "the data is not valid JSON"),
        ({}, '{}, "id": "2"', "the data is not valid JSON"),
        ({}, '{"a": NaN}', "NaN is not a JSON number"),
        ({}, '{"a": 1, "a": 2}', "the name 'a' is twice in one object"),
        ({}, b'{"a": "\xff"}', "not UTF-8"),
        ({}, DEEP, "nested too deeply"),
        ({}, BOMB, "nested too deeply"),
    ]
    for headers, body, expected in bad:
        refused(producer.post("/api/events", content=body, headers={**HEADERS, **headers}), 400, expected)
    twice = [*HEADERS.items(), ("ce-id", "2"), *producer.headers.items()]
    refused(
        producer.post("/api/events", content="{}", headers=twice),
        400,
        "the header ce-id is there 2 times. Send it once",
    )
    refused(producer.post("/api/events?a=1", content="{}", headers=HEADERS), 400, "unknown parameter 'a'")
    assert sent(redis) == []


FORMS: Sequence[tuple[dict[str, str], str]] = [
    ({"content-type": "text/plain", "ce-specversion": "1.0"}, "data must be a JSON object"),
    ({"content-type": "application/octet-stream", "ce-specversion": "1.0"}, "data must be a JSON object"),
    ({"content-type": "application/cloudevents+xml", "ce-specversion": "1.0"}, "Send an event as"),
    ({"content-type": "application/cloudevents-batch+avro"}, "Send an event as"),
    ({"content-type": "application/json"}, "with the attributes in ce- headers"),
    ({"content-type": "application/x-www-form-urlencoded"}, "Send an event as"),
    ({}, "there is no content-type"),
    ({"content-type": f"{STRUCTURED}; charset=latin-1"}, "JSON must be UTF-8, not 'latin-1'"),
    ({"content-type": STRUCTURED, "content-encoding": "gzip"}, "content-encoding 'gzip' is not supported"),
]


def test_an_unsupported_content_type_is_415(producer: TestClient, redis: Redis) -> None:
    for headers, expected in FORMS:
        body = gzip.compress(envelope_json().encode()) if "content-encoding" in headers else envelope_json().encode()
        refused(producer.post("/api/events", content=body, headers=headers), 415, expected)
    assert sent(redis) == []


def test_a_body_that_is_too_long_is_413_with_or_without_a_length(producer: TestClient, redis: Redis) -> None:
    refused(post(producer, " " * (MAX_BODY + 1)), 413, "at most 4,194,304 bytes")

    chunks = (b" " * 65536 for _ in range(MAX_BODY // 65536 + 1))  # in chunks, without a length
    refused(producer.post("/api/events", content=chunks, headers={"content-type": STRUCTURED}), 413)
    many = ", ".join([envelope_json()] * (MAX_EVENTS + 1))
    refused(post(producer, f"[{many}]", BATCH), 413, "at most 1,000 events, not 1,001")
    assert post(producer, f"[{envelope_json()}]".ljust(MAX_BODY), BATCH).status_code == 202
    assert len(sent(redis)) == 1


# --- who may send, and outages ------------------------------------------------------------------------


def test_only_the_events_token_may_send(config: Config, visit: Visit, broker_url: str, redis: Redis) -> None:
    for client in (visit(config, broker_url=broker_url), visit(config, "ada", broker_url=broker_url)):
        for headers_by_value in (
            None,
            "Bearer",
            "Bearer ",
            f"Bearer {TOKENS['ada']}",
            f"Basic {EVENTS_TOKEN}",
            f"Bearer {EVENTS_TOKEN}x",
        ):
            answer = post(client, envelope_json(), **({"authorization": headers_by_value} if headers_by_value else {}))
            refused(
                answer,
                401,
                "Authentication required: send the token in web.events_token as `Authorization: Bearer <token>`.",
            )
            assert answer.headers["www-authenticate"] == "Bearer"
    anyone = visit(config, broker_url=broker_url, read="anyone")
    refused(post(anyone, envelope_json()), 401)
    assert sent(redis) == []
    assert post(anyone, envelope_json(), authorization=f"bearer {EVENTS_TOKEN}").status_code == 202


def test_without_an_events_token_no_one_may_send(config: Config, visit: Visit, broker_url: str, redis: Redis) -> None:
    client = visit(config, "ada", broker_url=broker_url, events_token="")
    for headers in ({}, {"authorization": "Bearer "}, {"authorization": f"Bearer {EVENTS_TOKEN}"}):
        refused(post(client, envelope_json(), **headers), 403, "Set web.events_token")
    assert sent(redis) == []


def test_an_unreachable_broker_is_503_and_nothing_is_accepted(config: Config, visit: Visit) -> None:
    for url, expected in (("redis://:secret@127.0.0.1:1/0", "127.0.0.1:1"), (None, "Set DIMS_BROKER_URL")):
        answer = post(visit(config, broker_url=url), envelope_json(), authorization=f"Bearer {EVENTS_TOKEN}")
        refused(answer, 503, expected)
        assert answer.headers["retry-after"] == "5"
        assert "secret" not in answer.text
        assert "accepted" not in answer.json()
