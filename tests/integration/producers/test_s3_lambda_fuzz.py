"""2,000 payloads for the Lambda, with a real Valkey: every record is in the stream, or its failure is reported.

Each payload is a tree of records, wrapped as AWS does it and then damaged in random places, inside and outside of the
JSON within JSON. A record bears a mark beside its key: as long as the mark is in the payload the record must be
accounted for, however little of it is left. The examples are the same at every run (derandomize).
"""

from __future__ import annotations

import json
import logging
import re
from typing import Any

import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from dims_producers.s3_lambda import handler
from dims_worker.errors import EventError
from dims_worker.events import STREAM
from tests.fixtures.s3_notifications import bridge, notification, record, s3_test_event, sns, sns_message, sqs

NASTY: list[Any] = [
    None,
    True,
    0,
    -1,
    5,
    10**18,
    1.5,
    1e308,
    "",
    "\0",
    "\ud800",
    "%FF",
    "x" * 3000,
    "{",
    "[]",
    "null",
    "aws:sqs",
    "aws:sns",
    "s3:TestEvent",
    [],
    {},
    [[]],
    {"Records": []},
    {"Records": [{}]},
    {"name": None},
    ["x", 1, None],
]
TIMES = ["1970-01-01T00:00:00Z", "0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59", "yesterday", None, 7]
WORDS = [
    "Records",
    "eventSource",
    "EventSource",
    "body",
    "messageId",
    "Sns",
    "Message",
    "Event",
    "detail",
    "detail-type",
    "s3",
    "object",
    "bucket",
    "key",
    "name",
    "eventName",
    "eventTime",
]

garbage = st.recursive(
    st.sampled_from(NASTY) | st.text(max_size=20) | st.integers() | st.floats(allow_nan=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(WORDS) | st.text(max_size=5), inner),
    max_leaves=12,
)


def _places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return every position inside, except the marks."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    places = [(*path, name) for name, _ in inner if name != "mark"]
    return places + [place for name, part in inner for place in _places(part, (*path, name))]


@st.composite
def damaged(draw: st.DrawFn, value: Any, most: int = 2) -> Any:
    """`value` with some parts removed, replaced or doubled, or often unchanged."""
    value = json.loads(json.dumps(value))
    for _ in range(draw(st.sampled_from([0, 0, 0, *range(1, most + 1)]))):
        places = _places(value)
        if not places:
            break
        *path, last = draw(st.sampled_from(places))
        holder = value
        for name in path:
            holder = holder[name]
        what = draw(st.sampled_from(["remove", "replace", "double"]))
        if what == "replace":
            holder[last] = json.loads(json.dumps(draw(garbage)))  # a copy, because it may be damaged too
        elif what == "double" and isinstance(holder, list):
            holder.append(holder[last])
        else:
            del holder[last]
    return value


@st.composite
def records(draw: st.DrawFn, most: int) -> list[Any]:
    """Some records of S3 with unique keys and marks, some of them damaged."""
    made_records = []
    for _ in range(draw(st.integers(1, most))):
        number = draw(st.integers(0, 10**9))
        # Each form has its own sequencer, because they are two changes
        count = record(
            f"k{number}k",
            draw(st.sampled_from(["ObjectCreated:Put", "ObjectRemoved:Delete"])),
            sequencer=f"{number:X}",
            versionId=draw(st.sampled_from([None, "v1"])),
        )
        time = draw(st.sampled_from([count["eventTime"]] * 6 + TIMES))
        made_records.append(draw(damaged(count | {"mark": f"m{number}m", "eventTime": time}, 3)))
    return made_records


@st.composite
def bodies(draw: st.DrawFn) -> Any:
    """The content of a message: a notification of S3 or an event of EventBridge, or invalid text."""
    if draw(st.booleans()):
        body = notification(*draw(records(3)))
    else:
        number = draw(st.integers(0, 10**9))
        body = draw(damaged(bridge(f"k{number}k", object={"sequencer": f"{number:X}"}) | {"mark": f"m{number}m"}, 3))
    body = draw(damaged(body, 1))
    if draw(st.booleans()):
        body = draw(damaged(sns_message(body), 1))
    return draw(st.one_of(*[st.just(body)] * 8, st.just(s3_test_event()), st.just(json.dumps(body)[:-3]), garbage))


@st.composite
def payloads(draw: st.DrawFn) -> Any:
    """The input of a Lambda, parsed from JSON."""
    kind = draw(st.sampled_from(["sqs", "sqs", "s3", "sns", "bare", "garbage"]))
    if kind == "sqs":
        payload = sqs(*draw(st.lists(bodies(), min_size=1, max_size=4)))
    elif kind == "s3":
        payload = notification(*draw(records(4)))
    elif kind == "sns":
        payload = sns(draw(bodies()))
    else:
        payload = draw(bodies() if kind == "bare" else garbage)
    payload = json.loads(json.dumps(draw(damaged(payload, 2))))
    if isinstance(payload, dict) and isinstance(payload.get("Records"), list):  # and one good record among them
        sound = sqs(notification(record("sound")))["Records"][0] | {"messageId": "sound"}
        payload["Records"].insert(
            draw(st.integers(0, len(payload["Records"]))), sound if kind == "sqs" else record("sound")
        )
    return payload


def holds_nothing(given: Any) -> bool:
    """Return whether there is no record in it: an empty list, S3's test message, or a message with these."""
    if not isinstance(given, dict):
        return False
    if isinstance(given.get("Records"), list):
        return all(map(holds_nothing, given["Records"]))
    for text in (given.get("body"), given.get("Message"), (given.get("Sns") or {}) and given["Sns"].get("Message")):
        if isinstance(text, str):
            return holds_nothing(json.loads(text))
    return given.get("Event") == "s3:TestEvent"


@pytest.fixture
def stream(valkey: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> Any:
    caplog.set_level(logging.CRITICAL, "dims_producers.s3_lambda")
    monkeypatch.setenv("DIMS_BROKER_URL", valkey.url)
    return valkey


@settings(
    max_examples=2000,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(payload=payloads())
def test_every_record_is_published_or_its_failure_is_reported(stream: Any, payload: Any) -> None:
    stream.client.delete(STREAM)
    first = _outcome(payload)
    published = stream.events()
    count, named, raised = first
    event("raised" if raised else "answered")
    event(f"{min(len(published), 3)} published, {min(len(named), 3)} named")

    many = isinstance(payload, dict) and isinstance(payload.get("Records"), list)
    units = payload["Records"] if many else [payload]
    ids = [unit.get("messageId") for unit in units if isinstance(unit, dict)]
    assert named <= {name for name in ids if isinstance(name, str)} - {""}  # an unknown id fails the batch for ever
    # Compared one by one, because an id may be a list, which cannot be in a set
    kept = [unit for unit in units if not raised and not (isinstance(unit, dict) and unit.get("messageId") in [*named])]
    text = json.dumps(kept)
    assert ("sound" in {event.subject for event in published}) == many
    assert "sound" not in named
    assert set(re.findall(r"k\d+k", text)) <= {event.subject for event in published}
    assert len(re.findall(r"m\d+m", text)) <= len(published)
    assert raised or named or published or all(map(holds_nothing, units))
    assert count in (None, len(published))

    assert _outcome(payload) == first  # a second delivery gives the same answer and the same ids
    assert {event.id for event in stream.events()} == {event.id for event in published}


def _outcome(payload: Any) -> tuple[int | None, set[str], bool]:
    """Return the number in the answer, the ids in the answer, and whether it raised."""
    try:
        answer = handler(payload, None)
    except EventError as error:
        assert str(error).isascii() and len(str(error)) < 600
        return None, set(), True
    if "published" in answer:
        return answer["published"], set(), False
    return None, {failure["itemIdentifier"] for failure in answer["batchItemFailures"]}, False
