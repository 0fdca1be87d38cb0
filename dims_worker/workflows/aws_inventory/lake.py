"""Total a bucket by prefix from one listing. Memory grows only with the number of prefixes."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from dims_worker.probes.base import printable_path
from dims_worker.probes.s3.listing import Entry

STANDARD = "STANDARD"
"""The storage class of an object without one."""


@dataclass(slots=True)
class PrefixTotals:
    """The objects below one prefix. The prefix '' is for keys without a `/`."""

    prefix: str
    objects: int = 0
    bytes: int = 0
    classes: Counter[str] = field(default_factory=Counter)
    class_bytes: Counter[str] = field(default_factory=Counter)
    newest: list[tuple[datetime, str, int]] = field(default_factory=list)

    def add(self, entry: Entry, keep: int) -> None:
        size, kind = entry["Size"], entry.get("StorageClass") or STANDARD
        self.objects += 1
        self.bytes += size
        self.classes[kind] += 1
        self.class_bytes[kind] += size
        if keep:
            upload = (entry["LastModified"], entry["Key"], size)
            (heapq.heappush if len(self.newest) < keep else heapq.heappushpop)(self.newest, upload)

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form. Uploads are sorted newest first, and equal times by key."""
        newest = sorted(self.newest, key=lambda upload: (-upload[0].timestamp(), upload[1]))
        return {
            "prefix": printable_path(self.prefix),
            "objects": self.objects,
            "bytes": self.bytes,
            "classes": _classes(self.classes, self.class_bytes),
            "newest": [
                {
                    "key": printable_path(key),
                    "bytes": size,
                    "uploaded": time.astimezone(UTC).isoformat(timespec="seconds"),
                }
                for time, key, size in newest
            ],
        }


class PrefixCollector:
    """Collects totals by prefix from a listing. A prefix is the first `depth` folders of a key."""

    def __init__(self, depth: int, newest: int) -> None:
        self._depth, self._keep = depth, newest
        self._parts: dict[str, PrefixTotals] = {}

    def add(self, entries: Iterable[Entry]) -> None:
        for entry in entries:
            prefix = self.prefix_of(entry["Key"])
            part = self._parts.get(prefix)
            if part is None:
                part = self._parts[prefix] = PrefixTotals(prefix)
            part.add(entry, self._keep)

    def prefix_of(self, key: str) -> str:
        """Return at most `depth` folders of a key: `a/` for `a/b/c.json`, or `a/b/` for depth 2."""
        folders = key.split("/", self._depth)[:-1]
        return "".join(f"{folder}/" for folder in folders)

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form, sorted by prefix."""
        parts = [self._parts[prefix].to_json() for prefix in sorted(self._parts)]
        objects: Counter[str] = Counter()
        sizes: Counter[str] = Counter()
        for part in self._parts.values():
            objects.update(part.classes)
            sizes.update(part.class_bytes)
        return {
            "objects": sum(part["objects"] for part in parts),
            "bytes": sum(part["bytes"] for part in parts),
            "classes": _classes(objects, sizes),
            "prefixes": parts,
        }


def _classes(objects: Mapping[str, int], sizes: Mapping[str, int]) -> list[dict[str, Any]]:
    return [{"class": kind, "objects": objects[kind], "bytes": sizes[kind]} for kind in sorted(objects)]
