"""Read events from an HTTP request: the CloudEvents 1.0.2 HTTP protocol binding, in its three content modes.

Format: https://github.com/cloudevents/spec, v1.0.2, cloudevents/bindings/http-protocol-binding.md. The result is
envelopes in the JSON event format. `Event.from_json` checks each one, so HTTP and the stream accept the same events.
HTTP also refuses a name that is repeated in an object, and data that would be dropped.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any
from urllib.parse import unquote_to_bytes

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException

from dims_worker.errors import EventError
from dims_worker.events import Event
from dims_worker.formatting import format_number

STRUCTURED = "application/cloudevents+json"
BATCH = "application/cloudevents-batch+json"
BINARY = "application/json"
MODES = f"{STRUCTURED}, {BATCH}, or {BINARY} with the attributes in ce- headers"

MAX_BODY = 4 * 1024 * 1024
"""Bytes of a body."""
MAX_EVENTS = 1000
"""Events in a batch."""

ATTRIBUTES = ("specversion", "id", "source", "type", "time", "subject")
"""The attributes that DIMS keeps. It accepts extension attributes and drops them, as on the stream."""

_SEPARATORS = re.compile(r"[ \t\r\n,]*")
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"', re.DOTALL)
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)


def content_mode(headers: Headers) -> str:
    """Return the content mode of a request, by its media type. Raises HTTPException 415."""
    if (coding := headers.get("content-encoding", "identity").strip().lower()) != "identity":
        raise HTTPException(415, f"content-encoding {coding!r:.40} is not supported. Send the body uncompressed")
    kind, *parameters = (part.strip().lower() for part in headers.get("content-type", "").split(";"))
    charsets = [text.partition("=")[2].strip('"') for text in parameters if text.startswith("charset=")]
    if charsets and charsets[0] not in ("utf-8", "utf8", "us-ascii"):
        raise HTTPException(415, f"JSON must be UTF-8, not {charsets[0]!r:.40}")
    if kind in (STRUCTURED, BATCH):
        return kind
    if "ce-specversion" not in headers or kind.startswith("application/cloudevents"):
        received = f"content-type {kind!r:.80} is not supported" if kind else "there is no content-type"
        raise HTTPException(415, f"{received}. Send an event as {MODES}")
    if kind not in ("", BINARY) and not re.fullmatch(r"application/[\w.!#$&^-]+\+json", kind, re.ASCII):
        raise HTTPException(415, f"content-type {kind!r:.80}: an event's data must be a JSON object, {BINARY}")
    return BINARY


def parse_envelopes(mode: str, headers: Headers, body: bytes) -> list[tuple[Event, str]]:
    """Return the events of a request in their order, each with the envelope that goes to the stream.

    Raises EventError for the first event that is not valid, and HTTPException 413 for too many events.
    """
    try:
        text = body.decode()
    except UnicodeError as error:
        raise EventError(f"the body is not UTF-8: {error}") from None
    if mode == STRUCTURED:
        return [_checked(text, _parse_json(text, "the envelope"))]
    if mode == BINARY:
        envelope = _envelope(headers, text)
        return [_checked(envelope, _parse_json(envelope, "the envelope"))]
    events = []
    for index, (envelope, fields) in enumerate(_batch_members(text)):
        try:
            events.append(_checked(envelope, fields))
        except EventError as error:
            raise EventError(f"nothing was sent: event {index} of the batch, counted from 0: {error}") from None
    return events


def _checked(envelope: str, fields: Any) -> tuple[Event, str]:
    if isinstance(fields, dict) and "data_base64" in fields:
        raise EventError("data_base64 is not supported: send the data as a JSON object in `data`")
    return Event.from_json(envelope), envelope


def _batch_members(text: str) -> list[tuple[str, Any]]:
    """Return the members of a JSON array, each as text and parsed."""
    members = _parse_json(text, "the batch")
    if not isinstance(members, list):
        raise EventError("the batch must be a JSON array of events")
    if len(members) > MAX_EVENTS:
        limit, number = format_number(MAX_EVENTS), format_number(len(members))
        raise HTTPException(413, f"a batch has at most {limit} events, not {number}")
    position, parts = text.index("[") + 1, []
    for member in members:
        start = position + len(_SEPARATORS.match(text, position)[0])  # type: ignore[index]  # it matches any text
        position = _DECODER.raw_decode(text, start)[1]
        parts.append((text[start:position], member))
    return parts


def _envelope(headers: Headers, data: str) -> str:
    """Return the envelope of an event in binary mode: attributes from `ce-` headers, the data unchanged."""
    fields = {name: value for name in ATTRIBUTES if (value := _attribute(headers, name)) is not None}
    if not data:
        return json.dumps(fields)
    _parse_json(data, "the data")  # exactly one JSON value: text after it could add fields to the envelope
    return f'{json.dumps(fields)[:-1]}, "data": {data}}}'


def _attribute(headers: Headers, name: str) -> str | None:
    """Return an attribute's value: without its double quotes, then percent-decoded once."""
    values = headers.getlist(f"ce-{name}")
    if not values:
        return None
    if len(values) > 1:
        raise EventError(f"the header ce-{name} is there {len(values)} times. Send it once")
    value = values[0].strip(" \t")
    if quoted := _QUOTED.fullmatch(value):
        value = _ESCAPE.sub(r"\1", quoted[1])
    try:
        return unquote_to_bytes(value.encode("latin-1")).decode()
    except UnicodeError:
        raise EventError(f"the header ce-{name} is not percent-encoded UTF-8") from None


def unique_names(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object's members. A repeated name is an error, because readers disagree about which value counts."""
    members: dict[str, Any] = {}
    for name, value in pairs:
        if name in members:
            raise ValueError(f"the name {name!r:.80} is twice in one object")
        members[name] = value
    return members


_DECODER = json.JSONDecoder(object_pairs_hook=unique_names)


def _parse_json(text: str, what: str) -> Any:
    try:
        return _DECODER.decode(text)
    except RecursionError:
        raise EventError(f"{what} is nested too deeply") from None
    except ValueError as error:
        raise EventError(f"{what} is not valid JSON: {error}") from None
