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


def duration(value: Any) -> timedelta:
    """`90s`, `5m`, `48h`, `7d` as a timedelta. Raises ValueError with the forms that are taken."""
    try:
        return value if isinstance(value, timedelta) else timedelta(seconds=_parse(value, SECONDS, "60s"))
    except OverflowError:
        raise ValueError(f"{value} is longer than can be reckoned with") from None


def since(told: str) -> timedelta | datetime:
    """How far back (`7d`, `48h`), or from when on (`2026-11-01`, `2026-11-01T09:00+01:00`; without a zone: UTC).
    Raises ValueError where it is neither."""
    try:
        return duration(told)
    except ValueError:
        instant = datetime.fromisoformat(told)
    return instant if instant.tzinfo else instant.replace(tzinfo=UTC)


def size(value: Any) -> int:
    """`1KiB`, `10 MB`, or a plain number of bytes, as bytes. Raises ValueError likewise."""
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    return round(_parse(value, BYTES, "1KiB"))


def words(span: timedelta) -> str:
    """A duration in one word and one number, such as `4.2 days`."""
    seconds = span.total_seconds()
    for name, factor in reversed(AGES.items()):
        if abs(seconds) >= factor:
            shown = f"{seconds / factor:.3g}"
            return f"{shown} {name.removesuffix('s') if shown == '1' else name}"
    return f"{seconds:.1f} seconds"


def in_words(span: timedelta) -> str:
    """A duration as the configuration writes it: `60s`, `48h`."""
    return f"{span.total_seconds():g}s"


def percent(share: float, *limits: float) -> str:
    """A share in % with so many decimals that it stands on the right side of each limit, and of 0."""
    decimals = 1
    while decimals < 9 and not _faithful(round(share, decimals), share, limits):
        decimals += 1
    return f"{share:,.{decimals}f} %"


def _faithful(shown: float, share: float, limits: tuple[float, ...]) -> bool:
    return all((shown >= limit) == (share >= limit) for limit in limits) and bool(shown) == bool(share)


Duration = Annotated[
    timedelta,
    BeforeValidator(duration),
    PlainSerializer(in_words, return_type=str),
    WithJsonSchema({"type": "string", "pattern": r"^\d+(\.\d+)?\s*(ms|s|m|h|d|w)$", "examples": ["60s"]}),
]
Size = Annotated[
    int,
    BeforeValidator(size),
    WithJsonSchema({"anyOf": [{"type": "integer", "minimum": 0}, {"type": "string"}], "examples": ["1KiB"]}),
]
