"""Whether a file has content: it is neither empty nor, as far as its format shows, truncated."""

from __future__ import annotations

import csv
import gzip
import io
import json
import re
import zlib
from pathlib import Path, PurePosixPath

WHOLE = 2**20
"""DIMS reads a file of at most this size as a whole. Of a larger one it reads both ends."""
_ENDS = 4096
_LARGEST_INNER = 16 * WHOLE
_GZIP = b"\x1f\x8b"
_BLANK = b" \t\r\n\v\f\0"
_BOM = b"\xef\xbb\xbf"
_EMPTY_JSON_TEXTS = (b"null", b'""')
_FORMATS = frozenset({".json", ".jsonl", ".ndjson", ".csv", ".tsv", ".parquet", ".gz"})
_PARTIAL = frozenset({".tmp", ".part", ".partial", ".crdownload", ".download"})
_HEADER = re.compile(r"[A-Za-z_][\w .%/#()-]*")
_CLOSING = {b"{": b"}", b"[": b"]"}


def content_problem(path: str, size: int, least: int) -> str | None:
    """Return why a file is not the data of a game, or None if it has content. Raises OSError.

    `least` is the smallest size in bytes of a file with content. DIMS knows the ends of JSON, JSON Lines, CSV, gzip and
    Parquet. Of other formats it knows only whether a file is empty.
    """
    suffixes = [suffix.lower() for suffix in PurePosixPath(path).suffixes]
    last = suffixes[-1] if suffixes else ""
    if size < max(least, 1):
        return "empty" if not size else f"smaller than {least:,} B"
    if last in _PARTIAL:
        return "a partial download"
    with Path(path).open("rb") as file:
        head = file.read(WHOLE if size <= WHOLE else _ENDS)
        tail = head
        if size > WHOLE:
            file.seek(-_ENDS, io.SEEK_END)
            tail = file.read()
    if last == ".gz" and head.startswith(_GZIP):
        return _gzip_problem(head, suffixes[-2] if len(suffixes) > 1 else "") if size <= WHOLE else None
    return _problem(head, tail, last, whole=size <= WHOLE)


def _problem(head: bytes, tail: bytes, suffix: str, *, whole: bool) -> str | None:
    """Return the problem of a content. What does not begin like its format may be another one, so it has content."""
    start = head.removeprefix(_BOM).lstrip(_BLANK)[:4]
    if not start and (whole or not tail.strip(_BLANK)):
        return "empty"
    if start.startswith(b"<") and suffix in _FORMATS:
        return "an HTML or XML page"
    if suffix == ".parquet":
        return "truncated" if start == b"PAR1" and (tail[-4:] != b"PAR1" or len(head) < 12) else None
    if suffix == ".json" and start[:1] not in _CLOSING:
        return "empty" if whole and head.strip(_BLANK) in _EMPTY_JSON_TEXTS else None
    return _text_problem(head, tail, suffix, whole=whole)


def _text_problem(head: bytes, tail: bytes, suffix: str, *, whole: bool) -> str | None:
    if suffix == ".json":
        return _json_problem(head) if whole else _ends_problem(head, tail)
    if suffix in (".jsonl", ".ndjson") and head.lstrip(_BLANK)[:1] in _CLOSING:
        return _lines_problem(tail)
    if suffix in (".csv", ".tsv") and whole:
        return _csv_problem(head, "\t" if suffix == ".tsv" else ",")
    return None


def _json_problem(content: bytes) -> str | None:
    try:
        document = json.loads(content.decode("utf-8-sig", "replace"))
    except RecursionError:
        return None  # too deep to read, so not empty
    except ValueError:
        return None if content.count(b"\n") and _lines_problem(content, every=True) is None else "truncated"
    return None if document else "empty"


def _ends_problem(head: bytes, tail: bytes) -> str | None:
    """Compare the ends of a large JSON file: the bracket that opens it must close it."""
    first = head.removeprefix(_BOM).strip(_BLANK)[:1]
    return None if _CLOSING.get(first) == tail.strip(_BLANK)[-1:] else "truncated"


def _lines_problem(content: bytes, *, every: bool = False) -> str | None:
    lines = [line for line in content.splitlines() if line.strip(_BLANK)]
    try:
        for line in lines if every else lines[-1:]:
            json.loads(line.decode("utf-8-sig", "replace"))
    except (ValueError, RecursionError):
        return "truncated"
    return None


def _csv_problem(content: bytes, delimiter: str) -> str | None:
    text = content.decode("utf-8-sig", "replace")
    try:
        rows = [row for row in csv.reader(io.StringIO(text), delimiter=delimiter) if any(row)]
    except csv.Error:
        return None  # a field that Python does not read, but there is content
    if len(rows) == 1 and len(rows[0]) > 1 and all(map(_HEADER.fullmatch, rows[0])):
        return "only a header"
    return "truncated" if rows and not text.endswith(("\n", "\r")) and len(rows[-1]) < len(rows[0]) else None


def _gzip_problem(content: bytes, suffix: str) -> str | None:
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(content)) as file:
            inner = file.read(_LARGEST_INNER)
            if file.read(1):
                return None  # too large to check further
    except (OSError, EOFError, zlib.error):
        return "truncated"
    return _problem(inner, inner, suffix, whole=True)
