"""A CloudEvents 1.0 event as a frozen dataclass, to and from JSON. Uses only the standard library.

Format: CloudEvents 1.0.2, JSON event format (https://github.com/cloudevents/spec, v1.0.2). The specification's
`source` is called *producer* here, because a source is a thing that DIMS scans.
"""

from __future__ import annotations

import json
import math
import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import accumulate
from typing import Any

from dims_worker.errors import EventError

STREAM = "dims:events"
"""The Redis stream of events. A producer only needs to run `XADD dims:events * event '<JSON>'`."""
FIELD = "event"
"""The only field of a stream entry: the envelope as JSON."""

GIT_COMMIT = "dims.git.commit"
GIT_MERGE = "dims.git.merge"
GIT_REWRITE = "dims.git.rewrite"
GIT_CHECKOUT = "dims.git.checkout"
GIT_REFS_CHANGED = "dims.git.refs_changed"
FILES_CHANGED = "dims.files.changed"
SCRAPER_COMPLETE = "dims.scraper.complete"
SCHEDULE_TICK = "dims.schedule.tick"
VERIFY_REQUESTED = "dims.verify.requested"
WORKFLOW_REQUESTED = "dims.workflow.requested"
OWN_TYPES = (
    GIT_COMMIT,
    GIT_MERGE,
    GIT_REWRITE,
    GIT_CHECKOUT,
    GIT_REFS_CHANGED,
    FILES_CHANGED,
    SCRAPER_COMPLETE,
    SCHEDULE_TICK,
    VERIFY_REQUESTED,
    WORKFLOW_REQUESTED,
)
S3_PREFIX = "com.amazonaws.s3."

MAX_BYTES = 256 * 1024
"""The size limit of an envelope, in bytes of UTF-8."""

MAX_TEXT = 2048
"""The length limit of id, producer, type and subject, in characters."""

MAX_PATH = 4096
"""The size limit of `root` and of each of `paths`, in bytes of UTF-8. Linux opens no longer path (PATH_MAX)."""

MAX_KEY = 1024
"""The size limit of a key of a bucket, in bytes of UTF-8. It is S3's own limit."""

MAX_PATHS = 1000
"""The most paths or keys that DIMS compares with patterns. A longer list counts as *unknown*."""

MAX_REQUESTED = 20
"""The most patterns in the `metrics` of a request. Names without a wildcard do not count."""

MAX_PATTERN = 256
"""The length limit of such a pattern, in characters."""

MAX_WILDCARDS = 16
"""The most wildcards (`*`, `?`, `[`) in such a pattern."""

MAX_DEPTH = 64
"""The limit of nested arrays and objects, so that every JSON parser and writer on the way can process an event."""

MAX_CONTAINERS = 20_000
"""The most arrays and objects in an envelope. More of them take long to parse, however small they are."""

LARGE_NUMBER = 1e16
"""From here on, a decimal number has an exponent in JSON. PostgreSQL would store it as an integer without one."""

MAX_LARGE_NUMBERS = 1000
"""The most large decimal numbers in an event. Each is stored with all its digits, up to 309."""

YEARS = range(2000, 2101)
"""The valid years of an event's time. Any other year comes from a wrong clock or a hostile sender."""

_RFC3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)?", re.ASCII)
"""The offset is optional here and checked later. `fromisoformat` alone accepts week dates and any separator."""


_WILDCARD = re.compile(r"[*?\[]")


@dataclass(frozen=True, slots=True)
class Event:
    """What changed (`type`, `subject`, `data`), when (`time`, in UTC), and who reports it (`producer`).

    `(producer, id)` identifies the event. A producer creates the id once and may send the event several times.
    """

    id: str
    producer: str
    type: str
    time: datetime
    subject: str | None = None
    data: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def new(
        cls,
        type: str,
        producer: str,
        *,
        now: datetime,
        subject: str | None = None,
        data: Mapping[str, Any] | None = None,
        id: str | None = None,
    ) -> Event:
        """Return a new event at `now`, with a random `id` if none is given. Raises EventError if a part is invalid."""
        event = cls(id or str(uuid.uuid4()), producer, type, now.astimezone(UTC), subject, data or {})
        return cls.from_json(event.to_json())  # applies the same checks as to an event from elsewhere

    def to_json(self) -> str:
        """Return the event in the JSON event format, on one line, with the keys in a fixed order."""
        envelope: dict[str, Any] = {
            "specversion": "1.0",
            "id": self.id,
            "source": self.producer,
            "type": self.type,
            "time": self.time.astimezone(UTC).isoformat().replace("+00:00", "Z"),
        }
        if self.subject is not None:
            envelope["subject"] = self.subject
        envelope["datacontenttype"] = "application/json"
        envelope["data"] = dict(self.data)
        return json.dumps(envelope, ensure_ascii=False, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str | bytes) -> Event:
        """Return the event in an envelope. Raises EventError, which names the first problem."""
        fields = _envelope(text)
        if fields.get("specversion") != "1.0":
            raise EventError(f'specversion must be "1.0", not {fields.get("specversion")!r:.80}')
        data = fields.get("data")
        if data is None:
            data = {}
        if not isinstance(data, dict):
            raise EventError(f"data must be a JSON object, not {type(data).__name__}")
        subject = fields.get("subject")
        event = cls(
            id=_text(fields, "id"),
            producer=_text(fields, "source"),
            type=_text(fields, "type"),
            time=_time(fields.get("time")),
            subject=None if subject is None else _text(fields, "subject", empty=True),
            data=data,
        )
        _check_scope(event)
        return event


def _envelope(text: str | bytes) -> dict[str, Any]:
    try:
        raw = text.encode() if isinstance(text, str) else text
        if len(raw) > MAX_BYTES:
            raise EventError(f"the envelope has {len(raw):,} bytes; the limit is {MAX_BYTES:,}")
        decoded = raw.decode()
        _refuse_many_containers(decoded)
        fields = _reader_of(decoded).decode(decoded)
        _refuse_hostile(decoded, fields)
    except UnicodeError as error:
        raise EventError(f"the envelope is not UTF-8: {error}") from None
    except RecursionError:
        raise EventError("the envelope is nested too deeply") from None
    except ValueError as error:
        raise EventError(f"the envelope is not JSON: {error}") from None
    if not isinstance(fields, dict):
        raise EventError(f"the envelope must be a JSON object, not {type(fields).__name__}")
    return fields


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON number")


def _finite(number: str) -> float:
    value = float(number)
    if math.isinf(value):  # 1e999
        raise ValueError(f"Out of range: {number:.40}")
    return value


_READER = json.JSONDecoder(parse_float=_finite, parse_constant=_no_constant)
_STRINGS = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)', re.DOTALL)
"""A string of JSON, or the rest of a text that does not end its last string."""
_NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_LEVEL = {ord("["): 1, ord("{"): 1, ord("]"): -1, ord("}"): -1}


def _reader_of(text: str) -> json.JSONDecoder:
    """Return the decoder of a text: one that counts large numbers, if the text may have too many."""
    if text.count(".") + text.count("e") + text.count("E") <= MAX_LARGE_NUMBERS:
        return _READER
    count = 0

    def counted(number: str) -> float:
        nonlocal count
        value = _finite(number)
        count += abs(value) >= LARGE_NUMBER
        if count > MAX_LARGE_NUMBERS:
            raise ValueError(f"it has more than {MAX_LARGE_NUMBERS:,} numbers from {LARGE_NUMBER:g} on")
        return value

    return json.JSONDecoder(parse_float=counted, parse_constant=_no_constant)


def _refuse_hostile(text: str, value: Any) -> None:
    """Refuse NUL and lone surrogates, which PostgreSQL cannot store.

    A search in the text is fast. Only a text that can contain one of these needs the slow check of its value.
    """
    if "\\u0000" in text and _has_nul(value):
        raise EventError("the envelope contains a NUL character")
    if "\\ud" in text or "\\uD" in text:
        json.dumps(value, ensure_ascii=False).encode()  # a lone surrogate raises UnicodeEncodeError


def _refuse_many_containers(text: str) -> None:
    """Refuse a text with too many arrays and objects, or nested too deeply, before it is parsed.

    It visits brackets only, and a text with few of them is fine.
    """
    if text.count("[") + text.count("{") <= MAX_DEPTH:
        return
    brackets = _STRINGS.sub("", text).encode().translate(None, _NOT_BRACKETS)
    if max(accumulate(map(_LEVEL.__getitem__, brackets)), default=0) > MAX_DEPTH:
        raise EventError("the envelope is nested too deeply")
    if brackets.count(b"[") + brackets.count(b"{") > MAX_CONTAINERS:
        raise EventError(f"the envelope has more than {MAX_CONTAINERS:,} arrays and objects")


def _has_nul(value: Any) -> bool:
    if isinstance(value, str):
        return "\0" in value
    if isinstance(value, dict):
        return any(_has_nul(part) for pair in value.items() for part in pair)
    return isinstance(value, list) and any(map(_has_nul, value))


def _text(fields: Mapping[str, Any], name: str, *, empty: bool = False) -> str:
    value = fields.get(name)
    if not isinstance(value, str) or not (value or empty):
        raise EventError(f"{name} must be a non-empty string, not {value!r:.80}")
    if len(value) > MAX_TEXT:
        raise EventError(f"{name} has {len(value):,} characters; the limit is {MAX_TEXT:,}")
    return value


def _check_scope(event: Event) -> None:
    """Refuse paths, keys and patterns that are too long, so that comparing them takes a bounded time."""
    data = event.data
    if event.type.startswith(S3_PREFIX):
        _check_size("subject", event.subject, MAX_KEY, "Name a key of the bucket")
    if event.type.startswith(S3_PREFIX) or "bucket" in data:
        _check_size("data.key", data.get("key"), MAX_KEY, "Leave it out, which means that the key is unknown")
        _check_each("data.keys", data.get("keys"), MAX_KEY)
    if isinstance(data.get("root"), str):
        _check_size("data.root", data["root"], MAX_PATH, "Name a folder that exists")
        _check_each("data.paths", data.get("paths"), MAX_PATH)
    if event.type == VERIFY_REQUESTED and isinstance(requested := data.get("metrics"), list):
        _check_patterns({each for each in requested if isinstance(each, str) and not is_name(each)})


def _check_each(name: str, values: Any, limit: int) -> None:
    for index, value in enumerate(values if isinstance(values, list) else ()):
        if isinstance(value, str) and len(value) * 4 > limit:
            _check_size(f"{name}[{index}]", value, limit, "Send an empty list, which means that the change is unknown")


def _check_size(name: str, value: Any, limit: int, fix: str) -> None:
    size = len(value.encode()) if isinstance(value, str) else 0
    if size > limit:
        raise EventError(f"{name} has {size:,} bytes; the limit is {limit:,}. {fix}")


def is_name(pattern: str) -> bool:
    """Return whether a pattern of metric names has no wildcard."""
    return _WILDCARD.search(pattern) is None


def _check_patterns(patterns: set[str]) -> None:
    if len(patterns) > MAX_REQUESTED:
        raise EventError(
            f"data.metrics has {len(patterns):,} patterns; the limit is {MAX_REQUESTED}. Name the metrics, or write `*`"
        )
    for pattern in sorted(patterns):
        if len(pattern) > MAX_PATTERN or len(_WILDCARD.findall(pattern)) > MAX_WILDCARDS:
            raise EventError(
                f"data.metrics has a pattern with more than {MAX_PATTERN} characters or {MAX_WILDCARDS} wildcards: "
                f"{pattern!r:.80}. Shorten it"
            )


def _time(value: Any) -> datetime:
    """Return an RFC 3339 time in UTC. CloudEvents makes it optional, but DIMS needs it to order events."""
    if not isinstance(value, str):
        raise EventError("time is missing; write an RFC 3339 time with an offset, such as 2026-11-22T09:00:00Z")
    try:
        time = datetime.fromisoformat(value.upper())
        if not _RFC3339.fullmatch(value):
            raise ValueError
    except ValueError:
        raise EventError(f"time is not an RFC 3339 time: {value!r:.80}") from None
    if time.tzinfo is None:
        raise EventError(f"time needs an offset, such as Z: {value!r:.80}")
    if time.year not in YEARS or (utc := time.astimezone(UTC)).year not in YEARS:
        raise EventError(f"time is outside the years {YEARS.start} to {YEARS.stop - 1}: {value!r:.80}")
    return utc
