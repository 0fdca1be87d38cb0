"""Durations (`90s`, `48h`), sizes (`1KiB`, `2 GB`), units and shares, as people write them."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

from pydantic import BeforeValidator, PlainSerializer, WithJsonSchema

SECONDS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
BYTES = {
    **{"bytes": 1, "B": 1, "kB": 10**3, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12},
    **{"KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40},
}
"""Decimal prefixes are powers of 1,000 and binary ones of 1,024 (IEC 80000-13)."""
AGES = {"seconds": 1, "minutes": 60, "hours": 3600, "days": 86400, "weeks": 604800}

_QUANTITY = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]+)\s*")


def _parse(value: Any, factors: dict[str, Any], example: str) -> float:
    match = _QUANTITY.fullmatch(value) if isinstance(value, str) else None
    if match is None or match[2] not in factors:
        raise ValueError(f"write a number and one of {', '.join(factors)}, such as {example}")
    return float(match[1]) * float(factors[match[2]])


def parse_duration(value: Any) -> timedelta:
    """`90s`, `5m`, `48h`, `7d` as a timedelta. Raises ValueError with the forms that are taken."""
    try:
        return value if isinstance(value, timedelta) else timedelta(seconds=_parse(value, SECONDS, "60s"))
    except OverflowError:
        raise ValueError(f"{value} is longer than can be reckoned with") from None


def parse_since(told: str) -> timedelta | datetime:
    """How far back (`7d`, `48h`), or from when on (`2026-11-01`, `2026-11-01T09:00+01:00`; without a zone: UTC).
    Raises ValueError where it is neither."""
    try:
        return parse_duration(told)
    except ValueError:
        instant = datetime.fromisoformat(told)
    return instant if instant.tzinfo else instant.replace(tzinfo=UTC)


def parse_size(value: Any) -> int:
    """`1KiB`, `10 MB`, or a plain number of bytes, as bytes. Raises ValueError likewise."""
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    return round(_parse(value, BYTES, "1KiB"))


def duration_as_config(span: timedelta) -> str:
    """A duration as the configuration writes it: `60s`, `48h`."""
    return f"{span.total_seconds():g}s"


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
