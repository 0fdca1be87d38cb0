"""Parse query parameters, and the numbers and notes of addresses and forms.

The OpenAPI document uses the same declarations.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request

from dims_worker.errors import NotFound, UsageError
from dims_worker.formatting import escape_control, format_number

LARGEST = 2**63 - 1
"""The largest row number that PostgreSQL can hold."""
LARGEST_VERSION = 2**31 - 1
LONGEST_NOTE = 2000
"""Characters of a note."""
_WHOLE = re.compile(r"0|[1-9][0-9]{0,18}", re.ASCII)


def parse_whole_number(text: str, largest: int = LARGEST) -> int | None:
    """Return a number from 0 to `largest`, or None for any other text."""
    return int(text) if _WHOLE.fullmatch(text) and int(text) <= largest else None


@dataclass(frozen=True, slots=True)
class Parameter:
    """One query parameter. `schema` is JSON Schema. Its `default` applies when the parameter is missing."""

    name: str
    description: str
    schema: Mapping[str, Any]

    def parse(self, text: str) -> Any:
        """Return the value of this text. Raises UsageError, which says which values are allowed."""
        schema = self.schema
        if schema["type"] == "integer":
            number = parse_whole_number(text, schema["maximum"])
            if number is not None and number >= schema["minimum"]:
                return number
            allowed = f"a whole number from {schema['minimum']} to {schema['maximum']}"
        elif "enum" in schema:
            if text in schema["enum"]:
                return text
            allowed = f"one of {', '.join(schema['enum'])}"
        else:
            if 0 < len(text) <= schema["maxLength"] and "\0" not in text:
                return text
            allowed = f"1 to {schema['maxLength']} characters without NUL"
        raise UsageError(f"{self.name} must be {allowed}, not {text!r:.80}")


def integer_parameter(name: str, description: str, highest: int = LARGEST, default: int | None = None) -> Parameter:
    schema = {"type": "integer", "minimum": 1, "maximum": highest}
    return Parameter(name, description, schema if default is None else {**schema, "default": default})


def choice_parameter(name: str, description: str, allowed: Sequence[str], default: str | None = None) -> Parameter:
    schema = {"type": "string", "enum": list(allowed)}
    return Parameter(name, description, schema if default is None else {**schema, "default": default})


def text_parameter(name: str, description: str, longest: int = 200) -> Parameter:
    schema = {"type": "string", "minLength": 1, "maxLength": longest, "pattern": r"^[^\u0000]*$"}
    return Parameter(name, description, schema)


LIMIT = integer_parameter("limit", "The most items to return.", 500, 50)
BEFORE = integer_parameter("before", "Return only older items: the `next` of the previous page.")


def parse_query(request: Request, parameters: Sequence[Parameter]) -> dict[str, Any]:
    """Return the value of each parameter: its default, or None, where the query does not have it.

    Raises UsageError for an unknown or repeated parameter and for a value that is not allowed.
    """
    known = {parameter.name: parameter for parameter in parameters}
    values: dict[str, Any] = {name: parameter.schema.get("default") for name, parameter in known.items()}
    seen: set[str] = set()
    for name, text in request.query_params.multi_items():
        if name not in known:
            raise UsageError(f"unknown parameter {name!r:.80}. Known here: {', '.join(known) or 'none'}")
        if name in seen:
            raise UsageError(f"{name} may be given only once")
        seen.add(name)
        values[name] = known[name].parse(text)
    return values


def query_value(request: Request, parameter: Parameter) -> Any:
    """Return one parameter of a page's query, or its default. Pages ignore parameters that they do not know."""
    text = request.query_params.get(parameter.name)
    return parameter.schema.get("default") if text is None else parameter.parse(text)


def path_number(request: Request, name: str, noun: str) -> int:
    """Return the number in the path: of an event, a run or a request. Raises NotFound for any other text."""
    text = request.path_params[name]
    number = parse_whole_number(text)
    if number is None:
        raise NotFound(f"there is no {noun} {escape_control(text)[:40]}. The address ends with a number")
    return number


def parse_note(text: str) -> str:
    """Return the note as one paragraph. Raises UsageError if it is too long or has a NUL character."""
    note = " ".join(text.split())
    if len(note) > LONGEST_NOTE:
        length, limit = format_number(len(note)), format_number(LONGEST_NOTE)
        raise UsageError(f"the note has {length} characters. Shorten it to {limit} or fewer")
    if "\0" in note:
        raise UsageError("the note has a NUL character, which the database cannot store. Remove it")
    if any("\ud800" <= character <= "\udfff" for character in note):
        raise UsageError("the note has half of a surrogate pair, which is no character. Remove it")
    return note
