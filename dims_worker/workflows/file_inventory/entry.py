"""Describe one file of an inventory. A problem with a file becomes a note."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from dims_worker.probes.base import Deadline, open_regular_file, printable_path
from dims_worker.probes.files.content import may_be_pointer, pointer_in
from dims_worker.workflows.file_inventory import kinds
from dims_worker.workflows.file_inventory.kinds import FileKind
from dims_worker.workflows.file_inventory.purpose import defined_names, find_purpose, shorten
from dims_worker.workflows.file_inventory.python_source import Modules, python_source

NAMES = 8
"""The number of functions and classes that are listed for a file."""
_MAX_CONTENT = 1 << 20
"""The bytes of a file that are analyzed. Lines are counted to the end."""
_BLOCK = 1 << 18

_OWN_REPORT = b"# file-inventory\n\nGenerated: "


@dataclass(slots=True)
class SourceFile:
    """A file that was read. `content` is its first megabyte."""

    path: str
    kind: FileKind
    size: int
    changed: str
    """The date of its modification time, in UTC."""
    lines: int | None = None
    content: bytes = b""
    notes: list[str] = field(default_factory=list)
    is_pointer: bool = False
    """Whether the content is elsewhere, as with Git LFS. `size` is that of the content then."""


def read_file(root: str, path: str, deadline: Deadline) -> SourceFile | None:
    """Read a file. Return OTHER if the inventory does not list it, and None if it is the report itself, not a regular
    file, or has vanished."""
    kind = kinds.kind_by_name(path)
    place = f"{root}/{path}"
    file = SourceFile(path, kind or _UNKNOWN, 0, "unknown")
    try:
        status = os.lstat(place)
        if not stat.S_ISREG(status.st_mode):
            return None
        if kinds.is_data(kind, path, status.st_size) if kind else not kinds.may_be_script(path):
            return OTHER
        file.size, file.changed = status.st_size, _day(status.st_mtime)
        file.content, file.lines = _content(place, deadline)
    except FileNotFoundError:
        return None
    except OSError as error:
        file.notes.append(f"cannot be read: {error.strerror or error}")
        return file if kind else OTHER
    if file.kind is _UNKNOWN:
        shebang_kind = kinds.kind_by_shebang(path, file.content[:200])
        if shebang_kind is None:
            return OTHER
        file.kind = shebang_kind
    if may_be_pointer(file.size) and (pointer := pointer_in(file.content)):
        file.size = file.size if pointer.size is None else pointer.size
        file.content, file.lines, file.is_pointer = b"", None, True
        file.notes.append(pointer.pointer or "")
    return None if file.content.startswith(_OWN_REPORT) else file


_UNKNOWN = FileKind("", "")
OTHER = SourceFile("", _UNKNOWN, 0, "")
"""A file of another kind: data, a picture, an archive."""


def _day(seconds: float) -> str:
    try:
        return datetime.fromtimestamp(seconds, UTC).date().isoformat()
    except (OverflowError, ValueError, OSError):
        return "unknown"


def _content(place: str, deadline: Deadline) -> tuple[bytes, int]:
    """Return the first megabyte of a file, and the number of all its newlines."""
    with open_regular_file(place) as file:
        content = file.read(_MAX_CONTENT) or b""
        lines = content.count(b"\n")
        while len(content) == _MAX_CONTENT and (block := file.read(_BLOCK)):
            lines += block.count(b"\n")
            deadline.check()
    return content, lines


def inventory_entry(file: SourceFile, modules: Modules, changed: str | None) -> dict[str, Any]:
    """Return the entry of a file as JSON. `changed` is the date of its last commit, if it has one."""
    entry: dict[str, Any] = {
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
        "pointer": file.is_pointer,
    }
    if file.size > _MAX_CONTENT and not file.is_pointer:
        file.notes.append("only the first 1,048,576 bytes were analyzed")
    if file.content and not kinds.is_secret(file.path):
        purpose, names, entry["imports"] = _describe(file, modules)
        entry.update(purpose=purpose, names=names[:NAMES], more_names=max(len(names) - NAMES, 0))
    return entry


def _describe(file: SourceFile, modules: Modules) -> tuple[str | None, list[str], dict[str, list[str]]]:
    """Return the purpose, the defined names and the imports."""
    name = file.path.rpartition("/")[2]
    if file.kind.name != "Python":
        text = _text(file)
        return find_purpose(file.kind, name, text), defined_names(file.kind, text), {}
    source = python_source(file.content)
    if source.problem:
        file.notes.append(shorten(source.problem) or "")
    purpose = shorten(source.purpose) if source.purpose else None
    if not purpose:
        purpose = find_purpose(file.kind, name, file.content.decode(errors="replace"))
    return purpose, source.names, modules.classify(file.path, source.imported)


def _text(file: SourceFile) -> str:
    """Decode the content: UTF-16 with a byte order mark, UTF-8, or Latin-1 with a note."""
    if file.content.startswith((b"\xff\xfe", b"\xfe\xff")):
        return file.content.decode("utf-16", errors="replace")
    whole = file.content if file.size <= _MAX_CONTENT else file.content[: file.content.rfind(b"\n") + 1]
    try:
        text = whole.decode("utf-8-sig")
    except UnicodeDecodeError:
        file.notes.append("is not UTF-8")
        text = whole.decode("latin-1")
    return text.replace("\r\n", "\n").replace("\r", "\n")
