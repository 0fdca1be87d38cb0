"""The base class of all configuration models, and small types that they share."""

from __future__ import annotations

import re
from typing import Annotated, Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, WithJsonSchema

MAX_PATTERN = 1024
"""The length limit of a pattern with wildcards, in characters. It is the longest key that S3 has."""

MAX_WILDCARDS = 64
"""The most wildcards in a pattern. `**` counts as two."""

MAX_PATTERNS = 1000
"""The most patterns in a list."""

_WILDCARD = re.compile(r"[*?\[]")
_PATTERN_SCHEMA: dict[str, Any] = {
    "type": "string",
    "maxLength": MAX_PATTERN,
    "pattern": rf"^[^*?\[]*([*?\[][^*?\[]*){{0,{MAX_WILDCARDS}}}$",
}


class Model(BaseModel):
    """A frozen model that refuses unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=False, allow_inf_nan=False)


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def _check_patterns(patterns: tuple[str, ...]) -> tuple[str, ...]:
    problems = []
    if len(patterns) > MAX_PATTERNS:
        problems.append(f"has {len(patterns):,} patterns; the limit is {MAX_PATTERNS:,}. Join some with a wildcard")
    for pattern in patterns:
        if len(pattern) > MAX_PATTERN:
            problems.append(
                f"{pattern[:40]!r}… has {len(pattern):,} characters; the limit of a pattern is {MAX_PATTERN:,}. "
                "Write `*` for a part of it"
            )
        if (wildcards := len(_WILDCARD.findall(pattern))) > MAX_WILDCARDS:
            problems.append(
                f"{pattern[:40]!r}… has {wildcards} wildcards (`*`, `?`, `[`); the limit is {MAX_WILDCARDS}. "
                "Write `*` for several of them, or write several patterns"
            )
    if problems:
        raise ValueError("; ".join(problems))
    return patterns


def _check_regex(value: str) -> str:
    try:
        re.compile(value)
    except re.error as error:
        raise ValueError(f"is not a valid regular expression: {error}") from None
    return value


Texts = Annotated[
    tuple[str, ...],
    BeforeValidator(_as_list),
    WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}),
]
"""A string or a list of strings."""
Patterns = Annotated[
    tuple[str, ...],
    BeforeValidator(_as_list),
    AfterValidator(_check_patterns),
    WithJsonSchema({"anyOf": [_PATTERN_SCHEMA, {"type": "array", "items": _PATTERN_SCHEMA, "maxItems": MAX_PATTERNS}]}),
]
"""A pattern with wildcards or a list of them. What a pattern costs is bounded, because events are compared with it."""
Regex = Annotated[str, AfterValidator(_check_regex)]

KEY_ID = r"^0*(\d+)(?!\d|-\d\d-\d\d)|(?:_|-)(00\d{8}|\d{9})(?!\d)"
"""The default pattern for the id in the last part of a key: digits at the begin, or after a day and `_` or `-`."""


def _check_zone(value: str) -> str:
    try:
        ZoneInfo(value)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(f"{value!r} is not a time zone; write one such as UTC or Europe/Berlin") from None
    return value


TimeZone = Annotated[str, AfterValidator(_check_zone)]
"""The name of a time zone, such as `Europe/Berlin`."""
