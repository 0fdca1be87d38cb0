"""The list of paths in an event: sorted and bounded. An empty list means *unknown*, and concerns everything."""

from __future__ import annotations

import json
from collections.abc import Iterable

from dims_worker.events import MAX_PATH, MAX_PATHS

MAX_BYTES = 128 * 1024
"""The most bytes (UTF-8, as JSON) of a list: half of the limit of an envelope."""


def bounded_paths(paths: Iterable[str]) -> list[str]:
    """Return the paths sorted and without duplicates, or `[]` (unknown) if they are too many, too long, or not UTF-8.

    JSON cannot hold a name that is not UTF-8 (it has surrogates, see `os.fsdecode`). A list without it would be wrong,
    so the whole list becomes unknown. So does a list with a path that is longer than an event may have: git and some
    file systems keep such paths.
    """
    names = sorted(set(paths))
    if len(names) > MAX_PATHS:
        return []
    try:
        if any(len(name.encode()) > MAX_PATH for name in names):
            return []
        size = len(json.dumps(names, ensure_ascii=False).encode())
    except UnicodeEncodeError:
        return []
    return names if size <= MAX_BYTES else []
