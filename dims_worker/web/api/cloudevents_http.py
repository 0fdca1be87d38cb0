"""Events out of an HTTP request: the CloudEvents 1.0.2 HTTP protocol binding, in its three content modes.

Format: https://github.com/cloudevents/spec, v1.0.2, cloudevents/bindings/http-protocol-binding.md. What comes out are
envelopes in the JSON event format, each of which `Event.from_json` takes: no event is judged by other rules here than
on the stream. Beyond them HTTP is strict where the stream cannot be: a name that is written twice in an object, and
data that would be left out in silence, are refused.
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

STRUCTURED = "application/cloudevents+json"
BATCH = "application/cloudevents-batch+json"
BINARY = "application/json"
MODES = f"{STRUCTURED}, {BATCH}, or {BINARY} with the attributes in ce- headers"

MAX_BODY = 4 * 1024 * 1024
"""The longest body that is read, in bytes."""
MAX_EVENTS = 1000
"""The most events of one batch."""

ATTRIBUTES = ("specversion", "id", "source", "type", "time", "subject")
"""What an envelope keeps; other attributes, extensions, are let pass and not kept, as on the stream."""

_BETWEEN = re.compile(r"[ \t\r\n,]*")
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"', re.DOTALL)
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)


def content_mode(headers: Headers) -> str:
    """Which of the three content modes a request is in, by its media type. Raises HTTPException 415."""
    if (coding := headers.get("content-encoding", "identity").strip().lower()) != "identity":
        raise HTTPException(415, f"a body with content-encoding {coding!r:.40} is not read: send it plain")
    kind, *parameters = (part.strip().lower() for part in headers.get("content-type", "").split(";"))
    charset = next((one.partition("=")[2].strip('"') for one in parameters if one.startswith("charset=")), "utf-8")
    if charset not in ("utf-8", "utf8", "us-ascii"):
        raise HTTPException(415, f"JSON is UTF-8, not {charset!r:.40}")
    if kind in (STRUCTURED, BATCH):
        return kind
    if "ce-specversion" not in headers or kind.startswith("application/cloudevents"):
        said = f"content-type {kind!r:.80}" if kind else "no content-type"
        raise HTTPException(415, f"{said}: an event is sent as {MODES}")
    if kind not in ("", BINARY) and not re.fullmatch(r"application/[\w.!#$&^-]+\+json", kind, re.ASCII):
        raise HTTPException(415, f"content-type {kind!r:.80}: an event's data must be a JSON object, {BINARY}")
    return BINARY


def parse_envelopes(mode: str, headers: Headers, body: bytes) -> list[tuple[Event, str]]:
    """The events of a request with their envelopes as they go to the stream, in their order.

    Raises EventError with the first reason why one cannot be taken, HTTPException 413 where there are too many.
    """
    try:
        text = body.decode()
    except UnicodeError as error:
        raise EventError(f"the body is not UTF-8: {error}") from None
    if mode == STRUCTURED:
        return [_taken(text, _read(text, "the envelope"))]
    if mode == BINARY:
        envelope = _envelope(headers, text)
        return [_taken(envelope, _read(envelope, "the envelope"))]
    found = []
    for index, (one, fields) in enumerate(_members(text)):
        try:
            found.append(_taken(one, fields))
        except EventError as error:
            raise EventError(f"nothing was sent: event {index} of the batch, counted from 0: {error}") from None
    return found


def _taken(envelope: str, fields: Any) -> tuple[Event, str]:
    if isinstance(fields, dict) and "data_base64" in fields:
        raise EventError("data_base64 cannot be taken: data must be a JSON object, in `data`")
    return Event.from_json(envelope), envelope


def _members(text: str) -> list[tuple[str, Any]]:
    """The members of a JSON array, each as it was written and as it is read."""
    members = _read(text, "the batch")
    if not isinstance(members, list):
        raise EventError("the batch must be a JSON array of events")
    if len(members) > MAX_EVENTS:
        raise HTTPException(413, f"a batch has at most {MAX_EVENTS:,} events, not {len(members):,}")
    place, found = text.index("[") + 1, []
    for member in members:
        start = place + len(_BETWEEN.match(text, place)[0])  # type: ignore[index]  # it matches anything
        place = _STRICT.raw_decode(text, start)[1]
        found.append((text[start:place], member))
    return found


def _envelope(headers: Headers, data: str) -> str:
    """The envelope of an event in binary mode: its attributes out of `ce-` headers, its data as it was written."""
    fields = {name: value for name in ATTRIBUTES if (value := _attribute(headers, name)) is not None}
    if not data:
        return json.dumps(fields)
    _read(data, "the data")  # one JSON value and no more: what follows is no way to other fields
    return f'{json.dumps(fields)[:-1]}, "data": {data}}}'


def _attribute(headers: Headers, name: str) -> str | None:
    """An attribute's value: what stands in double quotes is taken out of them, then percent-decoded once."""
    said = headers.getlist(f"ce-{name}")
    if not said:
        return None
    if len(said) > 1:
        raise EventError(f"the header ce-{name} stands there {len(said)} times")
    value = said[0].strip(" \t")
    if quoted := _QUOTED.fullmatch(value):
        value = _ESCAPE.sub(r"\1", quoted[1])
    try:
        return unquote_to_bytes(value.encode("latin-1")).decode()
    except UnicodeError:
        raise EventError(f"the header ce-{name} is not UTF-8, percent-encoded") from None


def _once(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """An object's members, each named once: of two, this reader would take the one and another the other."""
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"the name {name!r:.80} stands twice in one object")
        found[name] = value
    return found


_STRICT = json.JSONDecoder(object_pairs_hook=_once)


def _read(text: str, what: str) -> Any:
    try:
        return _STRICT.decode(text)
    except RecursionError:
        raise EventError(f"{what} is nested too deeply") from None
    except ValueError as error:
        raise EventError(f"{what} is not JSON: {error}") from None
