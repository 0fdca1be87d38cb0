"""Events to and from JSON, compared with the CloudEvents SDK, and every reason to refuse one."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent
from hypothesis import given
from hypothesis import strategies as st

from dims_worker.errors import EventError
from dims_worker.events import MAX_BYTES, MAX_DEPTH, MAX_TEXT, Event

NOW = datetime(2026, 11, 22, 9, 0, 0, 250_000, tzinfo=UTC)
GOOD: dict[str, Any] = {
    "specversion": "1.0",
    "id": "3f2a9c1",
    "source": "git:repo",
    "type": "dims.git.commit",
    "time": "2026-11-22T09:00:00.250000Z",
    "subject": "main",
    "datacontenttype": "application/json",
    "data": {"paths": ["docs/a.md"], "games": 12, "share": 0.5, "done": True, "none": None},
}
MISSING = object()


def envelope(**changes: Any) -> str:
    return json.dumps({name: value for name, value in {**GOOD, **changes}.items() if value is not MISSING})


def raw(data: str) -> str:
    """Return an envelope whose data is exactly this text."""
    return envelope(data=MISSING)[:-1] + f', "data": {data}}}'


# --- both ways ----------------------------------------------------------------------------------------


def test_round_trip_keeps_every_part_and_type():
    event = Event.from_json(envelope())
    assert event == Event("3f2a9c1", "git:repo", "dims.git.commit", NOW, "main", GOOD["data"])
    assert Event.from_json(event.to_json()) == event
    assert Event.from_json(event.to_json().encode()) == event
    assert json.loads(event.to_json()) == GOOD
    assert list(json.loads(event.to_json())) == list(GOOD)  # keys in a fixed order
    assert "\n" not in event.to_json()


def test_what_may_be_left_out():
    event = Event.from_json(envelope(subject=MISSING, data=MISSING, datacontenttype=MISSING))
    assert (event.subject, event.data) == (None, {})
    assert "subject" not in json.loads(event.to_json())
    assert Event.from_json(envelope(data=None)).data == {}
    assert Event.from_json(envelope(traceparent="00-0af7", dataschema="https://x")).id == "3f2a9c1"  # extensions


def test_new_draws_an_id_once_and_speaks_utc():
    there = NOW.astimezone(timezone(timedelta(hours=-5)))
    first, second = (Event.new("t", "p", now=there) for _ in range(2))
    assert first.id != second.id
    assert (first.time, first.time.tzinfo) == (NOW, UTC)
    assert Event.new("t", "p", now=NOW, id="x").id == "x"


@pytest.mark.parametrize(
    ("parts", "reason"),
    [
        ({"type": ""}, "type must be a non-empty string"),
        ({"producer": ""}, "source must be a non-empty string"),
        ({"data": {"a": float("nan")}}, "NaN is not a JSON number"),
        ({"data": {"a": "\0"}}, "NUL"),
        ({"data": {"a": "\ud800"}}, "not UTF-8"),
        ({"now": datetime(1999, 12, 31, tzinfo=UTC)}, "outside the years"),
    ],
)
def test_a_new_event_passes_the_same_checks(parts: dict[str, Any], reason: str):
    with pytest.raises(EventError, match=reason):
        Event.new(**{"type": "t", "producer": "p", "now": NOW, **parts})


@pytest.mark.parametrize(
    ("written", "utc"),
    [
        ("2026-11-22T09:00:00Z", "2026-11-22T09:00:00+00:00"),
        ("2026-11-22t09:00:00z", "2026-11-22T09:00:00+00:00"),  # RFC 3339, 5.6 allows lower case
        ("2026-11-22 09:00:00Z", "2026-11-22T09:00:00+00:00"),
        ("2026-11-22T09:00:00.123456789Z", "2026-11-22T09:00:00.123456+00:00"),
        ("2026-11-22T09:00:00-05:00", "2026-11-22T14:00:00+00:00"),
        ("2026-11-22T00:30:00+01:00", "2026-11-21T23:30:00+00:00"),
    ],
)
def test_times_become_utc(written: str, utc: str):
    time = Event.from_json(envelope(time=written)).time
    assert (time.isoformat(), time.tzinfo) == (utc, UTC)


# --- compared with the CloudEvents SDK -------------------------------------------------------------------


def test_the_sdk_reads_what_we_write():
    theirs = JSONFormat().read(None, Event.from_json(envelope()).to_json().encode())
    assert isinstance(theirs, CloudEvent)  # version 1.0, and valid: the SDK raises otherwise
    assert (theirs.get_id(), theirs.get_source(), theirs.get_type()) == ("3f2a9c1", "git:repo", "dims.git.commit")
    assert (theirs.get_time(), theirs.get_subject(), theirs.get_data()) == (NOW, "main", GOOD["data"])
    assert theirs.get_datacontenttype() == "application/json"


@pytest.mark.parametrize("subject", [None, "raw/2026 ü/😀.json"])
def test_we_read_what_the_sdk_writes(subject: str | None):
    attributes = {"id": "1", "source": "urn:x", "type": "t", "specversion": "1.0", "time": NOW}
    attributes |= {"subject": subject} if subject else {}
    event = Event.from_json(JSONFormat().write(CloudEvent(attributes, {"games": 12})))
    assert event == Event("1", "urn:x", "t", NOW, subject, {"games": 12})


# --- what is refused, and why ---------------------------------------------------------------------------

DEEP = "[" * (MAX_DEPTH - 1) + "]" * (MAX_DEPTH - 1)  # with `data` and the envelope, one level more than the limit
REFUSED: dict[str, tuple[str | bytes, str]] = {
    "nothing": ("", "is not JSON"),
    "no JSON": ("{'id': 1}", "is not JSON"),
    "half an envelope": (envelope()[:-1], "is not JSON"),
    "two envelopes": (envelope() * 2, "is not JSON"),
    "a byte order mark": ("\ufeff" + envelope(), "is not JSON"),
    "an array": (f"[{envelope()}]", "must be a JSON object, not list"),
    "null": ("null", "must be a JSON object, not NoneType"),
    "a text": ('"x"', "must be a JSON object, not str"),
    "UTF-16": (envelope().encode("utf-16"), "is not UTF-8"),
    "a broken byte": (b'{"id": "\xff"}', "is not UTF-8"),
    "no specversion": (envelope(specversion=MISSING), 'specversion must be "1.0", not None'),
    "specversion 0.3": (envelope(specversion="0.3"), "specversion must be \"1.0\", not '0.3'"),
    "specversion as a number": (envelope(specversion=1.0), 'specversion must be "1.0", not 1.0'),
    **{
        f"{name} is {value!r}": (envelope(**{name: value}), f"^{name} must be a non-empty string")
        for name in ("id", "source", "type")
        for value in ("", None, 7, ["x"], {}, True)
    },
    **{f"no {name}": (envelope(**{name: MISSING}), f"^{name} must be") for name in ("id", "source", "type")},
    **{
        f"{name} too long": (envelope(**{name: "x" * (MAX_TEXT + 1)}), f"^{name} has 2,049 characters")
        for name in ("id", "source", "type", "subject")
    },
    "subject as a number": (envelope(subject=3), "^subject must be"),
    "a path too long": (
        envelope(data={"root": "/p", "paths": ["a", "ü" * 2049]}),
        r"^data.paths\[1\] has 4,098 bytes; the limit is 4,096. Send an empty list",
    ),
    "a root too long": (envelope(data={"root": "/" * 4097}), "^data.root has 4,097 bytes"),
    "a key too long": (envelope(data={"bucket": "b", "key": "k" * 1025}), "^data.key has 1,025 bytes.*Leave it out"),
    "keys too long": (envelope(data={"bucket": "b", "keys": ["k" * 1025]}), r"^data.keys\[0\] has 1,025 bytes"),
    "a subject too long for a key": (
        envelope(type="com.amazonaws.s3.ObjectCreated:Put", subject="k" * 1025),
        "^subject has 1,025 bytes",
    ),
    "too many patterns": (
        envelope(type="dims.verify.requested", data={"metrics": [f"{n}*" for n in range(21)]}),
        "^data.metrics has 21 patterns; the limit is 20. Name the metrics",
    ),
    "a pattern too long": (
        envelope(type="dims.verify.requested", data={"metrics": ["*" + "a" * 256]}),
        "^data.metrics has a pattern with more than 256 characters",
    ),
    "too many wildcards": (
        envelope(type="dims.verify.requested", data={"metrics": ["*a" * 17]}),
        "or 16 wildcards",
    ),
    "too many lists": (envelope(data={"x": [[]] * 20_001}), "more than 20,000 arrays and objects"),
    "too many large numbers": (
        f'{envelope()[:-1]}, "x": [{",".join(["1e300"] * 1001)}]}}',
        "more than 1,000 numbers from 1e\\+16",
    ),
    "a string that does not end": (envelope()[:-1] + ', "x": "[' + '\\"[' * 60_000, "is not JSON"),
    "no time": (envelope(time=MISSING), "time is missing"),
    "time as a number": (envelope(time=1_795_338_000), "time is missing"),
    "a naive time": (envelope(time="2026-11-22T09:00:00"), "time needs an offset"),
    **{
        f"time {time}": (envelope(time=time), "time is not an RFC 3339 time")
        for time in (
            *("", "yesterday", "2026-13-01T00:00:00Z", "2026-02-30T00:00:00Z", "2026-11-22", "09:00:00Z"),
            *("20261122T090000Z", "2026-W47-7T09:00:00Z", "2026-11-22x09:00:00Z", "2026-11-22T09:00:00,5Z"),
            *("2026-11-22T09:00:00+00:00:30", "2026-11-22T09:00:00Z ", "\uff12026-11-22T09:00:00Z"),
        )
    },
    **{
        f"time {time}": (envelope(time=time), "outside the years 2000 to 2100")
        for time in (
            *("9999-12-31T23:59:59Z", "9999-12-31T23:59:59-14:00", "0001-01-01T00:00:00+14:00"),
            *("1999-12-31T23:59:59Z", "2000-01-01T00:00:00+14:00", "2100-12-31T23:59:59-14:00"),
        )
    },
    "data as an array": (envelope(data=[1]), "data must be a JSON object, not list"),
    "data as a text": (envelope(data="{}"), "data must be a JSON object, not str"),
    "data as false": (envelope(data=False), "data must be a JSON object, not bool"),
    "too large": (envelope(data={"x": "y" * MAX_BYTES}), "the limit is 262,144"),
    "too large in UTF-8 alone": (json.dumps({"x": "é" * 140_000}, ensure_ascii=False), "the limit is 262,144"),
    "10 MB": (b"x" * 10_000_000, "has 10,000,000 bytes"),
    "NUL in the id": (envelope(id="a\0b"), "NUL"),
    "NUL in a value": (envelope(data={"a": [{"b": "\0"}]}), "NUL"),
    "NUL in a key": (envelope(data={"a": {"\0": 1}}), "NUL"),
    "NUL in an extension": (envelope(**{"x\0": 1}), "NUL"),
    "NUL as it is": (raw('"\0"'), "is not JSON"),
    "a lone surrogate, escaped": (raw('{"a": "\\ud800"}'), "is not UTF-8"),
    "a lone surrogate in a key": (raw('{"\\udfff": 1}'), "is not UTF-8"),
    "a lone surrogate as it is": ('{"a": "\ud800"}', "is not UTF-8"),
    "NaN": (raw('{"a": NaN}'), "NaN is not a JSON number"),
    "Infinity": (raw('{"a": [Infinity]}'), "Infinity is not a JSON number"),
    "-Infinity": (raw('{"a": -Infinity}'), "-Infinity is not a JSON number"),
    "1e999": (raw('{"a": 1e999}'), "Out of range"),
    "a number of 5,000 digits": (raw(f'{{"a": {"9" * 5000}}}'), "is not JSON"),
    "nested a little too deeply": (raw(f'{{"a": {DEEP}}}'), "nested too deeply"),
    "nested too deeply for json": ("[" * 100_000, "nested too deeply"),
    "objects nested too deeply": (raw('{"a":' * 5000 + "1" + "}" * 5000), "nested too deeply"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_with_the_reason(case: str):
    text, reason = REFUSED[case]
    with pytest.raises(EventError, match=reason) as refused:
        Event.from_json(text)
    assert len(str(refused.value)) < 300  # the reason is one line, even for a large envelope


@pytest.mark.parametrize(
    "text",
    [
        envelope(id="x" * MAX_TEXT),
        envelope(data={"x": "y" * (MAX_BYTES - len(envelope(data={"x": ""})))}),
        envelope(subject=""),
        envelope(subject="\\u0000 and \\ud800 in letters", data={"path": "\\u0000"}),
        envelope(id="😀"),  # JSON escapes it as a pair of surrogates
        raw('{"a": ' + "[" * (MAX_DEPTH - 2) + "]" * (MAX_DEPTH - 2) + "}"),
        envelope(data={"paths": [f"[{{{n}" for n in range(1000)], "many": [[] for _ in range(1000)]}),
        raw('{"a": 1e308, "b": -0.0, "c": 18446744073709551616}'),
    ],
    ids=["long id", "largest", "empty subject", "backslashes", "emoji", "deepest", "wide", "numbers"],
)
def test_just_inside_the_limits(text: str):
    event = Event.from_json(text)
    assert Event.from_json(event.to_json()) == event


# --- any input -------------------------------------------------------------------------------------

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
    lambda part: st.lists(part, max_size=4) | st.dictionaries(st.text(max_size=8), part, max_size=4),
    max_leaves=12,
)
FIELDS = st.sampled_from([*GOOD, "data_base64", "x"])


def take(text: str | bytes) -> None:
    """Any text gives an EventError, or an event that stays the same through JSON."""
    try:
        event = Event.from_json(text)
    except EventError:
        return
    assert Event.from_json(event.to_json()) == event


@given(st.text(st.characters()) | st.binary())
def test_arbitrary_text_raises_nothing_else(text: str | bytes):
    take(text)


@given(JSON)
def test_arbitrary_json_raises_nothing_else(value: Any):
    take(json.dumps(value))


@given(st.dictionaries(FIELDS, JSON | st.sampled_from(list(GOOD.values())), max_size=8))
def test_arbitrary_fields_raise_nothing_else(changes: dict[str, Any]):
    take(json.dumps({**GOOD, **changes}, ensure_ascii=True))


@given(st.datetimes(timezones=st.timezones() | st.none()))
def test_arbitrary_times_raise_nothing_else(time: datetime):
    take(envelope(time=time.isoformat()))


@pytest.mark.parametrize(
    "data",
    [
        {"root": "/p", "paths": ["ü" * 2048]},
        {"bucket": "b", "key": "k" * 1024},
        {"key": "k" * 2000, "paths": ["p" * 5000]},  # neither a bucket nor a root: DIMS compares nothing
        {"root": "/p", "paths": ["a"] * 5000},
        {"x": ["1e300"] * 5000, "y": [1e300] * 1000},
    ],
)
def test_the_longest_paths_and_keys_are_accepted(data: dict[str, Any]) -> None:
    assert Event.from_json(envelope(data=data)).data == data


def test_a_request_may_name_any_number_of_metrics() -> None:
    names = [f"m.n{number}" for number in range(10_000)]
    assert Event.from_json(envelope(type="dims.verify.requested", data={"metrics": names})).data["metrics"] == names
