"""What a bucket holds below each prefix, from one listing, in memory that grows with the prefixes alone."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from dims_worker.probes.base import printable_path
from dims_worker.probes.s3.listing import Entry

STANDARD = "STANDARD"
"""The class of an object whose listing names none."""


@dataclass(slots=True)
class PrefixTotals:
    """The objects below one prefix; the prefix '' is of keys without a `/`."""

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

    def told(self) -> dict[str, Any]:
        """As JSON; the newest uploads newest first, equal times by key."""
        newest = sorted(self.newest, key=lambda upload: (-upload[0].timestamp(), upload[1]))
        return {
            **{"prefix": printable_path(self.prefix), "objects": self.objects, "bytes": self.bytes},
            "classes": [
                {"class": kind, "objects": self.classes[kind], "bytes": self.class_bytes[kind]}
                for kind in sorted(self.classes)
            ],
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
    """A bucket by prefix, told apart by `depth` parts of the keys, while it is listed."""

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
        """The folder of a key, at most `depth` parts of it: `a/b/c.json` is in `a/`, or at depth 2 in `a/b/`."""
        folders = key.split("/", self._depth)[:-1]
        return "".join(f"{folder}/" for folder in folders)

    def told(self) -> dict[str, Any]:
        """As JSON, in the order of the prefixes."""
        parts = [self._parts[prefix].told() for prefix in sorted(self._parts)]
        return {
            "objects": sum(part["objects"] for part in parts),
            "bytes": sum(part["bytes"] for part in parts),
            "prefixes": parts,
        }
