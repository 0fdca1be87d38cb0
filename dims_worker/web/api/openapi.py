"""What the API is, in OpenAPI 3.1 (https://spec.openapis.org/oas/v3.1.0): made from what the API itself reads by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, get_args

from dims_worker import __version__
from dims_worker.domain.decide import SEVERITIES, Status, Tier
from dims_worker.events import MAX_BYTES, MAX_TEXT, YEARS
from dims_worker.web.api.cloudevents_http import ATTRIBUTES, BATCH, BINARY, MAX_BODY, MAX_EVENTS, STRUCTURED
from dims_worker.web.api.query_parameters import LARGEST, Parameter

Schema = dict[str, Any]

_FLAG: Schema = {"type": "boolean"}
_TEXT: Schema = {"type": "string"}
_COUNT: Schema = {"type": "integer", "minimum": 0}
_NUMBER: Schema = {"type": "integer", "minimum": 1, "maximum": LARGEST}
_SHARE: Schema = {"type": ["number", "null"], "description": "Percent."}
_TIME: Schema = {"type": "string", "format": "date-time", "description": "ISO 8601, UTC."}
_TEXTS: Schema = {"type": "array", "items": _TEXT}
_FACTS: Schema = {"type": "object"}
_VALUE: Schema = {"description": "A number with its own type, a text, true or false, or null."}


def _record(fields: Mapping[str, Schema], **optional: Schema) -> Schema:
    """An object with these fields and no other."""
    return {
        "type": "object",
        "properties": {**fields, **optional},
        "required": list(fields),
        "additionalProperties": False,
    }


def _or_null(schema: Schema) -> Schema:
    if "$ref" in schema:
        return {"oneOf": [schema, {"type": "null"}]}
    more = {"enum": [*schema["enum"], None]} if "enum" in schema else {}
    return {**schema, **more, "type": [schema["type"], "null"]}


def _one_of(*words: str) -> Schema:
    return {"type": "string", "enum": list(words)}


def _ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


_STATUS, _SEVERITY, _TIER = (_or_null(_one_of(*words)) for words in (get_args(Status), SEVERITIES, get_args(Tier)))
_INSTANT: Schema = {**_or_null(_TIME), "description": "Of an age: what it counts from."}
_VALUED = {"value": _VALUE, "unit": _TEXT, "baseline": _VALUE}

_METRIC = {
    **{"metric": _TEXT, "category": _TEXT, "description": _TEXT, **_VALUED, "drift_pct": _SHARE, "status": _STATUS},
    **{"severity": _SEVERITY, "drifted": _FLAG, "as_of": _or_null(_TIME), "stale": _FLAG, "failed": _FLAG},
    **{"error": _or_null(_TEXT), "due": _FLAG},
    "beyond": {**_or_null(_TEXT), "description": "The limit that its value breaks."},
    "request": {**_or_null(_NUMBER), "description": "The number of the request that waits."},
    **{"critical": _FLAG, "enabled": _FLAG},
}
_POINT = {
    **{"as_of": _TIME, **_VALUED, "outcome": _TEXT, "status": _STATUS, "severity": _SEVERITY, "drift_pct": _SHARE},
    **{"error": _or_null(_TEXT), "run": _NUMBER},
}
_READING = {
    **{"metric": _TEXT, **_VALUED, "drift_pct": _SHARE, "status": _STATUS, "severity": _SEVERITY, "tier": _TIER},
    **{"method": _TEXT, "as_of": _TIME, "error": _or_null(_TEXT), "outcome": _TEXT, "reason": _or_null(_TEXT)},
    "details": _or_null(_FACTS),
}
_EXPLANATION = {
    **{"metric": _TEXT, "unit": _TEXT, "configured": _FLAG, "retired_at": _or_null(_TIME), "redefined": _FLAG},
    **{"due_since": _or_null(_TIME), "stale": _FLAG},
    **{"reading": _or_null(_FACTS), "failure": _or_null(_FACTS), "provisional": _or_null(_ref("Reading"))},
    **{"baseline": _or_null(_FACTS), "verdict": _or_null(_FACTS), "policy": _FACTS, "formula": _or_null(_TEXT)},
    "inputs": {"type": "array", "items": _FACTS},
    **{"events": _or_null(_FACTS), "unexplained": _or_null(_FACTS), "gaps": {"type": "array", "items": _FACTS}},
    **{"request": _or_null(_ref("Request")), "decisions": {"type": "array", "items": _ref("Request")}},
}
_EVENT = {
    **{"seq": _NUMBER, "producer": _or_null(_TEXT), "event_id": _or_null(_TEXT), "digest": _TEXT},
    **{"type": _or_null(_TEXT), "subject": _or_null(_TEXT), "event_time": _or_null(_TIME), "received_at": _TIME},
    **{"stream_id": _or_null(_TEXT), "outcome": _one_of("planned", "unmatched", "rejected")},
    **{"reason": _or_null(_TEXT), "rules": _TEXTS, "metrics": _TEXTS, "replayed_at": _or_null(_TIME)},
}
_RUN = {
    **{"run_id": _NUMBER, "trigger": _TEXT, "source": _or_null(_TEXT), "status": _TEXT, "started_at": _TIME},
    **{"finished_at": _TIME, "worker": _or_null(_TEXT)},
    **{"readings": _COUNT, "failed": _COUNT, "held": _COUNT, "api_calls": _COUNT},
}
_REQUEST = {
    **{"id": _NUMBER, "metric": _TEXT, "kind": _one_of("drift", "baseline"), "state": _TEXT, "version": _NUMBER},
    **{"value": _VALUE, "unit": _TEXT, "as_of": _TIME, "anchor": _VALUE, "baseline": _VALUE},
    **{"baseline_as_of": _or_null(_TIME), "baseline_version": _COUNT, "drift_pct": _SHARE, "severity": _TEXT},
    **{"reason": _TEXT, "evidence": _or_null(_FACTS), "run_id": _or_null(_NUMBER), "opened_at": _TIME},
    **{"updated_at": _TIME, "expires_at": _or_null(_TIME), "decided_at": _or_null(_TIME)},
    **{"decided_by": _or_null(_TEXT), "known_by": _or_null(_TEXT), "note": _or_null(_TEXT)},
}
_PROBLEM = {
    "type": "object",
    "description": "Problem details (RFC 9457).",
    "properties": {"type": _TEXT, "title": _TEXT, "status": {"type": "integer"}, "detail": _TEXT},
    "required": ["type", "title", "status", "detail"],
}
_NAME: Schema = {"type": "string", "minLength": 1, "maxLength": MAX_TEXT, "pattern": r"^[^\u0000]*$"}
_CLOUD_EVENT = {
    "type": "object",
    "description": f"An event in the CloudEvents 1.0 JSON format, at most {MAX_BYTES:,} bytes. Extensions are let pass "
    "and not kept.",
    "properties": {
        **{"specversion": {"const": "1.0"}, "id": _NAME, "source": _NAME, "type": _NAME},
        "time": {
            **{"type": "string", "format": "date-time", "pattern": r"^(20\d\d|2100)-"},
            "description": f"RFC 3339 with an offset, in the years {YEARS.start} to {YEARS.stop - 1}.",
        },
        "subject": {"type": ["string", "null"], "maxLength": MAX_TEXT, "pattern": r"^[^\u0000]*$"},
        **{
            "datacontenttype": {"description": "What data is in any case: application/json."},
            "data": {"type": ["object", "null"]},
            "data_base64": False,
        },
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
            **{"days": _NUMBER, "points": {"type": "array", "items": _ref("Point")}},
            "left_off": {**_FLAG, "description": "Whether there are older points than `limit` let through."},
        }
    ),
    "Explanation": {**_record(_EXPLANATION), "description": "What `dims explain --json` prints."},
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
    400: "Something in it is not allowed; the detail says what is.",
    401: "No token, or nobody's.",
    403: "Nobody may send events over HTTP here.",
    404: "There is no such thing.",
    413: f"More than {MAX_BODY:,} bytes, or {MAX_EVENTS:,} events.",
    415: "Not a form in which events are taken.",
    503: "The database or the broker is away: try again.",
}
_READING_MAY = (400, 401, 503)


def openapi_document(
    paths: Mapping[str, tuple[str, Sequence[Parameter], str]], read_by_anyone: bool, cookie: str
) -> dict[str, Any]:
    """The document. `paths`: of each path what it answers with, its parameters, and the name of its schema.
    `cookie`: the name of this site's."""
    open_: list[Schema] = [{}] if read_by_anyone else []
    found: dict[str, Any] = {path: {"get": _reading(path, *one)} for path, one in paths.items()}
    found["/api/events"]["post"] = _sending()
    return {
        "openapi": "3.1.0",
        "info": {"title": "DIMS", "version": __version__, "summary": "What is known of metrics, and sending events."},
        "servers": [{"url": "/"}],
        "security": [{"token": []}, {"session": []}, *open_],
        "paths": found,
        "components": {
            "schemas": SCHEMAS,
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer", "description": "A person's: web.tokens."},
                "session": {"type": "apiKey", "in": "cookie", "name": cookie, "description": "Of a sign-in."},
                "producer": {"type": "http", "scheme": "bearer", "description": "Producers': web.events_token."},
            },
        },
    }


def _reading(path: str, summary: str, parameters: Sequence[Parameter], schema: str) -> Schema:
    of_path = [{"name": "name", "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}]
    in_path = of_path if "{name}" in path else []
    return {
        "operationId": f"get{schema}",
        "summary": summary,
        "parameters": [*in_path, *({"in": "query", **_told(one)} for one in parameters)],
        "responses": {
            "200": {"description": summary, "content": {"application/json": {"schema": _ref(schema)}}},
            **_problems(*_READING_MAY, *([404] if in_path else [])),
        },
    }


def _told(one: Parameter) -> Schema:
    return {"name": one.name, "description": one.description, "required": False, "schema": dict(one.schema)}


def _sending() -> Schema:
    """Binary mode's headers are told in words: they are asked for in that mode alone, which no schema can say."""
    headers = ", ".join(f"`ce-{name}`" for name in ATTRIBUTES)
    return {
        "operationId": "sendEvents",
        "summary": "Publish events, all of a request or none.",
        "description": "The HTTP protocol binding of CloudEvents 1.0, in structured, batch and binary mode. In binary "
        f"mode ({BINARY}) the attributes stand in headers, percent-encoded: {headers}. Sending again does no harm: "
        "source and id name an event for ever.",
        "security": [{"producer": []}],
        "requestBody": {
            "required": True,
            "content": {
                STRUCTURED: {"schema": _ref("CloudEvent")},
                BATCH: {"schema": {"type": "array", "items": _ref("CloudEvent"), "maxItems": MAX_EVENTS}},
                BINARY: {"schema": {"type": ["object", "null"], "description": "The data of an event."}},
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
