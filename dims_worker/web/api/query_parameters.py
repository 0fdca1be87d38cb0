"""What may stand in a query: declared once, for who reads it and for who describes it (OpenAPI)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request

from dims_worker.errors import UsageError

LARGEST = 2**63 - 1
"""The largest number that PostgreSQL counts rows by."""
_WHOLE = re.compile(r"0|[1-9][0-9]{0,18}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter of a query. `schema`: what it may be, in JSON Schema; its `default` is what it is unsaid."""

    name: str
    description: str
    schema: Mapping[str, Any]

    def read(self, said: str) -> Any:
        """The value that was said. Raises UsageError, which says what is allowed."""
        schema = self.schema
        if schema["type"] == "integer":
            if _WHOLE.fullmatch(said) and schema["minimum"] <= int(said) <= schema["maximum"]:
                return int(said)
            allowed = f"a whole number from {schema['minimum']} to {schema['maximum']}"
        elif "enum" in schema:
            if said in schema["enum"]:
                return said
            allowed = f"one of {', '.join(schema['enum'])}"
        else:
            if 0 < len(said) <= schema["maxLength"] and "\0" not in said:
                return said
            allowed = f"1 to {schema['maxLength']} characters, none of them NUL"
        raise UsageError(f"{self.name} must be {allowed}; not {said!r:.80}")


def integer_parameter(name: str, description: str, highest: int, default: int | None = None) -> Parameter:
    schema = {"type": "integer", "minimum": 1, "maximum": highest}
    return Parameter(name, description, schema if default is None else {**schema, "default": default})


def choice_parameter(name: str, description: str, allowed: Sequence[str]) -> Parameter:
    return Parameter(name, description, {"type": "string", "enum": list(allowed)})


def text_parameter(name: str, description: str, longest: int = 200) -> Parameter:
    schema = {"type": "string", "minLength": 1, "maxLength": longest, "pattern": r"^[^\u0000]*$"}
    return Parameter(name, description, schema)


def parse_query(request: Request, parameters: Sequence[Parameter]) -> dict[str, Any]:
    """What a query says of these parameters; None where it says nothing and there is no default.

    Raises UsageError where it says more, says one twice, or says what is not allowed.
    """
    known = {one.name: one for one in parameters}
    found: dict[str, Any] = {name: one.schema.get("default") for name, one in known.items()}
    said: set[str] = set()
    for name, value in request.query_params.multi_items():
        if name not in known:
            raise UsageError(f"there is no parameter {name!r:.80} here; known: {', '.join(known) or 'none'}")
        if name in said:
            raise UsageError(f"{name} may be said once")
        said.add(name)
        found[name] = known[name].read(value)
    return found
