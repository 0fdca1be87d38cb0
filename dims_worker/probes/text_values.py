"""Limit the texts that DIMS stores as values, so that a mistaken query or program cannot fill its memory."""

from __future__ import annotations

from dims_worker.errors import MeasureError

MAX_TEXT = 1 << 16
"""The most bytes of a text that is a value, in UTF-8."""


def checked_text(text: str, origin: str) -> str:
    r"""Return a text that PostgreSQL can store: NUL becomes `\x00`. Raises MeasureError if it is longer than 64 KiB.

    `origin` begins the message, such as "the query returns".
    """
    if (size := len(text.encode("utf-8", "backslashreplace"))) > MAX_TEXT:
        raise text_too_long(size, origin)
    return text.replace("\0", r"\x00")


def text_too_long(size: int, origin: str) -> MeasureError:
    return MeasureError(
        f"{origin} a text of {size:,} bytes, more than {MAX_TEXT >> 10} KiB: return a number or a shorter text"
    )
