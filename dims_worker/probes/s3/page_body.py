"""Read the body of a page of a listing, and require what S3 promises.

botocore is lenient: a page without fields, with fields of another document, or with an unknown truth value is the
same to it as the last page. So it never gets the body: this module parses it, which is also faster.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import unquote_plus
from xml.etree import ElementTree

from dims_worker.errors import MeasureError

_ROOT = "ListBucketResult"
_ERRORS = frozenset({"Error", "ErrorResponse"})
_BOOLEANS = {"true": True, "false": False}
_WHOLE_NUMBER = re.compile(r"[0-9]{1,18}")
_FIRST_YEAR = 1970
"""Stores write the year 1 for a time that they do not know."""
_EXCERPT = 60
"""How many characters of an unexpected body an error shows."""
_KEY_FIELDS = frozenset({"Key", "Size", "LastModified", "ETag", "StorageClass"})
_PAGE_FIELDS = frozenset(
    {"IsTruncated", "KeyCount", "MaxKeys", "NextContinuationToken", "Prefix", "Name", "EncodingType"}
)


class BrokenPage(MeasureError):
    """A page of a listing is not what S3 promises. The message says why, and continues "page 3 of prefix raw/"."""


def check_page_bodies(client: Any) -> None:
    """Let this boto3 client answer `list_objects_v2` from checked bodies only. Then it raises BrokenPage."""
    client.meta.events.register("before-parse.s3.ListObjectsV2", _parse_instead)


def _parse_instead(response_dict: dict[str, Any], customized_response_dict: dict[str, Any], **_: Any) -> None:
    """Handle botocore's event before it parses a body: replace what it would parse."""
    body: bytes = response_dict["body"]
    if response_dict["status_code"] < 300:
        customized_response_dict.update(read_page_body(body))
        response_dict["body"] = b""
    elif body.strip():
        try:
            root = _root_of(body)
        except BrokenPage as error:
            customized_response_dict["NoS3Answer"] = str(error)
        else:
            if _LocalNames()[root.tag] not in _ERRORS:
                customized_response_dict["NoS3Answer"] = f"is not one of S3: {_described(body)}"


def read_page_body(body: bytes) -> dict[str, Any]:
    """Return a page as boto3 does, with decoded keys. Raises BrokenPage if a field is absent or invalid."""
    names, root = _LocalNames(), _root_of(body)
    if names[root.tag] != _ROOT:
        raise BrokenPage(f"is not a listing: {_described(body)}")
    fields: dict[str, str] = {}
    objects: list[ElementTree.Element] = []
    groups: list[str] = []
    for element in root:
        name = names[element.tag]
        if name == "Contents":
            objects.append(element)
        elif name == "CommonPrefixes":
            groups.append("".join(element.itertext()))
        elif name in _PAGE_FIELDS:
            if name in fields:
                raise BrokenPage(f"has {name} twice")
            fields[name] = element.text or ""
    encoded = fields.get("EncodingType") == "url"
    page = dict(_page_fields(fields, encoded))
    page["Contents"] = [_entry(element, names, encoded) for element in objects]
    page["CommonPrefixes"] = [{"Prefix": group} for group in groups]
    return page


def _page_fields(fields: Mapping[str, str], encoded: bool) -> Iterator[tuple[str, Any]]:
    """Yield the fields of a page besides its objects. An absent one stays absent."""
    if (truncated := fields.get("IsTruncated")) is not None:
        if truncated not in _BOOLEANS:
            raise BrokenPage(f"has an invalid IsTruncated: {truncated[:_EXCERPT]!r}")
        yield "IsTruncated", _BOOLEANS[truncated]
    for name in ("KeyCount", "MaxKeys"):
        if (number := fields.get(name)) is not None:
            if not _WHOLE_NUMBER.fullmatch(number):
                raise BrokenPage(f"has an invalid {name}: {number[:_EXCERPT]!r}")
            yield name, int(number)
    if "Prefix" in fields:
        yield "Prefix", unquote_plus(fields["Prefix"]) if encoded else fields["Prefix"]
        yield "PrefixAsSent", fields["Prefix"]  # Ceph encodes keys, but not the prefix
    for name in ("NextContinuationToken", "Name"):
        if fields.get(name):
            yield name, fields[name]


def _entry(element: ElementTree.Element, names: Mapping[str, str], encoded: bool) -> dict[str, Any]:
    """Return an object of a page. Raises BrokenPage if its key, size or time is absent or invalid."""
    entry: dict[str, Any] = {}
    for child in element:
        name = names[child.tag]
        if name in _KEY_FIELDS:
            if name in entry:
                raise BrokenPage(f"has {name} twice for one object")
            entry[name] = child.text or ""
    key, size, time = entry.get("Key"), entry.get("Size"), entry.get("LastModified")
    if not key:
        raise BrokenPage("has an object without Key")
    if encoded and ("%" in key or "+" in key):
        entry["Key"] = _decoded(key)
    if size is None or not _WHOLE_NUMBER.fullmatch(size):
        raise BrokenPage(_invalid("Size", key, size))
    entry["Size"] = int(size)
    if time is None or (instant := _instant(time)) is None:
        raise BrokenPage(_invalid("LastModified", key, time))
    entry["LastModified"] = instant
    return entry


def _invalid(field: str, key: str, text: str | None) -> str:
    if text is None:
        return f"has no {field} for the key {key}"
    return f"has an invalid {field} for the key {key}: {text[:_EXCERPT]!r}"


def _instant(text: str) -> datetime | None:
    """Parse a time in ISO 8601 with its zone. None if it is not such a time, or before 1970."""
    try:
        instant = datetime.fromisoformat(text)
        if instant.tzinfo is not UTC and instant.tzinfo is not None:
            instant = instant.astimezone(UTC)
    except (ValueError, OverflowError):
        return None
    return None if instant.tzinfo is None or instant.year < _FIRST_YEAR else instant


def _decoded(text: str) -> str:
    try:
        return unquote_plus(text, errors="strict")
    except UnicodeDecodeError:
        raise BrokenPage(f"has a key that is not UTF-8: {text}") from None


class _LocalNames(dict[str, str]):
    """The names of tags without their namespace. Stores use different namespaces, or none."""

    def __missing__(self, tag: str) -> str:
        name = self[tag] = tag.rpartition("}")[2]
        return name


def _root_of(body: bytes) -> ElementTree.Element:
    """Return the root element of a body. Raises BrokenPage if it is not complete XML."""
    try:
        return ElementTree.fromstring(body)  # noqa: S314 - expat limits the expansion of entities
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        reason = f" and is not complete XML ({error})" if body.strip() else ""
        raise BrokenPage(f"is not a listing: {_described(body)}{reason}") from None


def _described(body: bytes) -> str:
    """Return how a body begins, as one printable line."""
    if not body.strip():
        return "it is empty"
    text = " ".join(body[: 4 * _EXCERPT].decode("utf-8", "replace").split())
    shown = "".join(char if char.isprintable() else "?" for char in text[:_EXCERPT])
    return f"it has {len(body)} bytes and begins with `{shown}`"
