"""The CloudEvents HTTP binding without a server: each input is the expected event or an error with a message."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException

from dims_worker.errors import EventError
from dims_worker.events import Event
from dims_worker.web.api.cloudevents_http import BATCH, BINARY, STRUCTURED, content_mode, parse_envelopes

PRINTABLE = "".join(chr(n) for n in range(0x21, 0x7F) if chr(n) not in '"%')
TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=40)
DATA = st.dictionaries(
    TEXT,
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
        lambda part: st.lists(part, max_size=3) | st.dictionaries(TEXT, part, max_size=3),
        max_leaves=8,
    ),
    max_size=4,
)
EVENTS = st.builds(
    lambda id, source, subject, data: {
        "specversion": "1.0",
        "id": id,
        "source": source,
        "type": "t",
        "time": "2026-11-22T09:00:00Z",
        "subject": subject,
        "data": data,
    },
    *(TEXT, TEXT, TEXT, DATA),
)


def headers(**values: str) -> Headers:
    return Headers({name.replace("_", "-"): value for name, value in values.items()})


@given(st.lists(EVENTS, max_size=4), st.sampled_from([None, 1]), st.booleans())
def test_each_mode_gives_the_event_of_its_envelope(
    events: list[dict[str, Any]], indent: int | None, ascii_: bool
) -> None:
    expected = [Event.from_json(json.dumps(fields)) for fields in events]
    body = json.dumps(events, indent=indent, ensure_ascii=ascii_).encode()
    parsed = parse_envelopes(BATCH, headers(), body)
    assert [event for event, _ in parsed] == expected
    assert [Event.from_json(envelope) for _, envelope in parsed] == expected
    for fields, event in zip(events, expected, strict=True):
        body = json.dumps(fields, indent=indent, ensure_ascii=ascii_).encode()
        assert parse_envelopes(STRUCTURED, headers(), body) == [(event, body.decode())]
        headers_ = {f"ce-{name}": quote(value, PRINTABLE) for name, value in fields.items() if name != "data"}
        data = json.dumps(fields["data"], indent=indent, ensure_ascii=ascii_).encode()
        ((binary, envelope),) = parse_envelopes(BINARY, Headers(headers_), data)
        assert (binary, Event.from_json(envelope)) == (event, event)


JSONISH = st.text(st.sampled_from('[]{}",:\\u0d8e1 nul.-NaI'), max_size=60).map(str.encode)


@given(st.sampled_from([STRUCTURED, BATCH, BINARY]), st.binary(max_size=60) | JSONISH)
@example(BATCH, b"[" * 100_000)
@example(STRUCTURED, b'{"a":' * 100_000)
def test_any_input_is_an_event_or_an_error_with_a_message(mode: str, body: bytes) -> None:
    try:
        parse_envelopes(mode, headers(ce_id="1", ce_source="a", ce_type="t", ce_specversion="1.0"), body)
    except (EventError, HTTPException) as error:
        assert str(error)


@pytest.mark.parametrize(
    ("kind", "mode"),
    [
        ("application/cloudevents+json", STRUCTURED),
        ("Application/CloudEvents+JSON; charset=UTF-8", STRUCTURED),
        ('application/cloudevents-batch+json;charset="utf-8"', BATCH),
        ("application/json", BINARY),
        ("application/vnd.shop.order+json", BINARY),
        ("", BINARY),
        ("text/json", None),
        ("application/cloudevents", None),
        ("application/cloudevents+xml", None),
        ("application/json; charset=utf-16", None),
    ],
)
def test_the_media_type_selects_the_mode(kind: str, mode: str | None) -> None:
    headers_ = headers(ce_specversion="1.0", content_type=kind)
    if mode:
        assert content_mode(headers_) == mode
    else:
        with pytest.raises(HTTPException) as refused:
            content_mode(headers_)
        assert refused.value.status_code == 415
