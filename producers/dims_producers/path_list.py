"""The list of paths an event carries: sorted and bounded. An empty list means *unknown*: it concerns all."""

from __future__ import annotations

import json
from collections.abc import Iterable

MAX_PATHS = 1000
"""The most paths a list may have; a longer one says nothing that *everything* does not say shorter."""

MAX_BYTES = 128 * 1024
"""The most bytes (UTF-8, as JSON) a list may have: half of what an envelope takes."""


def bounded_paths(paths: Iterable[str]) -> list[str]:
    """The paths, sorted, each once; `[]` (unknown) where they are too many, too long, or not UTF-8.

    A name that is not UTF-8 (it holds surrogates, see `os.fsdecode`) cannot travel in JSON, and a list
    without it would be a lie: so the whole list becomes unknown.
    """
    names = sorted(set(paths))
    if len(names) > MAX_PATHS:
        return []
    try:
        size = len(json.dumps(names, ensure_ascii=False).encode())
    except UnicodeEncodeError:
        return []
    return names if size <= MAX_BYTES else []
