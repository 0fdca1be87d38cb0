"""Describe the API in OpenAPI 3.1 (https://spec.openapis.org/oas/v3.1.0).

The parts that never change are in `openapi.yaml.jinja`. The paths come from the declarations that parse requests.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any, get_args

import yaml
from jinja2 import Environment, StrictUndefined

from dims_worker import __version__
from dims_worker.domain.decide import SEVERITIES, Status, Tier
from dims_worker.domain.health import FLAGS
from dims_worker.events import MAX_BYTES, MAX_TEXT, YEARS
from dims_worker.formatting import format_number
from dims_worker.store.incidents import KINDS, Resolution
from dims_worker.web.api.cloudevents_http import ATTRIBUTES, BATCH, BINARY, MAX_BODY, MAX_EVENTS, STRUCTURED
from dims_worker.web.api.query_parameters import LARGEST, LARGEST_VERSION, LONGEST_NOTE, Parameter

Schema = dict[str, Any]


def _load_parts() -> dict[str, Any]:
    """Return the content of `openapi.yaml.jinja`, with the limits that the code applies."""
    environment = Environment(undefined=StrictUndefined, autoescape=False)  # noqa: S701 - the result is YAML
    environment.filters["format_number"] = format_number
    environment.globals.update(
        ATTRIBUTES=ATTRIBUTES,
        BATCH=BATCH,
        BINARY=BINARY,
        FLAGS=FLAGS,
        INCIDENT_KINDS=KINDS,
        LARGEST=LARGEST,
        LARGEST_VERSION=LARGEST_VERSION,
        LONGEST_NOTE=LONGEST_NOTE,
        MAX_BODY=MAX_BODY,
        MAX_BYTES=MAX_BYTES,
        MAX_EVENTS=MAX_EVENTS,
        MAX_TEXT=MAX_TEXT,
        RESOLUTIONS=get_args(Resolution),
        SEVERITIES=SEVERITIES,
        STATUSES=get_args(Status),
        STRUCTURED=STRUCTURED,
        TIERS=get_args(Tier),
        YEARS=YEARS,
    )
    source = files(__package__).joinpath("openapi.yaml.jinja").read_text(encoding="utf-8")
    parts: dict[str, Any] = yaml.safe_load(environment.from_string(source).render())
    return parts


def _record(fields: Mapping[str, Schema]) -> Schema:
    """Describe an object with these fields and no others. The name of an optional field ends with `?`."""
    return {
        "type": "object",
        "properties": {name.removesuffix("?"): schema for name, schema in fields.items()},
        "required": [name for name in fields if not name.endswith("?")],
        "additionalProperties": False,
    }


_PARTS = _load_parts()
SCHEMAS: dict[str, Schema] = {name: _record(fields) for name, fields in _PARTS["records"].items()} | _PARTS["schemas"]
SCHEMAS["Explanation"]["description"] = "The output of `dims explain --json`."


def openapi_document(
    paths: Mapping[str, tuple[str, Sequence[Parameter], str]], read_by_anyone: bool, cookie: str
) -> dict[str, Any]:
    """Return the OpenAPI document.

    `paths` maps each path to its summary, its query parameters and the name of its schema. `cookie` is the name of the
    session cookie.
    """
    no_token: list[Schema] = [{}] if read_by_anyone else []
    described: dict[str, Any] = {path: {"get": _get_operation(path, *parts)} for path, parts in paths.items()}
    send: Schema = _PARTS["send_events"]
    responses = send["responses"] | _problems(400, 401, 403, 413, 415, 503)
    described["/api/events"]["post"] = send | {"responses": responses}
    for path, operation in _PARTS["decisions"].items():
        described[path] = {"post": _decision(operation)}
    schemes: dict[str, Schema] = _PARTS["security_schemes"]
    session = schemes["session"] | {"name": cookie}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "DIMS",
            "version": __version__,
            "summary": "Read metrics, decide about incidents, send events.",
        },
        "servers": [{"url": "/"}],
        "security": [{"token": []}, {"session": []}, *no_token],
        "paths": described,
        "components": {"schemas": SCHEMAS, "securitySchemes": schemes | {"session": session}},
    }


def _get_operation(path: str, summary: str, parameters: Sequence[Parameter], schema: str) -> Schema:
    in_path = [parameter for name, parameter in _PARTS["in_path"].items() if f"{{{name}}}" in path]
    in_query = [
        {"in": "query", "name": each.name, "description": each.description, "schema": dict(each.schema)}
        for each in parameters
    ]
    content = {"application/json": {"schema": _ref(schema)}}
    return {
        "operationId": f"get{schema}",
        "summary": summary,
        "parameters": [*in_path, *in_query],
        "responses": {
            "200": {"description": summary, "content": content},
            **_problems(400, 401, 503, *([404] if in_path else [])),
        },
    }


def _decision(operation: Schema) -> Schema:
    """Describe a decision about an incident, which answers with the incident as it is then."""
    done = {"description": operation["summary"], "content": {"application/json": {"schema": _ref("Incident")}}}
    refused = _problems(400, 401, 403, 404, 409, 413, 415, 503)
    for status, description in _PARTS["decision_problems"].items():
        refused[str(status)]["description"] = description
    return {"parameters": [_PARTS["in_path"]["id"]], **operation, "responses": {"200": done} | refused}


def _problems(*statuses: int) -> Schema:
    content = {"application/problem+json": {"schema": _ref("Problem")}}
    return {str(status): {"description": _PARTS["problems"][status], "content": content} for status in sorted(statuses)}


def _ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}
