"""Read the body of a request, within limits of size and time."""

from __future__ import annotations

import asyncio
from urllib.parse import parse_qsl

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request

FORM = "application/x-www-form-urlencoded"
MAX_FORM = 64 * 1024
"""Bytes of a form."""
MAX_FIELDS = 50
"""Fields of a form."""
MAX_DISCARDED = 16 * 1024 * 1024
"""Bytes of a too long body that are read and discarded. A client that is still sending would not see the answer."""
SECONDS = 30.0
"""How long a body may take to arrive."""


async def read_body(request: Request, longest: int) -> bytes | None:
    """Return the body, or None if it has more than `longest` bytes. Raises HTTPException: 400 cut off, 408 too slow."""
    body, length = bytearray(), 0
    try:
        async with asyncio.timeout(SECONDS):
            async for chunk in request.stream():
                length += len(chunk)
                if length <= longest:
                    body += chunk
                elif length > MAX_DISCARDED:
                    break
    except TimeoutError:
        raise HTTPException(408, f"the body did not arrive within {SECONDS:g} s", {"connection": "close"}) from None
    except ClientDisconnect:
        raise HTTPException(400, "the body is incomplete") from None
    return bytes(body) if length <= longest else None


async def read_form(request: Request) -> dict[str, str]:
    """Return the fields of a form. Raises HTTPException: 400, 408, 413, 415."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    body = await read_body(request, MAX_FORM if kind == FORM else 0)
    if kind != FORM:
        raise HTTPException(415, f"send a form as {FORM}")
    if body is None:
        raise HTTPException(413, "the form is too long", {"connection": "close"})
    try:
        return dict(parse_qsl(body.decode("ascii"), keep_blank_values=True, max_num_fields=MAX_FIELDS))
    except ValueError:  # bytes that are not ASCII, or too many fields
        raise HTTPException(400, "the form is not valid. Reload the page and try again") from None
