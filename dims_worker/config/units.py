"""Parse durations (`90s`, `48h`) and sizes (`1KiB`, `2 GB`)."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

from pydantic import BeforeValidator, PlainSerializer, WithJsonSchema

SECONDS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_DECIMAL = {"bytes": 1, "B": 1, "kB": 10**3, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
BYTES = _DECIMAL | {"KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}
"""Decimal prefixes are powers of 1,000 and binary ones of 1,024 (IEC 80000-13)."""
AGES = {"seconds": 1, "minutes": 60, "hours": 3600, "days": 86400, "weeks": 604800}
FUTURE_TOLERANCE = timedelta(minutes=5)
"""An instant that is further ahead of the clock than this is in the future. Clocks of two hosts can differ by less."""

_QUANTITY = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]+)\s*")


def _parse(value: Any, factors: dict[str, Any], example: str) -> float:
    match = _QUANTITY.fullmatch(value) if isinstance(value, str) else None
    if match is None or match[2] not in factors:
        raise ValueError(f"write a number and one of {', '.join(factors)}, such as {example}")
    return float(match[1]) * float(factors[match[2]])


def parse_duration(value: Any) -> timedelta:
    """Return `90s`, `5m`, `48h` or `7d` as a timedelta. Raises ValueError, which names the valid units."""
    try:
        return value if isinstance(value, timedelta) else timedelta(seconds=_parse(value, SECONDS, "60s"))
    except OverflowError:
        raise ValueError(f"{value} is too long; write a shorter duration, such as 365d") from None


def parse_since(value: str) -> timedelta | datetime:
    """Return a duration (`7d`) as a timedelta, or a date or time (`2026-11-01T09:00+01:00`) as a datetime.

    A time without an offset is in UTC. Raises ValueError for anything else.
    """
    try:
        return parse_duration(value)
    except ValueError:
        instant = datetime.fromisoformat(value)
    return instant if instant.tzinfo else instant.replace(tzinfo=UTC)


def parse_size(value: Any) -> int:
    """Return `1KiB`, `10 MB` or a plain number of bytes as bytes. Raises ValueError, which names the valid units."""
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    return round(_parse(value, BYTES, "1KiB"))


def duration_as_config(span: timedelta) -> str:
    """Return a duration in seconds, as the configuration writes it: `60s`, `31536000s`, `0.25s`."""
    seconds = span / timedelta(seconds=1)
    return f"{int(seconds)}s" if seconds.is_integer() else f"{seconds:.6f}".rstrip("0") + "s"


Duration = Annotated[
    timedelta,
    BeforeValidator(parse_duration),
    PlainSerializer(duration_as_config, return_type=str),
    WithJsonSchema({"type": "string", "pattern": r"^\d+(\.\d+)?\s*(ms|s|m|h|d|w)$", "examples": ["60s"]}),
]
Size = Annotated[
    int,
    BeforeValidator(parse_size),
    WithJsonSchema({"anyOf": [{"type": "integer", "minimum": 0}, {"type": "string"}], "examples": ["1KiB"]}),
]
