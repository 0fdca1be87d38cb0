"""Write what the API returns: JSON documents, and pages of lists."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from dims_worker.numbers import dumps
from dims_worker.text.json_documents import Document
from dims_worker.web.api.query_parameters import Parameter, parse_query
from dims_worker.web.context import web_context


class JsonResponse(Response):
    """A JSON document. Numbers keep their type, times are ISO 8601 in UTC, and NaN and infinities become null."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        return dumps(_to_json(content), ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


def _to_json(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _to_json(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_to_json(part) for part in value]
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def list_response(
    request: Request,
    parameters: Sequence[Parameter],
    list_rows: Callable[..., Sequence[Any]],
    document_of: Callable[[Any], Document],
    key: str,
) -> Response:
    """Return one page of a list, newest first, and the `before` of the next page: the last item's `key`."""
    query = parse_query(request, parameters)
    with web_context(request).read_transaction() as connection:
        rows = list_rows(connection, **{**query, "limit": query["limit"] + 1})
    items = rows[: query["limit"]]
    next_before = getattr(items[-1], key) if len(rows) > len(items) else None
    return JsonResponse({"items": [document_of(item) for item in items], "next": next_before})
