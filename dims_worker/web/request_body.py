"""What a request carries, read within bounds of length and time."""

from __future__ import annotations

import asyncio
from urllib.parse import parse_qsl

from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request

FORM = "application/x-www-form-urlencoded"
FORM_BYTES = 64 * 1024
"""The longest form that is read."""
FIELDS = 50
"""The most fields of a form."""
FORGOTTEN = 16 * 1024 * 1024
"""So much of a body that is too long is read and forgotten: who still sends does not hear the answer."""
SECONDS = 30.0
"""A body is there within so long."""


async def body_of(request: Request, longest: int) -> bytes | None:
    """The body; None where it has more than `longest` bytes. Raises HTTPException: 400 cut off, 408 too slow."""
    found, length = bytearray(), 0
    try:
        async with asyncio.timeout(SECONDS):
            async for chunk in request.stream():
                length += len(chunk)
                if length <= longest:
                    found += chunk
                elif length > FORGOTTEN:
                    break
    except TimeoutError:
        raise HTTPException(408, "the body did not come in time", {"connection": "close"}) from None
    except ClientDisconnect:
        raise HTTPException(400, "the body ended too early") from None
    return bytes(found) if length <= longest else None


async def form_in(request: Request) -> FormData:
    """The fields of a form, as our own pages send it. Raises HTTPException: 400, 408, 413, 415."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    body = await body_of(request, FORM_BYTES if kind == FORM else 0)
    if kind != FORM:
        raise HTTPException(415, f"a form is sent as {FORM}")
    if body is None:
        raise HTTPException(413, "the form is too long", {"connection": "close"})
    try:
        fields: list[tuple[str, str | UploadFile]] = [
            *parse_qsl(body.decode("ascii"), keep_blank_values=True, max_num_fields=FIELDS)
        ]
    except ValueError:  # other bytes than ASCII, or too many fields
        raise HTTPException(400, "that is no form of this site") from None
    return FormData(fields)
