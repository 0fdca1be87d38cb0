"""Envelopes of every kind to fuzz ingest, and an oracle with its own code that knows which are events."""

from __future__ import annotations

import json
import math
import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

MAX_BYTES, MAX_TEXT, MAX_DEPTH = 256 * 1024, 2048, 64
MAX_PATH, MAX_KEY = 4096, 1024

Fields = dict[bytes, bytes]
"""A stream entry."""


@dataclass(frozen=True, slots=True)
class ParsedEvent:
    """The content of an envelope. Two envelopes with the same content are one event."""

    producer: str
    id: str
    type: str
    subject: str | None
    time: datetime
    data: Any

    @property
    def key(self) -> tuple[Any, ...]:
        return (self.producer, self.id, self.type, self.subject, self.time, typed(self.data))


def typed(value: Any) -> Any:
    """Return a JSON value in a form where 1, 1.0 and true differ and the order of keys does not count."""
    if isinstance(value, dict):
        return ("object", tuple(sorted((key, typed(part)) for key, part in value.items())))
    if isinstance(value, list):
        return ("array", tuple(map(typed, value)))
    return (type(value).__name__, repr(value))


# --- the oracle ---------------------------------------------------------------------------------------

_TIME = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)[Tt ](\d\d):(\d\d):(\d\d)(?:\.(\d+))?(?:([Zz])|([+-])(\d\d):(\d\d))", re.ASCII
)


def parse_expected(fields: Fields) -> ParsedEvent | None:
    """Return the event of an entry, or None if DIMS rejects it (docs/architecture.md, invariant 1)."""
    payload = fields.get(b"event", b"")
    try:
        if len(payload) > MAX_BYTES:
            return None
        envelope = json.loads(payload.decode("utf-8"), parse_constant=_never)
        if not isinstance(envelope, dict) or not _storable(envelope, MAX_DEPTH):
            return None
        data = envelope.get("data")
        event = ParsedEvent(
            producer=_text(envelope["source"]),
            id=_text(envelope["id"]),
            type=_text(envelope["type"]),
            subject=None if envelope.get("subject") is None else _text(envelope["subject"], empty=True),
            time=_instant(envelope["time"]),
            data={} if data is None else data,
        )
        if isinstance(event.data, dict) and not _comparable(event):
            return None
        return event if isinstance(event.data, dict) and envelope["specversion"] == "1.0" else None
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return None


def _comparable(event: ParsedEvent) -> bool:
    """Return whether no path, key or pattern is too long."""
    data, is_s3 = event.data, event.type.startswith("com.amazonaws.s3.")
    keys = [data.get("key"), *_listed(data, "keys")] if is_s3 or "bucket" in data else []
    keys += [event.subject] if is_s3 else []
    paths = [data["root"], *_listed(data, "paths")] if isinstance(data.get("root"), str) else []
    patterns = _listed(data, "metrics") if event.type == "dims.verify.requested" else []
    return all(
        len(text.encode()) <= limit
        for texts, limit in ((keys, MAX_KEY), (paths, MAX_PATH))
        for text in texts
        if isinstance(text, str)
    ) and all(not isinstance(p, str) or len(p) <= 256 for p in patterns if isinstance(p, str) and "*" in p)


def _listed(data: dict[str, Any], name: str) -> list[Any]:
    value = data.get(name)
    return value if isinstance(value, list) else []


def _never(name: str) -> None:
    raise ValueError(name)


def _storable(value: Any, levels: int) -> bool:
    """Return whether PostgreSQL can store it: no NUL, no lone surrogate, no infinity, and not too deep."""
    if isinstance(value, str):
        return not any(char == "\0" or "\ud800" <= char <= "\udfff" for char in value)
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, dict | list):
        parts = [*value, *value.values()] if isinstance(value, dict) else value
        return levels > 0 and all(_storable(part, levels - 1) for part in parts)
    return True


def _text(value: Any, *, empty: bool = False) -> str:
    if not isinstance(value, str) or len(value) > MAX_TEXT or not (value or empty):
        raise ValueError
    return value


def _instant(value: Any) -> datetime:
    match = _TIME.fullmatch(value)
    if not match:
        raise ValueError
    *numbers, fraction, _, sign, hours, minutes = match.groups()
    offset = timedelta(hours=int(hours), minutes=int(minutes)) if sign else timedelta(0)
    zone = timezone(-offset if sign == "-" else offset)
    microseconds = int(((fraction or "") + "000000")[:6])
    year, month, day, hour, minute, second = map(int, numbers)
    local = datetime(year, month, day, hour, minute, second, microseconds, zone)
    time = local.astimezone(UTC)
    if not (2000 <= local.year <= 2100 and 2000 <= time.year <= 2100):
        raise ValueError
    return time


# --- the envelopes ------------------------------------------------------------------------------------

_BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
TYPES = (
    "scraped",
    "dims.scraper.complete",
    "dims.files.changed",
    "dims.git.commit",
    "dims.schedule.tick",
    "dims.verify.requested",
    "dims.workflow.requested",
    "com.amazonaws.s3.ObjectCreated:Put",
    "dims.no.rule",
    "x" * 2048,
    "*",
    "[",
    "🜁",
)
TEXTS = (
    "",
    "a",
    "one/x",
    "é🜁",
    "\x01\x1f\x7f\u200f\ufeff",
    "'; DROP TABLE dims_metrics; --",
    "%s %(x)s :name {}",
    "\\",
    "null",
    "a" * 2048,
    "..",
    "/",
    "~",
    "~nouser/x",
    "/" + "d/" * 3000,
    "n" * 5000,
    "\n\r\t",
)
NUMBERS = (0, 1, True, 1.0, -1, 10**30, -(10**300), 1e22, 1e300, 1e-300, 5e-324, 0.1, 2**63, 1.7976931348623157e308)
WRONG: tuple[Any, ...] = (
    None,
    0,
    1.5,
    True,
    False,
    [],
    {},
    [1],
    {"a": 1},
    "",
    " ",
    "1.0",
    "a\0b",
    "\ud800",
    "x" * 2049,
    "x" * 2048,
)
TIMES = (
    "2026-11-22T09:00:00Z",
    "2026-11-22t09:00:00.123456789z",
    "2026-11-22 09:00:00+23:59",
    "2000-01-01T00:00:00Z",
    "2100-12-31T23:59:59.999999Z",
    "0000-01-01T00:00:00Z",
    "0001-01-01T00:00:00+14:00",
    "9999-12-31T23:59:59Z",
    "9999-12-31T23:59:59-14:00",
    "2100-12-31T23:59:59-00:01",
    "1999-12-31T23:59:59-01:00",
    "2026-11-22T09:00:60Z",
    "2026-02-30T09:00:00Z",
    "2026-11-22T09:00:00",
    "2026-11-22",
    "2026-W47-7T09:00:00Z",
    "20261122T090000Z",
    "٢٠٢٦-11-22T09:00:00Z",
    "2026-11-22T09:00:00+24:00",
    "now",
    "1732266000",
    "",
)
KEYS = ("root", "paths", "bucket", "key", "keys", "metrics", "workflow", "rule", "", "é", "a\tb", "data", "__class__")
LATE = (
    *('"x":NaN', '"x":-Infinity', '"x":1e999', '"x":1e-999', '"x":01', '"x":1.', '"x":+1', "'x':1", '"x":\u00a01'),
    *('"x":"\\u0000"', '"x":"\\ud800"', '"\\udfff":1', '"x":"\\ud83d\\ude00"', '"x":"\t"', '"x":"\0"'),
    *('"id":"another"', '"data":{"again":1}', '"specversion":"0.3"'),
    *('"x":' + "9" * digits for digits in (4_300, 5_000)),
    *('"x":' + "[" * levels + "]" * levels for levels in (62, 63, 64, 65, 100_000)),
    *('"x":' + '{"a":' * levels + "1" + "}" * levels for levels in (63, 64, 200)),
)
"""Texts to write after the last field of an envelope."""


class Fuzz:
    """Generates stream entries. The same seed gives the same entries."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.made: list[dict[str, Any]] = []
        self.sent: list[Fields] = []

    def entries(self, number: int) -> Iterator[Fields]:
        kinds: dict[Callable[[], Fields], int] = {
            self.good: 32,
            self.same: 8,
            self.rewritten: 6,
            self.other: 6,
            self.wrong: 18,
            self.late: 10,
            self.broken: 12,
            self.binary: 5,
            self.misfiled: 3,
        }
        for kind in self.rng.choices(list(kinds), list(kinds.values()), k=number):
            entry = kind()
            self.sent.append(entry)
            yield entry

    def good(self) -> Fields:
        """A new event."""
        envelope = {
            "specversion": "1.0",
            "id": f"{len(self.made)}",
            "source": self.rng.choice(("p", "q", "producer-é", "p" * 2048)),
            "type": self.rng.choice(TYPES),
            "time": (_BEGIN + timedelta(microseconds=self.rng.randrange(10**13))).isoformat(),
            "data": self._object(3),
        }
        if self.rng.random() < 0.5:
            envelope["subject"] = self._text()[:2048]
        self.made.append(envelope)
        return _entry(envelope)

    def same(self) -> Fields:
        """An entry that was sent before, byte for byte."""
        return self.rng.choice(self.sent) if self.sent else self.good()

    def rewritten(self) -> Fields:
        """An event that was sent before, with another layout."""
        envelope = dict(self._known())
        when = datetime.fromisoformat(envelope["time"])
        shift = timedelta(minutes=self.rng.randrange(-600, 600))
        envelope["time"] = when.astimezone(timezone(shift)).isoformat()
        items = list(envelope.items())
        self.rng.shuffle(items)
        return {b"event": json.dumps(dict(items), indent=self.rng.choice((None, 2)), ensure_ascii=True).encode()}

    def other(self) -> Fields:
        """A known id with other content."""
        return _entry({**self._known(), "data": self._object(2)})

    def wrong(self) -> Fields:
        """An envelope with one field of another type, empty, too long or missing. Some are valid events."""
        envelope = {**self._known(), "id": f"w{len(self.sent)}"}
        name = self.rng.choice(("specversion", "id", "source", "type", "time", "subject", "data", "extension"))
        chance = self.rng.random()
        if chance < 0.15:
            envelope.pop(name, None)
        elif name == "time" and chance < 0.9:
            envelope[name] = self.rng.choice(TIMES)
        else:
            envelope[name] = self.rng.choice(WRONG)
        return {b"event": json.dumps(envelope).encode()}

    def late(self) -> Fields:
        """An envelope with something after the last field that JSON or a database can barely hold, or cannot."""
        text = json.dumps({**self._known(), "id": f"l{len(self.sent)}"}, ensure_ascii=False)
        return {b"event": f"{text[:-1]},{self.rng.choice(LATE)}}}".encode()}

    def broken(self) -> Fields:
        """An envelope with some bytes changed, cut out, doubled, or in another encoding."""
        payload = bytearray(_entry({**self._known(), "id": f"b{len(self.sent)}"})[b"event"])
        for _ in range(self.rng.randrange(1, 4)):
            at = self.rng.randrange(len(payload) + 1)
            match self.rng.randrange(5):
                case 0:
                    payload[at : at + 1] = bytes([self.rng.randrange(256)])
                case 1:
                    del payload[at : at + self.rng.choice((1, 10, 10**6))]
                case 2:
                    payload[at:at] = payload[at : at + 20]
                case 3:
                    payload[at:at] = self.rng.choice((b"\0", b"\xff\xfe", b"\xed\xa0\x80", b"\xef\xbb\xbf", b"\\u0000"))
                case 4:
                    other = self.rng.choice(("utf-16", "utf-8-sig"))
                    payload = bytearray(payload.decode("utf-8", "replace").encode(other))
        return {b"event": bytes(payload)}

    def binary(self) -> Fields:
        """No JSON, or JSON that is no object."""
        texts = (b"", b"[]", b"null", b"1", b'"x"', b"{}", b"{", b"\0" * 1000, b"[" * 100_000, b'{"a":' * 50_000)
        return {b"event": self.rng.choice((*texts, self.rng.randbytes(self.rng.randrange(200))))}

    def misfiled(self) -> Fields:
        """An entry without the field `event`, or with others beside it."""
        good = self.good()
        others = {b"": b"", b"\0\xff": self.rng.randbytes(20), b"EVENT": b"x"}
        return others if self.rng.random() < 0.5 else {**others, **good}

    def huge(self, size: int) -> Fields:
        """An envelope of this size in bytes."""
        envelope = json.dumps({**self._known(), "id": f"h{size}-{len(self.sent)}", "data": {"x": ""}}).encode()
        self.sent.append({b"event": envelope[:-3] + b"x" * (size - len(envelope)) + envelope[-3:]})
        return self.sent[-1]

    def _known(self) -> dict[str, Any]:
        if not self.made:
            self.good()
        return self.rng.choice(self.made)

    def _object(self, depth: int) -> dict[str, Any]:
        return {self.rng.choice(KEYS): self._value(depth - 1) for _ in range(self.rng.randrange(4))}

    def _value(self, depth: int) -> Any:
        match self.rng.randrange(8 if depth > 0 else 6):
            case 0 | 1:
                return self.rng.choice(NUMBERS)
            case 2 | 3:
                return self._text()
            case 4:
                return self.rng.choice((None, True, False, 0.1 * self.rng.randrange(100), self.rng.getrandbits(80)))
            case 5:
                return [self._text() for _ in range(self.rng.randrange(4))]
            case 6:
                return [self._value(depth - 1) for _ in range(self.rng.randrange(4))]
            case _:
                return self._object(depth)

    def _text(self) -> str:
        if self.rng.random() < 0.7:
            return self.rng.choice(TEXTS)
        return "".join(
            chr(self.rng.choice((self.rng.randrange(1, 0x300), self.rng.randrange(0xE000, 0x110000))))
            for _ in range(self.rng.randrange(12))
        )


def _entry(envelope: dict[str, Any]) -> Fields:
    return {b"event": json.dumps(envelope, ensure_ascii=False).encode()}
