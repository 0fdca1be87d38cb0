"""Describe the API in OpenAPI 3.1 (https://spec.openapis.org/oas/v3.1.0), from the declarations that parse requests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, get_args

from dims_worker import __version__
from dims_worker.domain.decide import SEVERITIES, Status, Tier
from dims_worker.events import MAX_BYTES, MAX_TEXT, YEARS
from dims_worker.formatting import format_number
from dims_worker.web.api.cloudevents_http import ATTRIBUTES, BATCH, BINARY, MAX_BODY, MAX_EVENTS, STRUCTURED
from dims_worker.web.api.query_parameters import LARGEST, Parameter

Schema = dict[str, Any]

_FLAG: Schema = {"type": "boolean"}
_TEXT: Schema = {"type": "string"}
_COUNT: Schema = {"type": "integer", "minimum": 0}
_NUMBER: Schema = {"type": "integer", "minimum": 1, "maximum": LARGEST}
_PERCENT: Schema = {"type": ["number", "null"], "description": "Percent."}
_TIME: Schema = {"type": "string", "format": "date-time", "description": "ISO 8601, UTC."}
_TEXTS: Schema = {"type": "array", "items": _TEXT}
_FACTS: Schema = {"type": "object"}
_VALUE: Schema = {"description": "A number with its own type, a text, true or false, or null."}


def _record(fields: Mapping[str, Schema], **optional: Schema) -> Schema:
    """Describe an object with these fields and no others."""
    return {
        "type": "object",
        "properties": {**fields, **optional},
        "required": list(fields),
        "additionalProperties": False,
    }


def _or_null(schema: Schema) -> Schema:
    if "$ref" in schema:
        return {"oneOf": [schema, {"type": "null"}]}
    choices = {"enum": [*schema["enum"], None]} if "enum" in schema else {}
    return {**schema, **choices, "type": [schema["type"], "null"]}


def _choice(*allowed: str) -> Schema:
    return {"type": "string", "enum": list(allowed)}


def _ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def _each(schema: Schema, *names: str) -> dict[str, Schema]:
    """Describe several fields of the same kind."""
    return dict.fromkeys(names, schema)


_STATUS, _SEVERITY, _TIER = (_or_null(_choice(*words)) for words in (get_args(Status), SEVERITIES, get_args(Tier)))
_INSTANT: Schema = {**_or_null(_TIME), "description": "For an age: the time that it counts from."}
_VALUED = {"value": _VALUE, "unit": _TEXT, "baseline": _VALUE}
_JUDGED = {"status": _STATUS, "severity": _SEVERITY, "drift_pct": _PERCENT}

_METRIC = {
    **_each(_TEXT, "metric", "category", "description"),
    **_VALUED,
    **_JUDGED,
    **_each(_FLAG, "drifted", "stale", "failed", "due", "critical", "enabled"),
    "as_of": _or_null(_TIME),
    "error": _or_null(_TEXT),
    "beyond": {**_or_null(_TEXT), "description": "The limit that the value exceeds."},
    "request": {**_or_null(_NUMBER), "description": "The number of the open approval request."},
}
_POINT = {"as_of": _TIME, **_VALUED, "outcome": _TEXT, **_JUDGED, "error": _or_null(_TEXT), "run": _NUMBER}
_READING = {
    **_each(_TEXT, "metric", "method", "outcome"),
    **_VALUED,
    **_JUDGED,
    **_each(_or_null(_TEXT), "error", "reason"),
    "tier": _TIER,
    "as_of": _TIME,
    "details": _or_null(_FACTS),
}
_EXPLANATION = {
    **_each(_TEXT, "metric", "unit"),
    **_each(_FLAG, "configured", "redefined", "stale"),
    **_each(_or_null(_TIME), "retired_at", "due_since"),
    **_each(_or_null(_FACTS), "reading", "failure", "baseline", "verdict", "events", "unexplained"),
    **_each({"type": "array", "items": _FACTS}, "inputs", "gaps"),
    "provisional": _or_null(_ref("Reading")),
    "policy": _FACTS,
    "formula": _or_null(_TEXT),
    "request": _or_null(_ref("Request")),
    "decisions": {"type": "array", "items": _ref("Request")},
}
_EVENT = {
    "seq": _NUMBER,
    "digest": _TEXT,
    **_each(_or_null(_TEXT), "producer", "event_id", "type", "subject", "stream_id", "reason"),
    **_each(_or_null(_TIME), "event_time", "replayed_at"),
    "received_at": _TIME,
    "outcome": _choice("planned", "unmatched", "rejected"),
    **_each(_TEXTS, "rules", "metrics"),
}
_RUN = {
    "run_id": _NUMBER,
    **_each(_TEXT, "trigger", "status"),
    **_each(_or_null(_TEXT), "source", "worker"),
    **_each(_TIME, "started_at", "finished_at"),
    **_each(_COUNT, "readings", "failed", "held", "api_calls"),
}
_REQUEST = {
    **_each(_NUMBER, "id", "version"),
    **_each(_TEXT, "metric", "state", "unit", "severity", "reason"),
    "kind": _choice("drift", "baseline"),
    **_each(_VALUE, "value", "anchor", "baseline"),
    "baseline_version": _COUNT,
    "drift_pct": _PERCENT,
    "evidence": _or_null(_FACTS),
    "run_id": _or_null(_NUMBER),
    **_each(_TIME, "as_of", "opened_at", "updated_at"),
    **_each(_or_null(_TIME), "baseline_as_of", "expires_at", "decided_at"),
    **_each(_or_null(_TEXT), "decided_by", "known_by", "note"),
}
_PROBLEM = {
    "type": "object",
    "description": "Problem details (RFC 9457).",
    "properties": {**_each(_TEXT, "type", "title", "detail"), "status": {"type": "integer"}},
    "required": ["type", "title", "status", "detail"],
}
_NAME: Schema = {"type": "string", "minLength": 1, "maxLength": MAX_TEXT, "pattern": r"^[^\u0000]*$"}
_CLOUD_EVENT = {
    "type": "object",
    "description": f"An event in the CloudEvents 1.0 JSON format, at most {format_number(MAX_BYTES)} bytes. "
    "DIMS accepts extension attributes and drops them.",
    "properties": {
        "specversion": {"const": "1.0"},
        **_each(_NAME, "id", "source", "type"),
        "time": {
            "type": "string",
            "format": "date-time",
            "pattern": r"^(20\d\d|2100)-",
            "description": f"RFC 3339 with an offset, in the years {YEARS.start} to {YEARS.stop - 1}.",
        },
        "subject": {"type": ["string", "null"], "maxLength": MAX_TEXT, "pattern": r"^[^\u0000]*$"},
        "datacontenttype": {"description": "Ignored: the data is always application/json."},
        "data": {"type": ["object", "null"]},
        "data_base64": False,
    },
    "required": ["specversion", "id", "source", "type", "time"],
}


def _list(item: str) -> Schema:
    return _record({"items": {"type": "array", "items": _ref(item)}, "next": _or_null(_NUMBER)})


SCHEMAS: dict[str, Schema] = {
    "Metric": _record(_METRIC, instant=_INSTANT),
    "Point": _record(_POINT, instant=_INSTANT),
    "Reading": _record(_READING, instant=_INSTANT),
    "History": _record(
        {
            "days": _NUMBER,
            "points": {"type": "array", "items": _ref("Point")},
            "left_off": {**_FLAG, "description": "Whether `limit` left out older points."},
        }
    ),
    "Explanation": {**_record(_EXPLANATION), "description": "The output of `dims explain --json`."},
    "WholeMetric": _record(
        {**_METRIC, "history": _ref("History"), "explanation": _ref("Explanation")}, instant=_INSTANT
    ),
    "Event": _record(_EVENT),
    "Run": _record(_RUN),
    "Request": _record(_REQUEST),
    "Metrics": _record({"items": {"type": "array", "items": _ref("Metric")}, "next": {"type": "null"}}),
    **{f"{item}s": _list(item) for item in ("Event", "Run", "Request")},
    "CloudEvent": _CLOUD_EVENT,
    "Accepted": _record({"accepted": _COUNT, "ids": _TEXTS}),
    "Problem": _PROBLEM,
}

_PROBLEMS = {
    400: "The request is not valid. The detail says what is allowed.",
    401: "The token is missing or unknown.",
    403: "This server does not accept events over HTTP.",
    404: "Not found.",
    413: f"The body has more than {format_number(MAX_BODY)} bytes or {format_number(MAX_EVENTS)} events.",
    415: "The content type is not supported.",
    503: "The database or the broker is unreachable. Try again.",
}


def openapi_document(
    paths: Mapping[str, tuple[str, Sequence[Parameter], str]], read_by_anyone: bool, cookie: str
) -> dict[str, Any]:
    """Return the OpenAPI document.

    `paths` maps each path to its summary, its query parameters and the name of its schema. `cookie` is the name of the
    session cookie.
    """
    no_token: list[Schema] = [{}] if read_by_anyone else []
    described: dict[str, Any] = {path: {"get": _get_operation(path, *parts)} for path, parts in paths.items()}
    described["/api/events"]["post"] = _post_events_operation()
    return {
        "openapi": "3.1.0",
        "info": {"title": "DIMS", "version": __version__, "summary": "Read metrics and send events."},
        "servers": [{"url": "/"}],
        "security": [{"token": []}, {"session": []}, *no_token],
        "paths": described,
        "components": {
            "schemas": SCHEMAS,
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer", "description": "A person's token, from web.tokens."},
                "session": {"type": "apiKey", "in": "cookie", "name": cookie, "description": "Set when you sign in."},
                "producer": {"type": "http", "scheme": "bearer", "description": "The token in web.events_token."},
            },
        },
    }


def _get_operation(path: str, summary: str, parameters: Sequence[Parameter], schema: str) -> Schema:
    name = {"name": "name", "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
    in_path = [name] if "{name}" in path else []
    in_query = [
        {"in": "query", "name": each.name, "description": each.description, "schema": dict(each.schema)}
        for each in parameters
    ]
    return {
        "operationId": f"get{schema}",
        "summary": summary,
        "parameters": [*in_path, *in_query],
        "responses": {
            "200": {"description": summary, "content": {"application/json": {"schema": _ref(schema)}}},
            **_problems(400, 401, 503, *([404] if in_path else [])),
        },
    }


def _post_events_operation() -> Schema:
    """Describe sending. No schema can require headers in binary mode only, so the description names them."""
    headers = ", ".join(f"`ce-{name}`" for name in ATTRIBUTES)
    return {
        "operationId": "sendEvents",
        "summary": "Publish all events of a request, or none.",
        "description": "The HTTP protocol binding of CloudEvents 1.0, in structured, batch and binary mode. In binary "
        f"mode ({BINARY}), send the attributes percent-encoded in headers: {headers}. You can safely send an event "
        "again: `source` and `id` identify it.",
        "security": [{"producer": []}],
        "requestBody": {
            "required": True,
            "content": {
                STRUCTURED: {"schema": _ref("CloudEvent")},
                BATCH: {"schema": {"type": "array", "items": _ref("CloudEvent"), "maxItems": MAX_EVENTS}},
                BINARY: {"schema": {"type": ["object", "null"], "description": "The event's data."}},
            },
        },
        "responses": {
            "202": {
                "description": "The events are in the stream.",
                "content": {"application/json": {"schema": _ref("Accepted")}},
            },
            **_problems(400, 401, 403, 413, 415, 503),
        },
    }


def _problems(*statuses: int) -> Schema:
    content = {"application/problem+json": {"schema": _ref("Problem")}}
    return {str(status): {"description": _PROBLEMS[status], "content": content} for status in sorted(statuses)}
