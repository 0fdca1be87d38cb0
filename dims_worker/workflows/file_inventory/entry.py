"""One file of an inventory: what is read off it, once, and what stood in the way. Nothing of it is fatal."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from dims_worker.probes.base import Deadline, printable_path
from dims_worker.workflows.file_inventory import kinds
from dims_worker.workflows.file_inventory import purpose as words
from dims_worker.workflows.file_inventory.kinds import FileKind
from dims_worker.workflows.file_inventory.python_source import Modules, python_source

NAMES = 8
"""So many functions and classes of a file are told."""
_LONGEST = 1 << 20
"""Bytes of a file that are looked into; lines are counted to the end."""
_BLOCK = 1 << 18

_OWN_REPORT = b"# file-inventory\n\nGenerated: "


@dataclass(slots=True)
class SourceFile:
    """A file that was read: `content` is its first megabyte."""

    path: str
    kind: FileKind
    size: int
    changed: str
    """A date, UTC, of the file's own time."""
    lines: int | None = None
    content: bytes = b""
    notes: list[str] = field(default_factory=list)


def read_file(root: str, path: str, deadline: Deadline) -> SourceFile | None:
    """Read a file; OTHER where it is not for an inventory, None where it is this report itself, no regular file,
    or has gone meanwhile."""
    kind = kinds.kind_by_name(path)
    place = f"{root}/{path}"
    file = SourceFile(path, kind or _UNKNOWN, 0, "unknown")
    try:
        status = os.lstat(place)
        if not stat.S_ISREG(status.st_mode):
            return None
        if kinds.is_data(kind, status.st_size) if kind else not kinds.may_be_script(path):
            return OTHER
        file.size, file.changed = status.st_size, _day(status.st_mtime)
        file.content, file.lines = _content(place, deadline)
    except FileNotFoundError:
        return None
    except OSError as error:
        file.notes.append(f"cannot be read: {error.strerror or error}")
        return file if kind else OTHER
    if file.kind is _UNKNOWN:
        found = kinds.kind_by_shebang(path, file.content[:200])
        if found is None:
            return OTHER
        file.kind = found
    return None if file.content.startswith(_OWN_REPORT) else file


_UNKNOWN = FileKind("", "")
OTHER = SourceFile("", _UNKNOWN, 0, "")
"""A file of none of the kinds: data, a picture, an archive."""


def _day(seconds: float) -> str:
    try:
        return datetime.fromtimestamp(seconds, UTC).date().isoformat()
    except (OverflowError, ValueError, OSError):
        return "unknown"


def _content(place: str, deadline: Deadline) -> tuple[bytes, int]:
    """The first megabyte of a file, and the newline bytes of all of it."""
    # What has become a symbolic link or a pipe meanwhile is neither followed nor waited for
    descriptor = os.open(place, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    with os.fdopen(descriptor, "rb", buffering=0) as file:
        content = file.read(_LONGEST) or b""
        lines = content.count(b"\n")
        while len(content) == _LONGEST and (block := file.read(_BLOCK)):
            lines += block.count(b"\n")
            deadline.check()
    return content, lines


def inventory_entry(file: SourceFile, modules: Modules, changed: str | None) -> dict[str, Any]:
    """What the inventory tells of a file, as JSON. `changed` is the date of its last commit, if it has one."""
    told: dict[str, Any] = {
        "path": printable_path(file.path),
        "category": file.kind.category,
        "kind": file.kind.name,
        "lines": file.lines,
        "bytes": file.size,
        "changed": changed or file.changed,
        "purpose": None,
        "names": [],
        "more_names": 0,
        "imports": {},
        "notes": file.notes,
    }
    if file.size > _LONGEST:
        file.notes.append("only the first 1,048,576 bytes were looked into")
    if file.content and not kinds.is_secret(file.path):
        purpose, names, told["imports"] = _said(file, modules)
        told.update(purpose=purpose, names=names[:NAMES], more_names=max(len(names) - NAMES, 0))
    return told


def _said(file: SourceFile, modules: Modules) -> tuple[str | None, list[str], dict[str, list[str]]]:
    """Purpose, names and imports."""
    if file.kind.name != "Python":
        text = _text(file)
        return words.purpose(file.kind, file.path.rpartition("/")[2], text), words.defined(file.kind, text), {}
    found = python_source(file.content)
    if found.trouble:
        file.notes.append(words.cut(found.trouble) or "")
    purpose = words.cut(found.purpose) if found.purpose else None
    if not purpose:
        told = file.content.decode(errors="replace")
        purpose = words.purpose(file.kind, file.path.rpartition("/")[2], told)
    return purpose, found.names, modules.sorted_out(file.path, found.imported)


def _text(file: SourceFile) -> str:
    """The content as text: UTF-8, or what a byte order mark says; else told, and read as Latin-1."""
    if file.content.startswith((b"\xff\xfe", b"\xfe\xff")):
        return file.content.decode("utf-16", errors="replace")
    whole = file.content if file.size <= _LONGEST else file.content[: file.content.rfind(b"\n") + 1]
    try:
        text = whole.decode("utf-8-sig")
    except UnicodeDecodeError:
        file.notes.append("is not UTF-8")
        text = whole.decode("latin-1")
    return text.replace("\r\n", "\n").replace("\r", "\n")
