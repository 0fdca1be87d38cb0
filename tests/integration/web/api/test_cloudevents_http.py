"""Events over HTTP: the three content modes, what is refused, and that they end as those that were added by XADD."""

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
    **{"specversion": "1.0", "id": "1", "source": "shop/import", "type": "dims.scraper.complete"},
    **{"time": "2026-11-22T09:00:00Z", "data": {"files": 3}},
}
HEADERS = {"ce-specversion": "1.0", "ce-id": "1", "ce-source": "shop/import", "ce-type": "dims.scraper.complete",
           "ce-time": "2026-11-22T09:00:00Z", "content-type": "application/json"}  # fmt: skip


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
    """What stands in the stream."""
    found: Any = redis.xrange(STREAM)
    return [Event.from_json(fields[FIELD.encode()]) for _, fields in found]


def written(**changed: Any) -> str:
    return json.dumps({name: value for name, value in {**ENVELOPE, **changed}.items() if value is not None})


def refused(answer: Any, status: int, *says: str) -> None:
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json"), answer.text
    for words in says:
        assert words in answer.json()["detail"]


# --- what is taken ------------------------------------------------------------------------------------


def test_the_three_modes_say_the_same(producer: TestClient, redis: Redis) -> None:
    answers = [
        post(producer, written()),
        post(producer, f"[{written()}]", BATCH),
        producer.post("/api/events", content='{"files": 3}', headers=HEADERS),
    ]
    assert [(one.status_code, one.json()) for one in answers] == [(202, {"accepted": 1, "ids": ["1"]})] * 3
    assert sent(redis) == [Event.from_json(written())] * 3


def test_what_the_official_sdk_sends_ends_as_what_xadd_added(
    producer: TestClient, redis: Redis, engine: Engine, config: Config
) -> None:
    """Its structured, batch and binary requests, of events with names that must be percent-encoded."""
    subjects = ("plain", 'ein größerer %41 "Name"', "日本 \U0001f600", "a/b?c=d&e")
    written_by_sdk = [
        CloudEvent(
            {
                **{"id": f"{mode}-{n}", "source": "shop/größe", "type": "dims.scraper.complete"},
                **{"specversion": "1.0", "time": datetime(2026, 11, 22, 9, n, tzinfo=UTC), "subject": subject},
                **{"datacontenttype": "application/json", "traceparent": "00-0af7"},
            },
            {"n": n, "half": 0.5, "text": subject, "list": [1, None, True]},
        )
        for mode in ("structured", "batch", "binary")
        for n, subject in enumerate(subjects)
    ]
    structured, batch, binary = (
        [one for one in written_by_sdk if one.get_id().startswith(mode)] for mode in ("structured", "batch", "binary")
    )
    messages = [
        *(sdk.to_structured(one, JSONFormat()) for one in structured),
        *(sdk.to_binary(one, JSONFormat()) for one in binary),
        # The SDK has no batch mode of its own: its envelopes in an array, as the JSON batch format says
        sdk.HTTPMessage({"content-type": BATCH}, b"[" + b",".join(JSONFormat().write(one) for one in batch) + b"]"),
    ]
    for message in messages:
        answer = producer.post("/api/events", content=message.body, headers=message.headers)
        assert answer.status_code == 202, answer.text
    ids = {one.get_id() for one in written_by_sdk}
    assert {one.id for one in sent(redis)} == ids

    def stored() -> list[tuple[Any, ...]]:
        columns = "producer, event_id, digest, type, subject, event_time, outcome, data, rules"
        with engine.connect() as connection:
            found = connection.execute(text(f"SELECT {columns} FROM dims_event_log ORDER BY event_id"))
            return [tuple(row) for row in found]

    ingest_stream(redis, engine, Planner(config))
    over_http = stored()
    assert {row[1] for row in over_http} == ids
    assert {row[6] for row in over_http} == {"planned"}

    with engine.begin() as connection:
        connection.execute(text("TRUNCATE dims_event_log"))
    for one in written_by_sdk:
        redis.xadd(STREAM, {FIELD: JSONFormat().write(one)})
    ingest_stream(redis, engine, Planner(config))
    assert stored() == over_http


def test_an_event_that_is_sent_again_is_one_event(
    producer: TestClient, redis: Redis, engine: Engine, config: Config
) -> None:
    for _ in range(2):
        assert post(producer, f"[{written()}, {written(id='2')}, {written()}]", BATCH).status_code == 202
    ingest_stream(redis, engine, Planner(config))
    with engine.connect() as connection:
        stored = connection.execute(text("SELECT event_id FROM dims_event_log ORDER BY seq")).scalars().all()
    assert stored == ["1", "2"]


def test_a_header_is_unquoted_and_percent_decoded_once(producer: TestClient, redis: Redis) -> None:
    said = {
        **{"a%20b": "a b", "a b": "a b", '"a b"': "a b", r'"a \"b\" \\ %22"': 'a "b" \\ "', "": ""},
        **{"100%": "100%", "%2541": "%41", "gr%C3%BC%c3%9fe": "grüße", "%F0%9F%98%80": "😀"},
    }
    for value in said:
        answer = producer.post("/api/events", content="{}", headers={**HEADERS, "ce-subject": value})
        assert answer.status_code == 202, answer.text
    assert [one.subject for one in sent(redis)] == list(said.values())


def test_json_of_any_name_is_data_and_nothing_is_an_empty_object(producer: TestClient, redis: Redis) -> None:
    for kind in ("application/json; charset=utf-8", "Application/JSON", "application/ld+json"):
        answer = producer.post("/api/events", content='{"a": "ü"}', headers={**HEADERS, "content-type": kind})
        assert answer.status_code == 202
    bare = {name: value for name, value in HEADERS.items() if name != "content-type"}
    assert producer.post("/api/events", headers=bare).status_code == 202
    assert [one.data for one in sent(redis)] == [{"a": "ü"}] * 3 + [{}]


def test_an_empty_batch_and_the_longest_one_are_taken(producer: TestClient, redis: Redis) -> None:
    assert post(producer, " [ ] ", BATCH).json() == {"accepted": 0, "ids": []}
    longest = ",\n".join(written(id=str(n)) for n in range(MAX_EVENTS))
    assert post(producer, f"[{longest}]", BATCH).json()["accepted"] == MAX_EVENTS
    assert [one.id for one in sent(redis)] == [str(n) for n in range(MAX_EVENTS)]


def test_numbers_come_through_as_they_were_written(producer: TestClient, redis: Redis) -> None:
    numbers = "[1e22, 10000000000000000000000, 1.0, 0.1, -0.0, 123456789012345678901234567890]"
    body = written().replace('{"files": 3}', f'{{"n": {numbers}}}')
    binary = producer.post("/api/events", content=f'{{"n": {numbers}}}', headers=HEADERS)
    assert (post(producer, body).status_code, post(producer, f"[{body}]", BATCH).status_code) == (202, 202)
    assert binary.status_code == 202
    assert [str(one.data["n"]) for one in sent(redis)] == [str(json.loads(numbers))] * 3


# --- what is refused ----------------------------------------------------------------------------------

DEEP = '{"a":' * 100 + "1" + "}" * 100
BOMB = "[" * 2_000_000
BAD: Sequence[tuple[bytes | str, str]] = [
    ("", "the envelope is not JSON"),
    ("{", "the envelope is not JSON"),
    ("[]", "the envelope must be a JSON object, not list"),
    ("{}", "specversion must be"),
    (b"\xff\xfe", "the body is not UTF-8"),
    (b"\xef\xbb\xbf" + written().encode(), "the envelope is not JSON"),
    (written() + written(), "Extra data"),
    (written(time=None), "time is missing"),
    (written(id=""), "id must be a non-empty string"),
    (written(data=[1]), "data must be a JSON object, not list"),
    (written(data="aGk="), "data must be a JSON object, not str"),
    (written(data=None, data_base64="aGk="), "data_base64 cannot be taken"),
    (written(data={"a": math.nan}), "NaN is not a JSON number"),
    (written(data={"a": math.inf}), "Infinity is not a JSON number"),
    (written().replace("3}", "1e999}"), "Out of range"),
    (written().replace("3}", "9" * 5000 + "}"), "not JSON"),
    (written().replace('"id": "1"', '"id": "1", "id": "2"'), "the name 'id' stands twice in one object"),
    (written().replace("3}", '{"a": 1, "a": 1}}'), "the name 'a' stands twice in one object"),
    (written(subject="a\0b"), "NUL"),
    (written().replace("shop", r"\ud800"), "UTF-8"),
    (written().replace('{"files": 3}', DEEP), "nested too deeply"),
    (BOMB, "nested too deeply"),
    (written(data={"a": "x" * MAX_BYTES}), "bytes; the limit is 262,144"),
]


def test_a_bad_envelope_is_refused_in_words_in_each_mode(producer: TestClient, redis: Redis) -> None:
    for body, says in BAD:
        refused(post(producer, body), 400, says)
        if body not in ("", "{", "[]", BOMB) and isinstance(body, str):
            refused(post(producer, f"[{written()}, {body}]", BATCH), 400, says if says != "Extra data" else "delimiter")
    assert sent(redis) == []


def test_a_bad_event_of_a_batch_is_named_and_none_is_sent(producer: TestClient, redis: Redis) -> None:
    batch = [written(id=str(n)) for n in range(3)]
    batch[2] = written(id="2", time="yesterday")
    refused(post(producer, f"[{', '.join(batch)}]", BATCH), 400, "event 2 of the batch, counted from 0: time is not an")
    refused(post(producer, written(), BATCH), 400, "the batch must be a JSON array")
    refused(post(producer, "[1]", BATCH), 400, "event 0 of the batch", "JSON object, not int")
    refused(post(producer, f"[{written()},]", BATCH), 400, "the batch is not JSON")
    assert sent(redis) == []


def test_a_bad_header_or_bad_data_is_refused_in_words(producer: TestClient, redis: Redis) -> None:
    bad: Sequence[tuple[dict[str, str], bytes | str, str]] = [
        ({"ce-id": ""}, "{}", "id must be a non-empty string"),
        ({"ce-time": "2026-11-22"}, "{}", "time is not an RFC 3339 time"),
        ({"ce-specversion": "0.3"}, "{}", "specversion must be"),
        ({"ce-id": "%FF"}, "{}", "the header ce-id is not UTF-8, percent-encoded"),
        ({"ce-id": "%00"}, "{}", "NUL"),
        ({"ce-subject": "x" * 3000}, "{}", "subject has 3,000 characters"),
        ({}, "[]", "data must be a JSON object, not list"),
        ({}, "aGk=", "the data is not JSON"),
        ({}, '{}, "id": "2"', "the data is not JSON"),
        ({}, '{"a": NaN}', "NaN is not a JSON number"),
        ({}, '{"a": 1, "a": 2}', "the name 'a' stands twice"),
        ({}, b'{"a": "\xff"}', "not UTF-8"),
        ({}, DEEP, "nested too deeply"),
        ({}, BOMB, "nested too deeply"),
    ]
    for headers, body, says in bad:
        refused(producer.post("/api/events", content=body, headers={**HEADERS, **headers}), 400, says)
    twice = [*HEADERS.items(), ("ce-id", "2"), *producer.headers.items()]
    refused(producer.post("/api/events", content="{}", headers=twice), 400, "the header ce-id stands there 2 times")
    refused(producer.post("/api/events?a=1", content="{}", headers=HEADERS), 400, "there is no parameter 'a' here")
    assert sent(redis) == []


FORMS: Sequence[tuple[dict[str, str], str]] = [
    ({"content-type": "text/plain", "ce-specversion": "1.0"}, "data must be a JSON object"),
    ({"content-type": "application/octet-stream", "ce-specversion": "1.0"}, "data must be a JSON object"),
    ({"content-type": "application/cloudevents+xml", "ce-specversion": "1.0"}, "an event is sent as"),
    ({"content-type": "application/cloudevents-batch+avro"}, "an event is sent as"),
    ({"content-type": "application/json"}, "with the attributes in ce- headers"),
    ({"content-type": "application/x-www-form-urlencoded"}, "an event is sent as"),
    ({}, "no content-type"),
    ({"content-type": f"{STRUCTURED}; charset=latin-1"}, "JSON is UTF-8, not 'latin-1'"),
    ({"content-type": STRUCTURED, "content-encoding": "gzip"}, "content-encoding 'gzip'"),
]


def test_another_form_is_415(producer: TestClient, redis: Redis) -> None:
    for headers, says in FORMS:
        body = gzip.compress(written().encode()) if "content-encoding" in headers else written().encode()
        refused(producer.post("/api/events", content=body, headers=headers), 415, says)
    assert sent(redis) == []


def test_too_much_is_413_said_or_not(producer: TestClient, redis: Redis) -> None:
    refused(post(producer, " " * (MAX_BODY + 1)), 413, "at most 4,194,304 bytes")

    unsaid = (b" " * 65536 for _ in range(MAX_BODY // 65536 + 1))  # in chunks, without a length
    refused(producer.post("/api/events", content=unsaid, headers={"content-type": STRUCTURED}), 413)
    many = ", ".join([written()] * (MAX_EVENTS + 1))
    refused(post(producer, f"[{many}]", BATCH), 413, "at most 1,000 events, not 1,001")
    assert post(producer, f"[{written()}]".ljust(MAX_BODY), BATCH).status_code == 202
    assert len(sent(redis)) == 1


# --- who may, and what is away ------------------------------------------------------------------------


def test_only_the_token_of_producers_sends(config: Config, visit: Visit, broker_url: str, redis: Redis) -> None:
    for client in (visit(config, broker_url=broker_url), visit(config, "ada", broker_url=broker_url)):
        for said in (
            None,
            "Bearer",
            "Bearer ",
            f"Bearer {TOKENS['ada']}",
            f"Basic {EVENTS_TOKEN}",
            f"Bearer {EVENTS_TOKEN}x",
        ):
            answer = post(client, written(), **({"authorization": said} if said else {}))
            refused(answer, 401, "Authorization: Bearer TOKEN")
            assert answer.headers["www-authenticate"] == "Bearer"
    anyone = visit(config, broker_url=broker_url, read="anyone")
    refused(post(anyone, written()), 401)
    assert sent(redis) == []
    assert post(anyone, written(), authorization=f"bearer {EVENTS_TOKEN}").status_code == 202


def test_where_no_token_is_set_nobody_sends(config: Config, visit: Visit, broker_url: str, redis: Redis) -> None:
    client = visit(config, "ada", broker_url=broker_url, events_token="")
    for headers in ({}, {"authorization": "Bearer "}, {"authorization": f"Bearer {EVENTS_TOKEN}"}):
        refused(post(client, written(), **headers), 403, "set web.events_token")
    assert sent(redis) == []


def test_a_broker_that_is_away_claims_nothing(config: Config, visit: Visit) -> None:
    for url, says in (("redis://:secret@127.0.0.1:1/0", "127.0.0.1:1"), (None, "set DIMS_BROKER_URL")):
        answer = post(visit(config, broker_url=url), written(), authorization=f"Bearer {EVENTS_TOKEN}")
        refused(answer, 503, says)
        assert answer.headers["retry-after"] == "5"
        assert "secret" not in answer.text
        assert "accepted" not in answer.json()
